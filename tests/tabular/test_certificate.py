"""The certificate holds: the distance it rests on, the noise, and what an attacker can make of both."""

import math
from functools import cache

import mpmath
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular import PreparedModel, gaussian_kappa, prepare
from canaryaudit.tabular.certificate import gaussian_delta, on_grid, published_sigma
from canaryaudit.tabular.linear.objective import Point
from tests.tabular.datasets import BUNDLED, Table
from tests.tabular.oracle import KINDS, LOSSES, gradient, naive, random_request, retrained
from tests.tabular.test_updates import ESTIMATORS, prepared

EPSILON, DELTA = 0.5, 0.05


@cache
def table() -> Table:
    return BUNDLED["wine"]()


def model(tolerance: float = 1e-6) -> PreparedModel:
    return prepare(ESTIMATORS["logistic"], table().train, table().train_labels, tolerance=tolerance)


def exact_delta(epsilon: float, kappa: float) -> float:
    """Balle & Wang's delta in 50 digits."""
    with mpmath.workdps(50):
        shift, slant = mpmath.mpf(1) / (2 * mpmath.mpf(kappa)), mpmath.mpf(epsilon) * mpmath.mpf(kappa)
        return float(mpmath.ncdf(shift - slant) - mpmath.exp(epsilon) * mpmath.ncdf(-shift - slant))


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 8.0])
@pytest.mark.parametrize("delta", [0.3, 1e-2, 1e-5, 1e-9])
def test_kappa_is_the_smallest_noise_that_does(epsilon: float, delta: float) -> None:
    kappa = gaussian_kappa(epsilon, delta)
    assert exact_delta(epsilon, kappa) <= delta * (1 + 1e-6)
    assert exact_delta(epsilon, 0.999 * kappa) > delta


