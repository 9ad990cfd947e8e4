"""The records of a run on images: classes, label canaries, networks, corrections and measurements."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from canaryaudit.records.base import SCHEMA_VERSION, TRAINED_MODEL, FiniteRecord, Many, ModelId, Record
from canaryaudit.records.privacy import Privacy
from canaryaudit.records.tables import Quality, RowNumber, TableCanary

Relabeling = Literal["first-order", "second-order", "second-order-dense", "output-layer", "dense-layers", "blocks"]
"""Updates that start from the trained network."""
ImageBaseline = Literal["fine-tune", "retrain"]
ImageMethod = Literal[Relabeling, ImageBaseline]


class ImagesRecord(Record):
    """images.json: what the rows and canaries of images.safetensors are."""

    schema_version: int = SCHEMA_VERSION
    image: str
    """The source's column of images."""
    target: str
    """The source's column of labels."""
    classes: Many[str]
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(gt=0)
    identified_by: str
    """The source's column that identifies rows; empty for row numbers, from 1."""
    canaries: Many[TableCanary]
    """Rows whose labels were flipped, or might have been."""


class NetworkShape(FiniteRecord):
    """Sizes of a VGG-like network."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(gt=0)
    classes: int = Field(gt=1)
    blocks: Many[int]
    """Filters of each block of two convolutions."""
    dense: int = Field(gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class ImageModelRecord(FiniteRecord):
    """model.json of a run on images: a network and its training."""

    schema_version: int = SCHEMA_VERSION
    sha256: str
    """SHA-256 of the weights' file."""
    network: NetworkShape
    parameters: int
    epochs: int
    learning_rate: float
    batch: int
    seed: int
    device: str
    precision: str
    """Of the training's matrix products: fp32 or bf16."""
    seconds: float
    """Processor time of the training, on which the costs of updates are judged; elapsed time on a GPU."""


class CorrectionRecord(Record):
    """New labels of training rows, which count from 0."""

    rows: Many[RowNumber]
    labels: Many[str]
    restored: Many[str] = ()
    """Ids of the canaries whose own label was given back."""

    @model_validator(mode="after")
    def _one_label_a_row(self) -> Self:
        if len(self.labels) != len(self.rows) or len(set(self.rows)) != len(self.rows):
            raise ValueError("expected one label for each row, and each row once")
        return self


class RelabelingRecord(FiniteRecord):
    """unlearning.json of a run on images: corrected labels, and what it took to bring them into the network."""

    schema_version: int = SCHEMA_VERSION
    name: str
    method: ImageMethod
    request: CorrectionRecord
    words: str
    """What was done, in words."""
    updated_parameters: int
    residual: float | None
    """Norm of the gradient that the output layer's exact solution left, for each image; null without one."""
    seconds: float
    """Processor time of the update; elapsed time on a GPU."""
    training_seconds: float
    """The same of the training that it is judged by."""
    estimated_share: float | None = None
    """Estimated work as a share of retraining's, from counts and before anything was computed; null of a method that
    takes a pass or two."""
    seed: int
    device: str
    precision: str
    model_sha256: str
    origin: ModelId = TRAINED_MODEL
    origin_sha256: str

    @property
    def cost(self) -> float:
        """Share of the training's time."""
        return self.seconds / self.training_seconds if self.training_seconds > 0 else 0.0


class ImageMeasurement(FiniteRecord):
    """measurements/NAME.json of a run on images."""

    schema_version: int = SCHEMA_VERSION
    model: ModelId
    model_sha256: str
    train: Quality
    """On the training rows, with the labels after the requests that led to this model."""
    heldout: Quality | None
    flipped_right: float | None
    """Share of the rows with a flipped label that the model gives their own label; null without such rows."""
    flipped_wrong: float | None
    """Share that it gives the flipped label."""
    kept_right: float
    """Share of the other training rows that the model gives their own label."""
    labels: Privacy | None
    """What the model tells of the coins of flipped labels: membership and the one-run bound; null without."""


def last_relabeling(records: Sequence[RelabelingRecord]) -> RelabelingRecord | None:
    """Return a run's default result: the last update that is no baseline, or else the last one."""
    return next(
        (own for own in reversed(records) if own.method not in ("retrain", "fine-tune")),
        records[-1] if records else None,
    )
