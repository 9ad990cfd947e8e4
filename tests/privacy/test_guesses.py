"""Guesses and the AUC against counting by hand, and intervals against the laws that they are for."""

import itertools

import numpy as np
import pytest

from canaryaudit.errors import MeasurementError
from canaryaudit.privacy.guesses import guess_members, membership


def test_a_sixth_from_either_end_is_guessed() -> None:
    members = [False, True, False, True] * 6
    scores = np.arange(24.0)
    members[0] = True  # the lowest is wrong
    found = guess_members(scores, members)
    assert (found.candidates, found.guesses) == (24, 8)
    assert found.correct == sum(members[-4:]) + sum(not own for own in members[:4])


def test_ties_are_broken_by_position() -> None:
    members = [True, False] * 12
    assert guess_members([0.0] * 24, members).correct == sum(members[-4:]) + sum(not own for own in members[:4])


def test_the_auc_counts_pairs() -> None:
    rng = np.random.default_rng(3)
    scores, members = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    pairs = list(itertools.product(scores[members], scores[~members]))
    expected = sum(1.0 if own > other else 0.5 if own == other else 0.0 for own, other in pairs) / len(pairs)
    assert membership(scores, members).auc == pytest.approx(expected)


def test_the_true_positive_rate_allows_so_many_false_ones() -> None:
    scores = [*range(100), *range(50, 150)]
    members = [False] * 100 + [True] * 100
    assert membership(scores, members, 0.0).true_positive_rate == 0.5  # above 99
    assert membership(scores, members, 0.1).true_positive_rate == 0.6  # ten others are above 89
    assert membership(scores, members, 0.109).true_positive_rate == 0.6


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_the_interval_of_the_auc_covers(distance: float) -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(7)
    truth, covered = norm.cdf(distance / np.sqrt(2)), 0
    members = np.arange(80) < 40
    for _ in range(400):
        found = membership(rng.normal(size=80) + distance * members, members)
        assert found.auc_low <= found.auc <= found.auc_high
        covered += found.auc_low <= truth <= found.auc_high
    assert covered >= 0.93 * 400


@pytest.mark.parametrize("better", [True, False])
def test_a_perfect_score_leaves_an_interval(better: bool) -> None:
    scores = np.arange(20.0) if better else -np.arange(20.0)
    found = membership(scores, np.arange(20) >= 10)
    assert found.auc == float(better)
    assert found.auc_high - found.auc_low == pytest.approx(0.19, abs=0.1)
    assert found.tpr_high - found.tpr_low > 0.2


@pytest.mark.parametrize(
    ("scores", "members", "expected"),
    [
        ([1.0] * 11, [True] * 11, "at least 12 candidates, got 11"),
        ([1.0] * 12, [True] * 11, "members"),
        ([float("nan")] * 12, [True] * 12, "NaN at position 0"),
        ([1.0] * 12, [2] * 12, "members"),
    ],
)
def test_what_cannot_be_guessed(scores: list[float], members: list[bool], expected: str) -> None:
    with pytest.raises(MeasurementError, match=expected):
        guess_members(scores, members)


def test_one_kind_alone_cannot_be_told_apart() -> None:
    with pytest.raises(MeasurementError, match="only one kind"):
        membership([1.0, 2.0], [True, True])
    with pytest.raises(MeasurementError, match="a share below 1"):
        membership([1.0, 2.0], [True, False], 1.0)
