"""How to unlearn."""

from typing import Literal

from pydantic import Field

from canaryaudit.plan import ClosedFormSettings
from canaryaudit.records import ClosedForm, Scope, SolverName
from canaryaudit.records.training import DEFAULT_WINDOW


class UnlearningConfig(ClosedFormSettings):
    """How to unlearn; checked when made.

    Examples:
        >>> UnlearningConfig().resolved_scope, UnlearningConfig(replacement="sampled").resolved_scope
        ('all-layers', 'final-layer')
    """

    method: ClosedForm = "second-order"
    window: int = Field(default=DEFAULT_WINDOW, gt=1)
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
