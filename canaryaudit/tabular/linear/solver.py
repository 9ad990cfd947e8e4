"""The second-order update of a linear model: repeated until the gradient on the present data is under a tolerance.

Warnecke et al. 2023, section 4, take one step theta - H^-1 Delta, which leaves a residual. Here steps are repeated,
each with the full gradient:

1. theta - P g with the stored inverse P, one product and one gradient a step, while each step pays;
2. where that slows or diverges, Newton steps whose systems H d = g conjugate gradients solve, on the true Hessian,
   preconditioned by P, with a line search;
3. exact Newton steps, with the Hessian written out and factorized, where conjugate gradients do not get there; before
   them on small tables, where such a step takes less time.

What is returned has a residual under the tolerance, computed from theta itself; otherwise nothing is returned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from canaryaudit.errors import Inconclusive
from canaryaudit.records.tables import PathName
from canaryaudit.tabular.linear.arrays import Vector
from canaryaudit.tabular.linear.inverse import LARGEST_DENSE, StoredCurvature
from canaryaudit.tabular.linear.objective import Objective, Point
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients

PATIENCE, ENOUGH = 3, 0.15
"""Steps with the stored inverse pay if every three of them leave at most this share of the residual."""
_ENOUGH_OF_ONE = 0.37
"""The same of every single one, where exact steps pay."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step must bring (Armijo)."""
_ROUNDING = 1e-11
"""Share of the objective that may be rounding."""
_INNER, _OUTER, _NEWTON = 250, 60, 60
"""Iterations of one system, Newton steps with such systems, and exact Newton steps, at most."""
_SHORTEST = 2.0**-30
TARGET = 0.5
"""Share of the tolerance that the steps aim at, so rounding does not decide."""


@dataclass(frozen=True)
class Step:
    """One step of the update.

    Attributes:
        step_norm: Euclidean norm of the change in theta.
        residual_before: Norm of the gradient before it.
        residual_after: Norm of the gradient after it.
        solver_iterations: Conjugate gradients that it took; 0 for a step with the stored inverse.
    """

    step_norm: float
    residual_before: float
    residual_after: float
    solver_iterations: int


@dataclass(frozen=True, eq=False)
class Solved:
    """What the update came to.

    Attributes:
        point: Where; its residual is under the tolerance.
        steps: Every step.
        path: What was needed to get there.
        gradients: Passes over the data for a gradient.
        products: Passes over the data for a Hessian product.
        work: Multiplications of all these passes.
    """

    point: Point
    steps: tuple[Step, ...]
    path: PathName
    gradients: int
    products: int
    work: float = 0.0


class _Descent:
    """Where the update is, and what it has cost."""

    def __init__(self, start: Point) -> None:
        self.point = start
        self.steps: list[Step] = []
        self.gradients, self.products = 1, 0
        self.work = start.pass_work

    def move(self, to: Point, iterations: int = 0) -> None:
        self.steps.append(
            Step(float(np.linalg.norm(to.theta - self.point.theta)), self.point.residual, to.residual, iterations)
        )
        self.point = to

    def search(self, direction: Vector) -> Point | None:
        """Return a point along -direction that lowers the objective enough; None if none does."""
        point = self.point
        slope = float(point.gradient @ direction)
        if not slope > 0:
            return None
        end = point.objective.at(point.theta - direction)
        self.gradients += 1
        self.work += point.pass_work
        share = 1.0
        while share > _SHORTEST:
            tried = end if share == 1.0 else point.between(end, share)
            if tried.residual <= 0.5 * point.residual:
                return tried
            if tried.value <= point.value - SUFFICIENT * share * slope:
                return tried
            # Near the minimum a gain in the value drowns in rounding; the residual still tells.
            if tried.value <= point.value + _ROUNDING * abs(point.value) and tried.residual < point.residual:
                return tried
            share /= 2
        return None


