"""Multinomial models against dense derivatives written here anew, and against scikit-learn on the changed data."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.svm import LinearSVC

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular import Replacement, Request, prepare
from canaryaudit.tabular.linear.arrays import Rows
from canaryaudit.tabular.linear.softmax import Multinomial, MultinomialObjective

CLASSES, COLUMNS, ROWS = 3, 4, 25


def objective(kind: str, penalty: float = 0.3, dtype: Any = np.float64) -> tuple[MultinomialObjective, Any, np.ndarray]:
    """Return an objective after a replacement and a deletion, with its present rows as a plain array, and labels."""
    rng = np.random.default_rng(3)
    matrix, labels = rng.normal(size=(ROWS, COLUMNS)).astype(dtype), rng.integers(0, CLASSES, ROWS).astype(float)
    rows = Rows.of(sparse.csr_matrix(matrix) if kind == "sparse" else matrix, labels, np.ones(ROWS))
    new = np.ones((1, COLUMNS))
    rows = rows.replaced(np.array([2]), sparse.csr_matrix(new) if kind == "sparse" else new).deleted(np.array([7]))
    matrix[2] = 1.0
    size = CLASSES * COLUMNS
    made = MultinomialObjective(rows, Multinomial(), np.full(size, penalty), np.ones(size, dtype=bool))
    return made, np.delete(matrix, 7, axis=0), np.delete(labels, 7)


def plain_value(theta: np.ndarray, matrix: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    scores = matrix @ theta.reshape(CLASSES, COLUMNS).T
    pairs = zip(scores, labels.astype(int), strict=True)
    return float(sum(np.log(np.exp(row - row[label]).sum()) for row, label in pairs) + penalty / 2 * theta @ theta)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_derivatives_are_those_of_the_value(kind: str) -> None:
    made, matrix, labels = objective(kind)
    theta = np.random.default_rng(0).normal(size=CLASSES * COLUMNS)
    point, step = made.at(theta), 1e-5
    assert point.value == pytest.approx(plain_value(theta, matrix, labels, 0.3), rel=1e-12)
    axes = np.eye(len(theta)) * step
    slope = [
        (plain_value(theta + own, matrix, labels, 0.3) - plain_value(theta - own, matrix, labels, 0.3)) / (2 * step)
        for own in axes
    ]
    np.testing.assert_allclose(point.gradient, slope, atol=1e-7)
    dense = np.array([(made.at(theta + own).gradient - made.at(theta - own).gradient) / (2 * step) for own in axes])
    np.testing.assert_allclose(point.hessian(), dense, atol=1e-7)
    np.testing.assert_allclose(point.hessian_diagonal(), np.diag(dense), atol=1e-7)
    vector = np.random.default_rng(1).normal(size=len(theta))
    np.testing.assert_allclose(point.hessian_product(vector), dense @ vector, atol=1e-6)
    halfway = point.between(made.at(np.zeros(len(theta))), 0.5)
    assert halfway.value == pytest.approx(made.at(theta / 2).value, rel=1e-12)


def test_without_a_penalty_on_intercepts_the_hessian_can_be_factorized_and_steps_are_the_same() -> None:
    made, _, _ = objective("dense")
    penalty = made.penalty.copy()
    penalty[COLUMNS - 1 :: COLUMNS] = 0.0
    point = MultinomialObjective(made.rows, made.loss, penalty, made.kept).at(np.linspace(-1, 1, len(penalty)))
    hessian = point.hessian()
    assert np.linalg.eigvalsh(hessian)[0] > 0.1
    # The rows' last column is no constant here, so moving every class's last coefficient alike does change nothing.
    step = np.linalg.solve(hessian, point.gradient)
    np.testing.assert_allclose(point.hessian_product(step), point.gradient, atol=1e-10)


def test_the_rounding_bound_lies_above_the_rounding() -> None:
    made, matrix, labels = objective("dense")
    theta = 30 * np.random.default_rng(2).normal(size=CLASSES * COLUMNS)
    wide = matrix.astype(np.longdouble)
    scores = wide @ theta.astype(np.longdouble).reshape(CLASSES, COLUMNS).T
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels.astype(int)] -= 1
    exact = (shares.T @ wide).ravel() + np.longdouble(0.3) * theta
    point = made.at(theta)
    off = float(np.linalg.norm((point.gradient - exact).astype(float)))
    assert 0 < off < point.rounding_bound() < 1e4 * off


@pytest.fixture(scope="module")
def digits() -> tuple[Any, np.ndarray]:
    matrix, labels = (own[:700] for own in load_digits(return_X_y=True))
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.array([f"digit {own}" for own in labels])


REQUEST = Request(
    columns=[10, 20, 33],
    rows=[3, 7, 500],
    labels={0: "digit 1", 5: "digit 2"},
    replacements=(Replacement([12], 0.2, [40, 41]),),
)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_request_ends_where_scikit_learn_does(digits: tuple[Any, np.ndarray], kind: str, intercept: bool) -> None:
    matrix, labels = digits
    given = LogisticRegression(fit_intercept=intercept, max_iter=2000).fit(matrix, labels)
    model = prepare(given, sparse.csr_matrix(matrix) if kind == "sparse" else matrix, labels)
    updated = model.apply(REQUEST)
    assert updated.solved.path == "stored inverse"
    assert updated.residual <= 1e-6
    changed, names = matrix.copy(), labels.copy()
    changed[[40, 41], 12] = 0.2
    names[0], names[5] = "digit 1", "digit 2"
    kept = np.setdiff1d(np.arange(len(labels)), [3, 7, 500])
    changed = np.delete(changed[kept], [10, 20, 33], axis=1)
    other = LogisticRegression(fit_intercept=intercept, solver="newton-cg", tol=1e-9, max_iter=1000)
    other.fit(changed, names[kept])
    own = updated.estimator
    np.testing.assert_allclose(np.delete(own.coef_, [10, 20, 33], axis=1), other.coef_, atol=1e-6)
    np.testing.assert_allclose(own.intercept_, other.intercept_, atol=1e-6)
    assert not own.coef_[:, [10, 20, 33]].any()
    assert own.predict_proba(matrix[:5]).shape == (5, 10)
    chained = model.relabel([0, 5], ["digit 1", "digit 2"]).replace(12, [40, 41], 0.2).delete([3, 7, 500])
    chained = chained.forget([10, 20, 33], drop=True)
    np.testing.assert_allclose(chained.estimator.coef_, other.coef_, atol=1e-6)
    np.testing.assert_allclose(chained.estimator.predict_proba(changed), other.predict_proba(changed), atol=1e-6)


def test_a_certificate_holds_and_needs_a_penalty_on_the_intercept(digits: tuple[Any, np.ndarray]) -> None:
    matrix, labels = digits
    with pytest.raises(UnlearningError, match="the intercept is not regularized"):
        prepare(LogisticRegression(), matrix, labels).certificate(0.1, 1e-5)
    model = prepare(LogisticRegression(C=0.5), matrix, labels, penalize_intercept=True)
    updated = model.apply(REQUEST)
    certificate = updated.certificate(0.1, 1e-5)
    assert certificate.strong_convexity == 2.0
    published, again = updated.publish(0.1, 1e-5, releases=1), updated.estimator
    assert not published.coef_[:, [10, 20, 33]].any()
    assert (published.coef_ != again.coef_).sum() == 10 * 61
    assert np.abs(published.coef_ - again.coef_).max() < 6 * certificate.sigma
    assert (published.predict(matrix) == again.predict(matrix)).all()


def test_no_point_lies_farther_from_the_minimizer_than_its_residual_allows(digits: tuple[Any, np.ndarray]) -> None:
    matrix, labels = digits
    model = prepare(LogisticRegression(C=0.5), matrix, labels, tolerance=1e-9, penalize_intercept=True)
    best, rng = model.solved.point, np.random.default_rng(0)
    for size in 10.0 ** rng.uniform(-8, 1, 40):
        moved = best.objective.at(best.theta + size * rng.normal(size=best.theta.shape))
        assert np.linalg.norm(moved.theta - best.theta) <= (moved.residual + 1e-9) / 2.0


def test_the_report_compares_other_methods_too(digits: tuple[Any, np.ndarray], tmp_path: Any) -> None:
    matrix, labels = digits
    model = prepare(LogisticRegression(), matrix[:300], labels[:300], penalize_intercept=True).delete(range(20))
    against = ["retrain", "second-order", "fine-tune", "sisa:5"]
    test = (matrix[300:], labels[300:])
    summary = model.report(tmp_path / "report.json", against=against, test=test, guarantee=(0.1, 1e-5))
    update, retrained, second, *others = summary.methods
    assert summary.loss == "multinomial"
    assert update.max_loss_difference < 1e-6
    assert update.accuracy == retrained.accuracy == float(f"{(model.estimator.predict(test[0]) == test[1]).mean():.7g}")
    assert 1e-6 < second.residual < min(own.residual for own in others)
    counts = np.unique(test[1], return_counts=True)[1]
    assert summary.majority_accuracy == pytest.approx(counts.max() / counts.sum(), rel=1e-6)
    assert summary.certificate is not None
    assert summary.certificate.accuracy == pytest.approx(update.accuracy, abs=1e-6)
    assert summary.membership is not None


@pytest.mark.parametrize(
    "estimator",
    [LinearSVC(), RidgeClassifier(), SGDClassifier(loss="log_loss"), LogisticRegression(solver="liblinear")],
)
def test_estimators_that_fit_a_model_for_each_class_are_refused(estimator: Any) -> None:
    with pytest.raises(UnlearningError, match=r"y has 3 classes, and \w+ fits a model for each"):
        prepare(estimator, *load_iris(return_X_y=True))


def test_what_cannot_be_is_refused() -> None:
    matrix, labels = load_iris(return_X_y=True)
    model = prepare(LogisticRegression(), matrix / 10, labels)
    with pytest.raises(UnlearningError, match="after the request no row has the label 2"):
        model.delete(labels == 2)
    with pytest.raises(UnlearningError, match="all rows have the same label"):
        model.delete(labels > 0)
    with pytest.raises(UnlearningError, match="unknown label 3: expected 0, 1 or 2"):
        model.relabel(0, 3)
    with pytest.raises(UnlearningError, match="without the data, the multinomial loss has no bound"):
        model.detach()
    with pytest.raises(UnlearningError, match="has 3 rows of coefficients, and y has 2 classes: expected 1"):
        prepare(LogisticRegression(max_iter=2000).fit(matrix, labels), matrix, (labels > 0).astype(int))
