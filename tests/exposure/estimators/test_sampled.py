"""Tests of canaryaudit.exposure.estimators.sampled."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators import sampled_exposure


def estimate(likelier: int, count: int, space_bits: float = 30.0):  # type: ignore[no-untyped-def]
    return sampled_exposure(1.0, np.r_[np.zeros(likelier), np.full(count - likelier, 2.0)], space_bits)


@pytest.mark.parametrize(("likelier", "count"), [(1, 100), (37, 1000), (999, 1000)])
def test_the_interval_is_clopper_and_pearsons(likelier: int, count: int) -> None:
    exact = stats.binomtest(likelier, count).proportion_ci(0.95, "exact")
    found = estimate(likelier, count)
    assert found.low == pytest.approx(-math.log2(exact.high), abs=1e-5)
    assert found.high == pytest.approx(-math.log2(exact.low), abs=1e-5)


def test_no_likelier_reference_gives_a_lower_bound_only() -> None:
    found = estimate(0, 1000)
    assert found.high == 30.0
    assert found.low == pytest.approx(-math.log2(1 - 0.025 ** (1 / 1000)), abs=1e-4)
    assert not found.trusted
    assert "only the lower bound is known" in found.note


def test_all_references_likelier_leaves_no_exposure() -> None:
    found = estimate(1000, 1000)
    assert found.low == 0
    assert math.copysign(1, found.low) == 1
    assert found.bits == pytest.approx(0, abs=1e-3)


def test_ties_count_half() -> None:
    found = sampled_exposure(1.0, np.full(1000, 1.0), 30.0)
    assert found.bits == pytest.approx(1.0, abs=0.01)
    assert found.low < 1 < found.high


def test_the_figure_is_trusted_from_ten_likelier_references() -> None:
    assert not estimate(9, 1000).trusted
    assert estimate(10, 1000).trusted


def test_the_first_of_a_small_space_has_all_the_exposure_there_is() -> None:
    """Of |R| = 4 members the first has rank 1: a share of 1/4, however many references are drawn."""
    assert estimate(0, 10**5, space_bits=2.0).low == pytest.approx(2.0, abs=1e-3)


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1, 5000))
def test_figures_stay_between_nothing_and_the_space(counts: tuple[int, int], space_bits: float) -> None:
    found = estimate(*counts, space_bits=space_bits)
    assert 0 <= found.low <= found.bits <= found.high <= space_bits


def test_one_reference_is_too_few() -> None:
    with pytest.raises(MeasurementError, match="at least 2 references"):
        sampled_exposure(1.0, np.ones(1), 8.0)
