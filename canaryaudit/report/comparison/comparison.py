"""Comparison of several runs: different seeds, sizes or corpora, each with the figures of its summary."""

import math
from collections.abc import Collection, Sequence
from pathlib import PurePath
from statistics import fmean
from typing import Any, Protocol

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten, well_formed
from canaryaudit.report.charts.base import Chart, Rows, by_state, chance_band, shape_by_state, specification
from canaryaudit.report.judgment import Figure, GateStatus, Part
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary.provenance import NO_COMMIT
from canaryaudit.report.verdicts import WORDS, Verdict

COMPARISON_VERSION = 1
SHORTEST_NAME, _LABEL = 20, 28
"""Characters of a run's name on the terminal, and next to its row of the chart."""
_MOST_NAMED = 5
MOST_MARKS = 60
"""Number of canaries per run in the chart, worst first."""


_WORST_FIRST: tuple[GateStatus, ...] = ("failed", "inconclusive", "passed")


class RunPoint(Part):
    """One canary of one run."""

    id: str
    repetitions: int
    before: Figure
    """Exposure in bits."""
    after: Figure
    verdict: Verdict


class RunSummary(Part):
    """The figures of one run."""

    name: str
    verified: bool = True
    """Whether the figures are those of a run directory, which was verified; false for a ``report.json``."""
    measured: str = ""
    """When the last measurement began, in ISO 8601; may be empty."""
    commit: str = ""
    """Git commit of the working directory at insertion; may be empty."""
    corpus: str
    model: str
    seed: str
    """Seed of the canaries, and of the training if it differs."""
    method: str | None
    """The unlearning shown; None if nothing was unlearned."""
    verdict: Verdict
    headline: str
    canaries: int
    exposed: int
    """Number of exposed canaries, after unlearning if there was one."""
    largest_before: Figure
    mean_before: Figure
    largest_after: Figure
    mean_after: Figure
    accuracy_change: Figure
    heldout_loss_change_bits: Figure
    seconds: Figure
    speedup: Figure
    calibrated: bool | None
    """Whether all controls passed; None without controls."""
    warnings: tuple[str, ...]
    points: tuple[RunPoint, ...]
    """Worst first."""

    @property
    def accuracy_points(self) -> float | None:
        """Change of the accuracy in percentage points."""
        return None if self.accuracy_change is None else 100 * self.accuracy_change


class RepetitionLine(Part):
    """Mean exposure of canaries with the same number of repetitions, by run; None for a run without such canaries."""

    repetitions: int
    before: tuple[Figure, ...]
    after: tuple[Figure, ...]


class Comparison(Part):
    """comparison.json: several runs on one page."""

    schema_version: int = COMPARISON_VERSION
    unlearned: bool
    """Whether any run was measured after unlearning."""
    trend: bool = False
    """Whether the runs are in the order of their measurements, and their course is drawn."""
    runs: tuple[RunSummary, ...]
    repetitions: tuple[RepetitionLine, ...]
    """In ascending order."""
    reasons: tuple[str, ...]
    """Why the gate did not pass; empty if it passed or there was no gate."""
    status: GateStatus | None
    """The worst result of any run's gate; None without a gate."""

    @property
    def note(self) -> str:
        """Says which figures nothing verified; empty if all are of run directories."""
        names = [run.name for run in self.runs if not run.verified]
        shown = ", ".join(shorten(name, SHORTEST_NAME) for name in names[:_MOST_NAMED])
        more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
        return f"Read from report.json files, not verified: {shown}{more}." if names else ""


def compare(
    summaries: Sequence[Summary], paths: Sequence[str], *, trend: bool = False, reports: Collection[str] = ()
) -> Comparison:
    """Compare several runs' summaries, in the given order.

    Args:
        summaries: The masked summary of each run.
        paths: The runs' paths, which distinguish runs with the same name.
        trend: Whether they are in the order of their measurements.
        reports: The paths of those that were read from a ``report.json``.
    """
    names = unique_names([summary.run for summary in summaries], paths)
    runs = tuple(
        _run(name, summary, verified=path not in reports)
        for name, summary, path in zip(names, summaries, paths, strict=True)
    )
    statuses = {summary.gate.status for summary in summaries if summary.gate}
    counts = sorted({point.repetitions for run in runs for point in run.points})
    return Comparison(
        trend=trend,
        unlearned=any(summary.unlearned for summary in summaries),
        runs=runs,
        repetitions=tuple(
            RepetitionLine(
                repetitions=count,
                before=tuple(_mean([p.before for p in run.points if p.repetitions == count]) for run in runs),
                after=tuple(_mean([p.after for p in run.points if p.repetitions == count]) for run in runs),
            )
            for count in counts
        ),
        reasons=tuple(
            f"{name}: {reason}"
            for name, summary in zip(names, summaries, strict=True)
            for reason in (summary.gate.remarks if summary.gate else ())
        ),
        status=next((status for status in _WORST_FIRST if status in statuses), None),
    )


