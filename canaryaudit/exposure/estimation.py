"""Ranks of secrets of one space, exactly or by importance sampling: what tells most of them for its time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup
from canaryaudit.exposure.config import MeasurementConfig
from canaryaudit.exposure.estimators.exact import bounded_exposure, enumerate_ranks, exact_exposure
from canaryaudit.exposure.importance_sampling import SamplingBudget, importance_exposures
from canaryaudit.exposure.rank_search import search_ranks
from canaryaudit.exposure.scoring import Ticker, score_log_perplexity
from canaryaudit.exposure.targets import Targets
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.records import Estimate, EstimatorName
from canaryaudit.storage.part_cache import NullCache, ResultCache


@dataclass(frozen=True)
class Execution:
    """How a piece of a measurement is carried out.

    Attributes:
        stage: What is being done, for people.
        progress: Told of progress.
        cache: Keeps finished parts of long samplings.
        processes: Who shares the work.
    """

    stage: str = ""
    progress: ProgressReporter = NullReporter()  # noqa: RUF009 -- it keeps nothing
    cache: ResultCache = NullCache()  # noqa: RUF009
    processes: ProcessGroup = SINGLE_PROCESS

    def ticker(self, what: str) -> Ticker:
        """Return what tells the progress of a part of the stage."""
        share = 0.0

        def tick(done: int, total: int) -> None:
            nonlocal share
            share = max(share, done / max(1, total))  # the end moves away where more is drawn: no share ever falls
            self.progress.update(self.stage, share * total, total, what)

        return tick


@dataclass(frozen=True)
class Ranked:
    """Estimates by estimator, in the order of the targets, and the work that they took."""

    estimates: list[dict[EstimatorName, Estimate]]
    search_nodes: int
    characters: int


def rank_targets(
    model: LanguageModel, targets: Targets, config: MeasurementConfig, seed: Sequence[int], execution: Execution
) -> Ranked:
    """Estimate ranks by the search, and by importance sampling where the search does not decide.

    Args:
        model: The model.
        targets: Secrets and controls of one space, after one prompt.
        config: How to measure.
        seed: Of the importance draws; their parts are kept under it.
        execution: How to carry it out.
    """
    estimates: list[dict[EstimatorName, Estimate]] = [{} for _ in targets.canaries]
    nodes = characters = 0
    if "exact" in config.estimators:
        if targets.space.size <= config.enumerate_up_to:
            characters += targets.space.size * targets.space.max_length
        exact, nodes = _exact_estimates(model, targets, config, execution)
        for own, estimate in zip(estimates, exact, strict=True):
            own["exact"] = estimate
    undecided = [k for k, own in enumerate(estimates) if "exact" not in own or not own["exact"].trusted]
    if "importance" in config.estimators and undecided:
        budget = SamplingBudget(config.draws_per_temperature, config.precision_bits, config.max_draws, tuple(seed))
        weighted, drawn = importance_exposures(
            model,
            targets.start,
            targets.space,
            targets.completions,
            targets.inserted,
            targets.log_perplexity_bits,
            undecided,
            budget,
            execution.cache,
            "importance-" + "-".join(map(str, seed[1:-1])),
            execution.ticker("importance sampling"),
            execution.processes,
        )
        for k, estimate in zip(undecided, weighted, strict=True):
            estimates[k]["importance"] = estimate
        characters += drawn * targets.space.max_length
    return Ranked(estimates, nodes, characters)


def _exact_estimates(
    model: LanguageModel, targets: Targets, config: MeasurementConfig, execution: Execution
) -> tuple[list[Estimate], int]:
    """Return an exact figure or certified bounds for each canary, and the prefixes that the search expanded."""
    bits = targets.space.bits
    tick = execution.ticker("exact rank")
    if targets.space.size <= config.enumerate_up_to:
        members = targets.space.members()
        costs = score_log_perplexity(model, targets.start, members, tick, execution.processes)
        rows = [int(np.flatnonzero((members == row).all(1))[0]) for row in targets.completions]
        inserted = [row for row, own in zip(rows, targets.inserted, strict=True) if own]
        return exact_exposure(enumerate_ranks(costs, rows, inserted), bits), 0
    search = search_ranks(
        model,
        targets.start,
        targets.space,
        targets.completions,
        targets.inserted,
        targets.log_perplexity_bits,
        budget=config.search_budget,
        tick=tick,
    )
    return [
        exact_exposure(rank.lower, bits) if rank.exact else bounded_exposure(rank.lower, rank.upper, bits)
        for rank in search.ranks
    ], search.nodes
