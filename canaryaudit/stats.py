"""The distribution of exposures of secrets that a model never saw.

They are exponential with mean 1/ln 2 (Jagielski 2023, *A note on interpreting canary exposure*). The sum of n of them
has a gamma distribution with shape n. In a finite space, exposures are stochastically no larger.
"""

import math
from collections.abc import Sequence

from scipy.special import gammainc, gammaincc

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
