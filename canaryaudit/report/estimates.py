"""The estimators' answers side by side, as a picture: where they agree, and where a fit goes astray."""

import math
from typing import Any, get_args

import altair as alt

from canaryaudit.records import EstimatorName
from canaryaudit.report import figures
from canaryaudit.report.charts import AFTER, BAR, BEFORE, INK, NAME_LENGTH, Chart, chance_band, said_bits, specification
from canaryaudit.report.schema import CanarySummary, Summary
from canaryaudit.text import shorten

MOST_CANARIES = 15

_NAMES: tuple[EstimatorName, ...] = get_args(EstimatorName)
_COLOURS = (BEFORE, "#CC79A7", AFTER, INK)
_SHAPES = ("circle", "square", "diamond", "triangle-up")


def estimates_chart(summary: Summary) -> Chart:
    """Build the picture: a row for each of the worst canaries, a mark for each estimator, hollow where not trusted."""
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
    return Chart(
        "estimates", "Exposure by each estimator", _words(summary, rows["before"], rows["after"]), specification(chart)
    )


def _rows(canary: CanarySummary, *, after: bool) -> list[dict[str, Any]]:
    state = canary.after if after else canary.before
    name = shorten(canary.id, NAME_LENGTH)
    return [
        {
            "canary": name,
            "estimator": estimator,
            "trusted": "yes" if line.trusted else "no",
            "bits": line.bits,
            "said": f"{name}, {'after' if after else 'before'}, {estimator}: "
            f"{said_bits(line.bits, line.low, line.high)}" + ("" if line.trusted else "; failed its own checks"),
        }
        for estimator, line in (state.estimates.items() if state else ())
        if line.bits is not None
    ]


def _panel(rows: list[dict[str, Any]], order: list[str], reach: int, heading: str) -> Any:
    data = alt.Data(values=rows)
    y = alt.Y("canary:N", sort=order, title=None, axis=alt.Axis(grid=True, domain=False, ticks=False, labelPadding=8))
    x = alt.X(
        "bits:Q",
        title="exposure, bits",
        axis=alt.Axis(tickCount=8, grid=False),
        scale=alt.Scale(domain=[0, reach], nice=False),
    )
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, columns=2)
    colour = alt.Color("estimator:N", scale=alt.Scale(domain=_NAMES, range=_COLOURS), legend=legend)
    shape = alt.Shape("estimator:N", scale=alt.Scale(domain=_NAMES, range=_SHAPES), legend=legend)
    layers: list[Any] = [chance_band("x")]
    for trusted in (True, False):
        mark = alt.Chart(data).mark_point(filled=trusted, size=75 if trusted else 55, opacity=0.9, strokeWidth=1.8)
        points = mark.transform_filter(alt.datum.trusted == ("yes" if trusted else "no"))
        layers.append(points.encode(x=x, y=y, color=colour, shape=shape, description="said:N"))
    titled = {"title": alt.TitleParams(heading, color=BAR, anchor="start", fontSize=13)} if heading else {}
    return alt.layer(*layers).properties(width=520, height=alt.Step(24), **titled)


def _words(summary: Summary, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    said = []
    for when, rows in (("before unlearning" if summary.unlearned else "in this model", before), ("afterwards", after)):
        widest = max((_spread(rows, name) for name in {row["canary"] for row in rows}), default=None)
        if widest:
            said.append(f"{when} they differ most for {widest[1]}, {widest[2]}")
    return f"Exposure of {figures.counted(len({row['canary'] for row in before}), 'canary')} by each estimator: " + (
        "; ".join(said) + "."
    )


def _spread(rows: list[dict[str, Any]], canary: str) -> tuple[float, str, str]:
    own = [row for row in rows if row["canary"] == canary]
    bits = [row["bits"] for row in own]
    return max(bits) - min(bits), canary, ", ".join(f"{row['estimator']} {row['bits']:.1f}" for row in own)