def unique_names(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return a unique name for each run; the parent folder is added if two runs have the same name."""
    if len(set(names)) == len(names):
        return list(names)
    parents = [well_formed(PurePath(path).parent.name) for path in paths]
    longer = [f"{parent}/{name}" if parent else name for parent, name in zip(parents, names, strict=True)]
    if len(set(longer)) == len(longer):
        return longer
    return [f"{name} ({place})" for place, name in enumerate(names, 1)]


def _run(name: str, summary: Summary, *, verified: bool) -> RunSummary:
    method = summary.method
    facts = {fact.name: fact.value for fact in (*summary.audited, *summary.provenance.facts)}
    seed = facts.get("Seed of the canaries", figures.MISSING)
    trained = {str(stage.seed) for stage in summary.provenance.stages if stage.stage == "train"} - {seed}
    befores = [canary.before.exposure.bits for canary in summary.canaries]
    afters = [canary.after.exposure.bits for canary in summary.canaries if canary.after]
    tested = [c for c in (summary.calibration_before, summary.calibration_after) if c]
    return RunSummary(
        name=name,
        verified=verified,
        measured=summary.measured,
        commit=figures.MISSING if facts["Commit"] == NO_COMMIT else facts["Commit"],
        corpus=facts["Corpus"],
        model=facts["Model"],
        seed=seed + (f", training {', '.join(sorted(trained))}" if trained else ""),
        method=f"{method.method}, {method.scope}, {method.replacement}" if method else None,
        verdict=summary.overall.verdict,
        headline=summary.overall.headline,
        canaries=len(summary.canaries),
        exposed=sum(canary.last.verdict is Verdict.EXPOSED for canary in summary.canaries),
        largest_before=_largest(befores),
        mean_before=_mean(befores),
        largest_after=_largest(afters),
        mean_after=_mean(afters),
        accuracy_change=method.shown_accuracy_change if method else None,
        heldout_loss_change_bits=method.shown_heldout_loss_change if method else None,
        seconds=method.seconds if method else None,
        speedup=method.speedup if method else None,
        calibrated=all(c.passed for c in tested) if tested else None,
        warnings=summary.warnings,
        points=tuple(
            RunPoint(
                id=canary.id,
                repetitions=canary.repetitions,
                before=canary.before.exposure.bits,
                after=canary.after.exposure.bits if canary.after else None,
                verdict=canary.last.verdict,
            )
            for canary in summary.canaries
        ),
    )


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    return fmean(known) if (known := _known(values)) else None


def _largest(values: Sequence[float | None]) -> float | None:
    return max(_known(values), default=None)


class _Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str: ...


def labels(runs: Sequence[_Named], limit: int) -> list[str]:
    """Return a unique label of at most ``limit`` characters for each run.

    If shortened names would not be unique in some format, all formats number the runs in the given order.
    """
    if all(len({shorten(run.name, size) for run in runs}) == len(runs) for size in (SHORTEST_NAME, limit)):
        return [shorten(run.name, limit) for run in runs]
    numbers = [f"{place}:" for place in range(1, len(runs) + 1)]
    return [number + shorten(run.name, limit - len(number)) for number, run in zip(numbers, runs, strict=True)]


def comparison_chart(comparison: Comparison) -> Chart:
    """Draw a row for each run: every canary's exposure before and after, over the band of unseen secrets."""
    names = labels(comparison.runs, _LABEL)
    states = ["before", "after"] if comparison.unlearned else ["before"]
    rows: list[dict[str, Any]] = [
        {
            "run": name,
            "state": state,
            "bits": bits,
            "label": f"{name}, {shorten(point.id, 24)}, inserted {point.repetitions:,} "
            f"{'time' if point.repetitions == 1 else 'times'}, {state}: {bits:.1f} bits",
        }
        for name, run in zip(names, comparison.runs, strict=True)
        for point in run.points[:MOST_MARKS]
        for state, bits in (("before", point.before), ("after", point.after))
        if bits is not None
    ]
    reach = math.ceil(max([1.0, *(row["bits"] for row in rows)])) + 1
    axis = alt.Axis(grid=True, domain=False, ticks=False, labelPadding=8)
    points = (
        alt.Chart(Rows(values=rows))
        .mark_point(filled=True, size=70, opacity=0.7)
        .encode(
            y=alt.Y("run:N", sort=names, title=None, axis=axis),
            yOffset=alt.YOffset("state:N", sort=states),
            x=alt.X("bits:Q", title="exposure, bits", scale=alt.Scale(domain=[0, reach], nice=False)),
            color=by_state(states),
            shape=shape_by_state(states),
            description="label:N",
        )
    )
    chart = alt.layer(chance_band("x"), points).properties(width=520, height=alt.Step(22))
    return Chart(
        "comparison",
        "Exposure of every canary, by run",
        f"Exposure in bits: {_words(comparison)}.",
        specification(chart),
    )


def _words(comparison: Comparison) -> str:
    descriptions = []
    for name, run in zip(labels(comparison.runs, _LABEL), comparison.runs, strict=True):
        text = f"{name}: at most {figures.decimal(run.largest_before)}"
        if run.method is not None:
            text += f" before and {figures.decimal(run.largest_after)} after"
        descriptions.append(f"{text}, {WORDS[run.verdict]}")
    return "; ".join(descriptions)


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the smallest and the largest of the known values."""
    known: list[Any] = _known(values)
    return (min(known), max(known)) if known else None
