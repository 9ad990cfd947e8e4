"""What the stages hand on and write down: validated, immutable, documented field by field.

A field's docstring is its documentation; `schema_version` counts up whenever a reader of the old form
would misread the new one. No record holds the secret of a canary whose owner gave it: only
canaries.json does.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

SCHEMA_VERSION = 1

Stage = Literal["insert", "train", "measure", "unlearn", "report"]
EstimatorName = Literal["exact", "importance", "sampled", "skew-normal"]
Method = Literal["first-order", "second-order"]
Scope = Literal["final-layer", "all-layers"]
ReportFormat = Literal["html", "md", "json"]


class Record(BaseModel):
    """Base of all records: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")


# --- manifest.json ------------------------------------------------------------------------------------


class CorpusFacts(Record):
    """What was audited."""

    name: str
    """File name, card name or hub id."""
    sha256: str
    """SHA-256 of the text as read, before anything was cut, lower-cased or inserted (UTF-8)."""
    audited_sha256: str
    """SHA-256 of the run's corpus.txt."""
    characters: int
    """Characters of the run's corpus.txt, canaries included."""
    heldout_characters: int
    paragraphs: int
    documents: int
    lowercase: bool
    skip_chars: int
    holdout: float
    seed: int


class StageRun(Record):
    """One run of one stage, for provenance and cost."""

    stage: Stage
    name: str = ""
    """Which of several: the unlearning's or the measured model's name."""
    argv: tuple[str, ...]
    """The command line that caused it; secrets given by the user are masked."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    seed: int | None = None
    device: str = ""
    precision: str = ""


class Manifest(Record):
    """manifest.json: where a run directory comes from and what was done in it."""

    schema_version: int = SCHEMA_VERSION
    canaryaudit: str
    """Version of this package."""
    versions: dict[str, str]
    """Versions of Python and of the packages that make the figures."""
    commit: str
    """Git commit of the working directory at insertion, or empty."""
    machine: dict[str, str | int]
    """Processor, cores, memory, accelerator."""
    corpus: CorpusFacts
    stages: tuple[StageRun, ...] = ()


# --- model.json -----------------------------------------------------------------------------------------


class Architecture(Record):
    """Shape of a character LSTM."""

    vocabulary: str
    """The symbols, in the order of their ids."""
    embedding: int = Field(gt=0, le=65536)
    hidden: int = Field(gt=0, le=65536)
    layers: int = Field(gt=0, le=64)


class Evaluation(Record):
    """How well a model predicts a text, teacher-forced."""

    accuracy: float
    """Share of characters predicted right, outside the secrets' own characters."""
    accuracy_all: float
    """Share of all characters predicted right."""
    loss_bits: float
    """Mean cost of a character, in bits, over all characters."""


class EpochRecord(Record):
    """One line of the training's history."""

    epoch: int
    loss_bits: float
    accuracy: float
    """On the training text outside the secrets' own characters."""
    heldout_loss_bits: float
    seconds: float
    """Since training began, all resumed parts added up."""


class TrainingRecord(Record):
    """How the model was made, and how good it is."""

    size: str
    epochs: int
    batch_size: int
    window: int
    learning_rate: float
    seed: int
    device: str
    precision: str
    seconds: float
    characters_per_second: float
    parameters: int
    train: Evaluation
    heldout: Evaluation
    history: tuple[EpochRecord, ...]
    target_accuracy: float | None = None
    reached_target: bool | None = None


class ModelRecord(Record):
    """model.json: the description beside model.safetensors."""

    schema_version: int = SCHEMA_VERSION
    architecture: Architecture
    sha256: str
    """SHA-256 of the weights' file."""
    training: TrainingRecord | None = None
    """Absent for a model that was not trained but derived."""


# --- measurements/NAME.json -------------------------------------------------------------------------------


class Estimate(Record):
    """One estimator's answer for one canary."""

    bits: float
    """Exposure, between 0 and space_bits."""
    low: float
    high: float
    """The 95 % interval; equal to ``bits`` where the rank is exact. Absent certainty: 0 and space_bits."""
    trusted: bool
    """Whether the estimator's own diagnostics allow the figure to be relied on."""
    note: str = ""
    """Why it is not trusted, or what kind of bound it is; empty when there is nothing to say."""
    extrapolated: bool = False
    """Whether the figure lies beyond everything that was observed."""


class Headline(Record):
    """The one figure for a canary, chosen by the rule of ``exposure.headline``."""

    bits: float
    low: float
    high: float
    method: EstimatorName


class Extraction(Record):
    """What an attacker who types the prefix gets."""

    greedy: bool
    """Whether the greedy completion is the secret."""
    greedy_text: str
    """The greedy completion; for a masked canary the secret's own characters are hidden."""
    guesses_log2: float
    """log2 of the number of guesses, in order of likelihood, until the secret falls: log2 of the rank."""
    beam_rank: int | None = None
    """Place of the secret among a beam search's completions, from 1; none if it is not among them."""


