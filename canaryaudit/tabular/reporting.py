"""The figures of a report on requests: efficacy, fidelity, efficiency, certificate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score

from canaryaudit.errors import UnlearningError
from canaryaudit.report.tables.schema import (
    CertificateFigures,
    DisclosureLine,
    LossPoint,
    MembershipFigures,
    MethodLine,
    PublishedScheme,
    TablesSummary,
)
from canaryaudit.tabular.baselines import (
    Comparison,
    Contender,
    check_methods,
    contenders,
    one_published_step,
    second_order,
)
from canaryaudit.tabular.certificate import LIMITS, Certificate, draw_noise, on_grid, published_sigma
from canaryaudit.tabular.leakage import MOST_COLUMNS, Auc, disclosures, membership_auc
from canaryaudit.tabular.linear.arrays import Mask, Matrix, Vector
from canaryaudit.tabular.linear.objective import Objective, Point

MOST_POINTS = 400
DRAWS = 5
"""Draws of noise over which accuracy and F1 are averaged."""
_REPORT_LIMIT = (
    "The figures on this page are computed from the coefficients without noise: they are for the model's owner, and no "
    "certificate covers their publication."
)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is reported on.

    Attributes:
        estimator: Name of its class.
        names: Of the columns that the user knows.
        start: The model as it was prepared.
        point: The model after the requests.
        requests: What each did, in words.
        path: What the last one needed.
        seconds: Processor time of all requests.
        preparation_seconds: Processor time of the preparation.
        tolerance: Largest residual.
        warnings: What a user must know.
    """

    estimator: str
    names: tuple[str, ...]
    start: Point
    point: Point
    requests: tuple[str, ...]
    path: str
    seconds: float
    preparation_seconds: float
    tolerance: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Test:
    """Rows to evaluate on.

    Attributes:
        matrix: Shape (num_rows, num_columns), the intercept's column included.
        signs: +1 or -1.
        unseen: Whether the model was not trained on them.
    """

    matrix: Matrix
    signs: Vector
    unseen: bool


def summarize(
    subject: Subject, test: Test, against: Sequence[str], certificate: Certificate | UnlearningError | None
) -> TablesSummary:
    """Compute a report.

    Args:
        subject: The model and its requests.
        test: Rows to evaluate on.
        against: Methods to compare with; ``retrain`` is the reference of loss differences.
        certificate: What was certified; why nothing could be; None if nothing was asked for.

    Raises:
        UnlearningError: No request was made yet, or no method is called so.
    """
    if not subject.requests:
        raise UnlearningError("nothing to report: make a request first")
    check_methods(against)
    after = subject.point.objective
    comparison = Comparison(subject.start, after, subject.tolerance)
    others = contenders(comparison, against)
    reference = next((own.theta for own in others if own.name == "retrain"), subject.point.theta)
    retraining = next((own.seconds for own in others if own.name == "retrain"), None)
    update = Contender("update", subject.point.theta, subject.seconds, subject.preparation_seconds, subject.path)
    lines = tuple(_line(own, after, reference, test, retraining) for own in (update, *others))
    labels, counts = np.unique(test.signs, return_counts=True)
    share, majority = float(counts.max() / counts.sum()), np.full(len(test.signs), labels[::-1][counts[::-1].argmax()])
    figures = None if not isinstance(certificate, Certificate) else _certified(certificate, subject.point, test)
    told = disclosures(after, subject.names)
    removed = tuple(name for index, name in enumerate(subject.names) if not after.kept[index])
    limits = [*LIMITS, _REPORT_LIMIT]
    if len(removed) > MOST_COLUMNS:
        limits.append(f"What the other columns tell was examined for the {MOST_COLUMNS} fullest removed columns.")
    return TablesSummary(
        estimator=subject.estimator,
        loss=after.loss.name,
        rows=int(subject.start.objective.rows.present.sum()),
        columns=len(subject.names),
        requests=subject.requests,
        removed=removed,
        residual=subject.point.residual,
        tolerance=subject.tolerance,
        path=subject.path,
        preparation_seconds=subject.preparation_seconds,
        evaluated_on="test rows" if test.unseen else "training rows",
        majority_accuracy=share,
        majority_f1=_f1(test.signs, majority),
        methods=lines,
        certificate=figures,
        refused=str(certificate) if isinstance(certificate, UnlearningError) else "",
        published=None if figures is None else _published(comparison, test, figures.epsilon, figures.delta),
        disclosures=tuple(
            DisclosureLine(column=own.column, measure=own.measure, value=own.value, telling=own.telling) for own in told
        ),
        membership=_membership(subject, test, reference if retraining is not None else None),
        warnings=subject.warnings,
        limits=tuple(limits),
        points=_points(comparison, subject.point.theta, reference) if retraining is not None else (),
    )


