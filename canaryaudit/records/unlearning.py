"""unlearned/NAME/unlearning.json: an unlearning, its cost, and its resistance to relearning."""

from collections.abc import Sequence
from typing import Literal, Self, get_args

from pydantic import Field

from canaryaudit.records.base import (
    MAX_MEMBERS,
    SCHEMA_VERSION,
    TRAINED_MODEL,
    Baseline,
    Many,
    Method,
    ModelId,
    Record,
    Scope,
    SolverName,
)
from canaryaudit.records.relearning import Relearning
from canaryaudit.records.training import ExternalModel


class UpdateStep(Record):
    """One closed-form step, with solver diagnostics."""

    step_norm: float
    """Euclidean norm of the change in the weights."""
    gradient_norm: float
    """Norm of the objective's gradient, or of Delta, before the step."""
    objective_before: float
    objective_after: float
    damping: float | None = None
    """lambda added to the curvature; the step is -(H + lambda I)^-1 Delta."""
    residual: float | None = None
    """||(H + lambda I) x + Delta|| / ||Delta|| of the linear solve."""
    curvature_min: float | None = None
    """Smallest curvature v'(H + lambda I)v / v'v that the solver encountered; negative if indefinite."""
    solver_iterations: int | None = None
    converged: bool | None = None
    note: str = ""
    """Why the solver did not converge: ``stopped``, ``indefinite`` or ``diverged``; otherwise empty."""


class Fidelity(Record):
    """Quality of the trained and of the updated model; fields as in ``Evaluation``.

    After several requests, "before" is still the model as trained, so losses in quality accumulate.
    """

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
    unit: Literal["character", "token"] = "character"
    """What is predicted: accuracies are shares of these, and losses bits for each."""


class UnlearningCost(Record):
    """Cost of unlearning and of retraining, in the same units."""

    seconds: float
    """Duration of the update, including data preparation but not evaluation and measurement."""
    gradients: float
    """Gradient evaluations, in passes over one training window."""
    curvature_products: int
    retraining_seconds: float
    """Measured or estimated duration of retraining on this machine; 0 if it is not known."""
    speedup: float
    """retraining_seconds / seconds; 0 if it is not known."""
    retraining_gradients: float = 0.0
    """Gradient evaluations of retraining, in passes over one training window."""
    preparation_seconds: float = 0.0
    """One-time cost, not repeated by later requests: the initial training of all shards, or the stored curvature."""
    preparation_gradients: float = 0.0
    """The one-time cost in passes over one training window."""

    @classmethod
    def unknown(cls) -> Self:
        """Return the cost of nothing, beside a retraining whose duration is not known."""
        return cls(seconds=0, gradients=0, curvature_products=0, retraining_seconds=0, speedup=0)


class UnlearningRecord(Record):
    """unlearning.json: settings, results and cost of an unlearning."""

    schema_version: int = SCHEMA_VERSION
    name: str
    method: Method
    scope: Scope
    """Layers that the method updates; a note records a final-layer update after all-layer steps."""
    asked_scope: Scope | None = None
    """The requested scope; null for the default."""
    solver: SolverName | None = None
    """Solver of the all-layer steps; null without such steps."""
    tau: float | None = None
    """Requested length of a first-order step; null if it was chosen automatically."""
    replacement: str
    """``decoys``, ``sampled``, ``delete`` or ``text:...``."""
    canaries: Many[str]
    """Ids of the canaries that were unlearned."""
    left_alone: Many[str] = ()
    """Ids of those among them that the model did not remember, so that nothing was done about them."""
    affected_windows: int
    """Number of training windows that contain a secret, as feature or label: the size of Z."""
    retention_windows: int
    """Number of windows without a secret that regularize the update."""
    asked_windows: int | None = None
    """Requested number of retention windows; a short text has fewer. Null for a baseline."""
    retention_source: Literal["corpus", "model"] = "corpus"
    """Source of the retention windows: the training text, or text sampled from the model."""
    seed: int
    device: str
    precision: str
    model_sha256: str
    """SHA-256 of the updated weight file; of a model outside the run directory, of all its files that decide what it
    predicts."""
    external: ExternalModel | None = None
    """The result where it lies outside the run directory; None for a character LSTM."""
    origin: ModelId = TRAINED_MODEL
    """The model that was updated: ``before``, or ``after-NAME`` of an earlier unlearning."""
    origin_sha256: str
    """SHA-256 of the weights that were updated."""
    updates: Many[UpdateStep]
    fidelity: Fidelity
    fidelity_limit: float
    """Largest allowed drop in train_accuracy, as a share."""
    cost: UnlearningCost
    members: int = Field(default=1, ge=1, le=MAX_MEMBERS)
    """Number of models whose log-probabilities are averaged; more than one after training by shards."""
    relearning: Relearning | None = None
    """How fast secrets come back under further training; null if that was not measured."""
    notes: Many[str] = ()


def main_result(unlearnings: Sequence[UnlearningRecord]) -> UnlearningRecord | None:
    """Return a run's default unlearning: the last one that is not a baseline, or else the last baseline.

    Args:
        unlearnings: The run's unlearnings in order of execution.
    """
    candidates = [record for record in unlearnings if record.method not in get_args(Baseline)] or unlearnings
    return candidates[-1] if candidates else None
