"""Tests of canaryaudit.exposure.estimators.skew_normal."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from canaryaudit.exposure.estimators import fit_skew_normal, log2_skew_normal_cdf, skew_normal_exposure
from canaryaudit.records import SkewNormalFit


def fit(**changes: float) -> SkewNormalFit:
    return SkewNormalFit(
        **{"shape": 2.0, "location": 30.0, "scale": 2.0, "pvalue": 0.5, "converged": True} | changes  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("shape", [-20, -3, -1, 1, 3, 20])
def test_known_parameters_are_recovered(shape: float) -> None:
    rng = np.random.default_rng(11)
    found = fit_skew_normal(stats.skewnorm.rvs(shape, 30, 2, size=20_000, random_state=rng), rng, refits=1)
    assert found.converged
    assert found.shape == pytest.approx(shape, rel=0.25)
    assert found.location == pytest.approx(30, abs=0.15)
    assert found.scale == pytest.approx(2, rel=0.05)


def test_the_fit_is_at_least_as_likely_as_scipys() -> None:
    rng = np.random.default_rng(12)
    for shape in (-5, 0.5, 4):
        values = stats.skewnorm.rvs(shape, -3, 0.01, size=500, random_state=rng)
        found = fit_skew_normal(values, rng, refits=1)
        ours = stats.skewnorm.logpdf(values, found.shape, found.location, found.scale).sum()
        assert ours >= stats.skewnorm.logpdf(values, *stats.skewnorm.fit(values)).sum() - 0.01


def oracle(z: float, shape: float) -> float:
    with mpmath.workdps(40):
        places = [z - mpmath.mpf(10) ** (power / 2) for power in range(4, -12, -1)]
        value = mpmath.quad(lambda t: 2 * mpmath.npdf(t) * mpmath.ncdf(shape * t), [-mpmath.inf, *places, z])
        return float(mpmath.log(value, 2))


@pytest.mark.parametrize("shape", [-50, -5, -1, 0, 0.5, 5, 50])
def test_the_tail_agrees_with_arbitrary_precision(shape: float) -> None:
    for z in (-40.0, -20.0, -8.0, -5.0, -2.0, -1.3, -1.1, -0.9, -0.5, 0.01, 3.0):
        assert log2_skew_normal_cdf(z, shape) == pytest.approx(oracle(z, shape), rel=1e-6, abs=1e-6)


def test_the_body_agrees_with_scipy() -> None:
    for shape in (-10, -2, 0, 2, 10):
        for z in np.linspace(-1, 4, 11):
            expected = stats.skewnorm.cdf(z, shape)
            if expected > 1e-8:
                assert log2_skew_normal_cdf(z, shape) == pytest.approx(math.log2(expected), abs=1e-5)


@settings(max_examples=300, deadline=None)
@given(z=st.floats(allow_nan=False), shape=st.floats(allow_nan=False))
def test_the_logarithm_is_always_a_number_and_never_above_zero(z: float, shape: float) -> None:
    value = log2_skew_normal_cdf(z, shape)
    assert math.isfinite(value)
    assert value <= 0


@given(shape=st.floats(-60, 60), z=st.floats(-50, 10), step=st.floats(1e-3, 5))
def test_the_distribution_function_grows(shape: float, z: float, step: float) -> None:
    assert log2_skew_normal_cdf(z, shape) <= log2_skew_normal_cdf(z + step, shape) + 1e-6


@given(cost=st.floats(0, 1e9), shape=st.floats(-60, 60), scale=st.floats(1e-9, 100))
def test_exposure_stays_between_nothing_and_the_space(cost: float, shape: float, scale: float) -> None:
    estimate = skew_normal_exposure(cost, [20.0], 33.2, fit=fit(shape=shape, scale=scale))
    assert 0 <= estimate.bits <= 33.2
    assert (estimate.low, estimate.high) == (0, 33.2)


def test_scipys_underflow_does_not_become_infinite_exposure() -> None:
    """At z = -8 and shape 5 scipy's distribution function is 0, and exposure would be infinite."""
    estimate = skew_normal_exposure(30 - 16.0, [20.0], 2000.0, fit=fit(shape=5.0))
    assert estimate.bits == pytest.approx(-oracle(-8, 5), rel=1e-5)
    assert estimate.extrapolated
    assert not estimate.trusted
    assert "extrapolated" in estimate.note


def test_only_an_accepted_fit_within_the_references_is_trusted() -> None:
    assert skew_normal_exposure(30.0, [25.0], 33.2, fit=fit()).trusted
    assert not skew_normal_exposure(24.0, [25.0], 33.2, fit=fit()).trusted
    assert not skew_normal_exposure(30.0, [25.0], 33.2, fit=fit(pvalue=0.02)).trusted
    assert not skew_normal_exposure(30.0, [25.0], 33.2, fit=fit(converged=False)).trusted


def test_two_humps_are_refuted() -> None:
    rng = np.random.default_rng(13)
    values = np.r_[rng.normal(20, 1, 400), rng.normal(26, 1, 400)]
    found = fit_skew_normal(values, rng)
    assert found.pvalue < 0.05
    assert "not skew-normal" in found.note


def test_a_skew_normal_sample_is_accepted() -> None:
    rng = np.random.default_rng(14)
    assert fit_skew_normal(stats.skewnorm.rvs(3, 30, 2, size=5000, random_state=rng), rng).pvalue > 0.05


@pytest.mark.slow
def test_pvalues_are_uniform_where_the_fit_is_right() -> None:
    pvalues = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        values = stats.skewnorm.rvs(2, 30, 2, size=500, random_state=rng)
        pvalues.append(fit_skew_normal(values, rng, refits=39).pvalue)
    # Multiples of 1/40, each as likely as the others: spread evenly within their steps they are uniform.
    spread = np.array(pvalues) - np.random.default_rng(0).random(len(pvalues)) / 40
    assert stats.kstest(spread, "uniform").pvalue > 0.01
    assert np.mean(np.array(pvalues) <= 0.05) < 0.1


@pytest.mark.parametrize(
    "values", [np.full(1000, 33.2), np.full(5, 1.0), np.empty(0), np.r_[np.full(500, 1.0), np.full(500, 2.0)]]
)
def test_degenerate_references_are_reported_not_raised(values: np.ndarray) -> None:
    found = fit_skew_normal(values, np.random.default_rng(0))
    assert all(math.isfinite(value) for value in (found.shape, found.location, found.scale, found.pvalue))
    assert found.note
    assert not skew_normal_exposure(1.0, [1.0], 10.0, fit=found).trusted


def test_the_same_seed_gives_the_same_fit() -> None:
    values = np.random.default_rng(1).normal(size=2000)
    assert fit_skew_normal(values, np.random.default_rng(2)) == fit_skew_normal(values, np.random.default_rng(2))
