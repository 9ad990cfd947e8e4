"""What an update is held against: the data changed naively, and a model trained on them by another program."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import linalg

from canaryaudit.tabular import PreparedModel, Replacement, Request
from tests.tabular.datasets import Table

KINDS = ("columns", "values", "labels", "rows", "mixed")
LOSSES = ("logistic", "squared hinge")


@dataclass(frozen=True)
class Task:
    """Data after a request, as a user would make them.

    Attributes:
        matrix: Shape (num_rows, num_columns), removed columns and deleted rows left out.
        signs: +1 or -1.
        kept: Numbers of the columns.
    """

    matrix: Any
    signs: np.ndarray
    kept: np.ndarray


def random_request(kind: str, table: Table, rng: np.random.Generator, share: float = 0.1) -> Request:
    """Return a request of up to a share of all columns, rows and labels."""
    rows, columns = table.train.shape

    def some(total: int, pool: np.ndarray | None = None) -> np.ndarray:
        chosen = int(rng.integers(1, max(2, int(share * total))))
        return rng.choice(total if pool is None else pool, min(chosen, total if pool is None else len(pool)), False)

    request: dict[str, Any] = {}
    if kind in ("rows", "mixed"):
        request["rows"] = some(rows)
    if kind in ("labels", "mixed"):
        changed = some(rows)
        request["labels"] = dict(zip(changed.tolist(), (1 - table.train_labels[changed]).tolist(), strict=True))
    wanted = some(columns, table.sensitive)
    if kind == "mixed":  # values in columns that stay
        request["replacements"] = (Replacement(wanted[:1].tolist(), float(rng.random() / 4), some(rows)),)
        wanted = wanted[1:]
    if kind == "values":
        changed = some(rows)
        values = rng.random((len(changed), len(wanted))) / (4 * len(wanted))
        request["replacements"] = (Replacement(wanted.tolist(), values, changed),)
    if kind in ("columns", "mixed"):
        request["columns"] = wanted.tolist()
    return Request(**request)


def naive(table: Table, request: Request) -> Task:
    """Return the data after a request: arrays copied, columns and rows cut out."""
    matrix: Any = table.train.tolil() if sparse.issparse(table.train) else table.train.copy()
    labels = table.train_labels.copy()
    for replacement in request.replacements:
        matrix[np.ix_(replacement.rows, replacement.columns)] = replacement.values
    for row, label in request.labels.items():
        labels[row] = label
    kept_rows = np.setdiff1d(np.arange(len(labels)), np.array(request.rows, dtype=int))
    kept = np.setdiff1d(np.arange(matrix.shape[1]), np.array(request.columns, dtype=int))
    matrix = matrix.tocsr() if sparse.issparse(matrix) else matrix
    return Task(matrix[kept_rows][:, kept], np.where(labels[kept_rows] == 1, 1.0, -1.0), kept)


def losses(name: str, margins: np.ndarray) -> np.ndarray:
    """Return every row's loss."""
    if name == "logistic":
        return np.where(margins > 0, np.log1p(np.exp(-np.abs(margins))), np.log1p(np.exp(-np.abs(margins))) - margins)
    return np.clip(1 - margins, 0, None) ** 2


def gradient(name: str, task: Task, theta: np.ndarray, penalty: float) -> np.ndarray:
    """Return the gradient of the sum of losses and penalty / 2 |theta|^2."""
    margins = task.signs * (task.matrix @ theta)
    slopes = -1 / (1 + np.exp(margins)) if name == "logistic" else -2 * np.clip(1 - margins, 0, None)
    return task.matrix.T @ (task.signs * slopes) + penalty * theta


def second_derivatives(name: str, task: Task, theta: np.ndarray) -> np.ndarray:
    """Return the second derivative of every row's loss."""
    margins = task.signs * (task.matrix @ theta)
    return 1 / (2 + np.exp(margins) + np.exp(-margins)) if name == "logistic" else 2.0 * (margins < 1)


def _solve(name: str, task: Task, theta: np.ndarray, penalty: float, right: np.ndarray) -> np.ndarray:
    weights, matrix = second_derivatives(name, task, theta), task.matrix
    hessian = linalg.LinearOperator(
        (len(theta),) * 2, lambda v: matrix.T @ (weights * (matrix @ v)) + penalty * v, dtype=float
    )
    return linalg.cg(hessian, right, rtol=1e-4, maxiter=4000)[0]


def retrained(name: str, task: Task, penalty: float) -> np.ndarray:
    """Return a model trained from nothing by exact Newton steps with the dense Hessian, or by L-BFGS if it is large."""
    theta = np.zeros(task.matrix.shape[1])

    def value(at: np.ndarray) -> float:
        return float(losses(name, task.signs * (task.matrix @ at)).sum() + penalty / 2 * at @ at)

    if len(theta) > 200:
        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-17, "gtol": 1e-8, "maxcor": 20}
        slopes = partial(gradient, name, task, penalty=penalty)
        theta = optimize.minimize(value, theta, jac=slopes, method="L-BFGS-B", options=options).x
        for _ in range(20):  # its line search stops at the value's rounding: on with inexact Newton steps
            slope = slopes(theta)
            if np.linalg.norm(slope) < 1e-9:
                break
            step = _solve(name, task, theta, penalty, slope)
            if np.linalg.norm(slopes(theta - step)) >= np.linalg.norm(slope):
                break
            theta = theta - step
        return theta
    dense = task.matrix.toarray() if sparse.issparse(task.matrix) else task.matrix
    for _ in range(100):
        slope = gradient(name, task, theta, penalty)
        if np.linalg.norm(slope) < 1e-10:
            break
        weights = second_derivatives(name, task, theta)
        step = np.linalg.solve(dense.T @ (weights[:, None] * dense) + penalty * np.eye(len(theta)), slope)
        length = 1.0
        while value(theta - length * step) > value(theta) - 1e-4 * length * slope @ step + 1e-12 and length > 1e-8:
            length /= 2
        theta = theta - length * step
    return theta


@dataclass(frozen=True)
class Outcome:
    """How an updated model compares with the retrained one.

    Attributes:
        residual: Of the update, computed from its coefficients and the naive data.
        retrained_residual: Of the retrained model.
        difference: Largest difference of a row's loss, in nats for the logistic loss.
        distance: Euclidean distance of the coefficients.
    """

    residual: float
    retrained_residual: float
    difference: float
    distance: float


def compare(model: PreparedModel, name: str, task: Task, penalty: float) -> Outcome:
    """Compare an update with retraining on the naive data."""
    theta = model.estimator.coef_.ravel()[task.kept]
    other = retrained(name, task, penalty)
    pair = [losses(name, task.signs * (task.matrix @ at)) for at in (theta, other)]
    return Outcome(
        float(np.linalg.norm(gradient(name, task, theta, penalty))),
        float(np.linalg.norm(gradient(name, task, other, penalty))),
        float(np.abs(pair[0] - pair[1]).max()),
        float(np.linalg.norm(theta - other)),
    )
