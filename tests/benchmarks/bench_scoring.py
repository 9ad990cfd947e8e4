"""Scoring completions under the paper's model: shared prefixes against whole completions."""

import numpy as np
import torch

from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.char_lstm import BFloat16LanguageModel, CharLSTM, LSTMLanguageModel
from canaryaudit.models.device import resolve_precision
from canaryaudit.models.language_model import LOG2_E
from canaryaudit.records import Architecture
from canaryaudit.training.config import SIZES
from tests.benchmarks.harness import Comparison, rates

SYMBOLS = "".join(map(chr, range(32, 123)))
PREFIX = "my telephone number is "


def untrained() -> tuple[CharLSTM, EncodedSpace]:
    """Return a model of the paper's size and the space of 10-digit completions."""
    torch.manual_seed(0)
    embedding, hidden, layers = SIZES["paper"]
    model = CharLSTM(Architecture(vocabulary=SYMBOLS, embedding=embedding, hidden=hidden, layers=layers)).eval()
    space = Template.parse(PREFIX + "{digits:10}").space(SYMBOLS)
    return model, EncodedSpace.of(space, Vocabulary(SYMBOLS))


@torch.no_grad()
def plain_bits(model: torch.nn.Module, completions: np.ndarray) -> np.ndarray:
    """Score by reading prefix and completion anew for each, in fp32, as one batch."""
    prefix = torch.from_numpy(Vocabulary(SYMBOLS).encode(PREFIX))
    batch = torch.from_numpy(completions.astype(np.int64))
    text = torch.cat((prefix.expand(len(batch), -1), batch), 1)
    logs = torch.log_softmax(model(text[:, :-1]), 2)[:, len(prefix) - 1 :]
    bits: np.ndarray = (-logs.gather(2, batch[:, :, None]).sum((1, 2)) * LOG2_E).double().numpy()
    return bits


def run() -> list[Comparison]:
    """Compare random 10-digit completions of one template."""
    model, space = untrained()
    completions = space.sample(60_000, np.random.default_rng(0))
    few = completions[:1024]
    readers: dict[str, LSTMLanguageModel] = {"fp32": LSTMLanguageModel(model)}
    if resolve_precision("auto", torch.device("cpu")) == "bf16":
        readers["bf16"] = BFloat16LanguageModel(model)
    results = []
    for precision, reader in readers.items():
        start = read_prefix(readers["fp32"], PREFIX)
        difference = np.abs(score_log_perplexity(reader, start, few) - plain_bits(model, few)).max()

        def ours(reader: LSTMLanguageModel = reader) -> int:
            score_log_perplexity(reader, read_prefix(reader, PREFIX), completions)
            return completions.size

        def plain() -> int:
            plain_bits(model, few)
            return few.size

        found = rates(ours, plain, rounds=3)
        results.append(
            Comparison(
                f"scoring 60,000 completions, {precision}",
                "batched fp32 `nn.LSTM` over whole completions",
                *found,
                unit="characters",
                note=f"largest difference {difference:.4f} bits",
            )
        )
    return results
