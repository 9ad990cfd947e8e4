"""Tests of canaryaudit.exposure.estimators.memorization."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators import memorization_curve
from canaryaudit.exposure.estimators.memorization import mean_interval, share_interval
from canaryaudit.records import MemorizationCurve
from canaryaudit.stats import exposure_sum_pvalue, holm

SPACE = math.log2(10**8)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def unseen(rng: np.random.Generator, number: int, size: int = 10**8) -> np.ndarray:
    """Exposures of secrets that were never seen: their ranks are uniform."""
    return math.log2(size) - np.log2(rng.integers(1, size + 1, number))


def all_or_nothing(rng: np.random.Generator, number: int) -> np.ndarray:
    """Seven of ten secrets memorized: what Student's interval gets wrong."""
    return np.where(rng.random(number) < 0.7, SPACE, unseen(rng, number))


def capped(rng: np.random.Generator, number: int) -> np.ndarray:
    return np.minimum(rng.normal(24, 5, number), SPACE)


def curve(repetitions: list[int], bits: list[float], space: float = SPACE, spread: float = 0.0) -> MemorizationCurve:
    figures, spaces = np.array(bits), np.full(len(bits), space)
    return memorization_curve(
        repetitions,
        figures,
        spaces,
        figures == spaces,
        low=np.maximum(figures - spread, 0),
        high=np.minimum(figures + spread, spaces),
    )


# --- the interval of a mean -----------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", [unseen, all_or_nothing, capped])
@pytest.mark.parametrize("number", [2, 3, 6, 20])
def test_intervals_of_a_mean_cover_it(distribution: Draw, number: int) -> None:
    truth = float(distribution(np.random.default_rng(99), 10**6).mean())
    covered, seeds = 0, 400
    for seed in range(seeds):
        bits = distribution(np.random.default_rng(seed), number)
        low, high = mean_interval(bits, bits, np.full(number, SPACE))
        covered += low <= truth <= high
    print(f"{distribution.__name__}, {number} canaries: {covered / seeds:.1%} of {seeds} intervals hold the mean")
    assert covered >= 0.93 * seeds


def test_students_interval_would_not_cover_a_mean_of_all_or_nothing() -> None:
    """Why the interval is no simpler one."""
    truth, covered = float(all_or_nothing(np.random.default_rng(99), 10**6).mean()), 0
    for seed in range(400):
        bits = all_or_nothing(np.random.default_rng(seed), 3)
        reach = stats.t.ppf(0.975, 2) * bits.std(ddof=1) / math.sqrt(3)
        covered += abs(bits.mean() - truth) <= reach
    assert covered < 0.8 * 400


@pytest.mark.parametrize(("successes", "number"), [(0, 2), (3, 3), (3, 5), (49, 50), (40, 100)])
def test_the_interval_of_zeros_and_ones_is_that_of_a_share(successes: int, number: int) -> None:
    figures = np.r_[np.ones(successes), np.zeros(number - successes)]
    assert mean_interval(figures, figures, np.ones(number)) == pytest.approx(
        share_interval(successes, number), abs=1e-5
    )
    test = stats.binomtest(successes, number).proportion_ci(method="exact")
    assert share_interval(successes, number) == pytest.approx((test.low, test.high))


@pytest.mark.parametrize("number", [2, 5, 40])
def test_the_interval_agrees_with_drawn_weights(number: int) -> None:
    bits = unseen(np.random.default_rng(number), number)
    weights = np.random.default_rng(1).dirichlet(np.ones(number + 1), 200_000)
    low = np.quantile(weights @ np.append(bits, 0), 0.025)
    high = np.quantile(weights @ np.append(bits, SPACE), 0.975)
    assert mean_interval(bits, bits, np.full(number, SPACE)) == pytest.approx((low, high), rel=0.02)


def test_canaries_at_the_ceilings_of_several_spaces_reach_their_mean() -> None:
    spaces = np.array([20.0, 30.0, 34.0])
    low, high = mean_interval(spaces, spaces, spaces)
    assert high == pytest.approx(28)
    assert 0 < low < 15, "three canaries do not vouch for a fourth"


def test_the_measurements_own_uncertainty_widens_the_interval() -> None:
    sharp = curve([4] * 5, [6.0, 7, 8, 9, 10]).points[0]
    blurred = curve([4] * 5, [6.0, 7, 8, 9, 10], spread=2).points[0]
    assert blurred.low < sharp.low < sharp.mean_bits == blurred.mean_bits < sharp.high < blurred.high


def test_one_canary_keeps_its_own_interval_and_is_marked() -> None:
    point = curve([4], [9.0], spread=1).points[0]
    assert (point.low, point.high, point.single) == (8, 10, True)
    assert not curve([4, 4], [9.0, 9.0]).points[0].single


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(1e-3, 5_000))
def test_every_figure_of_a_curve_is_finite_and_in_order(shares: list[float], space: float) -> None:
    found = curve([number % 4 for number in range(len(shares))], [share * space for share in shares], space)
    assert sum(point.canaries for point in found.points) == len(shares)
    for point in found.points:
        assert -1e-6 <= point.low <= point.mean_bits + 1e-6 * space
        assert point.mean_bits <= point.high + 1e-6 * space <= space * (1 + 1e-5)
        assert 0 <= point.greedy_low <= point.greedy / point.canaries <= point.greedy_high <= 1
        assert (point.pvalue is None) is (point.repetitions == 0)
        assert point.pvalue is None or 0 <= point.pvalue <= (point.holm_pvalue or 0) <= 1


