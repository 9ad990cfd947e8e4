"""The records of a run on a table: its columns, canaries, linear models, requests and measurements."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from canaryaudit.records.base import SCHEMA_VERSION, TRAINED_MODEL, FiniteRecord, Many, ModelId, Record
from canaryaudit.records.privacy import Privacy

LossName = Literal["logistic", "multinomial", "squared-hinge", "squared"]
MOST_CLASSES = 100
"""Classes of a target; one with more holds amounts or names."""
TableMethod = Literal["second-order", "retrain"]
RowNumber = Annotated[int, Field(ge=0, lt=2**40)]
"""A training row, from 0."""
CanaryKind = Literal["label", "value"]
PathName = Literal["none needed", "stored inverse", "conjugate gradients", "exact Newton", "fit from nothing"]


class ColumnGroup(FiniteRecord):
    """A column of the source and what it was encoded as."""

    name: str
    """Name in the source."""
    categories: Many[str] | None
    """The distinct texts, each of which became a column ``name=text``; null for a column of numbers."""
    offset: float = 0.0
    """Subtracted from every number before training."""
    width: float = Field(default=1.0, gt=0)
    """What the difference is divided by: a column is scaled to 0 to 1 by its smallest and largest training value."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name,) if self.categories is None else tuple(f"{self.name}={own}" for own in self.categories)


class TableCanary(FiniteRecord):
    """A row whose label or value was changed, or might have been: a fair coin of its own decided."""

    id: str
    """``canary-01`` or ``control-01``."""
    kind: CanaryKind
    row: RowNumber
    """Training row, from 0."""
    planted: bool
    """What the coin decided; a control keeps its own label or value."""
    column: str = ""
    """The source's column of a planted value."""
    original: str | float = ""
    """The row's own value, or label."""
    value: str | float = ""
    """The value that was planted, or might have been."""


class TableRecord(Record):
    """table.json: what the columns, rows and canaries of table.safetensors are."""

    schema_version: int = SCHEMA_VERSION
    target: str
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=MOST_CLASSES)]
    """The classes, sorted; of two, the negative one, then the positive one."""
    numeric_classes: bool
    """Whether the classes are whole numbers."""
    groups: Many[ColumnGroup]
    """The source's columns, in the order of the encoded ones."""
    matrix: bool
    """Whether the source was a matrix: its columns' names are then whatever its owner counted, such as words."""
    identified_by: str
    """The source's column that identifies rows; empty for row numbers, from 1."""
    sensitive: Many[str]
    """Names of the encoded columns that are to be removed."""
    canaries: Many[TableCanary]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all encoded columns."""
        return tuple(name for group in self.groups for name in group.columns)


class LinearModelRecord(FiniteRecord):
    """model.json of a run on a table: a linear model and its training."""

    schema_version: int = SCHEMA_VERSION
    sha256: str
    """SHA-256 of the coefficients' file."""
    estimator: str
    """Name of scikit-learn's class."""
    parameters: dict[str, str | float | int | bool | None]
    """The estimator's parameters that decide what it minimizes."""
    class_weight: dict[str, float] = Field(default_factory=dict)
    """Weight of the rows of each class; empty where all weigh 1."""
    given: bool
    """Whether the user gave a fitted estimator."""
    loss: LossName
    penalty: float
    """p of p/2 |theta|^2 beside the sum of the losses: 1 / C."""
    intercept_penalty: float | None
    """The same of the intercept; null without one."""
    tolerance: float
    """Largest norm of the gradient of any model of this run."""
    residual: float
    """Norm of the gradient on the training rows."""
    seconds: float
    """Processor time of the fit, and of storing the curvature."""
    curvature: str
    """What is stored of the inverse Hessian: a dense inverse or its diagonal."""
    cold_work: float
    """Work of a fit from nothing, in multiplications."""
    cold_decades: float
    """Decades of the gradient's norm that it took."""


class ReplacedValues(Record):
    """New values of one source column in some rows."""

    column: str
    value: float | str
    """A number in the source's unit, or a category."""
    rows: Many[RowNumber] | None
    """Training rows, from 0; null for all."""


