"""Charts of exposure and of methods, and what all charts share: one specification each, and its static picture.

Specifications hold numbers and names only, never a secret. Pictures are drawn without a network and
without a browser. They lie on light and dark backgrounds alike: nothing is painted behind them, text is
mid-grey, and the two colours (vermilion and blue of Okabe & Ito, the blue lightened to show on black) are told
apart by colour-blind readers; shapes say the same.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import altair as alt
import vl_convert

from canaryaudit.report import figures
from canaryaudit.report.schema import CalibrationFigures, CanarySummary, Summary
from canaryaudit.report.verdicts import NEVER_SEEN_BITS
from canaryaudit.text import shorten

BEFORE, AFTER, BAR = "#D55E00", "#1F84C4", "#8c959f"
INK = "#767d85"
"""Mid-grey, legible on white and on black."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
MOST_CANARIES = 40
MOST_TEMPLATES = 6
"""That have pictures of their own."""
NAME_LENGTH = 24
NARROW = 240
"""Width of a chart's panels, without labels, that fits the screen of a telephone."""

State = Literal["before", "after"]


@dataclass(frozen=True)
class Chart:
    """A chart with what a reader who cannot see it needs.

    Attributes:
        name: Stem of its file's name.
        title: What it shows.
        alternative: The same in a sentence with figures.
        spec: Vega-Lite specification.
    """

    name: str
    title: str
    alternative: str
    spec: dict[str, Any]

    @property
    def file_name(self) -> str:
        """Name of the picture's file."""
        return f"{self.name}.svg"

    def svg(self, panel_width: int | None = None) -> str:
        """Return the chart as a static picture.

        Args:
            panel_width: Of every panel, in pixels; by default as wide as it was specified.
        """
        return _drawn(json.dumps(self.spec if panel_width is None else _resized(self.spec, panel_width)))


@lru_cache(maxsize=32)
def _drawn(spec: str) -> str:
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_vegalite_version(), allowed_base_urls=[])
    return svg


def _resized(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """Return a specification with panels of another width: its own, and those that it is composed of."""
    changed = spec | ({"width": width} if "width" in spec else {})
    for parts in {"hconcat", "vconcat", "layer"} & set(spec):
        changed[parts] = [_resized(part, width) for part in spec[parts]]
    return changed


def _vegalite_version() -> str:
    """Return the version that altair writes specifications for, as vl_convert names it."""
    wanted = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    return ".".join(wanted) if ".".join(wanted) in known else known[-1]


def exposure_chart(summary: Summary) -> Chart:
    """Build the dumbbells: exposure of each canary before and after, worst first, over chance's own band."""
    canaries = summary.canaries[:MOST_CANARIES]
    rows = [row for canary in canaries for row in _exposure_rows(canary)]
    reach = max([NEVER_SEEN_BITS * 1.5, *(canary.space_bits or 0 for canary in canaries)])
    order = [shorten(canary.id, NAME_LENGTH) for canary in canaries]
    states = ["before", "after"] if summary.unlearned else ["before"]
    joins = [
        {"canary": row["canary"], "from": row["bits"], "to": other["bits"]}
        for row, other in itertools.pairwise(rows)
        if row["canary"] == other["canary"]
    ]
    controls = [
        row
        for state, calibration in (("before", summary.calibration_before), ("after", summary.calibration_after))
        if calibration and (row := _controls_row(state, calibration, unlearned=summary.unlearned))
    ]
    order += list(dict.fromkeys(row["canary"] for row in controls))
    y = alt.Y("canary:N", sort=order, title=None, axis=alt.Axis(grid=False, domain=False, ticks=False, labelPadding=8))
    x = alt.X(
        "bits:Q",
        title="exposure, bits",
        axis=alt.Axis(tickCount=8),
        scale=alt.Scale(domain=[0, math.ceil(reach)], nice=False),
    )
    data = alt.Data(values=[*rows, *controls])
    lines = (
        alt.Chart(alt.Data(values=joins))
        .mark_rule(color=BAR, strokeWidth=1.5, aria=False)
        .encode(y=y, x=alt.X("from:Q"), x2="to:Q")
    )
    whiskers = (
        alt.Chart(data)
        .mark_rule(strokeWidth=5, opacity=0.35, aria=False)
        .encode(y=y, x=alt.X("low:Q"), x2="high:Q", color=by_state(states))
    )
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=95, opacity=1)
        .encode(y=y, x=x, color=by_state(states), shape=shape_by_state(states), description="said:N")
    )
    layers = [chance_band("x"), *([lines] if joins else []), whiskers, points]
    chart = alt.layer(*layers).properties(width=520, height=alt.Step(24))
    cut = f", the worst {len(canaries)} of {len(summary.canaries):,}" if len(canaries) < len(summary.canaries) else ""
    title = "Exposure before and after unlearning" if summary.unlearned else "Exposure"
    said = "; ".join(
        f"{shorten(canary.id, NAME_LENGTH)} {figures.decimal(canary.before.exposure.bits)}"
        + (f" to {figures.decimal(canary.after.exposure.bits)}" if canary.after else "")
        for canary in canaries
    )
    return Chart("exposure", title + cut, f"Exposure in bits, worst canary first: {said}.", specification(chart))


