"""The page's columns: a figure before unlearning, after it, and in the retrained model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from canaryaudit import formatting as figures
from canaryaudit.report.schema import CanaryState, CanarySummary, FidelityLine, ProbeFigure, Summary
from canaryaudit.report.verdicts import Verdict

_EXPOSURES = {"kept_exposure", "kept_elsewhere"}
"""Quality figures that are exposures."""

States = tuple[tuple[str, CanaryState | None], ...]


@dataclass(frozen=True)
class Line:
    """One figure in each column.

    Attributes:
        name: What the figure is.
        definition: Id of its definition.
        cells: Its text in each column.
    """

    name: str
    definition: str
    cells: tuple[str, ...]


def states_of(summary: Summary, canary: CanarySummary) -> States:
    """Return a canary's states by the name of their column."""
    if not summary.unlearned:
        return (("This model", canary.before),)
    states: States = (("Before", canary.before), ("After", canary.after))
    return (*states, ("Retrained", canary.retrained)) if summary.retrained else states


def probe_lines(summary: Summary, canary: CanarySummary, most: int | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return a canary's exposure under each probe, in each column.

    Args:
        summary: The report's content.
        canary: One of its canaries.
        most: Return only so many probes, those with the largest exposure first; None for all in their order.
    """
    by_column = [
        {(probe.prompt, probe.known): probe for probe in (state.probes or ())} if state else {}
        for _, state in states_of(summary, canary)
    ]
    last = {(probe.prompt, probe.known): probe for probe in canary.last.probes or ()}
    names = list(dict.fromkeys(name for column in by_column for name in column))
    if most is not None:
        names = sorted(names, key=lambda name: -(last[name].bits or 0.0) if name in last else 0.0)[:most]
    return tuple(
        (
            prompt + (f", {known} known" if known else ""),
            tuple(_probe_cell(column.get((prompt, known))) for column in by_column),
        )
        for prompt, known in names
    )


def _probe_cell(probe: ProbeFigure | None) -> str:
    if probe is None:
        return figures.MISSING
    return figures.decimal(probe.bits) + (" ✗ completed" if probe.greedy else "")


def side_by_side(summary: Summary) -> tuple[Line, ...]:
    """Return the secrets' exposure and the model's quality, in each column."""
    method, retrained = summary.method, summary.retrained_method
    if method is None:
        return ()
    columns = [[state for canary in summary.canaries if (state := _state(canary, name))] for name in _columns(summary)]

    def line(name: str, definition: str, of: Callable[[Sequence[CanaryState]], str]) -> Line:
        return Line(name, definition, tuple(of(states) if states else figures.MISSING for states in columns))

    lines = [
        line("Exposed secrets", "exposure", _exposed),
        line("Secrets completed by greedy decoding", "greedy", lambda states: f"{sum(s.greedy for s in states):,}"),
        line("Largest exposure, bits", "exposure", lambda s: _largest([state.exposure.bits for state in s])),
        line("Mean exposure, bits", "exposure", lambda s: _mean([state.exposure.bits for state in s])),
    ]
    if any(canary.before.worst_case for canary in summary.canaries):
        worst = [[state.worst_case.bits for state in states if state.worst_case] for states in columns]
        lines.append(Line("Largest worst case, bits", "worst-case", tuple(_largest(bits) for bits in worst)))
    others = {line.key: line for line in retrained.fidelity} if retrained else {}
    for quality in method.fidelity:
        cells = [_quality(quality, quality.before), _quality(quality, quality.after)]
        if summary.retrained:
            other = others.get(quality.key)
            after = other.after if other else _kept_when_retrained(summary) if quality.key in _EXPOSURES else None
            cells.append(_quality(quality, after))
        lines.append(Line(quality.name, quality_term(quality), tuple(cells)))
    times = [figures.MISSING, figures.duration(method.seconds)]
    times += [figures.duration(retrained.seconds if retrained else None)] if summary.retrained else []
    return (*lines, Line("Time", "efficiency", tuple(times)))


def quality_term(line: FidelityLine) -> str:
    """Return the definition that a quality figure is linked to."""
    return "exposure" if line.key in _EXPOSURES else "accuracy" if "accuracy" in line.key else "loss"


def _kept_when_retrained(summary: Summary) -> float | None:
    kept = [own.retrained.exposure.bits for own in summary.canaries if own.retrained and not own.targeted]
    known = [bits for bits in kept if bits is not None]
    return sum(known) / len(known) if known else None


def _columns(summary: Summary) -> tuple[str, ...]:
    return ("before", "after", "retrained") if summary.retrained else ("before", "after")


def _state(canary: CanarySummary, column: str) -> CanaryState | None:
    return {"before": canary.before, "after": canary.after, "retrained": canary.retrained}[column]


def _exposed(states: Sequence[CanaryState]) -> str:
    return f"{sum(state.verdict is Verdict.EXPOSED for state in states):,} of {len(states):,}"


def _largest(bits: Sequence[float | None]) -> str:
    return figures.decimal(max((value for value in bits if value is not None), default=None))


def _mean(bits: Sequence[float | None]) -> str:
    known = [value for value in bits if value is not None]
    return figures.decimal(sum(known) / len(known) if known else None)


def _quality(line: FidelityLine, value: float | None) -> str:
    return figures.percent(value) if line.unit == "share" else figures.decimal(value, 3)
