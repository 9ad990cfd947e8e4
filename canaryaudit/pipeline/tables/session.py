"""An open run on a table: its rows and models, and its stages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.svm import LinearSVC

from canaryaudit import environment
from canaryaudit.errors import Damaged, ModelError, RunDirectoryError, one_line
from canaryaudit.pipeline.stages import recorded_stage
from canaryaudit.pipeline.tables.requests import to_request
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TRAINED_MODEL, ModelId, Stage, StageRun
from canaryaudit.records.tables import LinearModelRecord, TableRecord, TableUnlearningRecord
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.storage.arrays import read_arrays
from canaryaudit.tabular.encoding import TableRows, known_columns, scale_rows
from canaryaudit.tabular.estimators import specification_of
from canaryaudit.tabular.linear.arrays import Indices, Matrix, Vector
from canaryaudit.tabular.linear.inverse import DenseInverse, DiagonalInverse, StoredCurvature, store_curvature
from canaryaudit.tabular.linear.work import ColdFit
from canaryaudit.tabular.planting import check_canaries
from canaryaudit.tabular.preparation import Kept, Terms, resume
from canaryaudit.tabular.prepared import PreparedModel

ESTIMATORS: dict[str, type[Any]] = {
    own.__name__: own for own in (LogisticRegression, LinearSVC, RidgeClassifier, SGDClassifier)
}


class TableSession:
    """The open run that every stage works on.

    Attributes:
        run: The run directory, whose lock the caller holds.
        argv: The command line, for the manifest.
        progress: Receives progress.
    """

    def __init__(self, run: TableDirectory, argv: Sequence[str], progress: ProgressReporter) -> None:
        self.run, self.argv, self.progress = run, tuple(argv), progress
        self._prepared: tuple[str, PreparedModel] | None = None

    @cached_property
    def table(self) -> TableRecord:
        """What the columns, rows and canaries are."""
        return self.run.record()

    @cached_property
    def rows(self) -> TableRows:
        """All rows, in the source's units."""
        rows = TableRows.of(self.run.rows(), len(self.table.columns), len(self.table.classes))
        check_canaries(self.table, rows)
        return rows

    def training_rows(self) -> tuple[Matrix, np.ndarray[Any, Any]]:
        """Return the training rows in the units of models, and their labels."""
        places = self.rows.training
        return scale_rows(self.rows.matrix[places], self.table), self.labels(self.rows.codes[places])

    def heldout_rows(self) -> tuple[Matrix, np.ndarray[Any, Any]]:
        """Return the rows held out, in the units of models, and their labels."""
        places = np.flatnonzero(self.rows.heldout)
        return scale_rows(self.rows.matrix[places], self.table), self.labels(self.rows.codes[places])

    def labels(self, codes: Indices) -> np.ndarray[Any, Any]:
        """Return the labels of rows of these classes, as the estimator knows them."""
        classes = np.array([self.label(own) for own in self.table.classes])
        labels: np.ndarray[Any, Any] = classes[codes]
        return labels

    def label(self, text: str) -> Any:
        """Return a class as the estimator knows it."""
        return int(text) if self.table.numeric_classes else text

    # --- models

    def models(self) -> list[ModelId]:
        """Return all models that can be measured."""
        return [TRAINED_MODEL, *(ModelId(record.name) for record in self.run.unlearnings_in_order())]

    def theta(self, model: ModelId) -> Vector:
        """Return a model's coefficients, after checking their file against its record.

        Raises:
            RunDirectoryError: There is no such model.
            ModelError: The file is damaged.
        """
        path = self.run.verify_weights(model)
        arrays = read_arrays(path, self.run.see_how)
        if set(arrays) != {"theta"} or arrays["theta"].dtype != np.float64 or arrays["theta"].ndim != 1:
            raise ModelError(f"{path} does not hold a linear model's coefficients: {self.run.see_how}")
        theta: Vector = arrays["theta"]
        return theta

    def model(self, model: ModelId) -> PreparedModel:
        """Return a model on its data: those that it was trained on, after all requests that led to it.

        Raises:
            RunDirectoryError: There is no such model, or what it is made from is damaged.
        """
        prepared = self._trained()
        if model.unlearning is None:
            return prepared
        lineage = self.run.lineage(model.unlearning)
        if not lineage:
            raise RunDirectoryError(f"{self.run.path} has no model '{model}': {self.run.see_how}")
        for record in lineage:
            prepared = prepared.with_result(self.request(record), self.theta(ModelId(record.name)), record.path)
        return prepared

    def request(self, record: TableUnlearningRecord) -> Any:
        """Return the request of an unlearning."""
        return to_request(record.request, self.table, self.label)

    def lineage(self, model: ModelId) -> tuple[TableUnlearningRecord, ...]:
        """Return the unlearnings that led to a model, the latest last."""
        return () if model.unlearning is None else self.run.lineage(model.unlearning)

    def _trained(self) -> PreparedModel:
        record = self.run.trained_model()
        if self._prepared is None or self._prepared[0] != record.sha256:
            matrix, labels = self.training_rows()
            theta = self.theta(TRAINED_MODEL)
            terms = Terms(record.tolerance, penalize_intercept=record.intercept_penalty not in (None, 0.0))
            kept = Kept(
                theta, self._curvature(len(theta)), record.seconds, ColdFit(record.cold_work, record.cold_decades)
            )
            estimator = estimator_of(record, self.label)
            prepared = resume(estimator, matrix, labels, known_columns(self.table), terms, kept)
            if kept.curvature is _MISSING:
                prepared = prepared.with_curvature(store_curvature(prepared.solved.point))
            self._prepared = (record.sha256, prepared)
        return self._prepared[1]

    def _curvature(self, columns: int) -> StoredCurvature:
        """Return the stored curvature; a placeholder if it is missing or damaged, and must be computed again."""
        try:
            stored = self.run.curvature()
        except Damaged:
            stored = None
        if stored is not None:
            inverse, diagonal = stored.get("inverse"), stored.get("diagonal")
            if inverse is not None and inverse.shape == (columns, columns) and inverse.dtype.kind == "f":
                return DenseInverse(np.asfortranarray(inverse))
            if diagonal is not None and diagonal.shape == (columns,) and diagonal.dtype.kind == "f":
                return DiagonalInverse(diagonal.astype(np.float64))
        return _MISSING

    @contextmanager
    def stage(self, stage: Stage, name: str = "", *, seed: int | None = None) -> Iterator[None]:
        """Record a stage in the manifest when its work is done, before its record is written."""
        facts = StageRun(
            stage=stage, name=name, argv=self.argv, started=environment.utc_now(), seconds=0, seed=seed, device="cpu"
        )
        with recorded_stage(self.run, self.progress, facts):
            yield


_MISSING = DiagonalInverse(np.empty(0))


def estimator_of(record: LinearModelRecord, label: Any) -> Any:
    """Return an estimator with the parameters of a record, not fitted.

    Args:
        record: Of the trained model.
        label: Returns a class as the estimator knows it.

    Raises:
        ModelError: The record names no estimator that can be updated.
    """
    if record.estimator not in ESTIMATORS:
        raise ModelError(f"model.json names no estimator of this version: {record.estimator[:80]!r}")
    weights = {label(own): weight for own, weight in record.class_weight.items()} or None
    try:
        estimator = ESTIMATORS[record.estimator](**record.parameters, class_weight=weights)
        specification_of(estimator, 1)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(
            f"model.json has parameters that {record.estimator} does not take: {one_line(error)}"
        ) from None
    return estimator


def curvature_arrays(curvature: StoredCurvature) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a stored curvature."""
    if isinstance(curvature, DenseInverse):
        return {"inverse": curvature.matrix}
    if isinstance(curvature, DiagonalInverse):
        return {"diagonal": curvature.diagonal}
    raise TypeError(f"unknown curvature {curvature.kind}")
