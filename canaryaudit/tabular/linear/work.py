"""Which is less work, an update or a fit from nothing: estimated from counts of operations, never from a clock.

The unit is one multiplication. What a fit from nothing takes was counted when the model was prepared: it takes about as
many passes over the data for each decade of its gradient's norm. An update with the diagonal as stored curvature takes
as many for each decade, and fewer decades; with the whole inverse it takes about one step for each decade, and each
step reads the inverse. So the same data and request give the same decision on every machine.
"""

import math
from dataclasses import dataclass

import numpy as np

from canaryaudit.tabular.linear.arrays import Mask
from canaryaudit.tabular.linear.inverse import DenseInverse, DiagonalInverse, StoredCurvature
from canaryaudit.tabular.linear.objective import Objective, Point
from canaryaudit.tabular.linear.solver import TARGET, Solved, minimize

_DENSE = 1 / 3
"""A multiplication of a dense matrix takes this much of the time of one of a sparse one."""
_LOST = 0.45
"""Share of what a model gained over zero coefficients from which a request that took it leaves no better start."""
_FAR, _FACTOR_STEPS = 0.3, 3
"""Slope of the value along the coefficients, relative to it, from which they have the wrong size; and Newton steps to
the right one."""


@dataclass(frozen=True)
class ColdFit:
    """What a fit from nothing took.

    Attributes:
        work: In multiplications.
        decades: Of its gradient's norm, from zero coefficients to the tolerance.
    """

    work: float
    decades: float


@dataclass(frozen=True)
class Estimate:
    """The work of both ways to the model after a request.

    Attributes:
        update: From the model before it.
        retraining: From nothing.
    """

    update: float
    retraining: float

    @property
    def retrain(self) -> bool:
        """Whether a fit from nothing is less work."""
        return self.retraining <= self.update


def better_start(start: Point) -> Point:
    """Return a multiple of the coefficients whose value is about the smallest, if theirs is far from it.

    A request that corrects many labels, or takes telling columns away, leaves coefficients of the wrong size. Scores
    grow with them, so Newton steps on the factor need no pass over the data.

    Args:
        start: The model before the request, on the data after it.
    """
    objective, scores = start.objective, start.scores
    if scores.ndim > 1 or abs(float(start.gradient @ start.theta)) <= _FAR * start.value:
        return start
    weights, size = objective.rows.weights, float(objective.penalty @ start.theta**2)
    factor = 1.0
    for _ in range(_FACTOR_STEPS):
        margins = factor * start.margins
        slope = float(weights @ (objective.loss.slope(margins) * start.margins)) + factor * size
        curvature = float(weights @ (objective.loss.curvature(margins) * start.margins**2)) + size
        factor = max(0.0, factor - slope / curvature) if curvature > 0 else factor
    found = type(start)(objective, factor * start.theta, factor * scores, fresh=False)
    return found if found.value < start.value else start


def fit_from_nothing(objective: Objective, tolerance: float) -> Solved:
    """Fit from zero coefficients, preconditioned by the diagonal there.

    Raises:
        Inconclusive: The residual stays above the tolerance.
    """
    with objective.threads():
        start = objective.at(np.zeros(len(objective.kept)))
        diagonal = DiagonalInverse(1.0 / np.maximum(start.hessian_diagonal(), np.finfo(np.float64).tiny))
        return minimize(objective, start.theta, diagonal, tolerance)


def cold_fit_of(solved: Solved, tolerance: float) -> ColdFit:
    """Return what a fit from nothing took, by its own counts."""
    objective = solved.point.objective
    start = objective.at(np.zeros(len(objective.kept)))
    return ColdFit(solved.work, _decades(start.residual, tolerance))


def estimate(
    start: Point, curvature: StoredCurvature, cold: ColdFit, tolerance: float, reached: float = 0.0
) -> Estimate:
    """Estimate the work of an update and of a fit from nothing.

    Args:
        start: The model before the request, on the data after it.
        curvature: The stored one.
        cold: What a fit from nothing took when the model was prepared.
        tolerance: Largest norm of the gradient.
        reached: Value of the model before the request, on the data before it.
    """
    objective = start.objective
    nothing = objective.value_of_nothing
    if start.value >= nothing:  # The model before the request is a worse start than zero coefficients.
        return Estimate(cold.work * max(1.0, start.value / nothing), cold.work)
    decades = _decades(start.residual, tolerance)
    lost = (start.value - reached) / (nothing - reached) if nothing > reached else 0.0
    if lost >= _LOST and decades >= cold.decades and objective.exact_steps_pay:
        return Estimate(cold.work, cold.work)  # both ways take exact steps, and from here they take as many
    if isinstance(curvature, DenseInverse):
        columns, removed = len(objective.kept), _removed(objective.kept)
        step = start.pass_work + _DENSE * (columns**2 + 2 * removed * columns + removed**2)
        return Estimate((1 + decades) * step + _DENSE * removed**3 / 3, cold.work)
    return Estimate(cold.work * decades / max(cold.decades, 1.0), cold.work)


def _removed(kept: Mask) -> int:
    return int((~kept).sum())


def _decades(residual: float, tolerance: float) -> float:
    return max(0.0, math.log10(residual / (TARGET * tolerance))) if residual > 0 else 0.0
