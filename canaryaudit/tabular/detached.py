"""A prepared model without its data: requests bring the rows that they change, and the residual has a bound.

Kept of the data are sums alone: the gradient, the Hessian H and the second moments G = sum w x x' at the coefficients.
A request's rows change the first three exactly. One Newton step d then leaves

    |grad L(theta - d; D')| <= |g - H d| + gamma (R / 2) d'G d + gamma s min(|G|_1, R^2 W)^(1/2) (d'G d)^(1/2)

with gamma = 1 / (6 sqrt 3) the largest third derivative of the logistic loss, R the longest row, W the sum of weights
and s the sum of R |d| over earlier steps, by which H may be out of date. (Taylor's theorem with the remainder as an
integral; half of the bound in Guo et al. 2020, and with the right constant.) Bounds of several requests add up: without
the data nobody can check, so nothing is repeated. The squared loss has gamma = 0 and stays exact.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from canaryaudit.errors import UnlearningError
from canaryaudit.tabular.certificate import Certificate, Releases, certificate_of, draw_noise, on_grid
from canaryaudit.tabular.changes import Labels
from canaryaudit.tabular.columns import Columns
from canaryaudit.tabular.estimators import Specification, with_theta
from canaryaudit.tabular.inputs import checked_matrix, with_intercept
from canaryaudit.tabular.linear.arrays import Mask, Matrix, Rows, Vector, row_norms
from canaryaudit.tabular.linear.losses import Logistic, Squared
from canaryaudit.tabular.linear.objective import Point

_LARGEST = 5000
"""Columns of which two square matrices are kept: 400 MB."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What a model without its data still knows, and no request changes."""

    estimator: Any
    specification: Specification
    labels: Labels
    columns: Columns
    is_frame: bool
    tolerance: float
    releases: Releases
    penalty: Vector
    num_rows: int


