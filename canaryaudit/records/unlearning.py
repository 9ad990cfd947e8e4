"""unlearned/NAME/unlearning.json: how a model was made to forget."""

from canaryaudit.records.base import SCHEMA_VERSION, Method, Record, Scope, SolverName


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
    solver: SolverName | None = None
    """Of the steps over all layers; null where there were none."""
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
