"""The distribution of exposures of secrets that a model never saw, the test of many at once, and its power.

They are exponential with mean 1/ln 2 (Jagielski 2023, *A note on interpreting canary exposure*). The sum of n of them
has a gamma distribution with shape n. In a finite space, exposures are stochastically no larger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import gammainc, gammaincc, gammaincinv

from canaryaudit.errors import MeasurementError

LEVEL = 0.05
"""Probability, at most, with which memorization is detected in a model that saw none of the secrets."""
_ROUNDING = 1e-7
"""Figures have seven digits: a p-value of exactly 5 % is not below it."""
POWER = 0.8
"""Probability with which an audit detects what it is said to detect."""
EXPECTED_MEAN_BITS = 1 / math.log(2)
"""Mean exposure of a secret that the model never saw."""


def exposure_sum_pvalue(bits: Sequence[float]) -> float:
    """Return the probability that as many exposures of unseen secrets sum to at least as much.

    Args:
        bits: Exposures, at least one.
    """
    return float(gammaincc(len(bits), math.fsum(bits) / EXPECTED_MEAN_BITS))


def exposure_sum_lower_pvalue(bits: Sequence[float], space_bits: Sequence[float]) -> float:
    """Return the probability that as many exposures of unseen secrets sum to at most as much: the lower tail.

    In a space of N members, an exposure of 0 bits has probability 1/N, not 0. So each exposure is replaced by that of
    the next rank, which is exact for one secret and conservative for several.

    Args:
        bits: Exposures, or the upper ends of their intervals.
        space_bits: log2 of the size of each secret's space, in the same order.
    """
    before = [2**-exposure - 2**-space for exposure, space in zip(bits, space_bits, strict=True)]
    total = math.fsum(-math.log2(share) if share > 0 else math.inf for share in before)
    return float(gammainc(len(bits), total / EXPECTED_MEAN_BITS))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that the chance of any false rejection is kept   (Holm 1979).

    Raises:
        MeasurementError: One is NaN.
    """
    if any(math.isnan(pvalue) for pvalue in pvalues):
        raise MeasurementError("a p-value is no number: measure again")
    corrected, largest = [0.0] * len(pvalues), 0.0
    for rank, index in enumerate(sorted(range(len(pvalues)), key=pvalues.__getitem__)):
        largest = max(largest, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Detection:
    """One test of all canaries of a model, and of each.

    Two tests share the level of 5 %: the joint one, and the smallest p-value of one canary with Holm's correction. The
    p-value is twice the smaller of theirs. Where it is below 5 %, canaries whose own corrected p-value is below 5 % are
    named. So anything is detected in at most 5 % of models that saw none of the secrets, and any unseen
    secret is named in at most 5 % of the others: there the joint hypothesis is false, and Holm's procedure holds alone.

    Attributes:
        pvalue: Of the hypothesis that the model saw none of the secrets.
        joint_pvalue: Of the joint test; where a second figure is tested too, twice the smaller one of both.
        smallest: Of the canary with the smallest one, uncorrected.
        corrected: Of each canary, with Holm's correction.
    """

    pvalue: float
    joint_pvalue: float
    smallest: float
    corrected: tuple[float, ...]

    @property
    def is_detected(self) -> bool:
        """Whether the canaries are distinguishable from unseen secrets, together or one by one."""
        return self.pvalue < LEVEL - _ROUNDING

    @property
    def named(self) -> tuple[bool, ...]:
        """Which canaries are distinguishable on their own."""
        return tuple(self.is_detected and pvalue < LEVEL - _ROUNDING for pvalue in self.corrected)


def detect(
    pvalues: Sequence[float],
    joint_pvalue: float,
    other_pvalues: Sequence[float | None] = (),
    other_joint_pvalue: float = 1.0,
) -> Detection:
    """Test whether a model saw any of its canaries, and which.

    Args:
        pvalues: Of each canary, at least one.
        joint_pvalue: Of all together; a single canary needs none.
        other_pvalues: By a second figure of each canary, in the same order, None where it has none: whatever is tested
            twice shares the level.
        other_joint_pvalue: Of all together, by the second figure.
    """
    others = [(index, pvalue) for index, pvalue in enumerate(other_pvalues) if pvalue is not None]
    every = [*pvalues, *(pvalue for _, pvalue in others)]
    each = holm(every)
    corrected = each[: len(pvalues)]
    for (index, _), pvalue in zip(others, each[len(pvalues) :], strict=True):
        corrected[index] = min(corrected[index], pvalue)
    smallest = min(every)
    if len(pvalues) == 1:
        return Detection(corrected[0], corrected[0], smallest, tuple(corrected))
    joint = min(1.0, 2 * min(joint_pvalue, other_joint_pvalue)) if others else joint_pvalue
    return Detection(min(1.0, 2 * min(joint, *corrected)), joint, smallest, tuple(corrected))


def single_limit(canaries: int, figures: int = 1) -> float:
    """Return the p-value below which one of so many canaries is detected, whatever the others'.

    Args:
        canaries: Their number.
        figures: How many figures of each are tested.
    """
    return LEVEL / (figures * (canaries if canaries == 1 else 2 * canaries))


def detectable_bits(canaries: int, figures: int = 1) -> float:
    """Return the smallest exposure of one of so many secrets that is detected without probes: p = 2^-exposure."""
    return -math.log2(single_limit(canaries, figures))


def detectable_mean_bits(canaries: int, figures: int = 1) -> float:
    """Return the mean exposure of all secrets that the joint test detects with a probability of 80 %.

    The exposures are taken for exponential around it, so that their sum is a gamma variable with shape n.
    """
    level = LEVEL / (figures * min(canaries, 2))
    return EXPECTED_MEAN_BITS * float(gammaincinv(canaries, 1 - level) / gammaincinv(canaries, 1 - POWER))
