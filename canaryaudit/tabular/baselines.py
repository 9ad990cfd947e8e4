"""What else would have done it: other ways to the data after a request, timed in the same loop.

- ``retrain``: from nothing, by the fastest of the solvers.
- ``left-out``: the removed columns' coefficients set to 0, nothing else.
- ``first-order``, ``second-order``: one step as published (Warnecke et al. 2023, section 4), theta - tau Delta and
  theta - H^-1 Delta, with a Hessian computed for the request.
- ``fine-tune``: one epoch of stochastic gradient descent on the corrected data.
- ``sisa:N``, ``sisa-deleted:N``: N shards, each with a model of its own; those that a request hits are retrained, on
  corrected rows or without the affected rows (Bourtoule et al. 2021). The scores are averaged. Each shard's penalty is
  its share of the whole, so no shard is regularized N times as strongly.

Times are processor times, so other programs on the machine do not count.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import optimize, sparse
from scipy.linalg import cho_factor, cho_solve

from canaryaudit.errors import Inconclusive, UnlearningError
from canaryaudit.tabular.linear.arrays import Mask, Rows, Vector, row_norms
from canaryaudit.tabular.linear.inverse import DiagonalInverse
from canaryaudit.tabular.linear.objective import Objective, Point
from canaryaudit.tabular.linear.solver import minimize

METHODS = ("retrain", "left-out", "first-order", "second-order", "fine-tune", "sisa", "sisa-deleted")
DEFAULT_SHARDS = (5, 10, 20)
_EPOCH_BATCH = 256
_TAUS = tuple(2.0**-power for power in range(24))


@dataclass(frozen=True, eq=False)
class Contender:
    """What a method came to.

    Attributes:
        name: The method.
        theta: Coefficients, shape (num_columns,).
        seconds: Processor time of the request.
        preparation_seconds: Processor time spent once, before any request.
        note: What a reader must know.
    """

    name: str
    theta: Vector
    seconds: float
    preparation_seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A request as every method gets it.

    Attributes:
        before: The model before it, on the data before it.
        after: The objective on the data after it.
        tolerance: Largest residual of a retrained model.
        seed: Of shards and batches.
    """

    before: Point
    after: Objective
    tolerance: float
    seed: int = 0


def contenders(comparison: Comparison, against: Sequence[str]) -> list[Contender]:
    """Run methods.

    Args:
        comparison: The request.
        against: Names of methods; ``sisa:5,10`` names several at once.

    Returns:
        Their results, in the order of the names.

    Raises:
        UnlearningError: No method is called so.
    """
    with comparison.after.threads():
        return [work(comparison) for name in against for work in _parse(name)]


def check_methods(against: Sequence[str]) -> None:
    """Refuse names that no method has.

    Raises:
        UnlearningError: No method is called so.
    """
    for name in against:
        _parse(name)


def _parse(name: str) -> list[Callable[[Comparison], Contender]]:
    method, _, numbers = name.partition(":")
    simple: dict[str, Callable[[Comparison], Contender]] = {
        "retrain": retrain,
        "left-out": left_out,
        "first-order": first_order,
        "second-order": second_order,
        "fine-tune": fine_tune,
    }
    if method in simple and not numbers:
        return [simple[method]]
    if method in ("sisa", "sisa-deleted"):
        try:
            shards = [int(number) for number in numbers.split(",")] if numbers else list(DEFAULT_SHARDS)
        except ValueError:
            shards = [0]
        if all(2 <= number <= 1000 for number in shards):
            return [partial(sisa, shards=number, corrected=method == "sisa") for number in shards]
        raise UnlearningError(f"{name}: expected numbers of shards from 2 to 1,000, as in {method}:5,10")
    raise UnlearningError(f"no method is called {name!r}: expected one of {', '.join(METHODS)}")


