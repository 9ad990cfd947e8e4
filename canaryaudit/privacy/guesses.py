"""Who was in the training text? Guesses by a score, and how well any threshold of it tells members from others."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import beta, rankdata

from canaryaudit.canaries.canary import FEWEST_COINS
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import Flags, Values, check_same_length, read_bits, read_flags
from canaryaudit.records import Membership

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Guesses:
    """How many coins were guessed, and how many rightly.

    Attributes:
        candidates: Candidates with a coin.
        guesses: Those that were guessed: half of them as members, half as others.
        correct: Right guesses.
    """

    candidates: int
    guesses: int
    correct: int


def guess_members(scores: Values, members: Flags) -> Guesses:
    """Guess the sixth with the highest scores as members, the sixth with the lowest as others, and abstain in between.

    The share is fixed, because a share chosen for these scores would make the bound invalid. Ties are broken by
    position, which must not depend on the coins.

    Args:
        scores: One per candidate, higher for members, shape (n,); computed alike for members and others.
        members: Each candidate's coin: whether it was in the training text, shape (n,).

    Raises:
        MeasurementError: Lengths differ, a score is not finite, or there are fewer than 12 candidates.

    Examples:
        >>> guess_members(range(12), [False] * 6 + [True] * 6)
        Guesses(candidates=12, guesses=4, correct=4)
    """
    score, member = _read(scores, members)
    if len(score) < FEWEST_COINS:
        raise MeasurementError(
            f"scores: expected at least {FEWEST_COINS} candidates, got {len(score)}: insert more with a coin each"
        )
    count = len(score) // 6
    order = np.argsort(score, kind="stable")
    correct = int(member[order[-count:]].sum() + (~member[order[:count]]).sum())
    return Guesses(len(score), 2 * count, correct)


def membership(scores: Values, members: Flags, false_positive_rate: float = 0.01) -> Membership:
    """Return how well a score tells members from others.

    The interval of the AUC is Newcombe's method 5 (2006, *Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic*), which does not collapse where all members score higher. That of the true positive rate is
    Clopper & Pearson's.

    Args:
        scores: One per candidate, higher for members, shape (n,).
        members: Whether each was in the training text, shape (n,).
        false_positive_rate: Largest share of others above the threshold.

    Raises:
        MeasurementError: Lengths differ, a score is not finite, or members or others are missing.

    Examples:
        >>> found = membership([3.0, 2.5, 1.0, 0.5], [True, True, False, False])
        >>> found.auc, found.true_positive_rate, round(found.auc_low, 2)
        (1.0, 1.0, 0.39)
    """
    score, member = _read(scores, members)
    inside, outside = score[member], score[~member]
    if not len(inside) or not len(outside):
        raise MeasurementError("members: expected members and others, got only one kind: nothing can be told apart")
    if not 0 <= false_positive_rate < 1:
        raise MeasurementError(f"false_positive_rate: expected a share below 1, got {false_positive_rate}")
    ranks = rankdata(score)
    above = ranks[member].sum() - len(inside) * (len(inside) + 1) / 2
    auc = float(above / (len(inside) * len(outside)))
    allowed = math.floor(false_positive_rate * len(outside) + 1e-9)
    threshold = np.sort(outside)[-1 - allowed]
    hits = int((inside > threshold).sum())
    tail = (1 - _CONFIDENCE) / 2
    low, high = _auc_interval(auc, len(inside), len(outside))
    return Membership(
        auc=auc,
        auc_low=low,
        auc_high=high,
        false_positive_rate=false_positive_rate,
        true_positive_rate=hits / len(inside),
        tpr_low=float(beta.ppf(tail, hits, len(inside) - hits + 1)) if hits else 0.0,
        tpr_high=float(beta.ppf(1 - tail, hits + 1, len(inside) - hits)) if hits < len(inside) else 1.0,
    )


def _auc_interval(auc: float, inside: int, outside: int) -> tuple[float, float]:
    """Return all values from which the estimate is at most 1.96 standard errors away, each with its own error."""
    half, pairs = (inside + outside) / 2 - 1, inside * outside
    quantile = float(ndtri(0.5 + _CONFIDENCE / 2))

    def excess(value: float) -> float:
        variance = value * (1 - value) * (1 + half * ((1 - value) / (2 - value) + value / (1 + value))) / pairs
        return (auc - value) ** 2 - quantile**2 * variance

    edge = 1e-12  # at an estimate of 0 or 1 the excess is 0 there, and negative next to it
    low = float(brentq(excess, 0.0, min(auc, 1 - edge))) if auc > 0 else 0.0
    high = float(brentq(excess, max(auc, edge), 1.0)) if auc < 1 else 1.0
    return low, high


def _read(scores: object, members: object) -> tuple[np.ndarray, np.ndarray]:
    score, member = read_bits(scores, "scores"), read_flags(members, "members")
    check_same_length(scores=score, members=member)
    return score, member
