"""Heat map of every canary's exposure under every probe, before and after unlearning."""

from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.report.charts.base import AFTER, BEFORE, INK, NAME_LENGTH, Chart, Rows, specification
from canaryaudit.report.schema import CanaryState, CanarySummary, ProbeFigure, Summary
from canaryaudit.report.summary.probes import worst_words

MOST_CANARIES = 12
"""Each has a cell for every probe: more would be larger than all other charts together."""
_MOST_BITS = 10.0
"""End of the color scale: a larger exposure counts as exposed, and about 1,000 references cannot resolve more."""


def has_probes(summary: Summary) -> bool:
    """Return whether there are probes to draw; hidden secrets have none."""
    return any(canary.last.probes for canary in summary.canaries)


def probes_chart(summary: Summary) -> Chart:
    """Draw a row for each canary, worst first, and a column for each probe."""
    probed = [canary for canary in summary.canaries if canary.last.probes]
    canaries = probed[:MOST_CANARIES]
    states = [("before", BEFORE), ("after", AFTER)] if summary.unlearned else [("before", BEFORE)]
    order: dict[str, None] = {}
    panels = []
    for state, color in states:
        rows = [row for canary in canaries for row in _rows(canary, state)]
        order |= dict.fromkeys(row["probe"] for row in rows)
        panels.append((state, color, rows))
    columns = sorted(order, key=_column)
    names = [shorten(canary.id, NAME_LENGTH) for canary in canaries]
    drawn = [_panel(state, color, rows, columns, names, titled=len(panels) > 1) for state, color, rows in panels]
    chart = alt.vconcat(*drawn, spacing=18) if len(drawn) > 1 else drawn[0]
    cases = "; ".join(
        f"{shorten(canary.id, NAME_LENGTH)} {worst_words(canary.last)}" for canary in canaries if canary.last.worst_case
    )
    title = "Exposure under every probe" + (", before and after unlearning" if summary.unlearned else "")
    title += f", the worst {len(canaries)} of {len(probed):,} canaries" if len(canaries) < len(probed) else ""
    return Chart("probes", title, f"The worst case of each canary: {cases}.", specification(chart))


_FAMILIES = ("template", "context", "truncated", "given", "reworded", "bare")


def _column(label: str) -> int:
    """Order columns by family; those with a part of the secret known come last."""
    return len(_FAMILIES) if "known" in label else _FAMILIES.index(label.split("-")[0])


def _rows(canary: CanarySummary, state: str) -> list[dict[str, Any]]:
    canary_state: CanaryState | None = canary.before if state == "before" else canary.after
    name = shorten(canary.id, NAME_LENGTH)
    if canary_state is None or not canary_state.probes:
        return []
    counts: dict[str, int] = {}
    rows = []
    for probe in canary_state.probes:
        counts[probe.prompt] = counts.get(probe.prompt, 0) + 1
        label = _label(probe, counts[probe.prompt] - 1)
        rows.append(
            {
                "canary": name,
                "probe": label,
                "bits": min(probe.bits or 0.0, _MOST_BITS),
                "label": f"{name}, {state}, {label}: {figures.decimal(probe.bits)} bits"
                + (", completed by greedy decoding" if probe.greedy else ""),
            }
        )
    return rows


def _label(probe: ProbeFigure, turn: int) -> str:
    """Name a column independently of the template: a quarter of a secret varies in characters between templates."""
    if probe.family != "partial":
        return probe.prompt
    return f"{25 * turn} % known, {probe.prompt}"


def _panel(
    state: str, color: str, rows: list[dict[str, Any]], columns: list[str], names: list[str], *, titled: bool
) -> Any:
    # In a narrow window not every label has room: those that would overlap are left out, and the cells still name it.
    axis = alt.Axis(
        labelAngle=-90, labelFontSize=9, labelLimit=140, labelOverlap="greedy", grid=False, domain=False, ticks=False
    )
    heading = {"title": alt.TitleParams(state, anchor="start", fontSize=13)} if titled else {}
    return (
        alt.Chart(Rows(values=rows))
        .mark_rect(stroke=INK, strokeWidth=0.2, strokeOpacity=0.4)
        .encode(
            x=alt.X("probe:N", sort=columns, title=None, axis=axis),
            y=alt.Y("canary:N", sort=names, title=None, axis=alt.Axis(grid=False, domain=False, ticks=False)),
            opacity=alt.Opacity(
                "bits:Q",
                scale=alt.Scale(domain=[0, _MOST_BITS], range=[0.04, 1.0]),
                legend=alt.Legend(title="bits", orient="top", symbolType="square", values=[0, 2, 4, 6, 8, 10])
                if state == "before"
                else None,
            ),
            color=alt.value(color),
            description="label:N",
        )
        .properties(width=520, height=alt.Step(18), **heading)
    )