def retrain(comparison: Comparison) -> Contender:
    """Retrain from nothing by the fastest of L-BFGS and our own Newton steps, and to the tolerance."""
    after = comparison.after
    start = np.zeros(len(after.kept))

    def newton() -> Vector:
        return minimize(after, start, _diagonal(after.at(start)), comparison.tolerance).point.theta

    def lbfgs() -> Vector:
        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": comparison.tolerance, "maxcor": 20}
        both = _value_and_gradient(after)
        found: Vector = optimize.minimize(both, start, jac=True, method="L-BFGS-B", options=options).x
        return found

    times = {name: _timed(solve) for name, solve in (("L-BFGS", lbfgs), ("Newton", newton))}
    fastest = min(times, key=lambda name: times[name][0])
    # Newton's is the reference, for its residual was checked; whichever was faster.
    return Contender("retrain", times["Newton"][1], times[fastest][0], note=f"fastest solver: {fastest}")


def left_out(comparison: Comparison) -> Contender:
    """Set the removed columns' coefficients to 0, and change nothing else."""
    return Contender("left-out", _masked(comparison), 0.0)


def first_order(comparison: Comparison) -> Contender:
    """Take one step theta - tau Delta, with the tau of the largest decrease."""

    def work() -> Vector:
        theta, delta = _masked(comparison), _delta(comparison)
        points = (comparison.after.at(theta - tau * delta) for tau in _TAUS)
        return min(points, key=lambda point: point.value).theta

    seconds, theta = _timed(work)
    return Contender("first-order", theta, seconds, note="tau chosen by the objective on the corrected data")


def second_order(comparison: Comparison) -> Contender:
    """Take one step theta - H^-1 Delta, H the Hessian on the data after the request."""

    def work() -> Vector:
        point = comparison.after.at(_masked(comparison))
        return np.where(comparison.after.kept, point.theta - _newton_step(point, _delta(comparison)), 0.0)

    seconds, theta = _timed(work)
    return Contender("second-order", theta, seconds, note="one step, as published")


def fine_tune(comparison: Comparison) -> Contender:
    """Train for one epoch on the data after the request, from the model before it."""
    after, rows = comparison.after, comparison.after.rows
    matrix, signs, weights = rows.matrix(), rows.present_signs, rows.present_weights
    squares = row_norms(matrix) ** 2
    length = 1.0 / (after.loss.slope_lipschitz * float(squares.mean()) * _EPOCH_BATCH)

    def work() -> Vector:
        theta = _masked(comparison)
        order = np.random.default_rng(comparison.seed).permutation(len(signs))
        for start in range(0, len(order), _EPOCH_BATCH):
            batch = order[start : start + _EPOCH_BATCH]
            part = Rows.of(matrix[batch], signs[batch], weights[batch])
            share = replace(after, rows=part, penalty=len(batch) / len(order) * after.penalty, tilt=None)
            theta = theta - length * share.at(theta).gradient
        return theta

    seconds, theta = _timed(work)
    return Contender("fine-tune", theta, seconds, note="one epoch")


def sisa(comparison: Comparison, shards: int, *, corrected: bool = True) -> Contender:
    """Retrain the shards that the request hits.

    Args:
        comparison: The request.
        shards: Their number.
        corrected: Whether affected rows are corrected; otherwise they are deleted, as published.
    """
    before, after = comparison.before.objective, comparison.after
    total = len(before.rows.positions)
    shards = min(shards, total)
    assigned = np.random.default_rng(comparison.seed).integers(shards, size=total)
    affected = affected_rows(before, after)
    name = f"sisa{'' if corrected else '-deleted'}:{shards}"
    stays = after.rows.present if corrected else after.rows.present & ~affected
    try:
        spent, models = 0.0, []
        for shard in range(shards):
            seconds, theta = _timed(partial(_shard_model, before, (assigned == shard) & before.rows.present))
            spent += seconds
            models.append(theta)
        hit = sorted(set(assigned[affected].tolist()))
        seconds = 0.0
        for shard in hit:
            time_spent, models[shard] = _timed(partial(_shard_model, after, (assigned == shard) & stays))
            seconds += time_spent
    except Inconclusive:
        return Contender(name, np.zeros(len(after.kept)), 0.0, note="a shard has no minimizer: nothing learned")
    if not stays.any():
        return Contender(name, np.zeros(len(after.kept)), 0.0, spent, "every row is affected: nothing is left")
    sizes = np.bincount(assigned[stays], minlength=shards).astype(np.float64)
    theta = np.average(np.array(models), axis=0, weights=sizes)
    note = f"{len(hit)} of {shards} shards retrained"
    if not corrected:
        note += f", {int((affected & after.rows.present).sum()):,} rows lost"
    return Contender(name, np.where(after.kept, theta, 0.0), seconds, spent, note)


