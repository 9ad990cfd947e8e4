"""Without its data a model's residual is a bound: never below the residual that the data would show."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular import DetachedModel, PreparedModel, Request, prepare
from tests.tabular.datasets import BUNDLED, Table
from tests.tabular.oracle import Task, gradient, naive

TABLES: dict[str, Table] = {name: BUNDLED[name]() for name in ("breast cancer", "digits", "diabetes progression")}


def prepared(name: str, tolerance: float = 1e-6) -> PreparedModel:
    data = TABLES[name]
    return prepare(LogisticRegression(fit_intercept=False), data.train, data.train_labels, tolerance=tolerance)


def true_residual(model: DetachedModel, task: Task) -> float:
    """Return the norm of the gradient on the data that the model no longer has."""
    return float(np.linalg.norm(gradient("logistic", task, model.estimator.coef_.ravel()[task.kept], 1.0)))


@pytest.mark.parametrize("name", TABLES)
def test_the_bound_holds_over_chains_of_random_requests(name: str) -> None:
    data, rng, ratios = TABLES[name], np.random.default_rng(8), []
    matrix, labels = data.train, data.train_labels
    start = prepared(name).detach()
    for _ in range(4):
        model, gone, flipped, columns = start, [], {}, []
        for step, row in enumerate(rng.permutation(len(labels))[:12].tolist()):
            if step % 3 == 0:
                model, gone = model.delete(matrix[[row]], labels[[row]]), [*gone, row]
            elif step % 3 == 1:
                model, flipped[row] = model.relabel(matrix[[row]], labels[[row]], 1 - labels[[row]]), 1 - labels[row]
            truth = true_residual(model, naive(data, Request(rows=gone, labels=flipped, columns=columns)))
            assert truth <= model.residual
            ratios.append(model.residual / truth)
    assert np.median(ratios) < 1000  # and it says something


def test_the_bound_holds_for_columns_and_values() -> None:
    data = TABLES["digits"]
    dense, labels = data.train.toarray(), data.train_labels
    model = prepared("digits").detach()
    entries = np.count_nonzero(dense, axis=0)
    column = int(np.flatnonzero((entries > 50) & (entries < len(labels) / 4))[0])
    has = np.flatnonzero(dense[:, column])
    forgotten = model.forget([column], data.train[has], labels[has])
    assert forgotten.estimator.coef_[0, column] == 0
    assert 1e-9 < true_residual(forgotten, naive(data, Request(columns=[column]))) <= forgotten.residual
    changed = dense[[3, 4]].copy()
    changed[:, 20] = 0.4
    replaced = model.replace(dense[[3, 4]], changed, labels[[3, 4]])
    other = dense.copy()
    other[:, 20][[3, 4]] = 0.4
    task = Task(other, np.where(labels == 1, 1.0, -1.0), np.arange(64))
    assert true_residual(replaced, task) <= replaced.residual
    assert replaced.residual < true_residual(model, task)  # it is better than before


def test_a_single_row_comes_close_to_the_update_with_the_data() -> None:
    data = TABLES["breast cancer"]
    model = prepared("breast cancer")
    exact, bounded = model.delete([7]), model.detach().delete(data.train[[7]], data.train_labels[[7]])
    assert np.abs(exact.estimator.coef_ - bounded.estimator.coef_).max() < 1e-2
    assert bounded.residual < 0.05


def test_the_certificate_needs_a_tolerance_above_the_bound() -> None:
    data = TABLES["breast cancer"]
    fine, coarse = prepared("breast cancer").detach(), prepared("breast cancer", tolerance=0.1).detach()
    row = data.train[[7]], data.train_labels[[7]]
    with pytest.raises(UnlearningError, match="no certificate: the residual of"):
        fine.delete(*row).certificate(0.1, 1e-5)
    updated = coarse.delete(*row)
    certificate = updated.certificate(0.1, 1e-5)
    assert certificate.distance == 0.2
    assert certificate.residual + certificate.rounding <= 0.1
    published = updated.publish(0.1, 1e-5, seed=0).coef_ - updated.estimator.coef_
    assert published.std() == pytest.approx(certificate.sigma, rel=0.5)


def test_the_squared_loss_stays_exact() -> None:
    data = TABLES["breast cancer"]
    model = prepare(RidgeClassifier(), data.train, data.train_labels)
    small = model.detach()
    for row in (3, 4, 5):
        small = small.delete(data.train[[row]], data.train_labels[[row]])
    assert small.residual < 1e-9
    assert np.abs(small.estimator.coef_ - model.delete([3, 4, 5]).estimator.coef_).max() < 1e-7


def test_the_data_are_gone() -> None:
    model = prepared("breast cancer").detach()
    rows = len(TABLES["breast cancer"].train_labels)
    held = [value for value in (*vars(model).values(), *vars(model.facts).values()) if hasattr(value, "shape")]
    assert held
    assert all(rows not in value.shape for value in held)


def test_what_has_no_bound_or_does_not_fit_is_refused() -> None:
    data = TABLES["breast cancer"]
    with pytest.raises(UnlearningError, match="the squared hinge loss has no bound"):
        prepare(LinearSVC(fit_intercept=False), data.train, data.train_labels).detach()
    model = prepared("breast cancer").detach()
    with pytest.raises(UnlearningError, match="rows need 31 columns, got 30"):
        model.delete(data.train[[1]][:, 1:], [0])
    with pytest.raises(UnlearningError, match="1 rows and y 2 labels"):
        model.delete(data.train[[1]], [0, 1])
    with pytest.raises(UnlearningError, match="not among those that the model was trained on"):
        model.delete(100 * data.train[[1]], data.train_labels[[1]])
    with pytest.raises(UnlearningError, match="keep at least one"):
        model.forget("*", data.train, data.train_labels)
