"""What chance does: the exposures of secrets that a model never saw.

They are exponential with mean 1/ln 2 (Jagielski 2023, *A note on interpreting canary exposure*), so that the sum of
n of them follows a gamma law of shape n. In a finite space an exposure is at most as large as that law has it.
"""

import math
from collections.abc import Sequence

from scipy.special import gammainc, gammaincc

EXPECTED_MEAN_BITS = 1 / math.log(2)
"""Of the exposure of a secret that the model never saw."""


def exposure_sum_pvalue(bits: Sequence[float]) -> float:
    """Return the probability that exposures of as many secrets never seen add up to as much, or more.

    Args:
        bits: Exposures, at least one.
    """
    return float(gammaincc(len(bits), math.fsum(bits) / EXPECTED_MEAN_BITS))


def exposure_sum_lower_pvalue(bits: Sequence[float], space_bits: Sequence[float]) -> float:
    """Return the probability that exposures of as many secrets never seen add up to as little: the law's lower tail.

    A space is finite: the last of N members has 0 bits once in N times, not never. So each exposure is taken as that
    of the rank before its own, which is exact for one secret and cautious for several.

    Args:
        bits: Exposures, or the upper ends of their intervals.
        space_bits: log2 of the size of each one's space, in the same order.
    """
    before = [2**-own - 2**-space for own, space in zip(bits, space_bits, strict=True)]
    total = math.fsum(-math.log2(share) if share > 0 else math.inf for share in before)
    return float(gammainc(len(bits), total / EXPECTED_MEAN_BITS))
