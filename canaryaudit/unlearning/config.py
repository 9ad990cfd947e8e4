"""How to unlearn."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from canaryaudit.plan import RETAIN_WINDOWS
from canaryaudit.records import ClosedForm, Scope, SolverName


class UnlearningConfig(BaseModel):
    """How to unlearn; checked when made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: ClosedForm = "second-order"
    scope: Scope | None = None
    """None for the method's own: all layers, or the final layer for second order with another text than decoys."""
    solver: SolverName = "kronecker"
    """Of second-order steps over all layers; ``kronecker`` is L-BFGS from the stored curvature."""
    replacement: str = "decoys"
    retain_windows: int = Field(default=RETAIN_WINDOWS, ge=0)
    """Windows of other text that hold the model to what it was; 0 for text that the model itself says."""
    max_fidelity_drop: float = Field(default=0.003, gt=0, le=1)
    """Largest drop of accuracy on the training text outside the secrets, as a share."""
    tau: float | None = Field(default=None, gt=0)
    """Step length of the first-order update; None for a line search under the fidelity limit."""
    window: int = Field(default=100, gt=1)
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def resolved_scope(self) -> Scope:
        """The scope, the method's own where none was given."""
        final = self.method == "second-order" and self.replacement != "decoys"
        return self.scope or ("final-layer" if final else "all-layers")

    @property
    def resolved_solver(self) -> SolverName | None:
        """The solver of steps over all layers; None where there are none."""
        return self.solver if self.method == "second-order" and self.resolved_scope != "final-layer" else None
