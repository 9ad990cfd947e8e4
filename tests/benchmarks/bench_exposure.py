"""The estimators on a trained run: how far from the truth, how wide, how fast.

python -m tests.benchmarks exposure runs/alice
"""

import math
import time
from pathlib import Path

import numpy as np
import torch

from canaryaudit.canaries.template import Template
from canaryaudit.exposure import Execution, ScoredMembers, search_ranks
from canaryaudit.exposure.encoded_space import EncodedSpace, encode_completions
from canaryaudit.exposure.estimators import enumerate_ranks, fit_skew_normal, sampled_exposure, skew_normal_exposure
from canaryaudit.exposure.importance_sampling import SamplingBudget, importance_exposures
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.ensemble import as_language_model, load_model
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.records import TRAINED_MODEL, Estimate, ModelId
from canaryaudit.runs.run_directory import RunDirectory

_RANKS = (1, 10, 100, 1_000, 10_000, 100_000, 500_000)


def run(path: Path) -> None:
    """Print both comparisons for every model of a run."""
    directory = RunDirectory.open(path)
    for name in (TRAINED_MODEL, *(ModelId(record.name) for record in directory.unlearnings())):
        reader = as_language_model(
            load_model(directory.model_record(name), directory.verify_weights(name), torch.device("cpu"))
        )
        canary_set = directory.canary_set()
        canary = canary_set.inserted[0]
        template = Template.parse(canary.template)
        start = read_prefix(reader, template.prefix)
        space = EncodedSpace.of(canary_set.space(template), reader.vocabulary)
        print(f"\n## {name}: {canary.template}\n")
        secret = encode_completions([canary.completion], reader.vocabulary, space.max_length)
        _search(reader, start, space, secret)
        _hundred(reader, start, space)
        six = Template.parse(template.prefix.replace("{", "{{").replace("}", "}}") + "{digits:6}")
        _four(reader, start, EncodedSpace.of(six.space(canary_set.corpus_symbols), reader.vocabulary))


def _search(reader: LanguageModel, start, space: EncodedSpace, secret: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    costs = score_log_perplexity(reader, start, secret)
    search = search_ranks(reader, ScoredMembers(space, start, secret, np.ones(1, dtype=bool), costs))
    low, high = (space.bits - math.log2(rank) for rank in (search.ranks[0].upper, search.ranks[0].lower))
    print(
        f"the inserted secret: exposure {low:.2f} to {high:.2f} of {space.bits:.2f} bits, {search.nodes:,} prefixes, "
        f"{time.perf_counter() - started:.2f} s"
    )


def _hundred(reader: LanguageModel, start, space: EncodedSpace) -> None:  # type: ignore[no-untyped-def]
    """Estimate 100 random members to a tenth of a bit."""
    members = space.sample(100, np.random.default_rng(0))
    started = time.perf_counter()
    found, drawn = importance_exposures(
        reader,
        ScoredMembers(space, start, members, np.zeros(100, dtype=bool), score_log_perplexity(reader, start, members)),
        range(100),
        SamplingBudget(2_000, 0.1, 10**6, (0,)),
        Execution(),
    )
    widths = [(own.high - own.low) / 2 for own in found]
    print(
        f"100 random members by importance sampling: half-widths up to {max(widths):.3f} bits (median "
        f"{np.median(widths):.3f}), {drawn:,} draws, {time.perf_counter() - started:.1f} s"
    )


def _four(reader: LanguageModel, start, space: EncodedSpace) -> None:  # type: ignore[no-untyped-def]
    """Print all estimates of members of known rank, beside the enumerated truth."""
    members = space.members()
    costs = score_log_perplexity(reader, start, members)
    rows = np.argsort(costs, kind="stable")[np.array(_RANKS) - 1]
    truth = [space.bits - math.log2(rank) for rank in enumerate_ranks(costs, rows.tolist(), [])]
    own_costs = costs[rows]
    targets = ScoredMembers(space, start, members[rows], np.zeros(len(rows), dtype=bool), own_costs)
    search = search_ranks(reader, targets)
    effort = SamplingBudget(2_000, 0.1, 10**5, (0,))
    weighted, _ = importance_exposures(reader, targets, range(len(rows)), effort, Execution())
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(costs), size=10_000)
    fit = fit_skew_normal(costs[drawn], rng)
    print(f"\nsix digits, 10,000 references; the skew-normal fit has p = {fit.pvalue:.2f}\n")
    print("| rank | truth, bits | search | importance | sampled | skew-normal |\n| --- | --- | --- | --- | --- | --- |")
    for k, rank in enumerate(_RANKS):
        cost = float(own_costs[k])
        sampled = sampled_exposure(cost, costs[drawn[drawn != rows[k]]], space.bits)
        fitted = skew_normal_exposure(cost, costs[drawn], space.bits, fit=fit)
        low, high = (space.bits - math.log2(end) for end in (search.ranks[k].upper, search.ranks[k].lower))
        cells = (_cell(own, truth[k]) for own in (weighted[k], sampled))
        print(
            f"| {rank:,} | {truth[k]:.2f} | {low:.2f} to {high:.2f} | {' | '.join(cells)} | "
            f"{fitted.bits:.2f} ({fitted.bits - truth[k]:+.2f}) |"
        )


def _cell(own: Estimate, truth: float) -> str:
    return f"{own.bits:.2f} ({own.bits - truth:+.2f}; {own.low:.2f} to {own.high:.2f}{'' if own.trusted else ', ?'})"
