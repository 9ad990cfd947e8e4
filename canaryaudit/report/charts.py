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

from canaryaudit.records import MemorisationPoint
from canaryaudit.report import figures
from canaryaudit.report.schema import CalibrationFigures, CanarySummary, CurveSummary, MemorisationSummary, Summary
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


def memorisation_chart(memorisation: MemorisationSummary, *, unlearned: bool) -> Chart:
    """Build the curves: mean exposure against repetitions, over what as many secrets never seen would average."""
    shown = memorisation.curves[: MOST_TEMPLATES + 1]
    panels = [_curve_panel(curve, unlearned=unlearned, titled=len(shown) > 1) for curve in shown]
    chart = alt.vconcat(*panels, spacing=18) if len(panels) > 1 else panels[0]
    whole = shown[0]
    said = [_points_words(whole.before, "before unlearning" if unlearned else "")]
    said += [_points_words(whole.after, "afterwards")] if whole.after else []
    words = f"{memorisation.answer} Mean exposure in bits: {'; '.join(said)}."
    return Chart("memorisation", "Mean exposure against repetitions", words, specification(chart))


def _points_words(points: Sequence[MemorisationPoint], when: str) -> str:
    said = ", ".join(f"{p.mean_bits:.1f} ({p.low:.1f} to {p.high:.1f}) at {p.repetitions:,}" for p in points)
    return f"{when}, {said}" if when else said


def _curve_panel(curve: CurveSummary, *, unlearned: bool, titled: bool) -> Any:
    counts = sorted({point.repetitions for point in (*curve.before, *curve.after)})
    ceiling = math.ceil(max(p.high for p in (*curve.before, *curve.after)))
    states = ["before", "after"] if unlearned else ["before"]
    x = alt.X(
        "times:Q",
        title="times inserted (0: controls)",
        scale=alt.Scale(type="symlog", domain=[0, counts[-1]], nice=False, padding=14),
        axis=alt.Axis(values=counts, grid=False, format=",d", labelOverlap="greedy"),
    )
    scale = alt.Scale(domain=[0, max(ceiling, math.ceil(1.5 * NEVER_SEEN_BITS))], nice=False)
    y = alt.Y("bits:Q", title="mean exposure, bits", scale=scale, axis=alt.Axis(tickCount=5))
    unseen = [{"times": point.repetitions, "bits": point.unseen_bits} for point in curve.before]
    layers: list[Any] = [
        alt.Chart(alt.Data(values=unseen)).mark_area(color=BAR, opacity=0.22, aria=False).encode(x=x, y=y)
    ]
    for state, points, aside in (("before", curve.before, -4), ("after", curve.after, 4)):
        if not points:
            continue
        rows = [
            {
                "times": p.repetitions,
                "bits": p.mean_bits,
                "low": p.low,
                "high": p.high,
                "state": state,
                "said": f"{figures.counted(p.canaries, 'canary') if p.repetitions else 'controls'}, inserted "
                f"{p.repetitions:,} times, {state}: {said_bits(p.mean_bits, p.low, p.high)} on average",
            }
            for p in points
        ]
        base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=by_state(states))
        offset = aside if unlearned else 0
        layers += [
            base.mark_line(strokeWidth=1.5, opacity=0.6, xOffset=offset, aria=False).encode(),
            base.mark_rule(strokeWidth=5, opacity=0.35, xOffset=offset, aria=False).encode(
                y=alt.Y("low:Q"), y2="high:Q"
            ),
            base.mark_point(filled=True, size=85, opacity=1, xOffset=offset).encode(
                shape=shape_by_state(states), description="said:N"
            ),
        ]
    name = "All templates" if curve.template is None else f"Template {curve.template + 1}"
    heading = {"title": alt.TitleParams(name, anchor="start", fontSize=13)} if titled else {}
    return alt.layer(*layers).properties(width=520, height=180, **heading)


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
    shown = [
        method
        for method in summary.methods
        if method.measured and method.accuracy_change is not None and method.max_exposure_bits is not None
    ]
    rows: list[dict[str, Any]] = [
        {
            "method": f"{shorten(method.name, NAME_LENGTH)} ({figures.duration(method.seconds)})",
            "lost": -100 * (method.accuracy_change or 0.0),
            "left": method.max_exposure_bits,
            "seconds": method.seconds or 0.0,
            "said": f"{shorten(method.name, NAME_LENGTH)}: at most {method.max_exposure_bits:.1f} bits left, accuracy "
            f"{figures.points(method.shown_accuracy_change)}, {figures.duration(method.seconds)}",
        }
        for method in shown
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
    said = "; ".join(
        f"{row['method']}: {row['left']:.1f} bits left, "
        f"{figures.decimal(-100 * (method.shown_accuracy_change or 0.0), 2)} points lost"
        for row, method in zip(rows, shown, strict=True)
    )
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
