"""Preparing a linear model for requests: its data are checked, it is fitted, and its inverse curvature stored."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from canaryaudit.errors import UnlearningError
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.tabular.certificate import Releases
from canaryaudit.tabular.changes import Labels
from canaryaudit.tabular.columns import Columns, Scaling, scaling_of
from canaryaudit.tabular.estimators import Specification, fitted_theta, multinomial, specification_of
from canaryaudit.tabular.inputs import checked_matrix, classes_of, names_of, with_intercept
from canaryaudit.tabular.linear.arrays import Rows, Vector
from canaryaudit.tabular.linear.inverse import StoredCurvature, store_curvature
from canaryaudit.tabular.linear.objective import Objective, Point
from canaryaudit.tabular.linear.softmax import MultinomialObjective
from canaryaudit.tabular.linear.solver import Solved, minimize
from canaryaudit.tabular.linear.work import ColdFit, cold_fit_of, fit_from_nothing
from canaryaudit.tabular.prepared import TOLERANCE, Fixed, PreparedModel

_MOST_GROUPED = 3000
"""Columns whose one-hot groups are all found at once."""
_UNFITTED = 0.01
"""Loss a row above the minimum, relative to it, from which an estimator was hardly fitted on these data."""


def prepare(
    estimator: Any,
    X: Any,  # noqa: N803 -- scikit-learn's name
    y: Any,
    *,
    columns: Sequence[str] | Columns | None = None,
    tolerance: float = TOLERANCE,
    penalize_intercept: bool = False,
    progress: ProgressReporter | None = None,
) -> PreparedModel:
    """Prepare a linear classifier for requests: fit it to a checked residual and store its inverse curvature, once.

    The objective is that of scikit-learn, in sum form: L(theta) = sum_i l(y_i x_i . theta) + 1/(2 C) |theta|^2.

    Args:
        estimator: A LogisticRegression, LinearSVC, RidgeClassifier or SGDClassifier, fitted or not; left as it is.
        X: Shape (num_rows, num_columns): an array, a sparse matrix or a DataFrame; what the estimator is fitted on.
        y: Labels, shape (num_rows,); of two classes, or more for a LogisticRegression, which is then multinomial.
        columns: Names of the columns; by default those of a DataFrame, or the estimator's, or numbers.
        tolerance: Largest norm of the gradient of L to return a model with.
        penalize_intercept: Whether to regularize the intercept like a coefficient, where scikit-learn does not: a
            certificate needs it.
        progress: Told of warnings; nobody is if not given.

    Returns:
        The prepared model.

    Raises:
        UnlearningError: The estimator, the data or the labels cannot be used; the message says what was expected.
        Inconclusive: The residual stays above the tolerance.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.preprocessing import StandardScaler
        >>> data = load_breast_cancer(as_frame=True)
        >>> X = data.data / data.data.max()
        >>> model = prepare(LogisticRegression(fit_intercept=False), X, data.target)
        >>> new = model.forget(columns=["mean radius"]).delete(rows=[3, 5])
        >>> new.residual <= 1e-6, float(new.estimator.coef_[0, 0])
        (True, 0.0)
        >>> certificate = new.certificate(epsilon=0.1, delta=1e-5)
        >>> published = new.publish(epsilon=0.1, delta=1e-5, seed=0)
        >>> f"{certificate.sigma:.1e}", float(published.coef_[0, 0])
        ('6.1e-05', 0.0)
    """
    progress, started = progress or NullReporter(), time.process_time()
    problem = _checked(estimator, X, y, columns, Terms(tolerance, penalize_intercept))
    objective = problem.objective
    solved, curvature, cold = _fit(objective, problem.theta, tolerance)
    warnings: tuple[str, ...] = ()
    if problem.theta is not None:
        excess = (objective.at(problem.theta).value - solved.point.value) / max(solved.point.value, 1e-12)
        if excess > _UNFITTED:
            warnings = (
                f"the estimator's loss is {100 * excess:.3g} % above the smallest one: it was fitted on other data, or "
                "stopped early; requests start from the minimum",
            )
            progress.warn(warnings[0])
    fixed = problem.fixed(curvature, solved.point, time.process_time() - started, cold)
    return PreparedModel(fixed, solved, warnings=warnings)


@dataclass(frozen=True)
class Terms:
    """What a user fixes when a model is prepared.

    Attributes:
        tolerance: Largest norm of the gradient.
        penalize_intercept: Whether the intercept is regularized.
    """

    tolerance: float = TOLERANCE
    penalize_intercept: bool = False


@dataclass(frozen=True, eq=False)
class Kept:
    """What was kept of a preparation.

    Attributes:
        theta: The minimizer, shape (num_columns,), the intercept's last.
        curvature: The stored curvature.
        seconds: Processor time of the preparation.
        cold: What a fit from nothing takes.
    """

    theta: Vector
    curvature: StoredCurvature
    seconds: float
    cold: ColdFit


def resume(estimator: Any, X: Any, y: Any, columns: Columns, terms: Terms, kept: Kept) -> PreparedModel:  # noqa: N803
    """Return a prepared model from what was kept of its preparation.

    Args:
        estimator: As given to ``prepare``.
        X: The same rows.
        y: Their labels.
        columns: Names and one-hot groups.
        terms: As given to ``prepare``.
        kept: What it came to.

    Raises:
        UnlearningError: The coefficients do not fit the columns, or are no minimizer on these rows.
    """
    problem = _checked(estimator, X, y, columns, terms)
    # How columns were scaled is known to who kept them, and need not be told from their values.
    problem = replace(problem, scaling=replace(problem.scaling, columns=()))
    if kept.theta.shape != problem.objective.kept.shape:
        raise UnlearningError(f"expected {len(problem.objective.kept):,} coefficients, got shape {kept.theta.shape}")
    point = problem.objective.at(kept.theta)
    with problem.objective.threads():  # which finds the libraries, so no request's time has that in it
        minimal = point.residual <= terms.tolerance
    if not minimal:
        raise UnlearningError(f"the coefficients are no minimizer on these rows: residual {point.residual:.2g}")
    solved = Solved(point, (), "none needed", 0, 0)
    return PreparedModel(problem.fixed(kept.curvature, point, kept.seconds, kept.cold), solved)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Checked data, and what is minimized on them."""

    estimator: Any
    specification: Specification
    labels: Labels
    columns: Columns
    is_frame: bool
    scaling: Scaling
    objective: Objective
    theta: Vector | None
    terms: Terms

    def fixed(self, curvature: StoredCurvature, start: Point, seconds: float, cold: ColdFit) -> Fixed:
        """Return what no request changes."""
        return Fixed(
            self.estimator,
            self.specification,
            self.labels,
            self.columns,
            self.is_frame,
            self.scaling,
            np.ones(len(self.objective.rows.positions)),
            curvature,
            self.terms.tolerance,
            Releases(),
            start,
            seconds,
            cold,
        )