@dataclass(frozen=True, eq=False)
class DetachedModel:
    """A linear model without its data. Made by ``PreparedModel.detach``; requests return new ones.

    Attributes:
        facts: What no request changes.
        theta: The coefficients, shape (num_columns,).
        gradient: The gradient, as far as it is known.
        error: Bound on what is not known of it.
        hessian: H as far as it is known, shape (num_columns, num_columns).
        moments: G.
        kept: Which columns are there.
        radius: R.
        total_weight: W.
        drift: s.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from canaryaudit.tabular import prepare
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = X / X.max(axis=0)
        >>> model = prepare(LogisticRegression(), X, y)
        >>> small = model.detach().delete(X[[7]], y[[7]])
        >>> model.delete([7]).residual < small.residual < 0.05
        True
    """

    facts: Facts
    theta: Vector
    gradient: Vector
    error: float
    hessian: NDArray[np.float64]
    moments: NDArray[np.float64]
    kept: Mask
    radius: float
    total_weight: float
    drift: float = 0.0

    @property
    def residual(self) -> float:
        """A bound on the norm of the gradient on the data after all requests."""
        return float(np.linalg.norm(self.gradient)) + self.error

    @property
    def estimator(self) -> Any:
        """A fitted scikit-learn estimator; it takes X of the original width."""
        return self._estimator_with(self.theta)

    def delete(self, X: Any, y: Any) -> "DetachedModel":  # noqa: N803
        """Delete rows.

        Args:
            X: The rows, shape (num_rows, num_columns).
            y: Their labels.

        Returns:
            The updated model.

        Raises:
            UnlearningError: The rows do not fit the model.
        """
        return self._step(self._rows(X, y), None, self.kept)

    def relabel(self, X: Any, y: Any, labels: Any) -> "DetachedModel":  # noqa: N803
        """Correct labels.

        Args:
            X: The rows, shape (num_rows, num_columns).
            y: Their labels so far.
            labels: The right ones.

        Returns:
            The updated model.

        Raises:
            UnlearningError: The rows do not fit the model.
        """
        return self._step(self._rows(X, y), self._rows(X, labels), self.kept)

    def replace(self, X: Any, values: Any, y: Any) -> "DetachedModel":  # noqa: N803
        """Replace values.

        Args:
            X: The rows so far, shape (num_rows, num_columns).
            values: The same rows with their new values.
            y: Their labels.

        Returns:
            The updated model.

        Raises:
            UnlearningError: The rows do not fit the model.
        """
        return self._step(self._rows(X, y), self._rows(values, y), self.kept)

    def forget(self, columns: Any, X: Any, y: Any) -> "DetachedModel":  # noqa: N803
        """Remove columns.

        Args:
            columns: Names, numbers or patterns; a one-hot group is not completed, since the data are not there.
            X: Every row that has a value other than 0 in one of them, shape (num_rows, num_columns).
            y: Their labels.

        Returns:
            The updated model.

        Raises:
            UnlearningError: No column is called so, or the rows do not fit the model.
        """
        kept = self.kept.copy()
        kept[self.facts.columns.find(columns)] = False
        if not kept[: len(self.facts.columns)].any():
            raise UnlearningError("the request removes every column: keep at least one")
        rows = self._rows(X, y)
        return self._step(rows, rows, kept)

    def certificate(self, epsilon: float, delta: float, *, releases: int = 1) -> Certificate:
        """Certify as ``PreparedModel.certificate`` does, with the bound in the residual's place.

        Args:
            epsilon: Above 0.
            delta: Between 0 and 1.
            releases: How many models will be published in all.

        Returns:
            The certificate.

        Raises:
            UnlearningError: It would not hold: the bound is above the tolerance, for example.
        """
        convexity = float(self.facts.penalty[self.kept].min())
        known = float(np.linalg.norm(self.gradient))
        return certificate_of(convexity, (known, self.error), self.facts.tolerance, epsilon, delta, releases)

    def publish(self, epsilon: float, delta: float, *, releases: int = 1, seed: int | None = None) -> Any:
        """Return an estimator to publish, as ``PreparedModel.publish`` does.

        Args:
            epsilon: Above 0.
            delta: Between 0 and 1.
            releases: How many models will be published in all.
            seed: For a repeatable test; it voids the certificate.

        Returns:
            A fitted scikit-learn estimator.

        Raises:
            UnlearningError: The certificate would not hold, or the planned releases are used up.
        """
        certificate = self.certificate(epsilon, delta, releases=releases)
        self.facts.releases.use(epsilon, delta, releases)
        noise = draw_noise(certificate.sigma, self.kept, seed)
        return self._estimator_with(on_grid(self.theta + noise, certificate.sigma))

    def _step(self, out: Rows, new: Rows | None, kept: Mask) -> "DetachedModel":
        loss = self.facts.specification.loss
        theta = np.where(kept, self.theta, 0.0)
        gradient, hessian, moments = self.gradient.copy(), self.hessian.copy(), self.moments.copy()
        widest, radius, weight = moments.copy(), self.radius, self.total_weight
        for rows, sign, place in ((out, -1.0, self.theta), *(((new, 1.0, theta),) if new is not None else ())):
            margins = rows.signs * rows.scores(place)
            added = rows.gram(rows.weights)
            gradient += sign * rows.transposed(rows.weights * rows.signs * loss.slope(margins))
            hessian += sign * rows.gram(rows.weights * loss.curvature(margins))
            moments += sign * added
            weight += sign * float(rows.weights.sum())
            if sign > 0:
                widest += added
                radius = max(radius, float(row_norms(rows.base).max(initial=0.0)))
        gradient = np.where(kept, gradient, 0.0)
        columns = np.flatnonzero(kept)
        step = np.zeros_like(theta)
        try:
            factor = cho_factor(hessian[np.ix_(columns, columns)], lower=True, check_finite=False)
        except LinAlgError:
            raise UnlearningError(
                "the rows are not among those that the model was trained on: the Hessian without them has no inverse"
            ) from None
        step[columns] = cho_solve(factor, gradient[columns], check_finite=False)
        rest = np.where(kept, gradient - hessian @ step, 0.0)
        gamma = Logistic.curvature_lipschitz if isinstance(loss, Logistic) else 0.0
        length, energy = float(np.linalg.norm(step)), max(0.0, float(step @ widest @ step))
        norm = min(float(np.abs(widest).sum(axis=0).max()), radius**2 * max(weight, self.total_weight))
        error = self.error + gamma * (radius / 2 * energy + self.drift * np.sqrt(norm * energy))
        # Sums over the rows are off by at most their number times the unit roundoff.
        sizes = float(np.abs(hessian).sum(axis=0).max()) * length + float(np.linalg.norm(gradient))
        error += self.facts.num_rows * float(np.finfo(np.float64).eps) * sizes
        return replace(
            self,
            theta=np.where(kept, theta - step, 0.0),
            gradient=rest,
            error=float(error),
            hessian=hessian,
            moments=moments,
            kept=kept,
            radius=radius,
            total_weight=weight,
            drift=self.drift + radius * length,
        )

    def _rows(self, X: Any, y: Any) -> Rows:  # noqa: N803
        matrix = _rows_of(X, len(self.facts.columns))
        signs = self.facts.labels.signs(np.ravel(np.asarray(y)))
        if len(signs) != matrix.shape[0]:
            raise UnlearningError(f"X has {matrix.shape[0]:,} rows and y {len(signs):,} labels: expected as many")
        if self.facts.specification.intercept_penalty is not None:
            matrix = with_intercept(matrix, self.facts.specification.intercept_column)
        return Rows.of(matrix, signs, self.facts.labels.weights_of(signs))

    def _estimator_with(self, theta: Vector) -> Any:
        facts = self.facts
        names = facts.columns.names if facts.is_frame else None
        return with_theta(facts.estimator, facts.specification, theta, facts.labels.classes, names, None)


def detach(point: Point, facts: Facts) -> DetachedModel:
    """Return a model without its data.

    Args:
        point: The model on its data.
        facts: What no request changes.

    Raises:
        UnlearningError: The loss has no bound, or there are too many columns.
    """
    objective = point.objective
    if not isinstance(objective.loss, Logistic | Squared):
        raise UnlearningError(
            f"without the data, the {objective.loss.name} loss has no bound on the residual: keep the data, or use "
            "logistic regression"
        )
    if objective.rows.num_columns > _LARGEST:
        raise UnlearningError(
            f"without the data, at most {_LARGEST:,} columns can be kept, got {objective.rows.num_columns:,}"
        )
    rows = objective.rows
    norms = np.concatenate((row_norms(rows.base), row_norms(rows.tail)))[rows.weights > 0]
    return DetachedModel(
        facts,
        point.theta,
        point.gradient,
        point.rounding_bound(),
        point.hessian(),
        rows.gram(rows.weights),
        objective.kept,
        float(norms.max(initial=0.0)),
        float(rows.weights.sum()),
    )


def _rows_of(X: Any, columns: int) -> Matrix:  # noqa: N803
    matrix = checked_matrix(np.atleast_2d(X) if isinstance(X, np.ndarray | list) else X, fewest=1)
    if matrix.shape[1] != columns:
        raise UnlearningError(f"rows need {columns:,} columns, got {matrix.shape[1]:,}")
    return matrix
