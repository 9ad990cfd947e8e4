"""What an unlearning gives back."""

from dataclasses import dataclass

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.records import Fidelity, UnlearningCost, UpdateStep


@dataclass(frozen=True)
class Unlearned:
    """An updated copy of a model, and what is to be said of it.

    Attributes:
        model: The copy.
        updates: The steps, with their health.
        fidelity: Quality before and after.
        cost: The ledger.
        affected_windows: Size of Z.
        retention_windows: Windows of other text used.
        notes: What the reader of a report should know.
    """

    model: CharLSTM | Ensemble
    updates: tuple[UpdateStep, ...]
    fidelity: Fidelity
    cost: UnlearningCost
    affected_windows: int
    retention_windows: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Update:
    """What a method did to the request's copy, and how long it took."""

    steps: list[UpdateStep]
    gradients: float
    products: int
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def then(self, other: "_Update") -> "_Update":
        """Return what both did, one after the other."""
        return _Update(
            self.steps + other.steps,
            self.gradients + other.gradients,
            self.products + other.products,
            self.notes + other.notes,
            self.seconds + other.seconds,
        )
