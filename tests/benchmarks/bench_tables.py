"""Requests to linear models: do they end where retraining does, how fast, and at which noise.

Every time is processor time of one thread. Retraining is timed by several solvers, on a matrix that is there already,
and the fastest counts that reaches the tolerance of the updates, 1e-6; beside it, the fastest that stops at 1e-5.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from canaryaudit.tabular import PreparedModel, Request, prepare
from canaryaudit.tabular.linear.arrays import Rows
from canaryaudit.tabular.linear.inverse import DiagonalInverse
from canaryaudit.tabular.linear.losses import Logistic, SquaredHinge
from canaryaudit.tabular.linear.objective import Objective
from canaryaudit.tabular.linear.solver import minimize
from canaryaudit.tabular.prepared import TOLERANCE
from tests.tabular.datasets import SHARED, Table
from tests.tabular.oracle import KINDS, LOSSES, Task, compare, gradient, losses, naive, random_request

MARGIN_LOSSES = {"logistic": Logistic(), "squared hinge": SquaredHinge()}
ROUNDS, MORE_ROUNDS, SHORT = 3, 15, 0.02
"""Rounds of what takes long, and of what takes less than so many seconds, where one round in three may be noise."""
SUITE = ("drebin", "spambase", "diabetes", "adult", "sms")
REQUESTS = 30
"""For each data set of the suite and each loss."""
ROUGH = 1e-5
"""Residual at which the second figure of the retraining stops."""
EPSILON, DELTA = 0.1, 1e-5
SMALL: dict[str, Callable[[], Any]] = {
    "breast cancer": load_breast_cancer,
    "diabetes progression": load_diabetes,
    "iris": load_iris,
    "wine": load_wine,
}
CERTIFIED = 1e-7
"""Tolerance of certified models: noise is in proportion to it, and another step or two pays for a tenth."""


def estimator(loss: str) -> Any:
    """Return the estimator of a loss, without an intercept, C = 1."""
    return LogisticRegression(fit_intercept=False) if loss == "logistic" else LinearSVC(fit_intercept=False)


def prepared(table: Table, loss: str, tolerance: float = TOLERANCE) -> PreparedModel:
    """Return a model prepared from nothing."""
    return prepare(estimator(loss), table.train, table.train_labels, columns=table.columns, tolerance=tolerance)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median processor time of a few rounds, in milliseconds, and the last result."""
    spent: list[float] = []
    while len(spent) < (MORE_ROUNDS if spent and min(spent) < SHORT else ROUNDS):
        started = time.process_time()
        result = work()
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent), result


def suite(names: tuple[str, ...] = SUITE, requests: int = REQUESTS) -> Iterator[str]:
    """Compare random requests with retraining; a line for each data set and loss."""
    yield "| data | loss | requests | largest residual | largest loss difference of a row | paths |"
    yield "| --- | --- | --: | --: | --: | --- |"
    for name in names:
        table = SHARED[name]()
        for loss in LOSSES:
            # Without names: a one-hot group would go together, and the naive data would not know it.
            model, rng = prepare(estimator(loss), table.train, table.train_labels), np.random.default_rng(7)
            worst, far, paths = 0.0, 0.0, []
            for index in range(requests):
                request = random_request(KINDS[index % len(KINDS)], table, rng)
                updated = model.apply(request)
                outcome = compare(updated, loss, naive(table, request), 1.0)
                worst, far = max(worst, outcome.residual), max(far, outcome.difference)
                paths.append(updated.solved.path)
            ways = ", ".join(f"{paths.count(path)} {path}" for path in dict.fromkeys(paths))
            yield f"| {name} | {loss} | {requests} | {worst:.1e} | {far:.1e} | {ways} |"