def _exposure_rows(canary: CanarySummary) -> list[dict[str, Any]]:
    states: list[tuple[State, Any]] = [("before", canary.before), ("after", canary.after)]
    name = shorten(canary.id, NAME_LENGTH)
    return [
        {
            "canary": name,
            "state": when,
            "bits": state.exposure.bits,
            "low": state.exposure.low,
            "high": state.exposure.high,
            "said": f"{name}, {when}: {said_bits(state.exposure.bits, state.exposure.low, state.exposure.high)} "
            f"({state.exposure.method})",
        }
        for when, state in states
        if state is not None and state.exposure.bits is not None
    ]


def _controls_row(state: str, calibration: CalibrationFigures, *, unlearned: bool) -> dict[str, Any] | None:
    """Return the controls' own row, which shows what chance did in this very measurement."""
    if calibration.mean_bits is None or calibration.low_bits is None or calibration.high_bits is None:
        return None
    spread = f"{calibration.low_bits:.1f} to {calibration.high_bits:.1f}"
    return {
        "canary": f"controls {state}" if unlearned else "controls",
        "state": state,
        "bits": calibration.mean_bits,
        "low": calibration.low_bits,
        "high": calibration.high_bits,
        "said": f"{calibration.controls:,} controls, {state}: {calibration.mean_bits:.2f} bits on average, 90 in 100 "
        f"within {spread}",
    }


def said_bits(bits: float | None, low: float | None, high: float | None) -> str:
    """Say an exposure with its interval."""
    spread = figures.interval(low, high)
    return f"{figures.decimal(bits)} bits" + (f", between {spread.replace(' to ', ' and ')}" if spread else "")


def method_chart(summary: Summary) -> Chart:
    """Build the picture of several unlearnings: what is left of the secrets, against what was lost; seconds beside."""
    rows: list[dict[str, Any]] = [
        {
            "method": f"{shorten(method.name, NAME_LENGTH)} ({figures.duration(method.seconds)})",
            "lost": -100 * method.accuracy_change,
            "left": method.max_exposure_bits,
            "seconds": method.seconds or 0.0,
            "said": f"{shorten(method.name, NAME_LENGTH)}: at most {method.max_exposure_bits:.1f} bits left, accuracy "
            f"{figures.points(method.accuracy_change)}, {figures.duration(method.seconds)}",
        }
        for method in summary.methods
        if method.measured and method.accuracy_change is not None and method.max_exposure_bits is not None
    ]
    lost, left = [row["lost"] for row in rows] or [0.0], [row["left"] for row in rows] or [0.0]
    least, most = min(0.0, *lost), max(0.1, *lost)
    room = most + 0.4 * (most - least)  # For the name beside the rightmost mark.
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "lost:Q", title="accuracy lost, points", scale=alt.Scale(domain=[least, room]), axis=alt.Axis(tickCount=6)
        ),
        y=alt.Y(
            "left:Q",
            title="largest exposure left, bits",
            scale=alt.Scale(domain=[0, max(1.5 * NEVER_SEEN_BITS, *left)], nice=True),
        ),
    )
    dots = base.mark_point(filled=True, shape="diamond", color=AFTER, opacity=0.9).encode(
        size=alt.Size("seconds:Q", scale=alt.Scale(type="sqrt", range=[60, 600]), legend=None), description="said:N"
    )
    names = base.mark_text(align="left", dx=14, dy=-10, color=INK, fontSize=12, aria=False).encode(text="method:N")
    chart = alt.layer(chance_band("y"), dots, names).properties(width=520, height=280)
    said = "; ".join(f"{row['method']}: {row['left']:.1f} bits left, {row['lost']:.2f} points lost" for row in rows)
    return Chart(
        "methods", "Unlearnings compared: secrets left, accuracy lost, time taken", said + ".", specification(chart)
    )


def chance_band(axis: Literal["x", "y"]) -> Any:
    """Return the band in which 95 of 100 secrets lie that a model never saw."""
    band = alt.Chart(alt.Data(values=[{"from": 0, "to": NEVER_SEEN_BITS}])).mark_rect(
        color=BAR, opacity=0.22, aria=False
    )
    return band.encode(x="from:Q", x2="to:Q") if axis == "x" else band.encode(y="from:Q", y2="to:Q")


def by_state(states: Sequence[str]) -> alt.Color:
    """Return the colour of before and after."""
    return alt.Color(
        "state:N", scale=alt.Scale(domain=states, range=[BEFORE, AFTER][: len(states)]), legend=legend(states)
    )


def shape_by_state(states: Sequence[str]) -> alt.Shape:
    """Return the shape of before and after: what the colour says, for those who do not see it."""
    scale = alt.Scale(domain=states, range=["circle", "diamond"][: len(states)])
    return alt.Shape("state:N", scale=scale, legend=legend(states))


def legend(states: Sequence[str]) -> alt.Legend | None:
    """Return the legend of before and after; none where there is no after."""
    return alt.Legend(title=None, orient="top", symbolOpacity=1) if len(states) > 1 else None


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return the specification with the house's look."""
    axis = {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": INK,
        "domainColor": INK,
        "gridColor": INK,
        "gridOpacity": 0.2,
    }
    spec: dict[str, Any] = json.loads(chart.to_json(indent=None), parse_float=lambda text: float(f"{float(text):.5g}"))
    del spec["$schema"]  # An address; the version that draws it is named where it is drawn.
    spec["config"] = {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": axis
        | {
            "gridOpacity": 0.2,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 240,
        },
        "legend": {"labelColor": INK, "labelFontSize": 12},
        "title": {"color": INK},
    }
    return spec
