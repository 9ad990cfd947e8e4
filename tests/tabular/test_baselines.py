"""Other ways to the data after a request, against their definitions on naive data."""

import numpy as np
import pytest

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular import PreparedModel, Replacement, Request
from canaryaudit.tabular.baselines import (
    Comparison,
    Contender,
    affected_rows,
    contenders,
    one_published_step,
)
from tests.tabular.datasets import BUNDLED, Table
from tests.tabular.oracle import Task, gradient, losses, naive, retrained, second_derivatives
from tests.tabular.test_updates import prepared

NAME, LOSS = "breast cancer", "logistic"
TABLE: Table = BUNDLED[NAME]()
REQUEST = Request(
    columns=[3, 4],
    rows=[10, 11, 12],
    labels={20: 1 - TABLE.train_labels[20]},
    replacements=(Replacement([7], 0.1, [30, 31]),),
)
START: PreparedModel = prepared(NAME, LOSS)
AFTER = START.apply(REQUEST)
COMPARISON = Comparison(START.solved.point, AFTER.solved.point.objective, 1e-6)
TASK: Task = naive(TABLE, REQUEST)


def one(name: str, comparison: Comparison = COMPARISON) -> Contender:
    (found,) = contenders(comparison, [name])
    return found


def before() -> np.ndarray:
    return START.solved.point.theta[TASK.kept]


def test_retraining_is_retraining() -> None:
    found = one("retrain")
    assert np.linalg.norm(found.theta[TASK.kept] - retrained(LOSS, TASK, 1.0)) < 1e-5
    assert found.seconds > 0
    assert found.note.startswith("fastest solver: ")


def test_a_column_left_out_is_left_out_and_nothing_else() -> None:
    found = one("left-out")
    assert np.array_equal(found.theta[TASK.kept], before())
    assert not found.theta[[3, 4]].any()
    assert found.seconds == 0


def delta() -> np.ndarray:
    """Delta, from naive data before and after: gradients of the losses alone, at the model before the request."""
    theta = START.solved.point.theta
    old = naive(TABLE, Request())
    corrected = gradient(LOSS, TASK, before(), 0.0)
    # The two columns still belong to the model whose gradient is taken away.
    return corrected - gradient(LOSS, old, theta, 0.0)[TASK.kept]


def test_the_second_order_step_is_the_published_one() -> None:
    theta, weights = before(), second_derivatives(LOSS, TASK, before())
    hessian = TASK.matrix.T @ (weights[:, None] * TASK.matrix) + np.eye(len(theta))
    expected = theta - np.linalg.solve(hessian, delta())
    assert one("second-order").theta[TASK.kept] == pytest.approx(expected, abs=1e-9)


def test_the_first_order_step_lies_along_the_published_direction_and_lowers_the_objective() -> None:
    step = before() - one("first-order").theta[TASK.kept]
    cosine = step @ delta() / np.linalg.norm(step) / np.linalg.norm(delta())
    assert cosine == pytest.approx(1.0)

    def value(theta: np.ndarray) -> float:
        return float(losses(LOSS, TASK.signs * (TASK.matrix @ theta)).sum() + theta @ theta / 2)

    assert value(before() - step) < value(before())


def test_fine_tuning_comes_nearer_to_retraining_when_much_changed() -> None:
    changed = np.flatnonzero(TABLE.train_labels == 1)[:100]
    request = Request(labels=dict.fromkeys(changed.tolist(), 0))
    comparison = Comparison(START.solved.point, START.apply(request).solved.point.objective, 1e-6)
    right = retrained(LOSS, naive(TABLE, request), 1.0)
    tuned = one("fine-tune", comparison).theta
    assert np.linalg.norm(tuned - right) < np.linalg.norm(START.solved.point.theta - right)


def test_the_affected_rows_are_found() -> None:
    touched = affected_rows(START.solved.point.objective, AFTER.solved.point.objective)
    values = TABLE.train[:, [3, 4]]
    expected = np.flatnonzero((values != 0).any(axis=1) | np.isin(np.arange(len(values)), [10, 11, 12, 20, 30, 31]))
    assert np.array_equal(np.flatnonzero(touched), expected)
    labels = START.relabel([5], 1 - TABLE.train_labels[5])
    only = affected_rows(START.solved.point.objective, labels.solved.point.objective)
    assert np.flatnonzero(only).tolist() == [5]


def test_sisa_retrains_the_shards_that_are_hit_and_no_others() -> None:
    one_row = Comparison(START.solved.point, START.delete([5]).solved.point.objective, 1e-6)
    found = one("sisa:5", one_row)
    assert found.note == "1 of 5 shards retrained"
    untouched = one("sisa:5", Comparison(START.solved.point, START.delete([6]).solved.point.objective, 1e-6))
    assert not np.array_equal(found.theta, untouched.theta)
    assert one("sisa:5").note.startswith("5 of 5")  # a column is in every row of a dense table
    assert one("sisa-deleted:5").note.startswith("every row is affected")


def test_sisa_with_scaled_penalties_is_nearer_than_with_whole_ones() -> None:
    """Every shard's penalty is its share: the average then shrinks as the whole model does."""
    right = np.linalg.norm(retrained(LOSS, TASK, 1.0))
    shrunk = np.linalg.norm(one("sisa:5").theta)
    assert 0.8 * right < shrunk < 1.2 * right


def test_sisa_loses_rows_where_they_are_deleted_and_not_corrected() -> None:
    labels = Comparison(
        START.solved.point, START.relabel([1, 2], 1 - TABLE.train_labels[[1, 2]]).solved.point.objective, 1e-6
    )
    assert one("sisa-deleted:4", labels).note.endswith("2 rows lost")
    assert "lost" not in one("sisa:4", labels).note


def test_the_published_scheme_moves_with_its_noise() -> None:
    quiet = one_published_step(COMPARISON, np.zeros(len(START.solved.point.theta)))
    assert quiet == pytest.approx(one("second-order").theta, abs=1e-3)  # it trains to a residual of 1e-4
    loud = one_published_step(COMPARISON, np.full(len(START.solved.point.theta), 50.0))
    assert np.linalg.norm(loud - quiet) > 1


def test_several_numbers_of_shards_are_several_methods() -> None:
    names = [own.name for own in contenders(COMPARISON, ["left-out", "sisa:2,3", "sisa"])]
    assert names == ["left-out", "sisa:2", "sisa:3", "sisa:5", "sisa:10", "sisa:20"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sissa", "no method is called 'sissa': expected one of retrain"),
        ("retrain:2", "no method is called 'retrain:2'"),
        ("sisa:1", "numbers of shards from 2 to 1,000, as in sisa:5,10"),
        ("sisa:x", "numbers of shards"),
    ],
)
def test_unknown_methods_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnlearningError, match=message):
        contenders(COMPARISON, [name])