def solvers(task: Task, loss: str, residual: float) -> dict[str, Callable[[], np.ndarray]]:
    """Return ways to retrain to a residual, each of which gives the coefficients."""
    columns = task.matrix.shape[1]

    def value_and_slope(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margins = task.signs * (task.matrix @ theta)
        return float(losses(loss, margins).sum() + theta @ theta / 2), gradient(loss, task, theta, 1.0)

    def lbfgs() -> np.ndarray:
        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": residual / 10, "maxcor": 20}
        return optimize.minimize(value_and_slope, np.zeros(columns), jac=True, method="L-BFGS-B", options=options).x

    labels = (task.signs > 0).astype(int)

    def ours() -> np.ndarray:
        rows = Rows.of(task.matrix, task.signs, np.ones(len(task.signs)))
        kept = np.ones(columns, dtype=bool)
        objective = Objective(rows, MARGIN_LOSSES[loss], np.ones(columns), kept)
        diagonal = DiagonalInverse(1 / objective.at(np.zeros(columns)).hessian_diagonal())
        return minimize(objective, np.zeros(columns), diagonal, residual).point.theta

    def newton_cg() -> np.ndarray:
        return LogisticRegression(fit_intercept=False, solver="newton-cg", tol=1e-8).fit(task.matrix, labels).coef_[0]

    def liblinear() -> np.ndarray:
        return LinearSVC(fit_intercept=False, dual=False, tol=1e-8, max_iter=100_000).fit(task.matrix, labels).coef_[0]

    library = {"newton-cg": newton_cg} if loss == "logistic" else {"liblinear": liblinear}
    return {"L-BFGS": lbfgs, **library, "our Newton-CG": ours}


def best(task: Task, loss: str, residual: float) -> tuple[float, str]:
    """Return the time of the fastest solver that reaches a residual, in milliseconds, and its name."""
    if not sparse.issparse(task.matrix) and np.count_nonzero(task.matrix) < task.matrix.size / 4:
        task = replace(task, matrix=sparse.csr_matrix(task.matrix))  # as the prepared model has it
    found = []
    for name, solve in solvers(task, loss, residual).items():
        spent, theta = timed(solve)
        if np.linalg.norm(gradient(loss, task, theta, 1.0)) <= residual:
            found.append((spent, name))
    return min(found)


def requests_of(table: Table, model: PreparedModel, rng: np.random.Generator) -> dict[str, Request]:
    """Return requests of several kinds and sizes."""
    rows = len(table.train_labels)
    weights = np.abs(model.estimator.coef_.ravel()[table.sensitive])
    heaviest = table.sensitive[np.argsort(-weights)][:150]
    found: dict[str, Request] = {}
    for count in (1, 10, 100, 1000):
        if count < len(table.sensitive):
            found[f"{count} columns"] = Request(columns=rng.choice(table.sensitive, count, False).tolist())
    for count in (10, 100):
        if count < len(heaviest):
            found[f"{count} of the heaviest columns"] = Request(columns=rng.choice(heaviest, count, False).tolist())
    for count in (10, 1000):
        if 4 * count < rows:
            found[f"{count} rows"] = Request(rows=rng.choice(rows, count, False))
            changed = rng.choice(rows, count, False)
            flipped = (1 - table.train_labels[changed]).tolist()
            found[f"{count} labels"] = Request(labels=dict(zip(changed.tolist(), flipped, strict=True)))
    return found


def speed(names: tuple[str, ...] = ("drebin", "adult", "enron", "sms", "spambase", "diabetes")) -> Iterator[str]:
    """Time requests against retraining by the best solver; a line for each."""
    yield "| data | loss | request | update, ms | residual | path | best retraining, ms | ratio | to 1e-5, ms; ratio |"
    yield "| --- | --- | --- | --: | --: | --- | --: | --: | --: |"
    for name in names:
        table = SHARED[name]()
        for loss in LOSSES:
            started = time.process_time()
            model, rng = prepared(table, loss), np.random.default_rng(11)
            seconds = time.process_time() - started
            ratios, rough_ratios = [], []
            for label, request in requests_of(table, model, rng).items():
                spent, updated = timed(partial(_updated, model, request))
                task = naive(table, request)
                other, way = best(task, loss, TOLERANCE)
                rough, _ = best(task, loss, ROUGH)
                ratios.append(other / spent)
                rough_ratios.append(rough / spent)
                yield (
                    f"| {name} | {loss} | {label} | {spent:.1f} | {updated.residual:.0e} | {updated.solved.path} | "
                    f"{other:.1f}, {way} | {ratios[-1]:.1f} x | {rough:.1f}; {rough_ratios[-1]:.1f} x |"
                )
            chain, worst, total = model, 0.0, []
            for column in rng.permutation(table.sensitive)[:50].tolist():
                if chain.solved.point.objective.kept[column]:
                    before = time.process_time()
                    chain = _updated(chain, Request(columns=[column]))
                    total.append(1000 * (time.process_time() - before))
                    worst = max(worst, chain.residual)
            yield (
                f"| {name} | {loss} | {len(total)} columns in a row, each | {statistics.median(total):.1f} | "
                f"{worst:.0e} | longest {max(total):.0f} ms | | | |"
            )
            yield (
                f"| {name} | {loss} | all of these | | | | | "
                f"median {statistics.median(ratios):.1f} x, least {min(ratios):.1f} x | "
                f"median {statistics.median(rough_ratios):.1f} x, least {min(rough_ratios):.1f} x |"
            )
            yield f"| {name} | {loss} | prepared, once | {1000 * seconds:.0f} | | | | | |"


def small() -> Iterator[str]:
    """Time requests on small tables against the program's own retraining, in turns."""
    yield "| data | rows x columns | request | update, ms | retraining, ms | ratio | path |"
    yield "| --- | --- | --- | --: | --: | --: | --- |"
    ratios = []
    for name, loaded in SMALL.items():
        data = loaded()
        matrix = (data.data - data.data.min(0)) / (data.data.max(0) - data.data.min(0))
        labels = data.target if len(np.unique(data.target)) <= 3 else (data.target > np.median(data.target)).astype(int)
        model, rng = prepare(LogisticRegression(), matrix, labels), np.random.default_rng(5)
        rows, columns = matrix.shape
        changed = rng.choice(rows, 10, False)
        flipped = ((labels[changed] + 1) % len(np.unique(labels))).tolist()
        requests = {
            "1 column": Request(columns=[0]),
            "a third of the columns": Request(columns=[*range(columns - columns // 3, columns)]),
            "10 rows": Request(rows=rng.choice(rows, 10, False)),
            "10 labels": Request(labels=dict(zip(changed.tolist(), flipped, strict=True))),
        }
        chains = {label: [request] for label, request in requests.items()}
        chains["10 rows, one after another"] = [Request(rows=[row]) for row in changed.tolist()]
        for label, chain in chains.items():
            (spent, updated), (other, _) = _in_turns(
                partial(_chained, model, chain), partial(_chained, model, chain, retrain=True)
            )
            ratios.append(other / spent)
            yield (
                f"| {name} | {rows} x {columns} | {label} | {spent:.2f} | {other:.2f} | {ratios[-1]:.2f} x | "
                f"{updated.solved.path} |"
            )
    yield f"| all | | | | | median {statistics.median(ratios):.2f} x, least {min(ratios):.2f} x | |"


def _chained(model: PreparedModel, chain: list[Request], *, retrain: bool = False) -> PreparedModel:
    for request in chain:
        model = model.apply(request, retrain=retrain)
    return model


def _in_turns(*works: Callable[[], PreparedModel]) -> list[tuple[float, PreparedModel]]:
    """Return each work's median processor time of turns, in milliseconds, and its last result."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(MORE_ROUNDS):
        results = []
        for work, times in zip(works, spent, strict=True):
            started = time.process_time()
            results.append(work())
            times.append(time.process_time() - started)
    return [(1000 * statistics.median(times), result) for times, result in zip(spent, results, strict=True)]


def _updated(model: PreparedModel, request: Request) -> PreparedModel:
    updated = model.apply(request)
    _ = updated.estimator
    return updated


def certificates(counts: tuple[int, ...] = (1, 10, 50, 100, 1000)) -> Iterator[str]:
    """Publish with the certificate's noise after columns were removed: accuracy and F1 beside retraining.

    The published scheme is shown for what it gives; its certificate is not valid.
    """
    yield "| columns | sigma | published model | retrained | published scheme: sigma | its model | constant |"
    yield "| --: | --: | --- | --- | --: | --- | --- |"
    table, rng = SHARED["drebin"](), np.random.default_rng(3)
    model = prepared(table, "logistic", CERTIFIED)
    for count in counts:
        updated = model.apply(Request(columns=rng.choice(table.sensitive, count, False).tolist()))
        with tempfile.TemporaryDirectory() as folder:
            summary = updated.report(
                Path(folder) / "report.json", test=(table.test, table.test_labels), guarantee=(EPSILON, DELTA)
            )
        ours, scheme, retrained = summary.certificate, summary.published, summary.retrained
        assert ours is not None
        assert scheme is not None
        assert retrained is not None
        yield (
            f"| {count} | {ours.sigma:.1e} | {ours.accuracy:.4f}, {ours.f1:.4f} | {retrained.accuracy:.4f}, "
            f"{retrained.f1:.4f} | {scheme.sigma:.2g} | {scheme.accuracy:.4f}, {scheme.f1:.4f} | "
            f"{summary.majority_accuracy:.4f}, {summary.majority_f1:.4f} |"
        )


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "suite": suite,
    "speed": speed,
    "small": small,
    "certificate": certificates,
}


def run(parts: list[str]) -> Iterator[str]:
    """Run all parts, or some."""
    for name, part in PARTS.items():
        if not parts or name in parts:
            yield ""
            yield from part()
