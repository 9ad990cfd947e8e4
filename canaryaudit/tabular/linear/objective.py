"""The objective of a linear model: L(theta) = sum_i w_i l(y_i x_i . theta) + 1/2 sum_j p_j theta_j^2.

In sum form, as in Warnecke et al. 2023, section 5: scikit-learn's C multiplies the losses, and is divided out here, so
p_j = 1 / C. A removed column has theta_j = 0 and its gradient is left out, which is the same as not having it.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from canaryaudit.tabular.linear.arrays import Mask, Matrix, Rows, Vector, row_norms
from canaryaudit.tabular.linear.losses import MarginLoss
from canaryaudit.tabular.linear.threads import few_threads

_MOSTLY = 0.7
"""Share of curved rows beyond which a matrix of them alone does not pay."""
_ROW, _COLUMN = 12, 8
"""Multiplications for each row and column of a gradient, besides the entries: losses take exponentials."""
_CALL, _WRITTEN, _REPLACED = 2e5, 5e5, 6
"""What a product with the Hessian takes besides its multiplications, and what an exact Newton step does, in
multiplications; and how many products such a step replaces."""
_UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2


@dataclass(frozen=True, eq=False)
class Objective:
    """What is minimized.

    Attributes:
        rows: The present data.
        loss: The loss of a margin.
        penalty: p, shape (num_columns,), zero or more.
        kept: Which columns are still there, shape (num_columns,).
        tilt: b of a term b . theta, shape (num_columns,); None without one. Only the published scheme has noise there.
    """

    rows: Rows
    loss: MarginLoss
    penalty: Vector
    kept: Mask
    tilt: Vector | None = None

    def at(self, theta: Vector) -> "Point":
        """Return the objective at ``theta``, shape (num_columns,), with its scores computed afresh."""
        return Point(self, theta, self.rows.scores(theta))

    def without_columns(self, removed: Mask) -> "Objective":
        """Return the objective without some columns."""
        return replace(self, kept=self.kept & ~removed)

    def margins_of(self, scores: Vector, labels: Vector) -> Vector:
        """Return the margins of rows with these scores and labels."""
        return labels * scores

    def scores_of(self, matrix: Matrix, theta: Vector) -> Vector:
        """Return x . theta of rows."""
        scores: Vector = matrix @ theta
        return scores

    def losses_of(self, matrix: Matrix, labels: Vector, theta: Vector) -> Vector:
        """Return the loss of rows, shape (num_rows,)."""
        return self.loss.value(self.margins_of(self.scores_of(matrix, theta), labels))

    def predicted(self, matrix: Matrix, theta: Vector) -> Vector:
        """Return the label of every row that the model says."""
        return np.where(self.scores_of(matrix, theta) > 0, 1.0, -1.0)

    @property
    def written_work(self) -> float:
        """Multiplications of writing the Hessian out, each of which takes half the time: it reuses what it reads."""
        rows, classes = self.rows, len(self.kept) // self.rows.num_columns
        return 0.25 * classes * (classes + 1) * rows.num_entries * rows.num_columns

    @property
    def exact_steps_pay(self) -> bool:
        """Whether an exact Newton step takes less time than conjugate gradients, as on tables of some hundred rows.

        There the calls take the time, and not the multiplications.
        """
        product = 2.0 * len(self.kept) / self.rows.num_columns * self.rows.num_entries
        return self.written_work + _WRITTEN <= _REPLACED * (product + _CALL)

    def threads(self) -> AbstractContextManager[None]:
        """Multiply with one thread if there is little to multiply."""
        classes = len(self.kept) // self.rows.num_columns
        return few_threads(classes * self.rows.num_entries, len(self.kept))

    @property
    def value_of_nothing(self) -> float:
        """The objective with coefficients of zero."""
        return float(self.rows.weights.sum() * self.loss.value(np.zeros(1))[0])

    @property
    def strong_convexity(self) -> float:
        """The largest m for which L - m/2 |theta|^2 is convex whatever the data are: the smallest p_j kept."""
        return float(self.penalty[self.kept].min(initial=np.inf))


@dataclass(frozen=True, eq=False)
class Point:
    """An objective at one place.

    Attributes:
        objective: The objective.
        theta: The place, shape (num_columns,); 0 in removed columns.
        scores: x . theta of every row, shape (num_rows,).
        fresh: Whether the scores were computed from theta, and not between those of two places.
    """

    objective: Objective
    theta: Vector
    scores: Vector
    fresh: bool = True

    @cached_property
    def margins(self) -> Vector:
        """Y x . theta of every row."""
        return self.objective.rows.signs * self.scores

    @cached_property
    def value(self) -> float:
        """L(theta)."""
        objective = self.objective
        losses = objective.loss.value(self.margins)
        value = float(objective.rows.weights @ losses + 0.5 * objective.penalty @ (self.theta * self.theta))
        return value if objective.tilt is None else value + float(objective.tilt @ self.theta)

    @cached_property
    def slopes(self) -> Vector:
        """The derivative of every row's weighted loss by its score."""
        rows = self.objective.rows
        return rows.weights * rows.signs * self.objective.loss.slope(self.margins)

    @cached_property
    def gradient(self) -> Vector:
        """The gradient, 0 in removed columns."""
        objective = self.objective
        full = objective.rows.transposed(self.slopes) + objective.penalty * self.theta
        return np.where(objective.kept, full if objective.tilt is None else full + objective.tilt, 0.0)

    @cached_property
    def residual(self) -> float:
        """The Euclidean norm of the gradient."""
        return float(np.linalg.norm(self.gradient))

    @cached_property
    def curvatures(self) -> Vector:
        """The second derivative of every row's weighted loss by its score."""
        return self.objective.rows.weights * self.objective.loss.curvature(self.margins)

    @cached_property
    def _curved(self) -> tuple[Rows, Vector]:
        """The rows whose loss is curved here, and by how much; beyond the hinge there are few."""
        rows, curvatures = self.objective.rows, self.curvatures
        places = np.flatnonzero(curvatures)
        if len(places) > _MOSTLY * len(curvatures):
            return rows, curvatures
        return rows.at(places), curvatures[places]

    @property
    def pass_work(self) -> float:
        """Multiplications of one gradient."""
        rows = self.objective.rows
        return 2.0 * rows.num_entries + _ROW * len(rows.weights) + _COLUMN * rows.num_columns

    @property
    def product_work(self) -> float:
        """Multiplications of one product with the Hessian, which needs the curved rows only."""
        rows = self._curved[0]
        return 2.0 * rows.num_entries + 2.0 * len(rows.weights) + _COLUMN * rows.num_columns

    def hessian_product(self, vector: Vector) -> Vector:
        """Return H v, for v that is 0 in removed columns."""
        objective, (rows, curvatures) = self.objective, self._curved
        image = rows.transposed(curvatures * rows.scores(vector))
        return np.where(objective.kept, image + objective.penalty * vector, 0.0)

    def hessian(self) -> NDArray[np.float64]:
        """Return H of all columns, removed ones included, shape (num_columns, num_columns)."""
        rows, curvatures = self._curved
        matrix = rows.gram(curvatures)
        matrix[np.diag_indices_from(matrix)] += self.objective.penalty
        return matrix

    def hessian_diagonal(self) -> Vector:
        """Return the diagonal of H."""
        return self.objective.rows.squares(self.curvatures) + self.objective.penalty

    def between(self, other: "Point", share: float) -> "Point":
        """Return the point that lies ``share`` of the way to another one; its scores cost no product."""
        return type(self)(
            self.objective,
            (1.0 - share) * self.theta + share * other.theta,
            (1.0 - share) * self.scores + share * other.scores,
            fresh=False,
        )

    def rounding_bound(self) -> float:
        """Bound how far the computed gradient may lie from the exact one, in the worst case of float64 rounding.

        A sum of k products is off by at most k u / (1 - k u) times the sum of their sizes (Higham 2002, section 3.1).
        Here the scores are such sums over columns, and the gradient's entries are such sums over rows.
        """
        rows, total = self.objective.rows, 0.0
        cut = rows.base.shape[0]
        length = float(np.linalg.norm(self.theta))
        parts = ((rows.base, slice(None, cut)), (rows.tail, slice(cut, None)))
        for part, place in parts:
            if not part.shape[0]:
                continue
            norms = row_norms(part)
            score_error = gamma(most_entries(part, 1)) * norms * length
            slope_error = self.objective.loss.slope_lipschitz * score_error * np.abs(rows.weights[place])
            slope_error += gamma(4) * np.abs(self.slopes[place])
            total += float(norms @ (slope_error + gamma(most_entries(part, 0)) * np.abs(self.slopes[place])))
        return total + gamma(4) * float(np.linalg.norm(self.objective.penalty * self.theta))


def gamma(terms: int) -> float:
    """Return the relative rounding error of a sum of so many products, at most."""
    return (terms + 2) * _UNIT_ROUNDOFF / (1 - (terms + 2) * _UNIT_ROUNDOFF)


def most_entries(matrix: object, axis: int) -> int:
    """Return the largest number of entries of one row (axis 1) or of one column (axis 0)."""
    if sparse.issparse(matrix):
        return int(matrix.getnnz(axis=axis).max(initial=0))  # type: ignore[attr-defined]
    return int(matrix.shape[axis])  # type: ignore[attr-defined]
