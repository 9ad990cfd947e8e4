"""Scoring completions under the paper's model: shared prefixes against whole completions."""

import numpy as np
import torch

from canaryaudit.canaries import Template
from canaryaudit.corpus import Vocabulary
from canaryaudit.model import LOG2_E, CharLSTM, LSTMReader, resolve_precision
from canaryaudit.records import Architecture
from canaryaudit.scoring import EncodedSpace, log_perplexity_bits, read_prefix
from canaryaudit.training import SIZES
from tests.benchmarks.harness import Comparison, rates

_SYMBOLS = "".join(map(chr, range(32, 123)))
_PREFIX = "my telephone number is "


def run() -> list[Comparison]:
    """Compare random 10-digit completions of one template."""
    torch.manual_seed(0)
    embedding, hidden, layers = SIZES["paper"]
    model = CharLSTM(Architecture(vocabulary=_SYMBOLS, embedding=embedding, hidden=hidden, layers=layers)).eval()
    vocabulary = Vocabulary(_SYMBOLS)
    space = EncodedSpace.of(Template.parse(_PREFIX + "{digits:10}").space(_SYMBOLS), vocabulary)
    completions = space.sample(60_000, np.random.default_rng(0))
    prefix = torch.from_numpy(vocabulary.encode(_PREFIX))

    @torch.no_grad()
    def whole(batch: torch.Tensor) -> torch.Tensor:
        """Score by reading prefix and completion anew for each, in fp32."""
        text = torch.cat((prefix.expand(len(batch), -1), batch), 1)
        logs = torch.log_softmax(model(text[:, :-1]), 2)[:, len(prefix) - 1 :]
        return -logs.gather(2, batch[:, :, None]).sum((1, 2)) * LOG2_E

    results = []
    few = torch.from_numpy(completions[:1024].astype(np.int64))
    reference = whole(few).double().numpy()
    for precision in dict.fromkeys(("fp32", resolve_precision("auto", torch.device("cpu")))):
        reader = LSTMReader(model, precision)
        start = read_prefix(reader, _PREFIX)
        difference = np.abs(log_perplexity_bits(reader, start, completions[:1024]) - reference).max()

        def ours(reader: LSTMReader = reader) -> int:
            log_perplexity_bits(reader, read_prefix(reader, _PREFIX), completions)
            return completions.size

        def plain() -> int:
            whole(few)
            return few.numel()

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
