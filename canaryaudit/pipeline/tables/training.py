"""Train stage of a run on a table: fit a linear model to a checked residual, or take a fitted estimator."""

from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from canaryaudit.errors import ModelError, UnlearningError
from canaryaudit.pipeline.tables.insertion import listed_classes
from canaryaudit.pipeline.tables.session import TableSession, curvature_arrays
from canaryaudit.pipeline.tables.skops_files import load_estimator
from canaryaudit.records import TRAINED_MODEL
from canaryaudit.records.tables import LinearModelRecord, LossName
from canaryaudit.storage.arrays import arrays_bytes
from canaryaudit.table_plan import TableTrainOptions
from canaryaudit.tabular.encoding import known_columns
from canaryaudit.tabular.estimators import specification_of
from canaryaudit.tabular.preparation import prepare
from canaryaudit.tabular.prepared import PreparedModel

_LOSSES: dict[str, LossName] = {
    "logistic": "logistic",
    "multinomial": "multinomial",
    "squared hinge": "squared-hinge",
    "squared": "squared",
}


def train_table(session: TableSession, options: TableTrainOptions, *, anew: bool = False) -> LinearModelRecord:
    """Train the model, or report that it is already trained.

    Args:
        session: The run.
        options: How to train.
        anew: Retrain even if a model exists; everything made from the old model becomes stale.

    Raises:
        ModelError: A model was made with other options.
        UnlearningError: The estimator cannot be used.
        Inconclusive: The residual stays above the tolerance.
    """
    estimator = _estimator(session, options)
    if session.run.has_model(TRAINED_MODEL) and not anew:
        record = session.run.trained_model()
        if _facts(estimator) != _facts_of(record) or record.tolerance != options.tolerance:
            raise ModelError(
                f"{session.run.path} has a {record.estimator} trained with other options: use --force to train again"
            )
        session.progress.info(f"Already trained: {record.estimator}, residual {record.residual:.1e}.")
        return record
    with session.stage("train"):
        matrix, labels = session.training_rows()
        prepared = prepare(
            estimator,
            matrix,
            labels,
            columns=known_columns(session.table),
            tolerance=options.tolerance,
            penalize_intercept=options.model is None,
            progress=session.progress,
        )
    record = _write(session, prepared, given=options.model is not None)
    session.progress.info(
        f"Trained a {record.estimator} on {matrix.shape[0]:,} rows and {matrix.shape[1]:,} columns: residual "
        f"{record.residual:.1e}."
    )
    return record


def _write(session: TableSession, prepared: PreparedModel, *, given: bool) -> LinearModelRecord:
    estimator, run = prepared.prototype, session.run
    specification = specification_of(estimator, len(session.rows.training))
    data = arrays_bytes({"theta": prepared.solved.point.theta})
    parameters, weights = _facts(estimator)[1:]
    record = LinearModelRecord(
        sha256=run.write_weights(TRAINED_MODEL, data),
        estimator=type(estimator).__name__,
        parameters=parameters,
        class_weight=weights,
        given=given,
        loss=_LOSSES[prepared.start.objective.loss.name],
        penalty=specification.penalty,
        intercept_penalty=prepared.intercept_penalty,
        tolerance=prepared.tolerance,
        residual=prepared.residual,
        seconds=prepared.preparation_seconds,
        curvature=prepared.curvature.kind,
        cold_work=prepared.cold.work,
        cold_decades=prepared.cold.decades,
    )
    run.write_model_record(record)
    run.write_curvature(curvature_arrays(prepared.curvature))
    return record


def _estimator(session: TableSession, options: TableTrainOptions) -> Any:
    if options.model is None:
        if options.loss == "logistic":
            return LogisticRegression(C=options.c, fit_intercept=options.intercept)
        return LinearSVC(C=options.c, fit_intercept=options.intercept, dual=False)
    estimator = load_estimator(options.model)
    specification_of(estimator, len(session.rows.training))
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and [*map(str, names)] != [*session.table.columns]:
        raise UnlearningError(
            f"{options.model} was fitted on other columns than the run's, such as {next(iter(names))!s}: fit it on the "
            f"{len(session.table.columns):,} encoded columns, such as {session.table.columns[0]}"
        )
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        own = [str(label) for label in classes]
        if own != [*session.table.classes]:
            raise UnlearningError(
                f"{options.model} tells {listed_classes(own)} apart: expected {listed_classes(session.table.classes)}, "
                "in this order"
            )
    return estimator


def _facts(estimator: Any) -> tuple[str, dict[str, Any], dict[str, float]]:
    """Return an estimator's class, its parameters that JSON can hold, and its class weights by class."""
    parameters = estimator.get_params()
    weights = parameters.pop("class_weight", None) or {}
    plain = {name: own for name, own in parameters.items() if own is None or isinstance(own, str | float | int | bool)}
    return type(estimator).__name__, plain, {str(label): float(weight) for label, weight in weights.items()}


def _facts_of(record: LinearModelRecord) -> tuple[str, dict[str, Any], dict[str, float]]:
    return record.estimator, dict(record.parameters), dict(record.class_weight)
