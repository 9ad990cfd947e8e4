"""Figures as the page writes them, and tables."""

from collections.abc import Iterable, Sequence
from statistics import mean

from tests.reproduction.results import Case, Exposed

NONE = "–"
METHOD_NAMES = {
    "original": "original",
    "retrain": "retraining",
    "fine-tune": "fine-tuning",
    "sisa-5": "SISA, 5 shards",
    "sisa-10": "SISA, 10 shards",
    "sisa-20": "SISA, 20 shards",
    "first-order": "first order, text",
    "text": "second order, text",
    "default": "**the default**",
}
"""By the order in which tables list them."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table whose first ``left`` columns are words and the others figures."""
    ruler = ["---" if column < left else "--:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows)) + "\n"


def average(values: Iterable[float | None]) -> float | None:
    """Return the mean of the figures that are there; None of none."""
    there = [value for value in values if value is not None]
    return mean(there) if there else None


def figure(value: float | None, digits: int = 1) -> str:
    """Return a figure with so many decimals."""
    return NONE if value is None else f"{value + 0.0:,.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return a change with its sign."""
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def interval(own: Exposed) -> str:
    """Return a fresh exposure with its 95 % interval, or without where both ends are the same tenth of a bit."""
    if figure(own.low) == figure(own.high):
        return figure(own.exposure_bits)
    return f"{figure(own.exposure_bits)} ({own.low:.1f} to {own.high:.1f})"


def worst_case(own: Exposed) -> str:
    """Return the exposure under the probe that exposes a secret most, with the p-value of as much by chance."""
    if own.worst_bits is None or own.worst_p_value is None:
        return NONE
    p_value = f"{own.worst_p_value:.2f}" if own.worst_p_value >= 0.01 else f"{own.worst_p_value:.0e}"
    return f"{figure(own.worst_bits)} (p = {p_value})"


def times(retraining: float | None, own: float | None) -> str:
    """Return how many times as long retraining takes."""
    return NONE if not retraining or not own else f"{figure(retraining / own, 0 if retraining / own >= 9.5 else 1)}×"


def shown(text: str) -> str:
    """Return generated text as a table's cell: line breaks as signs, nothing read as Markdown."""
    text = text.replace("\n", "⏎").replace("|", "\\|")
    return f"`` {text} ``"


def exposures(cases: Iterable[Case]) -> list[Exposed]:
    """Return all canaries that the cases were to forget."""
    return [own for case in cases for own in case.chosen]


def listed(parts: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
