import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from canaryaudit.report.charts.references import density, fitted_exposure, observed_exposure
from canaryaudit.report.schema import Distribution, FitFigures

FITS = [(0.0, 60.0, 5.0), (2.5, 40.0, 8.0), (-3.0, 200.0, 60.0), (40.0, 33.0, 4.0)]


def fit(shape, location, scale):
    return FitFigures(shape=shape, location=location, scale=scale, pvalue=0.5, converged=True, note="")


@pytest.mark.parametrize("parameters", FITS)
def test_the_density_is_that_of_scipy(parameters):
    shape, location, scale = parameters
    places, shares = zip(*density(fit(*parameters), location - 3 * scale, location + 3 * scale), strict=True)
    np.testing.assert_allclose(shares, stats.skewnorm.pdf(places, shape, location, scale), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("parameters", FITS[:3])
def test_the_fitted_exposure_is_right_far_below_where_the_distribution_function_underflows(parameters):
    shape, location, scale = parameters
    points = fitted_exposure(fit(*parameters), location - 12 * scale, location + 3 * scale, most_bits=1e9)
    with mpmath.workdps(40):
        for place, bits in points[::20]:
            z = (mpmath.mpf(place) - location) / scale
            share = mpmath.quad(
                lambda t: 2 * mpmath.npdf(t) * mpmath.ncdf(shape * t), [z - 12, z - 6, z - 3, z - 1, z - 0.25, z]
            )
            assert bits == pytest.approx(float(-mpmath.log(share, 2)), rel=0.01, abs=0.02)
    assert max(bits for _, bits in points) > 60


def test_a_fit_far_wider_than_what_is_drawn_takes_no_more_work():
    points = fitted_exposure(fit(0.0, 50.0, 1e9), 0.0, 100.0, most_bits=33)
    assert len(points) == 121
    assert [bits for _, bits in points] == pytest.approx([1.0] * 121, abs=1e-3)


def test_exposures_above_the_spaces_own_are_left_out():
    points = fitted_exposure(fit(0.0, 60.0, 5.0), 0.0, 90.0, most_bits=33.2)
    assert max(bits for _, bits in points) <= 33.2
    assert min(place for place, _ in points) > 20


@pytest.mark.parametrize("scale", [None, 0.0, -1.0])
def test_a_fit_without_a_scale_draws_nothing(scale):
    assert density(fit(0.0, 1.0, scale), 0, 1) == []
    assert fitted_exposure(fit(0.0, 1.0, scale), 0, 1, 30) == []


def test_the_observed_exposure_is_the_share_of_references_up_to_an_edge():
    distribution = Distribution(
        num_references=8,
        edges_bits=(0.0, 1.0, 2.0, 3.0),
        counts=(0, 2, 6),
        mean_bits=2.0,
        standard_deviation_bits=1.0,
        skew_normal=None,
    )
    assert observed_exposure(distribution) == [(2.0, 2.0), (3.0, 0.0)]


def test_density_integrates_to_one():
    points = np.array(density(fit(2.5, 40.0, 8.0), 0.0, 100.0))
    assert integrate.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(1, abs=1e-3)
    assert math.isfinite(points.max())
