"""Intervals that claim 95 %: do they hold the enumerated truth so often, from rank 1 to |R|?"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from canaryaudit.exposure import draw_members
from canaryaudit.exposure.estimators import importance_exposure, sampled_exposure
from canaryaudit.records import Estimate
from tests.fakes import Law, TableModel, encoded, every_member, naive_ranks

TEMPLATE = "{digits:4}"
SEEDS = 300
RANKS = (1, 2, 3, 5, 10, 30, 100, 300, 1000, 5000, 9000, 10_000)
MODELS: dict[str, tuple[Law, tuple[str, ...], float]] = {
    "memorized": ("random", ("0123", "0129", "9999"), 0.97),
    "memorized by heart": ("random", ("0123",), 0.9999),
    "unlearned": ("random", (), 0.0),
    "unlearned, markov": ("markov", (), 0.0),
    "flat": ("flat", (), 0.0),
    "ties": ("ties", (), 0.0),
}
models = pytest.mark.parametrize("name", MODELS)

Estimator = Callable[[int, int], Estimate]  # of a target's row, with a seed


class Setting:
    """A model whose space is enumerated, and targets at the given ranks."""

    def __init__(self, name: str) -> None:
        distribution, memorized, certainty = MODELS[name]
        self.model = TableModel("\n!-0123456789abcdef", 3, distribution, memorized, certainty)
        self.space, self.start = encoded(TEMPLATE, self.model)
        self.members, self.costs = every_member(TEMPLATE, self.model)
        order = np.argsort(self.costs, kind="stable")
        self.targets = [int(order[rank - 1]) for rank in RANKS]
        self.truth = [self.space.bits - math.log2(rank) for rank in naive_ranks(self.costs, self.targets, [])]


def check(setting: Setting, name: str, estimates: Callable[[int], list[Estimate]]) -> None:
    covered, widths = np.zeros(len(RANKS)), np.zeros((SEEDS, len(RANKS)))
    for seed in range(SEEDS):
        for k, (own, truth) in enumerate(zip(estimates(seed), setting.truth, strict=True)):
            assert 0 <= own.low <= own.bits + 1e-9 <= own.high + 2e-9 <= setting.space.bits + 4e-9
            covered[k] += own.low - 1e-9 <= truth <= own.high + 1e-9
            widths[seed, k] = own.high - own.low
    for rank, share, width in zip(RANKS, covered / SEEDS, np.median(widths, axis=0), strict=True):
        print(f"{name}, rank {rank}: {share:.1%} of {SEEDS} intervals hold the truth, median width {width:.3f} bits")
    assert covered.min() >= 0.93 * SEEDS


def importance(setting: Setting, per_temperature: int) -> Callable[[int], list[Estimate]]:
    def estimates(seed: int) -> list[Estimate]:
        rng = np.random.default_rng(seed)
        draws = draw_members(setting.model, setting.start, setting.space, per_temperature, rng)
        found = []
        for row in setting.targets:
            own = (draws.completions == setting.members[row]).all(1)
            bits = np.where(own, np.inf, draws.bits)
            cost = float(setting.costs[row])
            found.append(
                importance_exposure(
                    cost, bits, setting.space.bits, log2_weights=draws.log2_weights, strata=draws.strata
                )
            )
        return found

    return estimates


def sampled(setting: Setting, count: int) -> Callable[[int], list[Estimate]]:
    def estimates(seed: int) -> list[Estimate]:
        rows = np.random.default_rng(seed).integers(len(setting.costs), size=count)
        return [
            sampled_exposure(float(setting.costs[row]), setting.costs[rows[rows != row]], setting.space.bits)
            for row in setting.targets
        ]

    return estimates


@models
def test_sampled_intervals_cover_the_truth(name: str) -> None:
    setting = Setting(name)
    check(setting, name, sampled(setting, 2_000))


@models
def test_importance_intervals_cover_the_truth(name: str) -> None:
    setting = Setting(name)
    check(setting, name, importance(setting, 200))


@pytest.mark.slow
@models
def test_importance_intervals_cover_the_truth_with_as_many_draws_as_a_measurement_takes(name: str) -> None:
    setting = Setting(name)
    check(setting, name, importance(setting, 2_000))