@pytest.mark.parametrize(("epsilon", "delta", "kappa"), [(0.1, 0.01, 9.54), (1, 0.01, 1.88), (0.1, 1e-5, 30.8)])
def test_kappa_has_the_values_of_the_literature(epsilon: float, delta: float, kappa: float) -> None:
    assert gaussian_kappa(epsilon, delta) == pytest.approx(kappa, rel=2e-3)
    classic = math.sqrt(2 * math.log(1.25 / delta)) / epsilon
    assert gaussian_kappa(epsilon, delta) < classic


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("requests", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_random_request_lies_farther_from_retraining_than_its_residual_allows(loss: str, requests: int) -> None:
    """Coarse tolerances too: the bound must hold where it is not tiny."""
    data, rng = BUNDLED["iris"](), np.random.default_rng(4)
    ratios = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        start = prepare(ESTIMATORS[loss], data.train, data.train_labels, tolerance=tolerance)
        for index in range(requests):
            request = random_request(KINDS[index % len(KINDS)], data, rng, share=0.3)
            updated, task = start.apply(request), naive(data, request)
            other = retrained(loss, task, 1.0)
            distance = np.linalg.norm(updated.estimator.coef_.ravel()[task.kept] - other)
            left = np.linalg.norm(gradient(loss, task, other, 1.0))
            assert updated.residual <= tolerance
            assert distance <= updated.residual + left + 1e-12
            ratios.append(distance / tolerance)
    assert max(ratios) > 1e-3  # it is not the case that everything is exact, and nothing was tried


def test_the_noise_is_what_the_certificate_says() -> None:
    updated = model().delete([3])
    certificate = updated.certificate(EPSILON, DELTA)
    assert certificate.distance == 2 * 1e-6 / 1.0
    assert certificate.sigma == pytest.approx(gaussian_kappa(EPSILON, DELTA) * 2e-6)
    drawn = np.array([model().delete([3]).publish(EPSILON, DELTA, seed=seed).coef_.ravel() for seed in range(60)])
    noise = (drawn - updated.estimator.coef_.ravel()) / certificate.sigma
    assert abs(noise.std() - 1) < 0.1
    assert abs(noise.mean()) < 0.15


def test_removed_columns_are_published_as_zero_and_others_are_not() -> None:
    published = model().forget([0, 4]).publish(EPSILON, DELTA)
    zero = np.flatnonzero(published.coef_.ravel() == 0)
    assert zero.tolist() == [0, 4]


def test_without_a_seed_every_publication_has_other_noise() -> None:
    updated = model()
    first, second = (updated.publish(EPSILON, DELTA, releases=2).coef_ for _ in range(2))
    assert not np.array_equal(first, second)


def test_releases_compose_and_are_counted() -> None:
    updated = model().delete([1])
    once, nine = updated.certificate(EPSILON, DELTA), updated.certificate(EPSILON, DELTA, releases=9)
    assert nine.sigma == pytest.approx(3 * once.sigma)
    updated.publish(EPSILON, DELTA, releases=2)
    updated.delete([2]).publish(EPSILON, DELTA, releases=2)
    with pytest.raises(UnlearningError, match="all 2 planned releases were made"):
        updated.publish(EPSILON, DELTA, releases=2)
    with pytest.raises(UnlearningError, match="2 releases at epsilon 0.5 and delta 0.05 were planned"):
        updated.publish(2 * EPSILON, DELTA, releases=9)


def test_several_releases_are_one_with_more_noise() -> None:
    """The sum of k draws with sqrt(k) times the noise tells no more of a shift than one draw: exactly the same."""
    for releases in (2, 7):
        kappa = gaussian_kappa(EPSILON, DELTA) * math.sqrt(releases)
        # k draws at distance 1 are one draw at distance sqrt(k), in the direction of the shift
        assert gaussian_delta(EPSILON, kappa / math.sqrt(releases)) <= DELTA


def distinguish(draws: np.ndarray, others: np.ndarray, sigma: float, epsilon: float) -> float:
    """Return by how much the best test between two centers exceeds e^epsilon: a lower bound on delta."""
    center, other = draws.mean(0), others.mean(0)
    direction = (center - other) / max(np.linalg.norm(center - other), 1e-300)
    first, second = draws @ direction, others @ direction
    thresholds = np.linspace(second.min(), first.max(), 400)
    exceed = [(first > t).mean() - math.exp(epsilon) * (second > t).mean() for t in thresholds]
    return float(max(exceed))


def test_the_best_distinguisher_stays_under_epsilon_and_delta() -> None:
    """An adversary that knows both centers and draws as often as it likes."""
    draws, tolerance = 40_000, 1e-2
    updated = model(tolerance).delete([5, 6, 7])
    certificate = updated.certificate(EPSILON, DELTA)
    # The worst pair that the certificate allows: centers at its full distance.
    rng, columns = np.random.default_rng(0), updated.estimator.coef_.size
    apart = np.zeros(columns)
    apart[0] = certificate.distance
    theta = updated.estimator.coef_.ravel()
    first = on_grid(theta + apart + rng.normal(0, certificate.sigma, (draws, columns)), certificate.sigma)
    second = on_grid(theta + rng.normal(0, certificate.sigma, (draws, columns)), certificate.sigma)
    slack = 3 * math.sqrt(0.25 / draws) * (1 + math.exp(EPSILON))
    reached = distinguish(first, second, certificate.sigma, EPSILON)
    assert reached <= DELTA + slack
    assert reached >= DELTA - slack  # the noise is not larger than it must be
    weaker = theta + apart + rng.normal(0, 0.5 * certificate.sigma, (draws, columns))
    beside = theta + rng.normal(0, 0.5 * certificate.sigma, (draws, columns))
    assert distinguish(weaker, beside, certificate.sigma, EPSILON) > DELTA + slack  # half of it is too little


def hide(point: Point, bit: int, tolerance: float) -> np.ndarray:
    """An unlearner that hides one bit of the deleted point in the coefficients' low-order digits.

    It rounds every coefficient to an even or an odd multiple of a grid, so fine that the residual stays under the
    tolerance.
    """
    largest = np.linalg.norm(point.hessian(), 2)
    width = tolerance / (4 * largest * math.sqrt(len(point.theta)))
    return (2 * np.round(point.theta / (2 * width)) + bit) * width


def read(theta: np.ndarray, point: Point, tolerance: float) -> int:
    """Read the bit again."""
    largest = np.linalg.norm(point.hessian(), 2)
    width = tolerance / (4 * largest * math.sqrt(len(point.theta)))
    return int(np.round(np.median(np.mod(np.round(theta / width), 2))))


def test_a_point_hidden_in_low_order_digits_survives_the_published_scheme_and_not_this_one() -> None:
    tolerance, hits = 1e-3, {"published": 0, "ours": 0}
    updated = model(tolerance).delete([8])
    point, rng = updated.solved.point, np.random.default_rng(2)
    certificate = updated.certificate(EPSILON, DELTA)
    trials = 400
    for trial in range(trials):
        bit = trial % 2
        hidden = hide(point, bit, tolerance)
        checked = point.objective.at(hidden)
        assert checked.residual <= tolerance  # nothing that a check of the residual could see
        # The published scheme asks for noise in the objective and for this residual, and gives out the coefficients.
        hits["published"] += read(hidden, point, tolerance) == bit
        published = on_grid(hidden + rng.normal(0, certificate.sigma, hidden.shape), certificate.sigma)
        hits["ours"] += read(published, point, tolerance) == bit
    assert hits["published"] == trials
    # Guessing right with probability q and wrong with 1 - q: q <= e^epsilon (1 - q) + delta.
    limit = (math.exp(EPSILON) + DELTA) / (1 + math.exp(EPSILON))
    assert hits["ours"] / trials <= limit
    assert hits["ours"] / trials == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / trials))