def affected_rows(before: Objective, after: Objective) -> Mask:
    """Return which rows, as the user numbers them, a request touches: gone, relabeled, or with other values."""
    old, new = before.rows, after.rows
    both = np.flatnonzero(old.present & new.present)
    changed = old.present & ~new.present
    changed[both[old.signs[old.positions[both]] != new.signs[new.positions[both]]]] = True
    first, second = old.take(both), new.take(both)
    gone = np.flatnonzero((before.kept & ~after.kept)[: old.num_columns])
    different = (first != second) if sparse.issparse(first) else sparse.csr_matrix(first != second)
    touched = different.getnnz(axis=1) > 0
    if len(gone):
        part = first[:, gone]
        touched |= (part.getnnz(axis=1) if sparse.issparse(part) else np.count_nonzero(part, axis=1)) > 0
    changed[both[touched]] = True
    return changed


def one_published_step(comparison: Comparison, tilt: Vector) -> Vector:
    """Train with noise b . theta in the objective, and take the published second-order step to the request."""
    before = replace(comparison.before.objective, tilt=tilt)
    start = minimize(before, comparison.before.theta, _diagonal(comparison.before), max(comparison.tolerance, 1e-4))
    noised = replace(comparison, before=start.point, after=replace(comparison.after, tilt=tilt))
    return second_order(noised).theta


def _shard_model(objective: Objective, chosen: Mask) -> Vector:
    rows = objective.rows
    numbers = np.flatnonzero(chosen)
    if not len(numbers):
        return np.zeros(len(objective.kept))
    places = rows.positions[numbers]
    part = Rows.of(rows.take(numbers), rows.signs[places], rows.weights[places])
    share = len(numbers) / max(1, int(rows.present.sum()))
    small = replace(objective, rows=part, penalty=objective.penalty * share)
    start = np.zeros(len(objective.kept))
    return minimize(small, start, _diagonal(small.at(start)), 1e-4 * max(1.0, share)).point.theta


def _masked(comparison: Comparison) -> Vector:
    return np.where(comparison.after.kept, comparison.before.theta, 0.0)


def _delta(comparison: Comparison) -> Vector:
    """Return Delta = sum grad l(z~) - sum grad l(z) at the model before the request."""
    after = replace(comparison.after, kept=comparison.before.objective.kept)
    corrected = after.at(_masked(comparison))
    original = comparison.before
    delta = corrected.gradient - original.gradient
    delta -= after.penalty * (corrected.theta - original.theta)  # the penalty is no part of it
    return np.where(comparison.after.kept, delta, 0.0)


def _newton_step(point: Point, gradient: Vector) -> Vector:
    kept = np.flatnonzero(point.objective.kept)
    step = np.zeros_like(gradient)
    factor = cho_factor(point.hessian()[np.ix_(kept, kept)], lower=True, check_finite=False)
    step[kept] = cho_solve(factor, gradient[kept], check_finite=False)
    return step


def _diagonal(point: Point) -> DiagonalInverse:
    return DiagonalInverse(1.0 / np.maximum(point.hessian_diagonal(), np.finfo(np.float64).tiny))


def _value_and_gradient(objective: Objective) -> Callable[[Vector], tuple[float, Vector]]:
    def both(theta: Vector) -> tuple[float, Vector]:
        point = objective.at(theta)
        return point.value, point.gradient

    return both


def _timed(work: Callable[[], Vector]) -> tuple[float, Vector]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result
