"""The bound against an enumeration of its theorem, the published figures, and models of known epsilon."""

import math

import numpy as np
import pytest

from canaryaudit.errors import MeasurementError
from canaryaudit.privacy.guesses import guess_members
from canaryaudit.privacy.one_run import epsilon_ceiling, epsilon_lower_bound, epsilon_p_value


def binomial(tries: int, share: float) -> list[float]:
    return [math.comb(tries, count) * share**count * (1 - share) ** (tries - count) for count in range(tries + 1)]


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
def test_the_p_value_is_the_theorems(epsilon: float, delta: float) -> None:
    guesses, candidates = 14, 20
    law = binomial(guesses, math.exp(epsilon) / (1 + math.exp(epsilon)))
    for correct in range(guesses + 1):
        alpha = max((sum(law[correct - i : correct]) / i for i in range(1, correct + 1)), default=0.0)
        expected = min(1.0, sum(law[correct:]) + 2 * candidates * delta * alpha)
        assert epsilon_p_value(correct, guesses, candidates, epsilon, delta) == pytest.approx(expected, abs=1e-12)


def test_the_bound_is_where_the_p_value_is_the_level() -> None:
    bound = epsilon_lower_bound(170, 200, 600)
    assert epsilon_p_value(170, 200, 600, bound) == pytest.approx(0.05, abs=1e-6)
    assert epsilon_lower_bound(171, 200, 600) > bound
    assert epsilon_lower_bound(170, 200, 60_000) < bound  # delta counts for every candidate
    assert epsilon_lower_bound(170, 200, 600, level=0.01) < bound


def test_the_ceiling_grows_with_the_logarithm_of_the_guesses() -> None:
    # -ln(0.05^(-1/r) - 1) for right guesses alone, without delta
    for guesses in (8, 20, 100, 1000):
        exact = -math.log(0.05 ** (-1 / guesses) - 1)
        assert epsilon_ceiling(guesses, guesses, delta=0.0) == pytest.approx(exact, abs=1e-9)
        assert exact - 0.2 < epsilon_ceiling(guesses, guesses) < exact


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.5])
def test_the_bound_is_above_a_known_epsilon_in_one_of_twenty_at_most(epsilon: float) -> None:
    """Randomized response on every coin is epsilon-private, and as bad as that can be."""
    rng = np.random.default_rng(11)
    above = 0
    for _ in range(1000):
        coins = rng.random(240) < 0.5
        told = rng.random(240) < math.exp(epsilon) / (1 + math.exp(epsilon))
        scores = np.where(told == coins, 1.0, -1.0) + rng.normal(size=240) / 100
        found = guess_members(scores, coins)
        above += epsilon_lower_bound(found.correct, found.guesses, found.candidates, delta=0.0) > epsilon
    assert above <= 65  # 50 are expected at most; more than 65 have probability 0.01


def test_the_best_of_several_thresholds_would_be_no_bound() -> None:
    rng = np.random.default_rng(5)
    claimed = 0
    for _ in range(200):
        coins, scores = rng.random(240) < 0.5, rng.normal(size=240)
        order = np.argsort(scores)
        bounds = []
        for count in range(2, 120, 4):
            correct = int(coins[order[-count:]].sum() + (~coins[order[:count]]).sum())
            bounds.append(epsilon_lower_bound(correct, 2 * count, 240, delta=0.0))
        claimed += max(bounds) > 0
    assert claimed > 40  # ten are allowed: this is why the number of guesses is fixed


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((5, 4, 10), {}), ((-1, 4, 10), {}), ((4, 11, 10), {}), ((4, 4, 10), {"delta": 1.0}), ((4, 4, 10), {"level": 0})],
)
def test_counts_that_do_not_fit(arguments: tuple[int, int, int], options: dict[str, float]) -> None:
    with pytest.raises(MeasurementError, match="expected"):
        epsilon_lower_bound(*arguments, **options)


def test_an_epsilon_below_zero() -> None:
    with pytest.raises(MeasurementError, match="epsilon: expected 0 or more, got -1"):
        epsilon_p_value(1, 2, 3, -1.0)
    with pytest.raises(MeasurementError, match="epsilon: expected 0 or more, got nan"):
        epsilon_p_value(1, 2, 3, math.nan)