class CanaryMeasurement(Record):
    """Everything measured about one canary or control."""

    id: str
    template: str
    repetitions: int
    control: bool
    masked: bool
    space_bits: float
    log_perplexity_bits: float
    exposure: Headline
    estimates: dict[EstimatorName, Estimate]
    """By estimator; as a key in the file, skew-normal is written ``skew_normal``."""
    extraction: Extraction

    @field_serializer("estimates")
    def _with_underscores(self, estimates: Mapping[EstimatorName, Estimate]) -> dict[str, Estimate]:
        return {name.replace("-", "_"): estimate for name, estimate in estimates.items()}

    @field_validator("estimates", mode="before")
    @classmethod
    def _with_hyphens(cls, estimates: object) -> object:
        if not isinstance(estimates, Mapping):
            return estimates
        return {"skew-normal" if name == "skew_normal" else name: value for name, value in estimates.items()}


class SkewNormalFit(Record):
    """A skew-normal distribution fitted to reference log-perplexities."""

    shape: float
    location: float
    scale: float
    pvalue: float
    """Monte-Carlo goodness of fit with refitting; below 0.05 the fit is refuted."""
    converged: bool
    note: str = ""


class ReferenceDistribution(Record):
    """Log-perplexity of uniform draws from one template's space, under the measured model."""

    template: str
    space_bits: float
    num_references: int
    edges_bits: tuple[float, ...]
    """Edges of the histogram's bins, in bits; one more than counts."""
    counts: tuple[int, ...]
    mean_bits: float
    standard_deviation_bits: float
    min_bits: float
    max_bits: float
    skew_normal: SkewNormalFit | None


class Calibration(Record):
    """Controls' exposures against the law that holds where nothing was memorised: Exp with mean 1/ln 2 bits."""

    controls: int
    mean_bits: float
    expected_mean_bits: float
    ks_pvalue: float
    """Kolmogorov-Smirnov test against the exponential law."""
    passed: bool
    note: str = ""


class MeasurementCost(Record):
    """What a measurement took."""

    seconds: float
    references: int
    search_nodes: int
    characters_scored: int


class Measurement(Record):
    """measurements/NAME.json: exposure of every canary under one model."""

    schema_version: int = SCHEMA_VERSION
    model: str
    """``before`` or ``after-NAME``."""
    model_sha256: str
    seed: int
    device: str
    precision: str
    num_references: int
    canaries: tuple[CanaryMeasurement, ...]
    references: tuple[ReferenceDistribution, ...]
    calibration: Calibration | None
    """None where there are no controls."""
    cost: MeasurementCost


# --- unlearned/NAME/unlearning.json -------------------------------------------------------------------------


class UpdateStep(Record):
    """One closed-form step and its health."""

    step_norm: float
    """Euclidean norm of the change of the weights."""
    gradient_norm: float
    """Norm of the objective's gradient, or of Delta, before the step."""
    objective_before: float
    objective_after: float
    damping: float | None = None
    """lambda added to the curvature; the step is -(H + lambda I)^-1 Delta."""
    residual: float | None = None
    """||(H + lambda I) x + Delta|| / ||Delta|| of the linear solve."""
    curvature_min: float | None = None
    """Smallest curvature v'(H + lambda I)v / v'v met by the solver; negative means indefinite."""
    solver_iterations: int | None = None
    converged: bool | None = None


class Fidelity(Record):
    """The model's quality before and after; fields as in ``Evaluation``."""

    train_accuracy_before: float
    train_accuracy_after: float
    train_accuracy_all_before: float
    train_accuracy_all_after: float
    train_loss_before: float
    train_loss_after: float
    heldout_accuracy_before: float
    heldout_accuracy_after: float
    heldout_loss_before: float
    heldout_loss_after: float


class UnlearningCost(Record):
    """The ledger, beside retraining in the same units."""

    seconds: float
    """Of the update itself, data preparation included; evaluation and measurement are not."""
    gradients: float
    """Gradient evaluations, in passes over one training window."""
    curvature_products: int
    retraining_seconds: float
    """What training took on this machine, or would take again."""
    speedup: float
    """retraining_seconds / seconds."""


class UnlearningRecord(Record):
    """unlearning.json: how a model was made to forget, and what that cost."""

    schema_version: int = SCHEMA_VERSION
    name: str
    method: Method
    scope: Scope
    replacement: str
    """``decoys`` or ``text:...``."""
    canaries: tuple[str, ...]
    """Ids of the canaries that were unlearned."""
    affected_windows: int
    """Training windows that a secret touches, as feature or label: the size of Z."""
    retention_windows: int
    seed: int
    device: str
    precision: str
    model_sha256: str
    """SHA-256 of the updated weights' file."""
    origin_sha256: str
    """SHA-256 of the weights that were updated."""
    updates: tuple[UpdateStep, ...]
    fidelity: Fidelity
    fidelity_limit: float
    """Largest allowed drop of train_accuracy, as a share."""
    cost: UnlearningCost
    relearning: None = None
    """How fast the secrets come back under fine-tuning; null, since that attack was not made."""
    notes: tuple[str, ...] = ()