def _checked(estimator: Any, X: Any, y: Any, columns: Sequence[str] | Columns | None, terms: Terms) -> _Problem:  # noqa: N803
    if not (terms.tolerance > 0 and math.isfinite(terms.tolerance)):
        raise UnlearningError(f"the tolerance must be a positive number, got {terms.tolerance}")
    names = list(columns.names) if isinstance(columns, Columns) else names_of(estimator, X, columns)
    matrix = checked_matrix(X)
    if len(names) != matrix.shape[1]:
        raise UnlearningError(f"expected a name for each of {matrix.shape[1]:,} columns, got {len(names):,}")
    targets = np.ravel(np.asarray(y))
    if len(targets) != matrix.shape[0]:
        raise UnlearningError(f"X has {matrix.shape[0]:,} rows and y {len(targets):,} labels: expected as many")
    classes = classes_of(targets)
    specification = specification_of(estimator, len(targets))
    if len(classes) > 2:
        specification = multinomial(estimator, specification, len(classes))
    if terms.penalize_intercept and specification.intercept_penalty == 0:
        specification = replace(specification, intercept_penalty=specification.penalty)
    weights = np.array([float(specification.class_weight.get(label, 1.0)) for label in classes.tolist()])
    labels = Labels(classes, weights)
    signs = labels.signs(targets)
    theta = fitted_theta(estimator, specification, (len(classes), matrix.shape[1]))
    scaling = scaling_of(matrix, names)
    known = columns if isinstance(columns, Columns) else Columns(names)
    if matrix.shape[1] <= _MOST_GROUPED:  # found once here, and not for every request
        known.find_groups(matrix)
    if specification.intercept_penalty is not None:
        matrix = with_intercept(matrix, specification.intercept_column)
    penalty = np.full(matrix.shape[1], specification.penalty)
    if specification.intercept_penalty is not None:
        penalty[-1] = specification.intercept_penalty
    rows = Rows.of(matrix, signs, labels.weights_of(signs))
    kept = np.ones(matrix.shape[1], dtype=bool)
    if len(classes) > 2:
        sizes = (np.tile(own, len(classes)) for own in (penalty, kept))
        objective: Objective = MultinomialObjective(rows, specification.loss, *sizes)
    else:
        objective = Objective(rows, specification.loss, penalty, kept)
    is_frame = hasattr(X, "columns") or hasattr(estimator, "feature_names_in_")
    return _Problem(estimator, specification, labels, known, is_frame, scaling, objective, theta, terms)


def _fit(objective: Objective, theta: Vector | None, tolerance: float) -> tuple[Solved, StoredCurvature, ColdFit]:
    """Return the minimizer, the curvature stored there, and what a fit from nothing takes."""
    nothing = fit_from_nothing(objective, tolerance)
    cold = cold_fit_of(nothing, tolerance)
    if theta is None:
        return nothing, store_curvature(nothing.point), cold
    with objective.threads():
        rough = store_curvature(objective.at(theta))
        solved = minimize(objective, theta, rough, tolerance)
    near = solved.path in ("none needed", "stored inverse")
    return solved, rough if near else store_curvature(solved.point), cold
