"""The stored inverse: columns removed from it without a factorization, and the solver that it serves."""

import numpy as np
import pytest
from scipy.linalg import LinAlgError

from canaryaudit.errors import Inconclusive
from canaryaudit.tabular.linear import solver
from canaryaudit.tabular.linear.arrays import Rows
from canaryaudit.tabular.linear.inverse import DenseInverse, DiagonalInverse, invert, store_curvature
from canaryaudit.tabular.linear.losses import Logistic, MarginLoss, Squared, SquaredHinge
from canaryaudit.tabular.linear.objective import Objective
from canaryaudit.tabular.linear.solver import minimize


def positive(size: int, condition: float, seed: int = 0) -> np.ndarray:
    """Return a positive definite matrix."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return turn @ np.diag(np.geomspace(1, condition, size)) @ turn.T


@pytest.mark.parametrize(("condition", "kind", "accuracy"), [(1e2, np.float32, 1e-4), (1e8, np.float64, 1e-6)])
@pytest.mark.parametrize("removed", [0, 1, 5, 29])
def test_the_schur_complement_is_the_inverse_without_the_columns(
    condition: float, kind: type, accuracy: float, removed: int
) -> None:
    hessian = positive(30, condition)
    inverse = invert(hessian)
    assert inverse.matrix.dtype == kind
    gone = np.random.default_rng(1).permutation(30)[:removed]
    kept = np.ones(30, dtype=bool)
    kept[gone] = False
    vector = np.where(kept, np.random.default_rng(2).normal(size=30), 0.0)
    expected = np.zeros(30)
    expected[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], vector[kept])
    got = inverse.restricted(kept)(vector)
    assert np.linalg.norm(got - expected) <= accuracy * np.linalg.norm(expected)
    assert not got[~kept].any()


def test_products_with_tiny_and_huge_vectors_keep_their_digits() -> None:
    inverse, vector = invert(positive(10, 10.0)), np.random.default_rng(0).normal(size=10)
    apply = inverse.restricted(np.ones(10, dtype=bool))
    for size in (1e-60, 1e60):
        assert apply(size * vector) == pytest.approx(size * apply(vector), rel=1e-12)


def test_a_matrix_that_is_not_positive_definite_has_no_inverse() -> None:
    with pytest.raises(LinAlgError, match="not positive definite"):
        invert(np.diag([1.0, -1.0]))


def objective(loss: MarginLoss, rows: int = 80, columns: int = 6, penalty: float = 0.3) -> Objective:
    """Return an objective on random rows."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(rows, columns))
    signs = np.sign(matrix[:, 0] + rng.normal(size=rows))
    data = Rows.of(matrix, signs, rng.uniform(0.5, 2, rows))
    return Objective(data, loss, np.full(columns, penalty), np.ones(columns, dtype=bool))


@pytest.mark.parametrize("loss", [Logistic(), SquaredHinge(), Squared()], ids=lambda loss: loss.name)
def test_gradient_and_hessian_are_derivatives_of_the_value(loss: MarginLoss) -> None:
    """By central differences, and by products."""
    whole, rng = objective(loss), np.random.default_rng(5)
    theta, direction, step = rng.normal(size=6) / 3, rng.normal(size=6), 1e-5
    point = whole.at(theta)
    ahead, behind = whole.at(theta + step * direction), whole.at(theta - step * direction)
    assert point.gradient @ direction == pytest.approx((ahead.value - behind.value) / (2 * step), rel=1e-6)
    slope = (ahead.gradient - behind.gradient) / (2 * step)
    assert point.hessian_product(direction) == pytest.approx(slope, rel=1e-4, abs=1e-4)
    assert point.hessian() @ direction == pytest.approx(point.hessian_product(direction), rel=1e-12)
    assert np.diag(point.hessian()) == pytest.approx(point.hessian_diagonal(), rel=1e-12)


@pytest.mark.parametrize("loss", [Logistic(), SquaredHinge(), Squared()], ids=lambda loss: loss.name)
def test_a_useless_inverse_costs_time_and_never_the_result(loss: MarginLoss) -> None:
    whole = objective(loss)
    start = np.random.default_rng(0).normal(size=6) * 5
    good = minimize(whole, start, store_curvature(whole.at(np.zeros(6))), 1e-9)
    for wrong in (DiagonalInverse(np.geomspace(1e-6, 1e3, 6)), DenseInverse(np.asfortranarray(1e3 * positive(6, 1e4)))):
        found = minimize(whole, start, wrong, 1e-9)
        assert found.point.residual <= 1e-9
        assert np.abs(found.point.theta - good.point.theta).max() < 1e-8
    assert good.point.residual == pytest.approx(np.linalg.norm(whole.at(good.point.theta).gradient))


def test_each_of_the_three_ways_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = objective(Logistic())
    small = minimize(whole, np.full(6, 30.0), DiagonalInverse(np.full(6, 1.0)), 1e-9)
    assert (small.path, small.products) == ("exact Newton", 0)  # faster there than conjugate gradients
    monkeypatch.setattr(Objective, "exact_steps_pay", False)  # as on larger tables
    near = minimize(whole, np.zeros(6), store_curvature(whole.at(np.zeros(6))), 1e-9)
    assert near.path == "stored inverse"
    assert minimize(whole, near.point.theta, store_curvature(near.point), 1e-8).path == "none needed"
    far = minimize(whole, np.full(6, 30.0), DiagonalInverse(np.full(6, 1.0)), 1e-9)
    assert far.path == "conjugate gradients"
    monkeypatch.setattr(solver, "_OUTER", 1)  # as if conjugate gradients did not get there
    exact = minimize(whole, np.full(6, 30.0), DiagonalInverse(np.full(6, 1.0)), 1e-9)
    assert exact.path == "exact Newton"
    for found in (small, exact):
        assert np.abs(found.point.theta - near.point.theta).max() < 1e-8


def test_infinite_values_are_refused() -> None:
    whole = objective(Logistic())
    whole.rows.base[3, 2] = np.inf
    with pytest.raises(Inconclusive, match="not a finite number"):
        minimize(whole, np.ones(6), DiagonalInverse(np.ones(6)), 1e-6)


def test_few_columns_get_a_dense_inverse_and_many_with_few_entries_a_diagonal() -> None:
    from scipy import sparse

    small = objective(Logistic())
    assert store_curvature(small.at(np.zeros(6))).kind == "dense inverse"
    matrix = sparse.random(200, 600, density=0.01, random_state=0, format="csr")
    wide = Objective(
        Rows.of(matrix, np.where(np.arange(200) % 2, 1.0, -1.0), np.ones(200)),
        Logistic(),
        np.ones(600),
        np.ones(600, dtype=bool),
    )
    assert store_curvature(wide.at(np.zeros(600))).kind == "diagonal"
