"""Report stage of a run on images: what its records say, every method beside the others, and the gate."""

import math
from collections.abc import Sequence

from canaryaudit.image_plan import ImageReportOptions
from canaryaudit.pipeline.images.figures import image_measurement_fault
from canaryaudit.pipeline.images.session import ImageSession, weight_shapes
from canaryaudit.pipeline.rows.figures import coin_figures, fault_doubts, gate_status
from canaryaudit.pipeline.rows.pipeline import nothing_unlearned
from canaryaudit.records import TRAINED_MODEL, ModelId, Privacy
from canaryaudit.records.images import ImageMeasurement, RelabelingRecord, last_relabeling
from canaryaudit.records.tables import Quality
from canaryaudit.report.images.schema import ImageGate, ImageResultLine, ImagesSummary
from canaryaudit.runs.image_verification import ImageVerifier
from canaryaudit.runs.rows_verification import RowsChecks

CHECKS = RowsChecks(ImageVerifier, image_measurement_fault, weight_shapes)
_LIMITS = (
    "A network is not convex: there is no certificate. What was achieved is measured, on images held out and on the "
    "rows whose labels were flipped.",
    "Membership and epsilon concern labels, the difference between a flipped label and the row's own: not whether the "
    "image was trained on.",
    "A model published before the request is not changed by it.",
)


def summarize_image_run(session: ImageSession, options: ImageReportOptions, faults: Sequence[str]) -> ImagesSummary:
    """Return what a report says of a run."""
    run, manifest = session.run, session.run.manifest
    unlearnings = run.unlearnings_in_order()
    result = last_relabeling(unlearnings)
    if result is None:
        raise nothing_unlearned(run, options)
    before, after = run.measurement(TRAINED_MODEL), run.measurement(ModelId(result.name))
    lines = _lines(session, unlearnings, result, before)
    return ImagesSummary(
        images=manifest.facts.name,
        run=run.path.resolve().name,
        target=manifest.facts.target,
        classes=len(session.record.classes),
        rows=manifest.facts.rows,
        evaluated_on="images held out" if before.heldout else "training images",
        parameters=run.trained_model().parameters,
        training_seconds=run.trained_model().seconds,
        accuracy_before=_quality(before).accuracy,
        f1_before=_quality(before).f1,
        majority_accuracy=_quality(before).majority_accuracy,
        flipped_right_before=before.flipped_right,
        flipped_wrong_before=before.flipped_wrong,
        kept_right_before=before.kept_right,
        result=result.name,
        results=tuple(lines),
        coins=coin_figures("flipped labels", before.labels, after.labels),
        gate=image_gate(options, result.name, after.labels, faults),
        faults=tuple(faults),
        signed=options.key is not None,
        versions=tuple(f"{name} {version}" for name, version in manifest.versions.items()),
        limits=_LIMITS,
    )


def _lines(
    session: ImageSession,
    unlearnings: Sequence[RelabelingRecord],
    result: RelabelingRecord,
    before: ImageMeasurement,
) -> list[ImageResultLine]:
    own = session.labels(session.requests(ModelId(result.name)))
    original = session.labels()
    found = []
    for record in unlearnings:
        lineage = session.lineage(ModelId(record.name))
        labels = session.labels([link.request for link in lineage])
        measured = session.run.measurement(ModelId(record.name))
        seconds = sum(link.seconds for link in lineage)
        found.append(
            ImageResultLine(
                name=record.name,
                origin=str(record.origin),
                method=record.method,
                words=record.words,
                corrected=int((labels != original).sum()),
                comparable=bool((labels == own).all()),
                accuracy=_quality(measured).accuracy,
                f1=_quality(measured).f1,
                restored=None,
                restored_error=None,
                flipped_right=measured.flipped_right,
                flipped_wrong=measured.flipped_wrong,
                kept_right=measured.kept_right,
                residual=record.residual,
                seconds=seconds,
                cost=seconds / record.training_seconds if record.training_seconds > 0 else 0.0,
            )
        )
    retrained = next((line for line in found if line.method == "retrain" and line.comparable), None)
    lost = retrained.accuracy - _quality(before).accuracy if retrained else 0.0
    if lost <= 0:
        return found
    start = _quality(before)
    return [_with_restored(line, start, lost) if line.comparable else line for line in found]


def _with_restored(line: ImageResultLine, start: Quality, lost: float) -> ImageResultLine:
    """Return a line with the share of the lost accuracy that is back.

    Its standard error is that of two accuracies on independent images. On the same images they differ by less.
    """
    variance = sum(share * (1 - share) for share in (line.accuracy, start.accuracy)) / start.rows
    error = math.sqrt(variance) / lost
    return line.model_copy(update={"restored": (line.accuracy - start.accuracy) / lost, "restored_error": error})


def _quality(measured: ImageMeasurement) -> Quality:
    return measured.heldout or measured.train


def image_gate(
    options: ImageReportOptions, name: str, privacy: Privacy | None, faults: Sequence[str]
) -> ImageGate | None:
    """Return the gate's result: passed only if the AUC is small enough and all records are verified."""
    limit = options.fail_auc
    if limit is None:
        return None
    doubts = fault_doubts(faults)
    reasons = []
    if privacy is None:
        doubts.append("no labels were flipped by coins: there is no AUC; insert with --flip-labels")
    else:
        auc = privacy.membership.auc
        if max(auc, 1 - auc) > limit:
            reasons.append(f"{name}: AUC {auc:.3f} of flipped labels, expected {1 - limit:.3g} to {limit:g}")
    status = gate_status(reasons, doubts)
    return ImageGate(fail_auc=limit, status=status, reasons=tuple(reasons), doubts=tuple(doubts))
