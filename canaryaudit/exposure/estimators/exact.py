"""Exact exposure: from the rank among all members, or from certified bounds on it."""

import math
from typing import overload

import numpy as np

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import (
    Rows,
    Values,
    estimate_each,
    is_one_value,
    read_references,
    read_rows,
    read_space_bits,
)
from canaryaudit.records import Estimate

_ROUNDING = 1e-9
"""By how many bits a rank may be beyond the space: what float makes of log2."""


@overload
def enumerate_ranks(members: Values, targets: int, excluded: Rows = ()) -> float: ...
@overload
def enumerate_ranks(members: Values, targets: Rows, excluded: Rows = ()) -> list[float]: ...
def enumerate_ranks(members: Values, targets: int | Rows, excluded: Rows = ()) -> float | list[float]:
    """Rank targets among all members of a space.

    rank(s) = 1 + #{r in R: Px(r) < Px(s)} + #{other r in R: Px(r) = Px(s)} / 2   (Carlini et al. 2019, section 4.2;
    there ties do not occur). Excluded members are not counted: an inserted canary is no reference for another.

    Args:
        members: Log-perplexity of every member of R, in bits, shape (size,).
        targets: Row of the member to rank, or several rows, or a mask of shape (size,).
        excluded: Rows that are no references, such as the inserted canaries, or a mask of shape (size,).

    Returns:
        The rank of one target, from 1; a list of ranks for several.

    Raises:
        MeasurementError: A log-perplexity is no finite number, or a row is none of ``members``.

    Examples:
        >>> members = [7.0, 3.0, 9.0, 3.0]
        >>> enumerate_ranks(members, 0)
        3.0
        >>> enumerate_ranks(members, [0, 1], excluded=[3])
        [2.0, 1.0]
    """
    costs = read_references(members, "members")
    kept = np.ones(len(costs), dtype=bool)
    kept[read_rows(excluded, len(costs), "excluded")] = False
    rows = read_rows(targets, len(costs), "targets")
    ordered = np.sort(costs[kept])
    below, up_to = np.searchsorted(ordered, costs[rows], "left"), np.searchsorted(ordered, costs[rows], "right")
    ties = up_to - below - kept[rows]  # a target that is itself a reference does not tie with itself
    ranks: list[float] = (1 + below + 0.5 * ties).tolist()
    return ranks[0] if is_one_value(targets) else ranks


@overload
def exact_exposure(ranks: float, space_bits: float) -> Estimate: ...
@overload
def exact_exposure(ranks: Values, space_bits: float) -> list[Estimate]: ...
def exact_exposure(ranks: float | Values, space_bits: float) -> Estimate | list[Estimate]:
    """Turn known ranks into exposures.

    exposure(s) = log2 |R| - log2 rank(s)   (Carlini et al. 2019, section 4.2).

    Args:
        ranks: One rank or several, shape (n,), from 1 to the space's size; see ``enumerate_ranks``.
        space_bits: log2 of the size of R.

    Returns:
        An ``Estimate`` for one rank, a list of them for several; the interval has no width.

    Raises:
        MeasurementError: A rank is below 1 or beyond the space, or no finite number; ``space_bits`` is below 1.

    Examples:
        >>> exact_exposure(1, space_bits=20).bits
        20.0
        >>> [estimate.bits for estimate in exact_exposure([2, 1024], space_bits=20)]
        [19.0, 10.0]
    """
    space = read_space_bits(space_bits)

    def estimate(rank: float) -> Estimate:
        exposure = _exposure(rank, space)
        return Estimate(bits=exposure, low=exposure, high=exposure, trusted=True)

    result: Estimate | list[Estimate] = estimate_each(ranks, estimate, "ranks")
    return result


def bounded_exposure(lower_rank: float, upper_rank: float, space_bits: float) -> Estimate:
    """Turn certified bounds on a rank, of a search that was not finished, into bounds on the exposure.

    log2 |R| - log2 upper <= exposure(s) <= log2 |R| - log2 lower.

    Args:
        lower_rank: The rank is at least this; 1 or more.
        upper_rank: The rank is at most this; may be infinite.
        space_bits: log2 of the size of R.

    Returns:
        The bounds as an interval; ``bits`` is its lower end, and it is not trusted as a figure.

    Raises:
        MeasurementError: The bounds are not in order, or below 1; ``space_bits`` is below 1.

    Examples:
        >>> estimate = bounded_exposure(4, 64, space_bits=20)
        >>> estimate.low, estimate.high, estimate.trusted
        (14.0, 18.0, False)
    """
    space = read_space_bits(space_bits)
    if not 1 <= lower_rank <= upper_rank:  # also where one is NaN
        raise MeasurementError(
            f"expected bounds with 1 <= lower_rank <= upper_rank, got {lower_rank} and {upper_rank}: check their order"
        )
    low, high = (min(max(space - math.log2(rank), 0.0), space) for rank in (upper_rank, lower_rank))
    return Estimate(
        bits=low, low=low, high=high, trusted=False, note="search budget spent: certified bounds, not a figure"
    )


def _exposure(rank: float, space_bits: float) -> float:
    if rank < 1 or math.log2(rank) > space_bits + _ROUNDING:
        raise MeasurementError(
            f"ranks: expected numbers from 1 to 2^space_bits, got {rank:g} in a space of {space_bits:g} bits: "
            "give log2 of the number of all members"
        )
    return min(max(space_bits - math.log2(rank), 0.0), space_bits)
