"""Chart that compares the estimators: where they agree, and where a fit is wrong."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.records import EstimatorName, only_bounds
from canaryaudit.report.charts.base import (
    AFTER,
    BAR,
    BEFORE,
    INK,
    NAME_LENGTH,
    Chart,
    Rows,
    chance_band,
    exposure_label,
    specification,
)
from canaryaudit.report.schema import CanaryState, CanarySummary, EstimateFigure, Summary

MOST_CANARIES = 15

_NAMES: tuple[EstimatorName, ...] = get_args(EstimatorName)
_COLORS = (BEFORE, "#CC79A7", AFTER, INK)
_SHAPES = ("circle", "square", "diamond", "triangle-up")


def estimates_chart(summary: Summary) -> Chart:
    """Draw a row for each of the worst canaries and a mark for each estimator, hollow if it is not trusted."""
    canaries = summary.canaries[:MOST_CANARIES]
    rows = {
        "before": [row for canary in canaries for row in _rows(canary, after=False)],
        "after": [row for canary in canaries for row in _rows(canary, after=True)],
    }
    reach = math.ceil(max([1.0, *(canary.space_bits or 0 for canary in canaries)]))
    order = [shorten(canary.id, NAME_LENGTH) for canary in canaries]
    states = ["before", "after"] if summary.unlearned else ["before"]
    panels = [_panel(rows[state], order, reach, state if summary.unlearned else "") for state in states]
    chart = alt.vconcat(*panels, spacing=14) if len(panels) > 1 else panels[0]
    return Chart("estimates", "Exposure by each estimator", _words(summary, rows["before"]), specification(chart))


def bounds(line: EstimateFigure, between: str = " to ") -> str:
    """Write certified bounds, in bits."""
    return f"{figures.decimal(line.low)}{between}{figures.decimal(line.high)}"


def _rows(canary: CanarySummary, *, after: bool) -> list[dict[str, Any]]:
    state = canary.after if after else canary.before
    name = shorten(canary.id, NAME_LENGTH)
    return [
        {
            "canary": name,
            "estimator": estimator,
            "trusted": "yes" if line.trusted else "no",
            "bits": line.bits,
            "label": f"{name}, {'after' if after else 'before'}, {estimator}: "
            + (
                f"certified to be between {bounds(line, ' and ')} bits"
                if only_bounds(estimator, trusted=line.trusted)
                else exposure_label(line.bits, line.low, line.high)
                + ("" if line.trusted else "; failed its own checks")
            ),
        }
        for estimator, line in (state.estimates.items() if state else ())
        if line.bits is not None
    ]


def _panel(rows: list[dict[str, Any]], order: list[str], reach: int, heading: str) -> Any:
    data = Rows(values=rows)
    y = alt.Y("canary:N", sort=order, title=None, axis=alt.Axis(grid=True, domain=False, ticks=False, labelPadding=8))
    x = alt.X(
        "bits:Q",
        title="exposure, bits",
        axis=alt.Axis(tickCount=8, grid=False),
        scale=alt.Scale(domain=[0, reach], nice=False),
    )
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, columns=2)
    color = alt.Color("estimator:N", scale=alt.Scale(domain=_NAMES, range=_COLORS), legend=legend)
    shape = alt.Shape("estimator:N", scale=alt.Scale(domain=_NAMES, range=_SHAPES), legend=legend)
    layers: list[Any] = [chance_band("x")]
    for trusted in (True, False):
        mark = alt.Chart(data).mark_point(filled=trusted, size=75 if trusted else 55, opacity=0.9, strokeWidth=1.8)
        points = mark.transform_filter(alt.datum.trusted == ("yes" if trusted else "no"))
        layers.append(points.encode(x=x, y=y, color=color, shape=shape, description="label:N"))
    titled = {"title": alt.TitleParams(heading, color=BAR, anchor="start", fontSize=13)} if heading else {}
    return alt.layer(*layers).properties(width=520, height=alt.Step(24), **titled)


def _words(summary: Summary, rows: Sequence[dict[str, Any]]) -> str:
    descriptions = []
    canaries = summary.canaries[:MOST_CANARIES]
    before = [(canary, canary.before) for canary in canaries]
    after = [(canary, canary.after) for canary in canaries if canary.after]
    for when, states in (
        ("before unlearning" if summary.unlearned else "in this model", before),
        ("after unlearning", after),
    ):
        widest = max((spread for canary, state in states if (spread := _spread(canary, state))), default=None)
        if widest:
            descriptions.append(f"{when} they differ most for {widest[1]}, {widest[2]}")
    number = figures.counted(len({row["canary"] for row in rows}), "canary")
    return f"Exposure of {number} by each estimator" + (": " if descriptions else "") + "; ".join(descriptions) + "."


def _spread(canary: CanarySummary, state: CanaryState) -> tuple[float, str, str] | None:
    """Return the range of a canary's estimates, its name and the estimates; None for fewer than two."""
    lines = [(name, line) for name, line in state.estimates.items() if line.bits is not None]
    bits = {
        name: line.bits for name, line in lines if not only_bounds(name, trusted=line.trusted) and line.bits is not None
    }
    if len(bits) < 2:
        return None
    figures_by_name = [f"{name} {value:.1f}" for name, value in bits.items()]
    figures_by_name += [
        f"{name} between {bounds(line, ' and ')}" for name, line in lines if only_bounds(name, trusted=line.trusted)
    ]
    return max(bits.values()) - min(bits.values()), shorten(canary.id, NAME_LENGTH), ", ".join(figures_by_name)