def minimize(
    objective: Objective, start: Vector, curvature: StoredCurvature, tolerance: float, at: Point | None = None
) -> Solved:
    """Minimize an objective to a checked residual.

    Args:
        objective: What to minimize, on the data after the request.
        start: Where to begin, shape (num_columns,).
        curvature: The stored one, of this or of similar data.
        tolerance: Largest norm of the gradient to end with.
        at: The objective at ``start``, if it is known.

    Returns:
        The minimizer, to ``tolerance``.

    Raises:
        Inconclusive: The residual stays above the tolerance; the message says what it is and what to do.
    """
    descent = _Descent(at or objective.at(np.where(objective.kept, start, 0.0)))
    if not math.isfinite(descent.point.residual):
        raise Inconclusive(
            "the gradient is not a finite number at the model's coefficients: scale the columns to ordinary sizes"
        )
    goal = TARGET * tolerance
    path: PathName = "none needed"
    if descent.point.residual > goal:
        precondition = curvature.restricted(objective.kept)
        path = "stored inverse"
        small = objective.exact_steps_pay
        _stored(descent, precondition, goal, *((1, _ENOUGH_OF_ONE) if small else (PATIENCE, ENOUGH)))
        if descent.point.residual > goal and small:
            path = "exact Newton"
            _exact(descent, goal)
        if descent.point.residual > goal:
            path = "conjugate gradients"
            _conjugate(descent, precondition, goal)
        if descent.point.residual > goal and len(objective.kept) <= LARGEST_DENSE and not small:
            path = "exact Newton"
            _exact(descent, goal)
    final = descent.point if descent.point.fresh else objective.at(descent.point.theta)
    if not final.residual <= tolerance:
        raise Inconclusive(
            f"the gradient's norm stops at {final.residual:.2g}, above the tolerance of {tolerance:.2g}: scale the "
            "columns to similar sizes, or give a larger tolerance to prepare()"
        )
    return Solved(final, tuple(descent.steps), path, descent.gradients, descent.products, descent.work)


def _stored(
    descent: _Descent, precondition: Callable[[Vector], Vector], goal: float, patience: int, enough: float
) -> None:
    pairs: list[tuple[Vector, Vector, float]] = []
    before = math.inf
    while descent.point.residual > goal:
        point = descent.point
        if len(pairs) % patience == 0:
            if not point.residual <= enough * before:
                return
            before = point.residual
        tried = descent.search(_corrected(precondition, point.gradient, pairs))
        if tried is None:
            return
        step, change = tried.theta - point.theta, tried.gradient - point.gradient
        along = float(step @ change)
        if not along > 0:
            return
        pairs.append((step, change, along))
        descent.move(tried)


def _corrected(
    precondition: Callable[[Vector], Vector], gradient: Vector, pairs: list[tuple[Vector, Vector, float]]
) -> Vector:
    """Return the stored inverse's product with the gradient, corrected by the steps so far (two-loop recursion)."""
    direction, shares = gradient, []
    for step, change, along in reversed(pairs):
        shares.append(float(step @ direction) / along)
        direction = direction - shares[-1] * change
    direction = precondition(direction)
    for (step, change, along), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - float(change @ direction) / along) * step
    return direction


def _conjugate(descent: _Descent, precondition: Callable[[Vector], Vector], goal: float) -> None:
    for _ in range(_OUTER):
        point = descent.point
        if point.residual <= goal:
            return
        forcing = min(0.1, math.sqrt(point.residual / (1.0 + abs(point.value))))
        solver = ConjugateGradients(max(forcing, 0.5 * goal / point.residual), _INNER, precondition, certify=False)
        solved = solver.solve(point.hessian_product, point.gradient)
        descent.products += solved.products
        descent.work += solved.products * point.product_work
        found = descent.search(solved.x)
        if found is None or not np.isfinite(found.residual):
            return
        descent.move(found, solved.iterations)


def _exact(descent: _Descent, goal: float) -> None:
    for _ in range(_NEWTON):
        point = descent.point
        if point.residual <= goal:
            return
        kept = np.flatnonzero(point.objective.kept)
        hessian = point.hessian()
        descent.work += point.objective.written_work
        try:
            factor = cho_factor(
                hessian if len(kept) == len(hessian) else hessian[np.ix_(kept, kept)],
                lower=True,
                overwrite_a=True,
                check_finite=False,
            )
        except LinAlgError:
            return
        direction = np.zeros_like(point.theta)
        direction[kept] = cho_solve(factor, point.gradient[kept], check_finite=False)
        found = descent.search(direction)
        if found is None:
            return
        descent.move(found)
