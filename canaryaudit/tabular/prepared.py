"""A linear model that is prepared for requests: its data, its minimizer, and the stored inverse curvature."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canaryaudit.errors import UnlearningError
from canaryaudit.records.tables import PathName
from canaryaudit.tabular.certificate import Certificate, Releases, certify, draw_noise, on_grid
from canaryaudit.tabular.changes import Change, Labels, Replacement, Request, along_words, carry_out
from canaryaudit.tabular.columns import Columns, Scaling
from canaryaudit.tabular.detached import DetachedModel, Facts, detach
from canaryaudit.tabular.estimators import Specification, with_theta
from canaryaudit.tabular.inputs import checked_matrix, with_intercept
from canaryaudit.tabular.linear.arrays import Mask, Matrix, Vector
from canaryaudit.tabular.linear.inverse import StoredCurvature
from canaryaudit.tabular.linear.objective import Point
from canaryaudit.tabular.linear.solver import Solved, minimize
from canaryaudit.tabular.linear.work import ColdFit, Estimate, better_start, estimate, fit_from_nothing

if TYPE_CHECKING:
    from canaryaudit.report.tables.schema import TablesSummary

TOLERANCE = 1e-6
"""Largest norm of the gradient, of the losses' sum. The loss of a row is then that of retraining to six digits."""


