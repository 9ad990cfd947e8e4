"""Multinomial logistic regression, as of the final layer of a network, for the same solver and curvature.

With K classes a row's loss is log sum_k exp(s_k) - s_y, s = W x its scores, W of shape (num_classes, num_columns).
``theta`` is W row by row, so the coefficients of the first class stand where a binary model has its own. A label is the
number of its class, in ``Rows.signs``.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from canaryaudit.tabular.linear.arrays import Mask, Matrix, Vector, row_norms
from canaryaudit.tabular.linear.objective import Objective, Point, gamma, most_entries


class Multinomial:
    """log sum_k exp(-m_k), m_k = s_y - s_k the margin over every class, in nats; shapes (num_rows, num_classes)."""

    name = "multinomial"
    slope_lipschitz = 0.5
    """Largest norm of diag(p) - p p'."""

    def value(self, margins: Vector) -> Vector:
        """Return the loss of every row, shape (num_rows,)."""
        losses: Vector = logsumexp(-margins, axis=1)
        return losses

    def slope(self, margins: Vector) -> Vector:
        """Return the derivative by every margin: less the probability of the class."""
        slopes: Vector = -softmax(-margins, axis=1)
        return slopes

    def curvature(self, margins: Vector) -> Vector:
        """Return the diagonal of the second derivative."""
        shares: Vector = softmax(-margins, axis=1)
        return shares * (1.0 - shares)


@dataclass(frozen=True, eq=False)
class MultinomialObjective(Objective):
    """What is minimized; ``penalty`` and ``kept`` are of all coefficients, class by class."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.kept) // self.rows.num_columns

    def at(self, theta: Vector) -> "MultinomialPoint":
        """Return the objective at ``theta``, shape (num_classes x num_columns,)."""
        return MultinomialPoint(self, theta, self.rows.scores(self._columns(theta)))

    def without_columns(self, removed: Mask) -> Objective:
        """Return the objective without some columns, shape (num_columns,), of every class."""
        return super().without_columns(np.tile(removed[: self.rows.num_columns], self.num_classes))

    def margins_of(self, scores: Vector, labels: Vector) -> Vector:
        """Return every row's margin over every class."""
        own = scores[np.arange(len(labels)), labels.astype(np.intp)]
        margins: Vector = own[:, None] - scores
        return margins

    def scores_of(self, matrix: Matrix, theta: Vector) -> Vector:
        """Return the scores of rows, shape (num_rows, num_classes)."""
        scores: Vector = matrix @ self._columns(theta)
        return scores

    def predicted(self, matrix: Matrix, theta: Vector) -> Vector:
        """Return the class of every row."""
        classes: Vector = np.argmax(self.scores_of(matrix, theta), axis=1).astype(np.float64)
        return classes

    @property
    def value_of_nothing(self) -> float:
        """The objective with coefficients of zero."""
        return float(self.rows.weights.sum() * np.log(self.num_classes))

    def _columns(self, theta: Vector) -> Vector:
        columns: Vector = theta.reshape(self.num_classes, -1).T
        return columns


@dataclass(frozen=True, eq=False)
class MultinomialPoint(Point):
    """A multinomial objective at one place; ``scores`` has shape (num_rows, num_classes)."""

    objective: MultinomialObjective

    @cached_property
    def margins(self) -> Vector:
        """Every row's margin over every class."""
        return self.objective.margins_of(self.scores, self.objective.rows.signs)

    @cached_property
    def shares(self) -> Vector:
        """Probability of every class for every row."""
        found: Vector = softmax(self.scores, axis=1)
        return found

    @cached_property
    def slopes(self) -> Vector:
        """The derivative of every row's weighted loss by its scores."""
        rows = self.objective.rows
        slopes = self.shares.copy()
        slopes[np.arange(len(rows.signs)), rows.signs.astype(np.intp)] -= 1.0
        return rows.weights[:, None] * slopes

    @cached_property
    def gradient(self) -> Vector:
        """The gradient, 0 in removed columns."""
        objective = self.objective
        full = objective.rows.transposed(self.slopes).T.ravel() + objective.penalty * self.theta
        return np.where(objective.kept, full if objective.tilt is None else full + objective.tilt, 0.0)

    @property
    def pass_work(self) -> float:
        """Multiplications of one gradient."""
        return self.objective.num_classes * super().pass_work

    @property
    def product_work(self) -> float:
        """Multiplications of one product with the Hessian."""
        rows = self.objective.rows
        return self.objective.num_classes * (2.0 * rows.num_entries + 4.0 * len(rows.weights))

    def hessian_product(self, vector: Vector) -> Vector:
        """Return H v, for v that is 0 in removed columns."""
        objective = self.objective
        turned = self.shares * objective.rows.scores(vector.reshape(objective.num_classes, -1).T)
        turned -= self.shares * turned.sum(axis=1, keepdims=True)
        image = objective.rows.transposed(objective.rows.weights[:, None] * turned).T.ravel()
        return np.where(objective.kept, image + objective.penalty * vector, 0.0)

    def hessian(self) -> NDArray[np.float64]:
        """Return H of all columns, shape (num_coefficients, num_coefficients), ready to be factorized.

        The same number added to the intercept of every class changes nothing, so H has no inverse if intercepts are not
        regularized. Gradients have no part along that direction, and H is given a curvature of 1 along it.
        """
        objective = self.objective
        rows, columns, classes = objective.rows, objective.rows.num_columns, objective.num_classes
        matrix = np.empty((classes * columns, classes * columns))
        blocks = [slice(own * columns, (own + 1) * columns) for own in range(classes)]
        for first in range(classes):
            for second in range(first + 1):
                same = float(first == second)
                values = rows.weights * self.shares[:, first] * (same - self.shares[:, second])
                matrix[blocks[first], blocks[second]] = rows.gram(values)
                matrix[blocks[second], blocks[first]] = matrix[blocks[first], blocks[second]].T
        matrix[np.diag_indices_from(matrix)] += objective.penalty
        free = np.flatnonzero(objective.penalty == 0)
        matrix[np.ix_(free, free)] += 1.0 / max(1, len(free))
        return matrix

    def hessian_diagonal(self) -> Vector:
        """Return the diagonal of H."""
        curved = self.objective.rows.weights[:, None] * self.shares * (1.0 - self.shares)
        diagonal: Vector = np.concatenate([self.objective.rows.squares(own) for own in curved.T])
        return diagonal + self.objective.penalty

    def rounding_bound(self) -> float:
        """Bound how far the computed gradient may lie from the exact one, in the worst case of float64 rounding.

        As for a binary model; a probability is off by the rounding of its scores, and of a sum of all classes.
        """
        rows, classes = self.objective.rows, self.objective.num_classes
        cut, total = rows.base.shape[0], 0.0
        length = float(np.linalg.norm(self.theta))
        sizes = np.linalg.norm(self.slopes, axis=1)
        shares = np.linalg.norm(self.shares, axis=1)
        for part, place in ((rows.base, slice(None, cut)), (rows.tail, slice(cut, None))):
            if not part.shape[0]:
                continue
            norms, weights = row_norms(part), np.abs(rows.weights[place])
            score_error = gamma(most_entries(part, 1) + 4) * norms * length
            slope_error = weights * (0.5 * score_error + gamma(classes + 8) * (shares[place] + 1.0))
            total += float(norms @ (slope_error + gamma(most_entries(part, 0)) * sizes[place]))
        return total + gamma(4) * float(np.linalg.norm(self.objective.penalty * self.theta))
