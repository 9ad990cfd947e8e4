"""What an unlearning gives back."""

from dataclasses import dataclass

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.records import Fidelity, UnlearningCost, UpdateStep


@dataclass(frozen=True)
class UnlearningResult:
    """An updated copy of a model, and what is to be said of it.

    Attributes:
        model: The copy.
        updates: The steps, with their health.
        fidelity: Quality before and after.
        cost: The ledger.
        affected_windows: Size of Z.
        retention_windows: Windows of other text used.
        notes: What the reader of a report should know.
        left_alone: Ids of canaries that the model does not remember, so that nothing was done about them.
    """

    model: CharLSTM | Ensemble
    updates: tuple[UpdateStep, ...]
    fidelity: Fidelity
    cost: UnlearningCost
    affected_windows: int
    retention_windows: int
    notes: tuple[str, ...]
    left_alone: tuple[str, ...] = ()
