"""Ten million completions: time, memory and the draft's error, beside a plain loop in the same call."""

import time

import numpy as np
import torch

from canaryaudit import environment
from canaryaudit.exposure import Execution, ScoredMembers
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.references import DRAFT_FROM, score_references
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.exposure.uniform_sample import UniformSample
from canaryaudit.models.char_lstm import BFloat16LanguageModel, LSTMLanguageModel
from canaryaudit.models.device import resolve_precision
from tests.benchmarks.bench_scoring import PREFIX, plain_bits, untrained
from tests.benchmarks.harness import Comparison, peak_megabytes

COUNT = 10_000_000


def run() -> list[Comparison]:
    """Score 10^7 random 10-digit completions as a measurement does, against whole completions in fp32."""
    assert COUNT >= DRAFT_FROM
    environment.keep_freed_memory()
    model, space = untrained()
    reader = LSTMLanguageModel(model)
    draft = BFloat16LanguageModel(model) if resolve_precision("auto", torch.device("cpu")) == "bf16" else None
    start = read_prefix(reader, PREFIX)
    sample = UniformSample(space, COUNT, (0,))
    targets = space.sample(64, np.random.default_rng(1))
    few = sample.part(0)[0][:1024]
    difference = np.abs(score_log_perplexity(draft or reader, start, few) - plain_bits(model, few)).max()
    before = _plain_rate(model, few, space)
    started = time.perf_counter()
    references = score_references(
        ScoringModels(reader, draft),
        ScoredMembers(
            space, start, targets, np.zeros(len(targets), dtype=bool), score_log_perplexity(reader, start, targets)
        ),
        sample,
        np.random.default_rng(2),
        Execution(),
    )
    seconds = time.perf_counter() - started
    after = _plain_rate(model, few, space)
    assert references.total == COUNT
    rescored = 0 if references.rescored is None else len(references.rescored.rows)
    gigabytes = peak_megabytes() / 1024
    note = (
        f"{seconds:.0f} s, {gigabytes:.1f} GB at most; largest difference {difference:.4f} bits; "
        f"{rescored:,} scored twice, draft off by {references.draft_error_bits:.4f} bits (root mean square)"
    )
    return [
        Comparison(
            f"10^7 completions, {'fp32' if draft is None else 'bf16 draft'}",
            "batched fp32 `nn.LSTM` over whole completions",
            COUNT * space.max_length / seconds,
            (before + after) / 2,
            max(before, after) / min(before, after),
            "characters",
            note,
        )
    ]


def _plain_rate(model: torch.nn.Module, few: np.ndarray, space: EncodedSpace) -> float:
    started = time.perf_counter()
    for _ in range(4):
        plain_bits(model, few)
    return 4 * len(few) * space.max_length / (time.perf_counter() - started)
