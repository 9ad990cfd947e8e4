"""Exact exposure: from the rank among all members, or from certified bounds on it."""

import math
from collections.abc import Sequence

import numpy as np

from canaryaudit.records import Estimate


def enumerate_ranks(
    log_perplexity_bits: np.ndarray, target_rows: Sequence[int], excluded_rows: Sequence[int]
) -> list[float]:
    """Rank targets among all members of a space whose costs are known: 1 + likelier ones, ties count half.

    Args:
        log_perplexity_bits: Log-perplexity of every member, shape (size,).
        target_rows: Rows of the members to rank.
        excluded_rows: Rows that are nobody's reference: the inserted canaries.
    """
    kept = np.ones(len(log_perplexity_bits), dtype=bool)
    kept[list(excluded_rows)] = False
    ordered = np.sort(log_perplexity_bits[kept])
    ranks = []
    for row in target_rows:
        cost = log_perplexity_bits[row]
        below, up_to = np.searchsorted(ordered, cost, "left"), np.searchsorted(ordered, cost, "right")
        ties = up_to - below - int(kept[row])  # a target that is itself a reference does not tie with itself
        ranks.append(1 + float(below) + 0.5 * float(ties))
    return ranks


def exact_estimate(space_bits: float, rank: float) -> Estimate:
    """Return the exposure of a known rank."""
    exposure = min(max(space_bits - math.log2(rank), 0.0), space_bits)
    return Estimate(bits=exposure, low=exposure, high=exposure, trusted=True)


def bounded_estimate(space_bits: float, lower_rank: float, upper_rank: float) -> Estimate:
    """Return certified bounds on exposure, from bounds on the rank."""
    low = min(max(space_bits - math.log2(upper_rank), 0.0), space_bits)
    high = min(max(space_bits - math.log2(lower_rank), 0.0), space_bits)
    return Estimate(
        bits=low, low=low, high=high, trusted=False, note="search budget spent: certified bounds, not a figure"
    )
