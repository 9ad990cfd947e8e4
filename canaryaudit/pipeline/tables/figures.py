"""What is measured of a linear model of a run, and computed again by ``verify``."""

import math
import time
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score

from canaryaudit.errors import MeasurementError
from canaryaudit.pipeline.rows.figures import numbers_of
from canaryaudit.pipeline.tables.session import TableSession
from canaryaudit.privacy.audit import privacy_of
from canaryaudit.progress import NullReporter
from canaryaudit.records import ModelId, Privacy
from canaryaudit.records.tables import CanaryKind, Quality, TableCanary, TableMeasurement
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.tabular.encoding import scale_rows
from canaryaudit.tabular.linear.arrays import Matrix, Vector, row_norms
from canaryaudit.tabular.linear.objective import Point
from canaryaudit.tabular.linear.work import fit_from_nothing
from canaryaudit.tabular.planting import source_column, with_values
from canaryaudit.tabular.prepared import PreparedModel

_SAME = 1e-6
"""Relative difference of a recorded figure to the one computed again that may be rounding on another machine."""
_RESIDUAL_ROUNDING = 1e-2
"""The same of a residual, which is a small difference of large sums; relative to the tolerance."""


@dataclass(frozen=True, eq=False)
class Figures:
    """What follows from a model's coefficients and the rows, without a second fit."""

    residual: float
    train: Quality
    heldout: Quality | None
    labels: Privacy | None
    values: Privacy | None


def measure_table(session: TableSession, model: ModelId) -> TableMeasurement:
    """Measure a model: its residual, its loss beside a model fitted from nothing, its quality, and canaries."""
    with session.stage("measure", str(model)):
        prepared = session.model(model)
        point, figures = prepared.solved.point, figures_of(session, prepared)
        started = time.process_time()
        fitted = fit_from_nothing(point.objective, prepared.tolerance).point
        seconds = time.process_time() - started
        difference = loss_difference(point, fitted)
    measurement = TableMeasurement(
        model=model,
        model_sha256=session.run.model_sha256(model),
        residual=figures.residual,
        tolerance=prepared.tolerance,
        mean_loss_difference=float(difference.mean()),
        max_loss_difference=float(difference.max()),
        retraining_seconds=seconds,
        train=figures.train,
        heldout=figures.heldout,
        labels=figures.labels,
        values=figures.values,
    )
    session.run.write_measurement(measurement)
    return measurement


def loss_difference(point: Point, other: Point) -> Vector:
    """Return the absolute difference of every present row's loss in two models on the same data."""
    rows, loss = point.objective.rows, point.objective.loss
    places = rows.positions[rows.present]
    difference: Vector = np.abs(loss.value(point.margins) - loss.value(other.margins))[places]
    return difference


def figures_of(session: TableSession, prepared: PreparedModel) -> Figures:
    """Compute what follows from a model's coefficients and the rows."""
    point = prepared.solved.point
    rows = point.objective.rows
    heldout = None
    if session.rows.heldout.any():
        matrix, labels = session.heldout_rows()
        heldout = quality(point, *prepared.test_rows(matrix, labels))
    return Figures(
        point.residual,
        quality(point, rows.matrix(), rows.present_signs),
        heldout,
        canary_privacy(session, prepared, "label"),
        canary_privacy(session, prepared, "value"),
    )


def quality(point: Point, matrix: Matrix, signs: Vector) -> Quality:
    """Return a model's accuracy and F1 on some rows."""
    predicted = point.objective.predicted(matrix, point.theta)
    share = float(np.unique(signs, return_counts=True)[1].max() / len(signs))
    return Quality(
        rows=len(signs),
        accuracy=float((predicted == signs).mean()),
        f1=float(f1_score(signs, predicted, average="macro", zero_division=0.0)),
        majority_accuracy=share,
    )


def canary_privacy(session: TableSession, prepared: PreparedModel, kind: CanaryKind) -> Privacy | None:
    """Return what a model tells of the coins of one kind of canaries; None without any, or if all coins were alike.

    A candidate's score is its loss with its own label or value, less its loss with what was planted or might have
    been: the same for planted ones and controls.
    """
    canaries = [canary for canary in session.table.canaries if canary.kind == kind]
    members = [canary.planted for canary in canaries]
    if len(set(members)) < 2:
        return None
    order = np.argsort([canary.row for canary in canaries])  # which no coin had a part in
    scores = canary_scores(session, prepared, canaries)[order]
    try:
        return privacy_of(scores.tolist(), [members[place] for place in order.tolist()], 1)
    except MeasurementError:
        return None


