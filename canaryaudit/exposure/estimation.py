"""Ranks of secrets of one space, exactly or by importance sampling: what tells most of them for its time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.exposure.config import MeasurementConfig
from canaryaudit.exposure.effort import ranking_symbols, seconds_per_symbol
from canaryaudit.exposure.estimators.exact import bounded_exposure, enumerate_ranks, exact_exposure
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.importance_sampling import SamplingBudget, importance_exposures
from canaryaudit.exposure.rank_search import search_ranks
from canaryaudit.exposure.references import References
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.exposure.targets import Targets
from canaryaudit.records import Estimate, EstimatorName

_FEW = 10
"""Likelier references up to which a rank may be much smaller than their share says."""
_ROOM = 4
"""By how many times a rank may be smaller than the share of more of them says."""


@dataclass(frozen=True)
class Ranked:
    """Estimates by estimator, in the order of the targets, and the work that they took."""

    estimates: list[dict[EstimatorName, Estimate]]
    search_nodes: int
    characters: int


def rank_targets(
    targets: Targets,
    config: MeasurementConfig,
    seed: Sequence[int],
    execution: Execution,
    references: References | None = None,
    *,
    wanted: int | None = None,
) -> Ranked:
    """Estimate ranks by the search, and by importance sampling where the search does not decide.

    Args:
        targets: Secrets and controls of one space, after one prompt.
        config: How to measure.
        seed: Of the importance draws; their parts are kept under it.
        execution: How to carry it out.
        references: Uniform members: the search does not look for targets that too many of them precede.
        wanted: The one target to be ranked; all if not given.
    """
    model = targets.reader
    estimates: list[dict[EstimatorName, Estimate]] = [{} for _ in targets.canaries]
    nodes, characters = 0, 0.0
    work = ranking_symbols(config, targets.space, seconds_per_symbol(model))
    searching, sampling = execution.parts((work["exact"], work["importance"]))
    if "exact" in config.estimators:
        if targets.space.size <= config.enumerate_up_to:
            characters += targets.space.reading_symbols(targets.space.size)
        within = None if references is None else _within_reach(targets, config, references)
        if wanted is not None:
            within = np.arange(len(targets.canaries)) == wanted
        exact, nodes = _exact_estimates(targets, config, searching, within)
        for own, estimate in zip(estimates, exact, strict=True):
            own["exact"] = estimate
    asked_for = range(len(targets.canaries)) if wanted is None else (wanted,)
    undecided = [k for k, own in enumerate(estimates) if k in asked_for and not _is_decided(own)]
    if "importance" in config.estimators and undecided:
        budget = SamplingBudget(config.draws_per_temperature, config.precision_bits, config.max_draws, tuple(seed))
        weighted, drawn = importance_exposures(
            model, targets, undecided, budget, sampling, "importance-" + "-".join(map(str, seed[1:-1]))
        )
        for k, estimate in zip(undecided, weighted, strict=True):
            estimates[k]["importance"] = estimate
        characters += drawn * (targets.space.max_length - 1)
    return Ranked(estimates, nodes, int(characters))


def _is_decided(estimates: Mapping[EstimatorName, Estimate]) -> bool:
    return "exact" in estimates and estimates["exact"].trusted


def _within_reach(targets: Targets, config: MeasurementConfig, references: References) -> np.ndarray:
    """Return which targets the search may find, shape (K,): not those that many references precede.

    A prefix has at most as many members next to it as there are symbols, so a rank beyond the budget's multiple of
    that is out of reach.
    """
    order = np.argsort(references.bits)
    before = np.concatenate(([0], np.cumsum(references.counts[order])))
    likelier = before[np.searchsorted(references.bits[order], targets.log_perplexity_bits)]
    least = np.log2(np.maximum(likelier, 1) / (_ROOM * references.total)) + targets.space.bits
    most = np.log2(config.search_budget * targets.space.num_symbols)
    within: np.ndarray = (likelier < _FEW) | (least <= most)
    return within


def _exact_estimates(
    targets: Targets,
    config: MeasurementConfig,
    execution: Execution,
    within: np.ndarray | None,
) -> tuple[list[Estimate], int]:
    """Return an exact figure or certified bounds for each canary, and the prefixes that the search expanded."""
    bits, model = targets.space.bits, targets.reader
    tick = execution.ticker("exact rank")
    if targets.space.size <= config.enumerate_up_to:
        members = targets.space.members()
        costs = score_log_perplexity(model, targets.start, members, tick, execution.processes)
        rows = [int(np.flatnonzero((members == row).all(1))[0]) for row in targets.completions]
        inserted = [row for row, own in zip(rows, targets.inserted, strict=True) if own]
        return exact_exposure(enumerate_ranks(costs, rows, inserted), bits), 0
    search = search_ranks(model, targets, config.search_budget, tick, within)
    return [
        exact_exposure(rank.lower, bits) if rank.exact else bounded_exposure(rank.lower, rank.upper, bits)
        for rank in search.ranks
    ], search.nodes