class RequestRecord(Record):
    """What was asked for, resolved to training rows, which count from 0, and encoded columns."""

    columns: Many[str] = ()
    replacements: Many[ReplacedValues] = ()
    restored: Many[str] = ()
    """Ids of the canaries whose own label or value was given back."""
    relabeled: Many[RowNumber] = ()
    labels: Many[str] = ()
    """New labels of the relabeled rows."""
    deleted: Many[RowNumber] = ()

    @model_validator(mode="after")
    def _one_label_a_row(self) -> Self:
        if len(self.labels) != len(self.relabeled):
            raise ValueError("labels and relabeled rows must be as many")
        return self


class TableUnlearningRecord(FiniteRecord):
    """unlearning.json of a run on a table: a request, and what it took."""

    schema_version: int = SCHEMA_VERSION
    name: str
    method: TableMethod
    """As asked for."""
    request: RequestRecord
    words: str
    """What the request did, in words."""
    path: PathName
    """What was done; ``fit from nothing`` is a retraining."""
    residual: float
    """Norm of the gradient on the data after this request and all before it."""
    tolerance: float
    update_work: float
    """Estimated work of an update, in multiplications."""
    retraining_work: float
    """Estimated work of a fit from nothing; the smaller one decided."""
    seconds: float
    """Processor time of the request."""
    seed: int = Field(default=0)
    model_sha256: str
    origin: ModelId = TRAINED_MODEL
    origin_sha256: str
    warnings: Many[str] = ()

    @property
    def way(self) -> str:
        """What was done, in words."""
        chosen = self.path == "fit from nothing" and self.method != "retrain"
        return "retrained, which is cheaper here" if chosen else self.path


class Quality(FiniteRecord):
    """Of a model on some rows."""

    rows: int
    accuracy: float
    f1: float
    """Mean of both classes."""
    majority_accuracy: float
    """Of the constant classifier."""


class TableMeasurement(FiniteRecord):
    """measurements/NAME.json of a run on a table."""

    schema_version: int = SCHEMA_VERSION
    model: ModelId
    model_sha256: str
    residual: float
    """Norm of the gradient on this model's data, computed anew from the stored rows and requests."""
    tolerance: float
    mean_loss_difference: float
    """Mean absolute difference of a row's loss to a model fitted from nothing on the same data; in nats if logistic."""
    max_loss_difference: float
    retraining_seconds: float
    """Processor time of that fit."""
    train: Quality
    heldout: Quality | None
    labels: Privacy | None
    """What the model tells of the coins of flipped labels: membership and the one-run bound; null without."""
    values: Privacy | None
    """The same of planted values."""


class Release(FiniteRecord):
    """One model that was published with noise."""

    model: ModelId
    model_sha256: str
    """Of the coefficients without noise."""
    tolerance: float
    """Largest residual that was certified."""
    residual: float
    """As it was checked."""
    rounding: float
    """Worst-case error of the residual by rounding."""
    sigma: float
    """Standard deviation of the noise."""


class ReleasesRecord(FiniteRecord):
    """releases.json: the models published of a run on a table, under one plan that the first of them fixed."""

    schema_version: int = SCHEMA_VERSION
    epsilon: float = Field(gt=0)
    """Of all planned releases together."""
    delta: float = Field(gt=0, lt=1)
    planned: int = Field(ge=1)
    """How many models may be published in all."""
    made: Many[Release] = ()
    """In order. A release is recorded before its file is written, so none is ever missed."""

    @model_validator(mode="after")
    def _as_planned(self) -> Self:
        if len(self.made) > self.planned:
            raise ValueError("more releases than planned")
        return self


def last_result(unlearnings: Sequence[TableUnlearningRecord]) -> TableUnlearningRecord | None:
    """Return a run's default result: the last unlearning that is no retraining, or else the last one."""
    return next(
        (own for own in reversed(unlearnings) if own.method != "retrain"), unlearnings[-1] if unlearnings else None
    )
