"""What is less work, an update or a fit from nothing: by counts, so the same on every machine."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from canaryaudit.tabular import Request, prepare
from canaryaudit.tabular.linear.inverse import DenseInverse, invert
from canaryaudit.tabular.linear.solver import minimize
from canaryaudit.tabular.linear.threads import MOST_ALONE, few_threads, linear_algebra
from canaryaudit.tabular.linear.work import ColdFit, better_start, estimate
from tests.tabular.datasets import BUNDLED


def model(**options: object):
    table = BUNDLED["breast cancer"]()
    return prepare(LogisticRegression(fit_intercept=False, **options), table.train, table.train_labels), table


def test_a_small_request_is_an_update_and_most_labels_flipped_a_fit_from_nothing() -> None:
    prepared, table = model(C=100.0)
    small = prepared.apply(Request(rows=[3]))
    assert small.solved.path == "stored inverse"
    assert small.estimate is not None
    assert small.estimate.update < small.estimate.retraining
    flipped = prepared.apply(Request(labels=dict(enumerate((1 - table.train_labels).tolist()))))
    assert flipped.estimate is not None
    assert flipped.estimate.retrain
    assert flipped.solved.path == "fit from nothing"
    assert flipped.residual <= 1e-6
    np.testing.assert_allclose(flipped.solved.point.theta, -prepared.solved.point.theta, atol=1e-5)


@pytest.mark.parametrize("estimator", [LogisticRegression(fit_intercept=False), LinearSVC(fit_intercept=False)])
def test_coefficients_of_the_wrong_size_are_scaled_to_the_right_one(estimator: object) -> None:
    table = BUNDLED["breast cancer"]()
    prepared = prepare(estimator, table.train, table.train_labels)
    point = prepared.solved.point
    assert better_start(point) is point  # a minimizer has the right size
    grown = better_start(point.objective.at(1.6 * point.theta))
    np.testing.assert_allclose(grown.theta, point.theta, rtol=0.02)
    np.testing.assert_allclose(grown.scores, point.objective.at(grown.theta).scores, atol=1e-12)
    wrong = np.random.default_rng(0).choice(len(table.train_labels), 120, replace=False)
    request = Request(labels={int(row): int(1 - table.train_labels[row]) for row in wrong})
    update, retrained = prepared.apply(request), prepared.apply(request, retrain=True)
    np.testing.assert_allclose(update.solved.point.theta, retrained.solved.point.theta, atol=1e-5)


def test_both_ways_end_at_the_same_model() -> None:
    prepared, _ = model()
    request = Request(columns=[0, 4], rows=list(range(30)))
    update, retrained = prepared.apply(request), prepared.apply(request, retrain=True)
    assert (update.solved.path, retrained.solved.path) == ("stored inverse", "fit from nothing")
    np.testing.assert_allclose(update.solved.point.theta, retrained.solved.point.theta, atol=1e-6)
    assert update.estimate == retrained.estimate


def test_the_estimate_grows_with_the_residual_and_depends_on_nothing_else() -> None:
    prepared, _ = model()
    point, cold = prepared.solved.point, ColdFit(1e9, 9.0)
    near, far = (point.objective.at(point.theta * factor) for factor in (1 + 1e-9, 1.01))
    first, second = (estimate(own, prepared.curvature, cold, 1e-6) for own in (near, far))
    assert first.update < second.update < second.retraining == 1e9
    assert estimate(far, prepared.curvature, cold, 1e-6) == second


def test_a_small_table_without_its_most_telling_columns_is_fitted_from_nothing() -> None:
    table = BUNDLED["breast cancer"]()
    prepared = prepare(LogisticRegression(C=100.0), table.train, table.train_labels)
    large = np.argsort(-np.abs(prepared.estimator.coef_[0]))[:20]
    after = prepared.apply(Request(columns=large.tolist()))
    assert after.solved.path == "fit from nothing"
    assert after.residual <= 1e-6
    point, theta = after.solved.point, np.where(after.solved.point.objective.kept, prepared.solved.point.theta, 0.0)
    update = minimize(point.objective, theta, prepared.curvature, 1e-6)
    assert len(update.steps) >= len(after.solved.steps)
    np.testing.assert_allclose(point.theta, update.point.theta, atol=1e-5)


def test_one_thread_multiplies_what_is_small_and_no_more() -> None:
    threads = lambda: {library["num_threads"] for library in linear_algebra().info()}  # noqa: E731
    with linear_algebra().limit(limits=2):
        before = threads()
        with few_threads(1000, 10):
            assert threads() == {1}
        assert threads() == before
        with few_threads(MOST_ALONE + 1, 10):
            assert threads() == before
        with few_threads(1000, 1025):
            assert threads() == before


@pytest.mark.parametrize("count", [1, 20, 45])
def test_the_complement_written_out_is_that_of_its_factors(count: int) -> None:
    rng = np.random.default_rng(count)
    factor = rng.normal(size=(50, 80))
    hessian = factor @ factor.T + np.eye(50)
    kept = np.ones(50, dtype=bool)
    kept[rng.choice(50, count, replace=False)] = False
    inverse = DenseInverse(np.asfortranarray(np.linalg.inv(hessian)))
    assert isinstance(invert(hessian), DenseInverse)
    product = inverse.restricted(kept)
    vector = np.where(kept, rng.normal(size=50), 0.0)
    expected = np.zeros(50)
    expected[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], vector[kept])
    for _ in range(400):  # by its factors at first, written out in the end
        np.testing.assert_allclose(product(vector), expected, atol=1e-9)
    assert product.waiting < 0


def test_sparse_rows_give_the_same_sums_after_they_were_replaced() -> None:
    from canaryaudit.tabular.linear.arrays import Rows

    matrix = sparse.random(30, 5, 0.4, format="csr", random_state=0)
    rows = Rows.of(matrix, np.ones(30), np.ones(30))
    values = np.arange(30.0)
    first = rows.transposed(values)
    changed = rows.replaced(np.array([2, 7]), matrix[[0, 1]] * 3)
    np.testing.assert_allclose(first, matrix.toarray().T @ values)
    np.testing.assert_allclose(rows.transposed(values), first)
    whole = np.concatenate((values, [1.0, 2.0]))
    expected = matrix.toarray().T @ values + 3 * matrix.toarray()[:2].T @ np.array([1.0, 2.0])
    np.testing.assert_allclose(changed.transposed(whole), expected)