@dataclass(frozen=True, eq=False)
class Fixed:
    """What no request changes."""

    estimator: Any
    specification: Specification
    labels: Labels
    columns: Columns
    is_frame: bool
    scaling: Scaling
    row_weights: Vector
    curvature: StoredCurvature
    tolerance: float
    releases: Releases
    start: Point
    """The model as it was prepared."""
    seconds: float
    """Processor time of the preparation."""
    cold: ColdFit
    """What a fit from nothing takes."""


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """A fitted linear model that requests can be put to. Made by ``prepare``; never changed by a request.

    Examples:
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.svm import LinearSVC
        >>> from canaryaudit.tabular import prepare
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> model = prepare(LinearSVC(), X / X.max(axis=0), y)
        >>> new = model.relabel(rows=[0, 1], labels=1).replace(columns=[3], rows=[7], values=0.5)
        >>> [change.words for change in new.history], new.residual <= new.tolerance
        (['2 labels changed', '1 value replaced'], True)

    Attributes:
        solved: The model's coefficients, and how they were found.
        history: What every request so far did.
        warnings: What a user must know before relying on the result.
        seconds: Processor time of all requests so far.
        estimate: The work of the last request as an update, and as a fit from nothing; the smaller one decided.
    """

    _fixed: Fixed = field(repr=False)
    solved: Solved = field(repr=False)
    history: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    estimate: Estimate | None = None
    _dropped: Mask | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        name, count = type(self._fixed.estimator).__name__, len(self.history)
        return f"PreparedModel({name}, {count} request{'' if count == 1 else 's'}, residual {self.residual:.1e})"

    def forget(self, columns: Any, *, drop: bool = False) -> "PreparedModel":
        """Remove columns: a model that never had them.

        Args:
            columns: A name, a number, a pattern such as ``name_*``, or several of them. Columns of the same one-hot
                group go together.
            drop: Whether ``estimator`` takes X without the columns; otherwise their coefficients are 0.

        Returns:
            The updated model; this one stays as it is.

        Raises:
            UnlearningError: No column is called so, it was removed before, or no other is left.
            Inconclusive: The residual stays above the tolerance.
        """
        updated = self.apply(Request(columns=columns))
        if not drop:
            return updated
        gone = ~updated.solved.point.objective.kept[: len(self._fixed.columns)]
        earlier = ~self.solved.point.objective.kept[: len(self._fixed.columns)]
        dropped = (gone & ~earlier) | (self._dropped if self._dropped is not None else False)
        return replace(updated, _dropped=dropped)

    def replace(self, columns: Any, rows: Any = None, values: Any = 0.0) -> "PreparedModel":
        """Replace values, as if they had always been others.

        Args:
            columns: A name, a number, a pattern, or several of them.
            rows: Numbers of rows in the order of X, or a mask of shape (num_rows,); all rows if None.
            values: One value, one for each column, or shape (len(rows), len(columns)).

        Returns:
            The updated model; this one stays as it is.

        Raises:
            UnlearningError: A column or row is unknown or gone, or the shapes do not match.
            Inconclusive: The residual stays above the tolerance.
        """
        return self.apply(Request(replacements=(Replacement(columns, values, rows),)))

    def relabel(self, rows: Any, labels: Any) -> "PreparedModel":
        """Correct labels.

        Args:
            rows: Numbers of rows in the order of X.
            labels: The right label of each, or one for all.

        Returns:
            The updated model; this one stays as it is.

        Raises:
            UnlearningError: A row or label is unknown, or all rows would have the same label.
            Inconclusive: The residual stays above the tolerance.
        """
        given = np.asarray(rows)
        numbers = (np.flatnonzero(given) if given.dtype == bool else np.atleast_1d(given)).tolist()
        new = np.asarray(labels)
        if new.ndim == 0:
            new = np.repeat(new, len(numbers))
        if len(new) != len(numbers):
            raise UnlearningError(f"expected one label for each of {len(numbers):,} rows, got {len(new):,}")
        if len(set(numbers)) != len(numbers):
            raise UnlearningError("a row is given more than once")
        return self.apply(Request(labels=dict(zip(numbers, new.tolist(), strict=True))))

    def delete(self, rows: Any) -> "PreparedModel":
        """Delete rows. The others keep their numbers.

        Args:
            rows: Numbers of rows in the order of X, or a mask of shape (num_rows,).

        Returns:
            The updated model; this one stays as it is.

        Raises:
            UnlearningError: A row is unknown or was deleted before, or all others have the same label.
            Inconclusive: The residual stays above the tolerance.
        """
        return self.apply(Request(rows=rows))

    def apply(self, request: Request, *, retrain: bool = False) -> "PreparedModel":
        """Carry out a request that mixes columns, values, labels and rows, in one update.

        Where a fit from nothing is less work than an update, it is done instead: ``estimate`` has both, counted and
        not timed, and ``solved.path`` says what was done.

        Args:
            request: What to do.
            retrain: Whether to fit from nothing in any case.

        Returns:
            The updated model; this one stays as it is.

        Raises:
            UnlearningError: The request does not fit the data.
            Inconclusive: The residual stays above the tolerance.
        """
        fixed, started = self._fixed, time.process_time()
        objective, change = carry_out(
            request, self.solved.point.objective, fixed.columns, fixed.labels, fixed.row_weights
        )
        with objective.threads():
            start = better_start(objective.at(np.where(objective.kept, self.solved.point.theta, 0.0)))
            work = estimate(start, fixed.curvature, fixed.cold, fixed.tolerance, self.solved.point.value)
            if retrain or work.retrain:
                solved = replace(fit_from_nothing(objective, fixed.tolerance), path="fit from nothing")
            else:
                solved = minimize(objective, start.theta, fixed.curvature, fixed.tolerance, start)
        notes = fixed.scaling.warnings(
            columns_go=bool(len(change.columns)), rows_change=bool(len(change.rows) or change.values)
        )
        if change.along:
            notes = (*notes, along_words(change.along))
        warnings = tuple(dict.fromkeys((*self.warnings, *notes)))
        seconds = self.seconds + time.process_time() - started
        return replace(
            self, solved=solved, history=(*self.history, change), warnings=warnings, seconds=seconds, estimate=work
        )

    def with_result(self, request: Request, theta: Vector, path: PathName) -> "PreparedModel":
        """Return what ``apply`` returned, from the coefficients that it came to; ``residual`` is computed anew.

        Args:
            request: What was asked for.
            theta: The coefficients, shape (num_columns,), the intercept's last.
            path: How they were found.

        Raises:
            UnlearningError: The request or the coefficients do not fit the data.
        """
        fixed = self._fixed
        objective, change = carry_out(
            request, self.solved.point.objective, fixed.columns, fixed.labels, fixed.row_weights
        )
        if theta.shape != objective.kept.shape or theta[~objective.kept].any():
            raise UnlearningError("the coefficients do not fit the columns that are left")
        solved = Solved(objective.at(theta), (), path, 0, 0)
        return replace(self, solved=solved, history=(*self.history, change))

    def with_curvature(self, curvature: StoredCurvature) -> "PreparedModel":
        """Return the model with another stored curvature: it decides how fast requests are, never what they give."""
        return replace(self, _fixed=replace(self._fixed, curvature=curvature))

    @cached_property
    def estimator(self) -> Any:
        """A fitted scikit-learn estimator; it takes X of the original width, unless columns were dropped."""
        return self._estimator_with(self.solved.point.theta)

    @property
    def residual(self) -> float:
        """The norm of the gradient on the present data, computed from the coefficients: what was checked."""
        return self.solved.point.residual

    @property
    def tolerance(self) -> float:
        """The largest residual that is returned."""
        return self._fixed.tolerance

    @property
    def start(self) -> Point:
        """The model as it was prepared."""
        return self._fixed.start

    @property
    def prototype(self) -> Any:
        """The estimator that was given."""
        return self._fixed.estimator

    @property
    def intercept_penalty(self) -> float | None:
        """P of the intercept; None without one."""
        return self._fixed.specification.intercept_penalty

    @property
    def curvature(self) -> StoredCurvature:
        """What is stored of the inverse Hessian."""
        return self._fixed.curvature

    @property
    def cold(self) -> ColdFit:
        """What a fit from nothing takes."""
        return self._fixed.cold

    @property
    def preparation_seconds(self) -> float:
        """Processor time of the preparation."""
        return self._fixed.seconds

    @property
    def columns(self) -> Columns:
        """The columns by name, with their one-hot groups."""
        return self._fixed.columns

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the columns removed so far."""
        kept = self.solved.point.objective.kept
        return tuple(name for index, name in enumerate(self._fixed.columns.names) if not kept[index])

    def removed_since(self, earlier: "PreparedModel") -> tuple[str, ...]:
        """Return the names of the columns removed since an earlier model."""
        return tuple(name for name in self.removed if name not in {*earlier.removed})

    def certificate(self, epsilon: float, delta: float, *, releases: int = 1) -> Certificate:
        """Certify that publishing this model is indistinguishable from publishing a retrained one.

        Args:
            epsilon: Above 0.
            delta: Between 0 and 1.
            releases: How many models will be published in all, under the same epsilon and delta.

        Returns:
            The certificate: the noise that it needs, what it rests on and what it does not promise.

        Raises:
            UnlearningError: It would not hold, for example because the intercept is not regularized.
        """
        return certify(self.solved.point, self._fixed.tolerance, epsilon, delta, releases)

    def publish(self, epsilon: float, delta: float, *, releases: int = 1, seed: int | None = None) -> Any:
        """Return an estimator to publish: the coefficients with the certificate's noise; removed columns exactly 0.

        The plan is fixed by the first call, for this model and all that come from the same ``prepare``.

        Args:
            epsilon: Above 0.
            delta: Between 0 and 1.
            releases: How many models will be published in all.
            seed: For a repeatable test; without it, the noise comes from the operating system. A seed that anybody
                knows voids the certificate.

        Returns:
            A fitted scikit-learn estimator.

        Raises:
            UnlearningError: The certificate would not hold, or the planned releases are used up.
        """
        certificate = self.certificate(epsilon, delta, releases=releases)
        self._fixed.releases.use(epsilon, delta, releases)
        kept = self.solved.point.objective.kept
        noise = draw_noise(certificate.sigma, kept, seed)
        return self._estimator_with(on_grid(self.solved.point.theta + noise, certificate.sigma))

    def detach(self) -> DetachedModel:
        """Return the model without its data, for when they have to go; its requests bring the rows that they change.

        Returns:
            The model, whose residual is a bound and no longer checked.

        Raises:
            UnlearningError: The loss is the squared hinge, which has no such bound, or there are too many columns.
        """
        fixed, objective = self._fixed, self.solved.point.objective
        facts = Facts(
            fixed.estimator,
            fixed.specification,
            fixed.labels,
            Columns(fixed.columns.names),
            fixed.is_frame,
            fixed.tolerance,
            fixed.releases,
            objective.penalty,
            int(objective.rows.present.sum()),
        )
        return detach(self.solved.point, facts)

    def report(
        self,
        path: str | Path,
        *,
        against: Sequence[str] = ("retrain",),
        test: tuple[Any, Any] | None = None,
        guarantee: tuple[float, float] | None = None,
    ) -> "TablesSummary":
        """Write a report on all requests so far: efficacy, fidelity, efficiency, certificate.

        Args:
            path: A file that ends in ``.html``, ``.md`` or ``.json``.
            against: Methods to compare with: ``retrain``, ``left-out``, ``first-order``, ``second-order``,
                ``fine-tune``, ``sisa:5,10,20``, ``sisa-deleted:5,10,20``.
            test: X and y that the model never saw, X of the original width; the training rows if not given.
            guarantee: Epsilon and delta of a certificate to report on.

        Returns:
            The report's figures.

        Raises:
            UnlearningError: No request was made yet, or a method, or the test data, cannot be used.
            UsageError: The path has another ending.
            RunDirectoryError: The file cannot be written, or one of the same name is not a report.
        """
        # Imported here, since what draws takes seconds to load.
        from canaryaudit.report.tables.writer import write_tables
        from canaryaudit.tabular.reporting import Subject, Test, summarize

        fixed, present = self._fixed, self.solved.point.objective.rows
        training = Test(present.matrix(), present.present_signs, unseen=False)
        rows = training if test is None else Test(*self.test_rows(*test), unseen=True)
        certificate: Certificate | UnlearningError | None = None
        if guarantee is not None:
            try:
                certificate = self.certificate(*guarantee)
            except UnlearningError as error:
                certificate = error
        subject = Subject(
            type(fixed.estimator).__name__,
            fixed.columns.names,
            fixed.start,
            self.solved.point,
            tuple(change.words for change in self.history),
            self.solved.path,
            self.seconds,
            fixed.seconds,
            fixed.tolerance,
            self.warnings,
        )
        summary = summarize(subject, rows, against, certificate)
        write_tables(summary, Path(path))
        return summary

    def test_rows(self, X: Any, y: Any) -> tuple[Matrix, Vector]:  # noqa: N803
        """Return other rows as the coefficients take them, the intercept's column included, and their signs.

        Raises:
            UnlearningError: They do not fit the columns and classes.
        """
        fixed = self._fixed
        matrix = checked_matrix(X)
        if matrix.shape[1] != len(fixed.columns):
            raise UnlearningError(f"test rows need {len(fixed.columns):,} columns, got {matrix.shape[1]:,}")
        signs = fixed.labels.signs(np.ravel(np.asarray(y)))
        if len(signs) != matrix.shape[0]:
            raise UnlearningError(f"the test has {matrix.shape[0]:,} rows and {len(signs):,} labels: expected as many")
        if fixed.specification.intercept_penalty is not None:
            matrix = with_intercept(matrix, fixed.specification.intercept_column)
        return matrix, signs

    def _estimator_with(self, theta: Vector) -> Any:
        fixed = self._fixed
        shown = None if self._dropped is None else ~self._dropped
        names = fixed.columns.names if fixed.is_frame else None
        return with_theta(fixed.estimator, fixed.specification, theta, fixed.labels.classes, names, shown)