def canary_scores(session: TableSession, prepared: PreparedModel, canaries: list[TableCanary]) -> Vector:
    """Return each candidate's loss as it would be without a plant, less that with it, shape (num_canaries,)."""
    table, point = session.table, prepared.solved.point
    places = session.rows.training[[canary.row for canary in canaries]]
    matrix = session.rows.matrix[places]
    objective = point.objective
    if canaries[0].kind == "label":
        losses = []
        for texts in ([own.original for own in canaries], [own.value for own in canaries]):
            codes = np.array([table.classes.index(str(text)) for text in texts])
            labeled = prepared.test_rows(scale_rows(matrix, table), session.labels(codes))
            losses.append(objective.losses_of(*labeled, point.theta))
        return losses[0] - losses[1]
    losses = []
    for with_plant in (False, True):
        changed = matrix
        kinds = dict.fromkeys((own.column, own.value if with_plant else own.original) for own in canaries)
        for column, value in kinds:
            chosen = [(own.column, own.value if with_plant else own.original) == (column, value) for own in canaries]
            changed = with_values(table, changed, source_column(table, column, "canary"), np.flatnonzero(chosen), value)
        rows, signs = prepared.test_rows(scale_rows(changed, table), session.labels(session.rows.codes[places]))
        losses.append(objective.losses_of(rows, signs, point.theta))
    return losses[0] - losses[1]


def table_measurement_fault(run: TableDirectory, measurement: TableMeasurement) -> str:
    """Compute a measurement's figures again; return what is wrong with them, or an empty text.

    Raises:
        CanaryAuditError: What they follow from cannot be read.
    """
    session = TableSession(run, (), NullReporter())
    prepared = session.model(measurement.model)
    if measurement.tolerance != prepared.tolerance:
        return "its tolerance is not the model's"
    figures = figures_of(session, prepared)
    if abs(figures.residual - measurement.residual) > _RESIDUAL_ROUNDING * prepared.tolerance:
        return f"its residual is {measurement.residual:.2g}, and computed again {figures.residual:.2g}"
    if figures.residual > prepared.tolerance * (1 + _RESIDUAL_ROUNDING):
        return f"the model's residual of {figures.residual:.2g} is above the tolerance"
    if fault := _difference_fault(prepared, measurement):
        return fault
    for name in ("train", "heldout", "labels", "values"):
        if not _alike(getattr(figures, name), getattr(measurement, name)):
            return f"its figures in {name!r} do not follow from the model"
    return ""


def _difference_fault(prepared: PreparedModel, measurement: TableMeasurement) -> str:
    """Fit from nothing again and compare the loss differences; return what is wrong with them, or an empty text.

    Two fits to a residual of rho lie within 2 rho / m of each other, m the smallest penalty. So a row's loss may differ
    by its length, times its loss's slope, times as much; the recorded difference by no more than the largest of these.
    """
    point = prepared.solved.point
    fitted = fit_from_nothing(point.objective, prepared.tolerance).point
    difference = loss_difference(point, fitted)
    penalties = point.objective.penalty[point.objective.kept]
    rows = point.objective.rows
    places = rows.positions[rows.present]
    slopes = np.abs(fitted.slopes[places])
    slopes = (np.linalg.norm(slopes, axis=1) if slopes.ndim == 2 else slopes) / rows.weights[places]
    farthest = 2 * prepared.tolerance / float(penalties[penalties > 0].min())
    allowed = farthest * float((slopes * row_norms(rows.matrix())).max(initial=0.0))
    pairs = (
        ("mean", measurement.mean_loss_difference, float(difference.mean())),
        ("largest", measurement.max_loss_difference, float(difference.max())),
    )
    for name, recorded, computed in pairs:
        if abs(recorded - computed) > allowed:
            return f"its {name} loss difference is {recorded:.2g}, and computed again {computed:.2g}"
    return ""


def _alike(computed: Quality | Privacy | None, recorded: Quality | Privacy | None) -> bool:
    if computed is None or recorded is None:
        return computed is recorded
    first, second = numbers_of(computed.model_dump()), numbers_of(recorded.model_dump())
    return first.keys() == second.keys() and all(math.isclose(first[k], second[k], rel_tol=_SAME) for k in first)
