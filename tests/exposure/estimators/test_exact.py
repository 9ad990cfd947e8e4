"""Tests of canaryaudit.exposure.estimators.exact."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators import bounded_exposure, enumerate_ranks, exact_exposure

few_levels = st.lists(st.integers(0, 5), min_size=1, max_size=30)  # so that there are ties


def rank_by_counting(members: list[int], target: int, excluded: set[int]) -> float:
    others = [row for row in range(len(members)) if row != target and row not in excluded]
    likelier = sum(members[row] < members[target] for row in others)
    return 1 + likelier + sum(members[row] == members[target] for row in others) / 2


@given(few_levels, st.sets(st.integers(0, 29)))
def test_ranks_are_those_of_counting(members: list[int], excluded: set[int]) -> None:
    excluded &= set(range(len(members)))
    targets = list(range(len(members)))
    expected = [rank_by_counting(members, row, excluded) for row in targets]
    assert enumerate_ranks(members, targets, sorted(excluded)) == expected
    assert [enumerate_ranks(members, row, sorted(excluded)) for row in targets] == expected


@given(few_levels, st.data())
def test_a_mask_says_the_same_as_row_numbers(members: list[int], data: st.DataObject) -> None:
    masks = st.lists(st.booleans(), min_size=len(members), max_size=len(members))
    targets, excluded = data.draw(masks), data.draw(masks)
    rows = [np.flatnonzero(mask).tolist() for mask in (targets, excluded)]
    assert enumerate_ranks(members, targets, excluded) == enumerate_ranks(members, *rows)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([4], "row numbers from 0 to 3, got 4"),
        ([-1], "row numbers from 0 to 3, got -1"),
        ([True, False], r"a mask of shape \(4,\), got \(2,\)"),
        (True, r"a mask of shape \(4,\), got \(1,\)"),
        ([0.0], "row numbers or a mask, got numbers with fractions"),
        ([[0]], r"got whole numbers of shape \(1, 1\)"),
        (["0"], "row numbers or a mask, got text"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: list[int], complaint: str) -> None:
    members = [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(MeasurementError, match=f"^targets: expected .*{complaint}"):
        enumerate_ranks(members, rows)
    with pytest.raises(MeasurementError, match=f"^excluded: expected .*{complaint}"):
        enumerate_ranks(members, 0, rows)


def test_a_member_that_is_no_number_is_not_ranked() -> None:
    with pytest.raises(MeasurementError, match="members: expected finite numbers in bits, got NaN at position 1"):
        enumerate_ranks([1.0, math.nan], 0)


def test_exposure_is_the_spaces_bits_less_the_ranks() -> None:
    estimate = exact_exposure(3, math.log2(1000))
    assert estimate.bits == estimate.low == estimate.high == pytest.approx(math.log2(1000 / 3))
    assert estimate.trusted
    assert exact_exposure([3.0], math.log2(1000)) == [estimate]
    assert exact_exposure(1000, math.log2(1000)).bits == 0


@pytest.mark.parametrize("rank", [0, 0.5, -1, 17, 16.01])
def test_a_rank_outside_the_space_is_refused(rank: float) -> None:
    with pytest.raises(MeasurementError, match=r"numbers from 1 to 2\^space_bits"):
        exact_exposure(rank, 4)


@pytest.mark.parametrize("rank", [math.nan, math.inf])
def test_a_rank_that_is_no_number_is_refused(rank: float) -> None:
    with pytest.raises(MeasurementError, match="ranks: expected finite numbers"):
        exact_exposure(rank, 4)


def test_bounds_become_an_interval() -> None:
    estimate = bounded_exposure(2, 8, 10)
    assert (estimate.bits, estimate.low, estimate.high, estimate.trusted) == (7, 7, 9, False)
    assert bounded_exposure(2, math.inf, 10).low == 0


@pytest.mark.parametrize(("lower", "upper"), [(0, 8), (8, 2), (math.nan, 2), (2, math.nan)])
def test_bounds_out_of_order_are_refused(lower: float, upper: float) -> None:
    with pytest.raises(MeasurementError, match="1 <= lower_rank <= upper_rank"):
        bounded_exposure(lower, upper, 10)
