"""What is measured of a network of a run, and computed again by ``verify``."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.errors import MeasurementError, ModelError
from canaryaudit.images.network import as_input
from canaryaudit.images.reading import as_codes
from canaryaudit.images.training import outputs
from canaryaudit.pipeline.images.session import ImageSession
from canaryaudit.pipeline.rows.figures import numbers_of
from canaryaudit.privacy.audit import privacy_of
from canaryaudit.progress import NullReporter
from canaryaudit.records import ModelId, Privacy
from canaryaudit.records.images import ImageMeasurement
from canaryaudit.records.tables import Quality, TableCanary
from canaryaudit.runs.image_directory import ImageDirectory

_CPU = torch.device("cpu")
_SAME = 2e-3
"""Difference of a recorded share to the one computed again that may be rounding on another machine: few rows lie so
close to a boundary."""
_SAME_EPSILON = 0.05
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Judged:
    """What a network says of the training rows.

    Attributes:
        logits: Shape (N, K).
        labels: After the requests that led to it, shape (N,).
    """

    logits: Tensor
    labels: Tensor


def measure_images(session: ImageSession, model: ModelId, device: torch.device = _CPU) -> ImageMeasurement:
    """Measure a network: its accuracy, what it says of flipped and of other rows, and what it tells of the coins."""
    with session.stage("measure", str(model), device=device.type, precision="fp32"):
        measurement = figures_of(session, model, device)
    session.run.write_measurement(measurement)
    return measurement


def figures_of(session: ImageSession, model: ModelId, device: torch.device) -> ImageMeasurement:
    """Compute all that follows from a network and the rows."""
    network = session.model(model, device)
    judged = Judged(_logits(network, session.training_images(), device), session.labels(session.requests(model)))
    predicted = judged.logits.argmax(1).numpy()
    heldout = None
    if session.rows.heldout.any():
        images, labels = session.heldout()
        heldout = quality(_logits(network, images, device).argmax(1).numpy(), labels.numpy())
    planted = [canary for canary in session.record.canaries if canary.planted]
    rows = np.array([canary.row for canary in planted], dtype=np.intp)
    own, flipped = (_codes(planted, name, session.record.classes) for name in ("original", "value"))
    kept = np.ones(len(predicted), dtype=bool)
    kept[rows] = False
    return ImageMeasurement(
        model=model,
        model_sha256=session.run.model_sha256(model),
        train=quality(predicted, judged.labels.numpy()),
        heldout=heldout,
        flipped_right=float((predicted[rows] == own).mean()) if planted else None,
        flipped_wrong=float((predicted[rows] == flipped).mean()) if planted else None,
        kept_right=float((predicted == judged.labels.numpy())[kept].mean()),
        labels=label_privacy(session.record.canaries, judged.logits, session.record.classes),
    )


def quality(predicted: Array, labels: Array) -> Quality:
    """Return accuracy and F1 of predictions."""
    return Quality(
        rows=len(labels),
        accuracy=float((predicted == labels).mean()),
        f1=macro_f1(predicted, labels),
        majority_accuracy=float(np.bincount(labels).max() / len(labels)),
    )


def macro_f1(predicted: Array, labels: Array) -> float:
    """Return the mean over classes, predicted or true ones, of F1 = 2 right / (predicted + true)."""
    size = int(max(predicted.max(), labels.max())) + 1
    right = np.bincount(labels[predicted == labels], minlength=size)
    total = np.bincount(predicted, minlength=size) + np.bincount(labels, minlength=size)
    return float((2 * right[total > 0] / total[total > 0]).mean())


def label_privacy(canaries: tuple[TableCanary, ...], logits: Tensor, classes: tuple[str, ...]) -> Privacy | None:
    """Return what logits tell of the coins of flipped labels; None without any, or if all coins were alike.

    A candidate's score is its loss with its own label less its loss with the label that was planted, or might have
    been: the same for planted ones and controls, and the difference of two logits.

    Args:
        canaries: Planted ones and controls.
        logits: Of all training rows, shape (N, K).
        classes: Names of the classes.
    """
    ordered = sorted(canaries, key=lambda canary: canary.row)  # which no coin had a part in
    members = [canary.planted for canary in ordered]
    if len(set(members)) < 2:
        return None
    rows = np.array([canary.row for canary in ordered], dtype=np.intp)
    own, flipped = (_codes(ordered, name, classes) for name in ("original", "value"))
    values = logits.double().numpy()
    try:
        return privacy_of((values[rows, flipped] - values[rows, own]).tolist(), members, 1)
    except MeasurementError:  # too few candidates
        return None


def image_measurement_fault(run: ImageDirectory, measurement: ImageMeasurement) -> str:
    """Compute a measurement's figures again; return what is wrong with them, or an empty text.

    Raises:
        CanaryAuditError: What they follow from cannot be read.
    """
    computed = figures_of(ImageSession(run, (), NullReporter()), measurement.model, _CPU)
    first, second = numbers_of(computed.model_dump(mode="json")), numbers_of(measurement.model_dump(mode="json"))
    if first.keys() != second.keys():
        return "its figures are not those that follow from the model"
    for name, value in first.items():
        whole = name.endswith((".rows", ".candidates", ".inserted", ".guesses", ".copies"))
        allowed = 0.0 if whole else _SAME_EPSILON if ".epsilon" in name else _SAME
        if name.endswith(".correct"):
            allowed = 2.0
        if not math.isclose(value, second[name], rel_tol=0.0, abs_tol=allowed):
            return f"its figure {name} is {second[name]:.4g}, and computed again {value:.4g}"
    return ""


def _logits(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    logits = outputs(network, images.to(device), prepare=as_input).cpu()
    if not logits.isfinite().all():
        raise ModelError("the network gives numbers that are not finite: train it with a smaller --learning-rate")
    return logits


def _codes(canaries: "list[TableCanary]", name: str, classes: tuple[str, ...]) -> Array:
    return as_codes([str(getattr(canary, name)) for canary in canaries], classes)