def test_a_residual_above_the_tolerance_is_refused_whatever_hides_in_it() -> None:
    updated = model()
    moved = updated.solved.point.objective.at(updated.solved.point.theta + 1e-5)
    changed = type(updated)(updated._fixed, type(updated.solved)(moved, (), "none needed", 0, 0))
    with pytest.raises(UnlearningError, match="no certificate: the residual of"):
        changed.certificate(EPSILON, DELTA)


def test_published_digits_end_where_the_noise_hides_them() -> None:
    sigma = 1e-5
    values = on_grid(np.random.default_rng(0).normal(size=1000), sigma)
    width = 2.0 ** (math.floor(math.log2(sigma)) - 16)
    assert np.array_equal(values / width, np.round(values / width))
    assert width < sigma / 2**16 * 1.01


def test_an_intercept_without_a_penalty_is_not_certified() -> None:
    data = table()
    free = prepare(LogisticRegression(), data.train, data.train_labels)
    with pytest.raises(UnlearningError, match="intercept is not regularized.*penalize_intercept=True"):
        free.certificate(EPSILON, DELTA)
    bound = prepare(LogisticRegression(), data.train, data.train_labels, penalize_intercept=True)
    assert bound.certificate(EPSILON, DELTA).strong_convexity == 1.0
    assert bound.publish(EPSILON, DELTA).intercept_[0] != bound.estimator.intercept_[0]


@pytest.mark.parametrize(
    ("epsilon", "delta", "releases", "message"),
    [(0, 0.1, 1, "epsilon"), (1, 0, 1, "delta"), (1, 1, 1, "delta"), (math.inf, 0.1, 1, "epsilon"), (1, 0.1, 0, "rel")],
)
def test_impossible_guarantees_are_refused(epsilon: float, delta: float, releases: int, message: str) -> None:
    with pytest.raises(UnlearningError, match=message):
        model().certificate(epsilon, delta, releases=releases)


def test_rounding_of_large_values_is_counted() -> None:
    """Values of a million leave a residual that float64 cannot vouch for."""
    data = BUNDLED["breast cancer"]()
    scaled = prepare(ESTIMATORS["logistic"], data.train * 1e6, data.train_labels, tolerance=1e-4)
    with pytest.raises(UnlearningError, match="which may be off by .*, is above the tolerance"):
        scaled.certificate(EPSILON, DELTA)


@pytest.mark.parametrize("name", ["digits", "wine"])
def test_the_rounding_bound_lies_above_the_rounding(name: str) -> None:
    """Against the gradient in 50 digits."""
    point = prepared(name, "logistic").solved.point
    rows = point.objective.rows
    dense = rows.base.toarray() if hasattr(rows.base, "toarray") else rows.base
    dense, signs = dense[:40], rows.signs[:40]
    part = point.objective.__class__(
        type(rows).of(rows.base[:40], signs, np.ones(40)),
        point.objective.loss,
        point.objective.penalty,
        point.objective.kept,
    ).at(point.theta)
    with mpmath.workdps(40):
        theta = [mpmath.mpf(value) for value in point.theta.tolist()]
        exact = [mpmath.mpf(value) for value in point.theta.tolist()]
        for row, sign in zip(dense.tolist(), signs.tolist(), strict=True):
            margin = sign * mpmath.fsum(mpmath.mpf(v) * t for v, t in zip(row, theta, strict=True))
            slope = -sign / (1 + mpmath.exp(margin))
            exact = [own + slope * mpmath.mpf(value) for own, value in zip(exact, row, strict=True)]
        off = mpmath.sqrt(
            mpmath.fsum((mpmath.mpf(a) - b) ** 2 for a, b in zip(part.gradient.tolist(), exact, strict=True))
        )
    assert 0 < float(off) <= part.rounding_bound()
    assert part.rounding_bound() < 1e-10


def test_the_published_noise_grows_with_the_residual() -> None:
    assert published_sigma(2.24, 0.1, 0.01) == pytest.approx(71, rel=0.01)  # as in the published notebook
