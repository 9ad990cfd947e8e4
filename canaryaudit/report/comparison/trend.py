"""The course of several reports in time: one run for each commit, or each model, oldest first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.errors import UsageError
from canaryaudit.formatting import visible
from canaryaudit.report.charts.base import Chart, by_state, chance_band, shape_by_state, specification
from canaryaudit.report.comparison.comparison import Comparison, RunSummary
from canaryaudit.report.schema import SUMMARY_VERSION, Summary
from canaryaudit.storage.json_records import MAX_JSON_BYTES, validated

_STATES = ("largest", "mean")
_COMMIT = 7


def read_report(path: Path) -> Summary:
    """Read an earlier report to compare it with others.

    Args:
        path: Its ``report.json``.

    Raises:
        UsageError: It cannot be read, is no report, or has another schema version.
    """
    try:
        with path.open("rb") as file:
            report = validated(file.read(MAX_JSON_BYTES + 1), Summary)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a run directory, or the report.json of a report") from error
    except ValueError as error:
        raise UsageError(f"{path}: expected a run directory, or the report.json of a report ({error})") from error
    if report.schema_version != SUMMARY_VERSION:
        raise UsageError(
            f"{path}: expected schema version {SUMMARY_VERSION}, got {report.schema_version}; write the report again "
            "with this version of canaryaudit"
        )
    return report


def oldest_first(summaries: Sequence[Summary], paths: Sequence[str]) -> tuple[list[Summary], list[str]]:
    """Sort reports and their paths by the time of the last measurement; those without one come first."""
    order = sorted(range(len(paths)), key=lambda index: summaries[index].measured)
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
    base = alt.Chart(alt.Data(values=rows)).encode(
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