def _line(own: Contender, after: Objective, reference: Vector, test: Test, retraining: float | None) -> MethodLine:
    point, retrained = after.at(own.theta), after.at(reference)
    places = after.rows.positions[after.rows.present]
    difference = np.abs(after.loss.value(point.margins) - after.loss.value(retrained.margins))[places]
    accuracy, f1 = _quality(after, own.theta, test)
    return MethodLine(
        name=own.name,
        residual=point.residual,
        mean_loss_difference=float(difference.mean()),
        max_loss_difference=float(difference.max()),
        accuracy=accuracy,
        f1=f1,
        seconds=own.seconds,
        preparation_seconds=own.preparation_seconds,
        speedup=retraining / own.seconds if retraining is not None and own.seconds > 0 else None,
        note=own.note,
    )


def _quality(objective: Objective, theta: Vector, test: Test) -> tuple[float, float]:
    predicted = objective.predicted(test.matrix, theta)
    return float((predicted == test.signs).mean()), _f1(test.signs, predicted)


def _f1(signs: Vector, predicted: Vector) -> float:
    return float(f1_score(signs, predicted, average="macro", zero_division=0.0))


def _certified(certificate: Certificate, point: Point, test: Test) -> CertificateFigures:
    objective, sigma = point.objective, certificate.sigma
    drawn = [
        _quality(objective, on_grid(point.theta + draw_noise(sigma, objective.kept, None), sigma), test)
        for _ in range(DRAWS)
    ]
    accuracy, f1 = np.mean(drawn, axis=0)
    return CertificateFigures(
        epsilon=certificate.epsilon,
        delta=certificate.delta,
        releases=certificate.releases,
        sigma=certificate.sigma,
        distance=certificate.distance,
        strong_convexity=certificate.strong_convexity,
        rounding=certificate.rounding,
        accuracy=float(accuracy),
        f1=float(f1),
    )


def _published(comparison: Comparison, test: Test, epsilon: float, delta: float) -> PublishedScheme:
    residual = comparison.after.at(second_order(comparison).theta).residual
    sigma = published_sigma(residual, epsilon, delta)
    kept: Mask = np.ones(len(comparison.before.theta), dtype=bool)
    noised = (one_published_step(comparison, draw_noise(sigma, kept, seed)) for seed in range(DRAWS))
    drawn = [_quality(comparison.after, theta, test) for theta in noised]
    accuracy, f1 = np.mean(drawn, axis=0)
    return PublishedScheme(residual=residual, sigma=sigma, accuracy=float(accuracy), f1=float(f1))


def _membership(subject: Subject, test: Test, retrained: Vector | None) -> MembershipFigures | None:
    start, after = subject.start.objective.rows, subject.point.objective
    deleted = np.flatnonzero(start.present & ~after.rows.present)
    if not test.unseen or min(len(deleted), len(test.signs)) < 2:
        return None
    signs = start.signs[start.positions[deleted]]
    rows = start.take(deleted)

    def auc(theta: Vector) -> Auc:
        return membership_auc(after.losses_of(rows, signs, theta), after.losses_of(test.matrix, test.signs, theta))

    found = auc(subject.point.theta)
    return MembershipFigures(
        auc=found.value,
        low=found.low,
        high=found.high,
        retrained=None if retrained is None else auc(retrained).value,
        deleted=len(deleted),
        unseen=len(test.signs),
    )


def _points(comparison: Comparison, theta: Vector, reference: Vector) -> tuple[LossPoint, ...]:
    """Return rows spread evenly over how much retraining changed their loss, so few that moved are not missed."""
    after, start = comparison.after, comparison.before
    rows = np.flatnonzero(after.rows.present)
    places = after.rows.positions[rows]
    old = start.objective.rows
    before = start.objective.loss.value(start.margins)[old.positions[rows]]
    changes = [after.loss.value(after.at(own).margins)[places] - before for own in (reference, theta)]
    order = np.argsort(changes[0])
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_POINTS, len(order))).astype(int))]
    return tuple(
        LossPoint(retrained=float(first), updated=float(second))
        for first, second in zip(changes[0][chosen], changes[1][chosen], strict=True)
    )
