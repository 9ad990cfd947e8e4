"""Random requests end where retraining does: residual and loss of every row, against another program."""

from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from canaryaudit.tabular import PreparedModel, Request, prepare
from tests.tabular.datasets import BUNDLED, SHARED, Table, needs_data
from tests.tabular.oracle import KINDS, LOSSES, compare, naive, random_request

ESTIMATORS = {
    "logistic": LogisticRegression(fit_intercept=False, max_iter=1000),
    "squared hinge": LinearSVC(fit_intercept=False, dual=False),
}


@cache
def table(name: str) -> Table:
    return {**BUNDLED, **SHARED}[name]()


@cache
def prepared(name: str, loss: str) -> PreparedModel:
    data = table(name)
    return prepare(ESTIMATORS[loss], data.train, data.train_labels, columns=data.columns)


def check(name: str, loss: str, count: int, seed: int) -> None:
    """Put random requests of every kind to one model, and hold each result against retraining."""
    data, model, rng = table(name), prepared(name, loss), np.random.default_rng(seed)
    for index in range(count):
        request = random_request(KINDS[index % len(KINDS)], data, rng)
        outcome = compare(model.apply(request), loss, naive(data, request), 1.0)
        assert outcome.residual <= 1e-6, request
        assert outcome.difference <= 1e-6, request
        # m-strong convexity: neither can be farther from the minimizer than its residual over m.
        assert outcome.distance <= outcome.residual + outcome.retrained_residual + 1e-12, request


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", BUNDLED)
def test_random_requests_end_where_retraining_does(name: str, loss: str) -> None:
    check(name, loss, 20, seed=1)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["spambase", "diabetes", "sms"])
def test_random_requests_on_other_data_end_where_retraining_does(name: str, loss: str) -> None:
    check(name, loss, 15, seed=2)


def test_the_original_model_is_left_as_it_is() -> None:
    model, data = prepared("breast cancer", "logistic"), table("breast cancer")
    before = model.estimator.coef_.copy()
    kept = data.train.copy()
    model.forget(["mean radius"]).delete([1, 2]).relabel([4], 1 - data.train_labels[4]).replace("mean area", [5], 0.0)
    assert np.array_equal(model.estimator.coef_, before)
    assert np.array_equal(model.solved.point.objective.rows.base, kept)  # it has few zeros: no sparse copy is made
    assert model.history == ()


def test_fifty_requests_in_a_row_never_renew_the_inverse() -> None:
    data, model, rng = table("digits"), prepared("digits", "logistic"), np.random.default_rng(5)
    rows, columns = rng.permutation(len(data.train_labels))[:500], rng.permutation(60)[:20].tolist()
    for index in range(50):
        model = (
            model.delete(rows[10 * index : 10 * index + 10])
            if index % 2
            else model.relabel(
                rows[10 * index : 10 * index + 5], 1 - data.train_labels[rows[10 * index : 10 * index + 5]]
            )
        )
        if index % 5 == 0:
            model = model.forget(columns[2 * index // 5 : 2 * index // 5 + 2])
        assert model.residual <= 1e-6
    changed = np.concatenate([rows[10 * index : 10 * index + 5] for index in range(0, 50, 2)])
    gone = np.concatenate([rows[10 * index : 10 * index + 10] for index in range(1, 50, 2)])
    labels = dict(zip(changed.tolist(), (1 - data.train_labels[changed]).tolist(), strict=True))
    whole = Request(columns=columns, rows=gone, labels=labels)
    outcome = compare(model, "logistic", naive(data, whole), 1.0)
    assert outcome.residual <= 1e-6
    assert outcome.difference <= 1e-6
    assert len(model.history) == 60


@pytest.mark.parametrize("loss", LOSSES)
def test_requests_give_the_same_model_in_any_order_and_at_once(loss: str) -> None:
    model, data = prepared("breast cancer", loss), table("breast cancer")
    label = {7: 1 - data.train_labels[7]}
    once = model.apply(Request(columns=["mean area"], rows=[1, 2], labels=label))
    chained = model.delete([2]).relabel([7], label[7]).forget("mean area").delete([1])
    assert np.abs(once.estimator.coef_ - chained.estimator.coef_).max() <= 2e-6
    assert once.removed == chained.removed == ("mean area",)


def test_a_wrong_update_is_noticed() -> None:
    """A model that never heard of the request is far from retraining."""
    data, model = table("breast cancer"), prepared("breast cancer", "logistic")
    request = random_request("labels", data, np.random.default_rng(0))
    outcome = compare(model, "logistic", naive(data, request), 1.0)
    assert outcome.residual > 1e-2
    assert outcome.difference > 1e-4
