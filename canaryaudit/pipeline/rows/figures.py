"""Figures of runs on rows that every kind has: of coins, of gates, and of records that are compared."""

from collections.abc import Sequence
from typing import Any

from canaryaudit.formatting import counted
from canaryaudit.records import Privacy
from canaryaudit.report.judgment import GateStatus
from canaryaudit.report.tables.schema import CoinFigures


def coin_figures(what: str, before: Privacy | None, after: Privacy | None) -> CoinFigures | None:
    """Return whether a model tells which canaries were planted; None if it was not measured before and after.

    Args:
        what: The canaries: flipped labels, or planted values.
        before: Of the trained model.
        after: Of the result.
    """
    if not before or not after:
        return None
    return CoinFigures(what=what, before=_coin(before), after=_coin(after))


def _coin(privacy: Privacy) -> tuple[float, float, float, float, int, int]:
    own = privacy.membership
    return own.auc, own.auc_low, own.auc_high, privacy.epsilon_low, privacy.inserted, privacy.candidates


def fault_doubts(faults: Sequence[str]) -> list[str]:
    """Return why a gate cannot pass if files of the run are not as they were written."""
    return [f"{counted(len(faults), 'file')} of the run cannot be relied on, such as {faults[0]}"] if faults else []


def gate_status(reasons: Sequence[str], doubts: Sequence[str]) -> GateStatus:
    """Return a gate's result: whoever doubts a record cannot say that the gate failed, nor that it passed."""
    return "inconclusive" if doubts else "failed" if reasons else "passed"


def numbers_of(document: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers of a record by the path of names that leads to each."""
    found: dict[str, float] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found |= numbers_of(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = float(value)
    return found
