"""The course of several reports in time: one run for each commit, or each model, oldest first."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.errors import UsageError
from canaryaudit.formatting import shorten, visible
from canaryaudit.report.charts.base import Chart, Rows, by_state, chance_band, shape_by_state, specification
from canaryaudit.report.comparison.comparison import Comparison, RunSummary
from canaryaudit.report.earlier import read_earlier
from canaryaudit.report.schema import Summary, moment

_STATES = ("largest", "mean")
_COMMIT, _NAME = 7, 40
_ROUNDING = 1e-3
"""Figures have seven digits."""


def read_report(path: Path) -> Summary:
    """Read an earlier report to compare it with others.

    Args:
        path: Its ``report.json``.

    Returns:
        The report without its gate, which may have judged another state of the run, and cannot be verified.

    Raises:
        UsageError: It cannot be read, is no report, has another schema version, or has figures that no report has.
    """
    wanted = "a run directory, or the report.json of a report"
    report = read_earlier(path, Summary, str(path), wanted, "write the report again")
    if fault := _fault(report):
        raise UsageError(f"{path}: {fault}; write the report again")
    return report.model_copy(update={"gate": None})


def _fault(report: Summary) -> str:
    """Return what no report can say, or an empty text; the rest of its figures cannot be checked without the run."""
    names = {fact.name for fact in (*report.audited, *report.provenance.facts)}
    if missing := {"Corpus", "Model", "Commit"} - names:
        return f"it does not say the {' or the '.join(sorted(missing)).lower()}"
    if any(moment(stage.started) is None for stage in report.provenance.stages):
        return "the start of a stage is not a time in ISO 8601 with a time zone"
    for canary in report.canaries:
        most = math.inf if canary.space_bits is None else canary.space_bits + _ROUNDING
        for state in (canary.before, canary.after, canary.retrained):
            exposure = state.exposure if state else None
            if exposure and any(not 0 <= bits <= most for bits in (exposure.bits, exposure.high) if bits is not None):
                return f"an exposure of {shorten(canary.id, _NAME)} is not between 0 and the size of its space"
    return ""


def oldest_first(summaries: Sequence[Summary], paths: Sequence[str]) -> tuple[list[Summary], list[str]]:
    """Sort reports and their paths by the time of the last measurement; those without one come first."""
    earliest = datetime.min.replace(tzinfo=UTC)
    order = sorted(range(len(paths)), key=lambda index: moment(summaries[index].measured) or earliest)
    return [summaries[index] for index in order], [paths[index] for index in order]


def moments(runs: Sequence[RunSummary]) -> list[str]:
    """Return a unique label for each run: its number, date of measurement and commit."""
    return [
        " ".join(part for part in (f"{place}:", run.measured[:10], visible(run.commit)[:_COMMIT]) if part)
        for place, run in enumerate(runs, 1)
    ]


def trend_chart(comparison: Comparison) -> Chart:
    """Draw the largest and the mean exposure of every run, after unlearning where there was one, in the runs' order."""
    names = moments(comparison.runs)
    rows: list[dict[str, Any]] = [
        {"run": name, "state": state, "bits": bits, "label": f"{name}, {run.name}, {state} exposure: {bits:.1f} bits"}
        for name, run in zip(names, comparison.runs, strict=True)
        for state, bits in zip(_STATES, _latest(run), strict=True)
        if bits is not None
    ]
    base = alt.Chart(Rows(values=rows)).encode(
        x=alt.X("run:N", sort=names, title=None, axis=alt.Axis(labelAngle=-40, grid=False)),
        y=alt.Y("bits:Q", title="exposure, bits", scale=alt.Scale(zero=True)),
        color=by_state(_STATES),
    )
    lines = base.mark_line(strokeWidth=1.5, opacity=0.6, aria=False)
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=shape_by_state(_STATES), description="label:N"
    )
    chart = alt.layer(chance_band("y"), lines, marks).properties(width=520, height=220)
    return Chart("trend", "Exposure in time", f"Largest exposure, bits: {_words(comparison)}.", specification(chart))


def _latest(run: RunSummary) -> tuple[float | None, float | None]:
    is_after = run.largest_after is not None
    return (run.largest_after, run.mean_after) if is_after else (run.largest_before, run.mean_before)


def _words(comparison: Comparison) -> str:
    latest = [figures.decimal(_latest(run)[0]) for run in comparison.runs]
    return "; ".join(f"{name} {bits}" for name, bits in zip(moments(comparison.runs), latest, strict=True))
