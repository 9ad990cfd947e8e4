"""unlearned/NAME/unlearning.json: how a model was made to forget, and how well that holds."""

from collections.abc import Sequence
from typing import Literal, get_args

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
    note: str = ""
    """Why the solver did not converge, where it did not: ``stopped``, ``indefinite`` or ``diverged``."""


class Fidelity(Record):
    """The trained model's quality, and the updated one's; fields as in ``Evaluation``.

    After requests that followed each other "before" is still the model as trained: what they cost adds up.
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
    retraining_gradients: float = 0.0
    """What training took, in passes over one training window."""
    preparation_seconds: float = 0.0
    """Paid once, and not again by later requests: the first training of all shards, or the stored curvature."""
    preparation_gradients: float = 0.0
    """The same in passes over one training window."""


class UnlearningRecord(Record):
    """unlearning.json: how a model was made to forget, and what that cost."""

    schema_version: int = SCHEMA_VERSION
    name: str
    method: Method
    scope: Scope
    """Of the method; a note tells where the final layer's update followed the default's steps."""
    asked_scope: Scope | None = None
    """As asked for; null for the default."""
    solver: SolverName | None = None
    """Of the steps over all layers; null where there were none."""
    tau: float | None = None
    """Length of a first-order step, where it was asked for."""
    replacement: str
    """``decoys``, ``sampled``, ``delete`` or ``text:...``."""
    canaries: Many[str]
    """Ids of the canaries that were unlearned."""
    affected_windows: int
    """Training windows that a secret touches, as feature or label: the size of Z."""
    retention_windows: int
    """Windows without a secret that held the model to what it was."""
    asked_windows: int | None = None
    """As asked for; a short text has fewer. Null for a baseline."""
    retention_source: Literal["corpus", "model"] = "corpus"
    """Where they come from: the training text, or text that the model itself says."""
    seed: int
    device: str
    precision: str
    model_sha256: str
    """SHA-256 of the updated weights' file."""
    origin: ModelId = TRAINED_MODEL
    """The model that was updated: ``before``, or ``after-NAME`` of an earlier unlearning."""
    origin_sha256: str
    """SHA-256 of the weights that were updated."""
    updates: Many[UpdateStep]
    fidelity: Fidelity
    fidelity_limit: float
    """Largest allowed drop of train_accuracy, as a share."""
    cost: UnlearningCost
    members: int = Field(default=1, ge=1, le=MAX_MEMBERS)
    """Models whose log-probabilities the result averages: more than one where it was trained by shards."""
    relearning: Relearning | None = None
    """How fast secrets come back when the model is trained further; null where that attack was not made."""
    notes: Many[str] = ()


def main_result(unlearnings: Sequence[UnlearningRecord]) -> UnlearningRecord | None:
    """Return the unlearning that a run is about where none is named: the last that is no baseline, or the last.

    A baseline is run to compare with: it is spoken of only where there is nothing else.

    Args:
        unlearnings: In the order in which they were run.
    """
    found = [record for record in unlearnings if record.method not in get_args(Baseline)] or unlearnings
    return found[-1] if found else None
