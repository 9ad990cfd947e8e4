"""A lower bound on the privacy loss of a training, from one run with independently tossed coins.

Steinke, Nasr & Jagielski 2023, *Privacy auditing with one (1) training run*, Theorem 5.2. Each of m candidates is in
the training text or out of it by a fair coin of its own. Whoever sees the model guesses the coins of r candidates and
abstains from the others. Under (epsilon, delta)-differential privacy the number of right guesses is, up to delta, no
larger than binomial with r tries of probability e^epsilon / (1 + e^epsilon): more of them refute that epsilon.

How many to guess, and by which score, must be fixed before the coins are looked at. The best of several thresholds is
no bound: on models without any privacy loss it would claim some.
"""

import math

import numpy as np
from scipy.stats import binom

from canaryaudit.errors import MeasurementError

DELTA = 1e-5
LEVEL = 0.05
"""Probability, at most, with which the bound is above the true epsilon."""
_MOST_EPSILON = 100.0
_HALVINGS = 60


def epsilon_p_value(correct: int, guesses: int, candidates: int, epsilon: float, delta: float = DELTA) -> float:
    """Return the probability, at most, of as many right guesses under (epsilon, delta)-differential privacy.

    Args:
        correct: Right guesses.
        guesses: All guesses, r.
        candidates: Candidates with a coin, guessed or not, m.
        epsilon: At least 0.
        delta: From 0 to 1.

    Raises:
        MeasurementError: The counts or parameters do not fit each other.

    Examples:
        Sixty right guesses of a hundred are no surprise for epsilon = 1, and rare for epsilon = 0.

        >>> epsilon_p_value(60, 100, 100, 1.0, 0.0) > 0.9, round(epsilon_p_value(60, 100, 100, 0.0, 0.0), 3)
        (True, 0.028)
    """
    _check(correct, guesses, candidates, delta)
    if not epsilon >= 0:
        raise MeasurementError(f"epsilon: expected 0 or more, got {epsilon}")
    right = 1 / (1 + math.exp(-epsilon))
    at_least = float(binom.sf(correct - 1, guesses, right))
    if not delta or not correct:
        return min(1.0, at_least)
    fewer = np.arange(1, correct + 1)
    # P[correct - i <= Bin < correct] / i, at its largest
    shares = np.cumsum(binom.pmf(correct - fewer, guesses, right)) / fewer
    return min(1.0, at_least + 2 * candidates * delta * float(shares.max()))


def epsilon_lower_bound(
    correct: int, guesses: int, candidates: int, delta: float = DELTA, level: float = LEVEL
) -> float:
    """Return the largest epsilon that so many right guesses refute: the training's is at least as large.

    Args:
        correct: Right guesses.
        guesses: All guesses; their number was fixed beforehand.
        candidates: Candidates with a coin.
        delta: From 0 to 1.
        level: Probability, at most, that the bound is above the true epsilon.

    Raises:
        MeasurementError: The counts or parameters do not fit each other.

    Examples:
        >>> round(epsilon_lower_bound(100, 100, 100), 2), epsilon_lower_bound(55, 100, 100)
        (3.49, 0.0)
    """
    _check(correct, guesses, candidates, delta)
    if not 0 < level < 1:
        raise MeasurementError(f"level: expected a probability between 0 and 1, got {level}")
    low, high = 0.0, _MOST_EPSILON
    if epsilon_p_value(correct, guesses, candidates, low, delta) > level:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        refuted = epsilon_p_value(correct, guesses, candidates, middle, delta) <= level
        low, high = (middle, high) if refuted else (low, middle)
    return low


def epsilon_ceiling(guesses: int, candidates: int, delta: float = DELTA, level: float = LEVEL) -> float:
    """Return the bound that right guesses alone would give: no audit with so many guesses can show more.

    Examples:
        >>> [round(epsilon_ceiling(guesses, guesses), 1) for guesses in (20, 100, 1000)]
        [1.8, 3.5, 5.8]
    """
    return epsilon_lower_bound(guesses, guesses, candidates, delta, level)


def _check(correct: int, guesses: int, candidates: int, delta: float) -> None:
    if not 0 <= correct <= guesses <= candidates:
        raise MeasurementError(
            f"expected right guesses <= guesses <= candidates, got {correct}, {guesses} and {candidates}"
        )
    if not 0 <= delta < 1:
        raise MeasurementError(f"delta: expected a probability below 1, got {delta}")
