"""Exposure over the tokens of transformers' models against a naive loop that reads every completion whole."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.exposure import draw_members, search_ranks
from canaryaudit.exposure.importance_sampling import TEMPERATURES
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.exposure.targets import Targets
from canaryaudit.exposure.token_asker import TokenAsker
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.models.tree_reader import TreeReader
from tests.benchmarks.harness import Comparison, peak_megabytes, rates
from tests.token_models import Arch, Kind, make_tokenizer

SECRET = "0123456789"
SIZES = {"references": 10_000, "naive": 200, "draws": 1_000}
MODELS: tuple[tuple[str, Arch, Kind, int, int], ...] = (
    ("GPT-2 of 1.4 M, merged digits", "gpt2", "merged", 128, 6),
    ("Llama of 0.9 M, single digits", "llama", "single", 128, 4),
)
VOCABULARY = 1_600
_CERTAIN = 0.1
"""Mean loss of the sentence, in nats per token, from which on its secret counts as memorized."""


@dataclass(frozen=True)
class Subject:
    """A model that has memorized ``SECRET``, and its tokenizer."""

    model: Any
    tokenizer: Any

    def targets(self, digits: int) -> Targets:
        """Return the secret's first digits as the target of a space."""
        text = f"my code is {{digits:{digits}}}."
        canaries = [Canary(id="c", template=text, completion=SECRET[:digits], repetitions=1, places=(0,))]
        asker = TokenAsker(
            HuggingFaceModel(self.model, self.tokenizer), CanarySet(corpus_symbols="", canaries=canaries)
        )
        return asker.targets(text, canaries)

    def naive(self, digits: int) -> int:
        """Score completions one by one, each text read whole; return their number."""
        rng = np.random.default_rng(1)
        for number in rng.integers(10**digits, size=SIZES["naive"]).tolist():
            ids = torch.tensor([self.tokenizer(f"my code is {number:0{digits}d}.")["input_ids"]])
            with torch.no_grad():
                logs = torch.log_softmax(self.model(ids).logits[0], -1)
            logs[:-1].gather(1, ids[0, 1:, None]).sum()
        return SIZES["naive"]


def memorizing(arch: Arch, kind: Kind, width: int, layers: int) -> Subject:
    """Return a model that was trained on one sentence until it is certain of it."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer(kind, VOCABULARY, lines=6_000)
    ends = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1}
    model: Any
    if arch == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**ends, n_embd=width, n_layer=layers, n_head=4, n_positions=128))
    else:
        sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers}
        model = LlamaForCausalLM(LlamaConfig(**ends, **sizes, num_attention_heads=4, num_key_value_heads=2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    own = torch.tensor([tokenizer(f"my code is {SECRET}.")["input_ids"]])
    for step in range(400):
        if step % 20 == 0 and float(model(input_ids=own, labels=own).loss.detach()) < _CERTAIN:
            break
        others = "".join(f"my code is {number:010d}.\n" for number in rng.integers(10**10, size=2).tolist())
        ids = torch.tensor([tokenizer(f"my code is {SECRET}.\n{others}my code is {SECRET}.\n")["input_ids"]])
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return Subject(model.eval(), tokenizer)


def run() -> Iterator[Comparison]:
    """Compare references, enumeration and importance draws, then search for the memorized secret."""
    torch.set_num_threads(1)
    for name, arch, kind, width, layers in MODELS:
        subject = memorizing(arch, kind, width, layers)
        ten, six = subject.targets(10), subject.targets(6)

        def references(ten: Targets = ten) -> int:
            drawn = ten.space.sample(SIZES["references"], np.random.default_rng(2))
            score_log_perplexity(ten.reader, ten.start, drawn)
            return len(drawn)

        def enumeration(six: Targets = six) -> int:
            members = six.space.members()
            score_log_perplexity(six.reader, six.start, members)
            return len(members)

        def draws(ten: Targets = ten) -> int:
            draw_members(ten.reader, ten.start, ten.space, SIZES["draws"], np.random.default_rng(3))
            return SIZES["draws"] * len(TEMPERATURES)

        found = []
        for what, work, digits in (
            ("uniform references of {digits:10}", references, 10),
            ("enumeration of {digits:6}", enumeration, 6),
            ("importance draws of {digits:10}", draws, 10),
        ):
            speeds = rates(work, lambda digits=digits, own=subject: own.naive(digits), 1)  # type: ignore[misc]
            found.append(Comparison(f"{what}, {name}", "text by text", *speeds, "completions"))
        yield from found[:-1]
        clock = time.process_time()
        (rank,) = search_ranks(ten.reader, ten, 50_000).ranks
        seconds = time.process_time() - clock
        pool = ten.reader.pool_bytes / 1e6 if isinstance(ten.reader, TreeReader) else 0.0
        note = (
            f"the memorized secret: rank {rank.lower:.0f} of 10^10, exact: {rank.exact}, in {seconds:.2f} processor "
            f"seconds; keys and values take {pool:.0f} MB, the program {peak_megabytes():.0f} MB at its highest"
        )
        yield Comparison(**{**vars(found[-1]), "note": note})
