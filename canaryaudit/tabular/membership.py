"""Can deleted rows be told from rows that were never seen? By their loss, as membership inference does."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular.linear.arrays import Vector


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve with its 95 % interval.

    Attributes:
        value: The probability that a member's loss is smaller than another row's, ties half.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def membership_auc(members: Vector, others: Vector) -> Auc:
    """Return how well a small loss tells members from others: 0.5 if not at all.

    The interval is that of DeLong, DeLong & Clarke-Pearson 1988, on the logit scale.

    Args:
        members: Losses, shape (num_members,), at least two.
        others: Losses of rows that were never seen, shape (num_others,), at least two.

    Raises:
        UnlearningError: There are too few of either.
    """
    count, rest = len(members), len(others)
    if min(count, rest) < 2:
        raise UnlearningError(f"a membership test needs two rows of each kind, got {count:,} and {rest:,}")
    # Larger is a member.
    together = rankdata(np.concatenate((-members, -others)))
    first = (together[:count] - rankdata(-members)) / rest
    second = 1.0 - (together[count:] - rankdata(-others)) / count
    value = float(first.mean())
    variance = float(np.var(first, ddof=1) / count + np.var(second, ddof=1) / rest)
    if not 0 < value < 1 or variance == 0:
        return Auc(value, value, value)
    logit, spread = math.log(value / (1 - value)), math.sqrt(variance) / (value * (1 - value))
    ends = [1 / (1 + math.exp(-(logit + sign * float(norm.ppf(0.975)) * spread))) for sign in (-1, 1)]
    return Auc(value, ends[0], ends[1])