# --- told from secrets never seen -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3, 8])
def test_a_curve_of_unseen_secrets_names_a_number_in_one_of_twenty_audits(number: int) -> None:
    seeds, named = 3_000, 0
    for seed in range(seeds):
        groups = np.split(unseen(np.random.default_rng(seed), 3 * number), 3)
        named += min(holm([exposure_sum_pvalue(group.tolist()) for group in groups])) <= 0.05
    print(f"{number} canaries: {named / seeds:.2%} of {seeds} audits name a number")
    assert stats.binomtest(named, seeds, 0.05).pvalue > 0.001


def test_a_small_space_makes_the_test_more_cautious_never_bolder() -> None:
    seeds = 2_000
    rejected = sum(
        exposure_sum_pvalue(unseen(np.random.default_rng(seed), 3, 100).tolist()) <= 0.05 for seed in range(seeds)
    )
    assert rejected <= 0.055 * seeds


def test_the_pvalue_is_that_of_simulated_unseen_secrets() -> None:
    sums = unseen(np.random.default_rng(0), 600_000).reshape(-1, 3).sum(1)
    assert exposure_sum_pvalue([math.log2(20)]) == pytest.approx(0.05)
    assert exposure_sum_pvalue([3.0, 2.0, 4.0]) == pytest.approx(float((sums >= 9).mean()), rel=0.03)


def test_pvalues_are_corrected_step_by_step() -> None:
    """By hand: 0.01 x 4, 0.02 x 3, 0.03 x 2, and the last no smaller than the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_smallest_number_of_repetitions_that_is_told_is_the_answer() -> None:
    found = curve([0] * 4 + [1] * 3 + [4] * 3 + [16] * 3, [1.0] * 7 + [9.0] * 3 + [SPACE] * 3)
    assert [point.repetitions for point in found.points] == [0, 1, 4, 16]
    assert [point.detected for point in found.points] == [False, False, True, True]
    assert found.detected_from == 4
    assert [point.greedy for point in found.points] == [0, 0, 0, 3]
    assert curve([1, 4], [1.0, 2.0]).detected_from is None


def test_controls_are_never_told() -> None:
    point = curve([0, 0, 0], [SPACE] * 3).points[0]
    assert (point.pvalue, point.holm_pvalue, point.detected) == (None, None, False)


def test_an_uncertain_measurement_makes_the_answer_more_cautious() -> None:
    assert curve([4, 4], [8.0, 8.0]).detected_from == 4
    assert curve([4, 4], [8.0, 8.0], spread=7).detected_from is None


def test_an_unseen_mean_stays_below_the_border_nineteen_times_in_twenty() -> None:
    border = curve([2] * 5, [1.0] * 5).points[0].unseen_bits
    means = unseen(np.random.default_rng(3), 500_000).reshape(-1, 5).mean(1)
    assert (means > border).mean() == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize(
    ("bits", "low", "complaint"),
    [
        (math.nan, 0.0, "exposures_bits: expected finite numbers in bits, got NaN at position 0"),
        (math.inf, 0.0, "exposures_bits: expected finite numbers in bits, got inf"),
        (5.0, math.nan, "low: expected finite numbers"),
        (5.0, 6.0, "measure the canaries again"),
        (SPACE + 1, 0.0, "measure the canaries again"),
        (-1.0, -1.0, "measure the canaries again"),
    ],
)
def test_figures_that_are_no_exposures_are_refused(bits: float, low: float, complaint: str) -> None:
    with pytest.raises(MeasurementError, match=complaint):
        memorization_curve([1], [bits], SPACE, [False], low=[low])


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(MeasurementError, match="arrays of one length, got repetitions 2, exposures_bits 1"):
        memorization_curve([1, 1], [1.0], SPACE, [False])
    with pytest.raises(MeasurementError, match="exposures_bits: expected 1 or more numbers, got 0"):
        memorization_curve([], [], SPACE, [])


@pytest.mark.parametrize("repetitions", [[-1], [0.5], [True], [math.nan], ["1"]])
def test_repetitions_are_whole_numbers(repetitions: list[float]) -> None:
    with pytest.raises(MeasurementError, match="^repetitions: expected"):
        memorization_curve(repetitions, [1.0], SPACE, [False])


def test_greedy_completions_are_truth_values() -> None:
    with pytest.raises(MeasurementError, match="greedy: expected truth values of shape"):
        memorization_curve([1], [1.0], SPACE, [1])  # type: ignore[list-item]


def test_without_intervals_the_exposures_are_exact() -> None:
    bits = [1.0, 2.0, 9.0]
    assert memorization_curve([1] * 3, bits, SPACE, [False] * 3) == curve([1] * 3, bits)
