"""The report's charts: one builder each, from the summary to a specification and its static picture.

Specifications hold numbers and names only, never a secret. Pictures are drawn without a network and
without a browser. They lie on light and dark backgrounds alike: nothing is painted behind them, text is
mid-grey, and the two colours (vermilion and blue of Okabe & Ito, the blue lightened to show on black) are told
apart by colour-blind readers; shapes say the same.
"""

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import vl_convert

from canaryaudit.records import MemorisationPoint
from canaryaudit.report import figures
from canaryaudit.report.schema import (
    CanarySummary,
    CurveSummary,
    Distribution,
    FitFigures,
    MemorisationSummary,
    Summary,
    TemplateSummary,
)
from canaryaudit.report.verdicts import NEVER_SEEN_BITS
from canaryaudit.text import shorten

BEFORE, AFTER, BAR = "#D55E00", "#1F84C4", "#8c959f"
INK = "#767d85"
"""Mid-grey, legible on white and on black."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
MOST_CANARIES = 40
MOST_TEMPLATES = 8
MOST_TICKS = 200
_NAME_LENGTH = 24

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

    def svg(self) -> str:
        """Return the chart as a static picture."""
        return vl_convert.vegalite_to_svg(self.spec, vl_version=_vegalite_version(), allowed_base_urls=[])


def _vegalite_version() -> str:
    """Return the version that altair writes specifications for, as vl_convert names it."""
    wanted = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    return ".".join(wanted) if ".".join(wanted) in known else known[-1]


def charts(summary: Summary) -> tuple[Chart, ...]:
    """Return every chart that the summary has figures for."""
    drawn = [exposure_chart(summary)]
    if summary.memorisation:
        drawn.append(memorisation_chart(summary.memorisation, unlearned=summary.unlearned))
    for index, template in enumerate(summary.templates[:MOST_TEMPLATES]):
        if template.before or template.after:
            drawn.append(reference_chart(summary, index))
    if sum(method.measured for method in summary.methods) > 1:
        drawn.append(method_chart(summary))
    return tuple(drawn)


def exposure_chart(summary: Summary) -> Chart:
    """Build the dumbbells: exposure of each canary before and after, worst first, over chance's own band."""
    canaries = summary.canaries[:MOST_CANARIES]
    rows = [row for canary in canaries for row in _exposure_rows(canary)]
    reach = max([NEVER_SEEN_BITS * 1.5, *(canary.space_bits or 0 for canary in canaries)])
    order = [shorten(canary.id, _NAME_LENGTH) for canary in canaries]
    states = ["before", "after"] if summary.unlearned else ["before"]
    y = alt.Y("canary:N", sort=order, title=None, axis=alt.Axis(grid=False, domain=False, ticks=False, labelPadding=8))
    x = alt.X(
        "bits:Q",
        title="exposure, bits",
        axis=alt.Axis(tickCount=8),
        scale=alt.Scale(domain=[0, math.ceil(reach)], nice=False),
    )
    data = alt.Data(values=rows)
    band = (
        alt.Chart(alt.Data(values=[{"from": 0, "to": NEVER_SEEN_BITS}]))
        .mark_rect(color=BAR, opacity=0.22)
        .encode(x="from:Q", x2="to:Q")
    )
    whiskers = (
        alt.Chart(data)
        .mark_rule(strokeWidth=5, opacity=0.35)
        .encode(y=y, x=alt.X("low:Q"), x2="high:Q", color=_by_state(states))
    )
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=95, opacity=1)
        .encode(
            y=y,
            x=x,
            color=_by_state(states),
            shape=alt.Shape(
                "state:N",
                scale=alt.Scale(domain=states, range=["circle", "diamond"][: len(states)]),
                legend=_legend(states),
            ),
        )
    )
    joins = [
        {"canary": row["canary"], "from": row["bits"], "to": other["bits"]}
        for row, other in itertools.pairwise(rows)
        if row["canary"] == other["canary"]
    ]
    lines = (
        alt.Chart(alt.Data(values=joins))
        .mark_rule(color=BAR, strokeWidth=1.5)
        .encode(y=y, x=alt.X("from:Q"), x2="to:Q")
    )
    layers = [band, *([lines] if joins else []), whiskers, points]
    chart = alt.layer(*layers).properties(width=520, height=alt.Step(24))
    cut = f", the worst {len(canaries)} of {len(summary.canaries):,}" if len(canaries) < len(summary.canaries) else ""
    title = "Exposure before and after unlearning" if summary.unlearned else "Exposure"
    said = "; ".join(
        f"{shorten(canary.id, _NAME_LENGTH)} {figures.decimal(canary.before.exposure.bits)}"
        + (f" to {figures.decimal(canary.after.exposure.bits)}" if canary.after else "")
        for canary in canaries
    )
    return Chart("exposure", title + cut, f"Exposure in bits, worst canary first: {said}.", _spec(chart))


def _exposure_rows(canary: CanarySummary) -> list[dict[str, Any]]:
    states: list[tuple[State, Any]] = [("before", canary.before), ("after", canary.after)]
    return [
        {
            "canary": shorten(canary.id, _NAME_LENGTH),
            "state": name,
            "bits": state.exposure.bits,
            "low": state.exposure.low,
            "high": state.exposure.high,
        }
        for name, state in states
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
    return Chart("memorisation", "Mean exposure against repetitions", words, _spec(chart))


def _points_words(points: Sequence[MemorisationPoint], when: str) -> str:
    said = ", ".join(f"{p.mean_bits:.1f} ({p.low:.1f} to {p.high:.1f}) at {p.repetitions:,}" for p in points)
    return f"{when}, {said}" if when else said


def _curve_panel(curve: CurveSummary, *, unlearned: bool, titled: bool) -> alt.LayerChart | alt.FacetChart:
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
    layers: list[Any] = [alt.Chart(alt.Data(values=unseen)).mark_area(color=BAR, opacity=0.22).encode(x=x, y=y)]
    for state, points, aside in (("before", curve.before, -4), ("after", curve.after, 4)):
        if not points:
            continue
        rows = [
            {"times": p.repetitions, "bits": p.mean_bits, "low": p.low, "high": p.high, "state": state} for p in points
        ]
        base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=_by_state(states))
        offset = aside if unlearned else 0
        layers += [
            base.mark_line(strokeWidth=1.5, opacity=0.6, xOffset=offset).encode(),
            base.mark_rule(strokeWidth=5, opacity=0.35, xOffset=offset).encode(y=alt.Y("low:Q"), y2="high:Q"),
            base.mark_point(filled=True, size=85, opacity=1, xOffset=offset).encode(
                shape=alt.Shape(
                    "state:N",
                    scale=alt.Scale(domain=states, range=["circle", "diamond"][: len(states)]),
                    legend=_legend(states),
                )
            ),
        ]
    name = "All templates" if curve.template is None else f"Template {curve.template + 1}"
    heading = {"title": alt.TitleParams(name, anchor="start", fontSize=13)} if titled else {}
    return alt.layer(*layers).properties(width=520, height=180, **heading)


def reference_chart(summary: Summary, index: int) -> Chart:
    """Build one template's histograms: random members of its space, the fitted curve, the canaries marked."""
    template = summary.templates[index]
    canaries = [canary for canary in summary.canaries if canary.template == index]
    shown: list[tuple[State, Distribution]] = [("before", template.before)] if template.before else []
    if template.after:
        shown.append(("after", template.after))
    marks = {name: _canary_bits(canaries, name) for name, _ in shown}
    lowest = min([0.0, *(bits for values in marks.values() for bits in values)])
    highest = max([d.edges_bits[-1] for _, d in shown] + [bits for values in marks.values() for bits in values])
    scale = alt.Scale(domain=[lowest, highest], nice=True)
    panels = [_panel(name, distribution, marks[name], scale, summary.unlearned) for name, distribution in shown]
    chart = alt.vconcat(*panels, spacing=18).resolve_scale(x="shared") if len(panels) > 1 else panels[0]
    return Chart(
        f"reference-{index + 1}",
        f"Template {index + 1}: log-perplexity of random fillings, and of the canaries",
        _reference_words(template, marks),
        _spec(chart),
    )


def _canary_bits(canaries: Sequence[CanarySummary], name: State) -> list[float]:
    states = [canary.before if name == "before" else canary.after for canary in canaries]
    found = [state.log_perplexity_bits for state in states if state is not None]
    return [bits for bits in found if bits is not None][:MOST_TICKS]


def _panel(
    name: State, distribution: Distribution, marks: list[float], scale: alt.Scale, titled: bool
) -> alt.LayerChart | alt.FacetChart:
    edges, total = distribution.edges_bits, max(1, sum(distribution.counts))
    bars = [
        {"from": low, "to": high, "density": count / total / (high - low)}
        for low, high, count in zip(edges, edges[1:], distribution.counts, strict=False)
        if high > low
    ]
    x = alt.X("from:Q", scale=scale, title="log-perplexity, bits (left: likelier)", axis=alt.Axis(grid=False))
    y = alt.Y("density:Q", title="share per bit", axis=alt.Axis(tickCount=3, format="~g"))
    colour = BEFORE if name == "before" else AFTER
    layers: list[Any] = [
        alt.Chart(alt.Data(values=bars)).mark_rect(color=BAR, opacity=0.55).encode(x=x, x2="to:Q", y=y)
    ]
    layers[0] = layers[0].encode(y2=alt.datum(0))
    if distribution.skew_normal and (curve := _curve(distribution.skew_normal, edges[0], edges[-1])):
        line = alt.Chart(alt.Data(values=curve)).mark_line(color=INK, strokeWidth=1.5, strokeDash=[5, 3])
        layers.append(line.encode(x=alt.X("from:Q", scale=scale), y="density:Q"))
    ticks = alt.Chart(alt.Data(values=[{"from": bits} for bits in marks]))
    layers.append(ticks.mark_rule(color=colour, strokeWidth=2, opacity=0.9).encode(x=alt.X("from:Q", scale=scale)))
    heading = {"title": alt.TitleParams(name, color=colour, anchor="start", fontSize=13)} if titled else {}
    return alt.layer(*layers).properties(width=540, height=120, **heading)


def _curve(fit: FitFigures, low: float, high: float) -> list[dict[str, float]]:
    """Return points of the skew-normal density 2/w phi(z) Phi(a z), z = (x - location)/w."""
    if fit.shape is None or fit.location is None or not fit.scale or fit.scale <= 0:
        return []
    points = []
    for step in range(121):
        x = low + (high - low) * step / 120
        z = (x - fit.location) / fit.scale
        normal = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        points.append({"from": x, "density": normal * math.erfc(-fit.shape * z / math.sqrt(2)) / fit.scale})
    return points


def _reference_words(template: TemplateSummary, marks: dict[State, list[float]]) -> str:
    said = []
    distributions: list[tuple[State, Distribution | None]] = [("before", template.before), ("after", template.after)]
    for name, distribution in distributions:
        if distribution is None:
            continue
        where = f"{min(marks[name]):.1f} to {max(marks[name]):.1f} bits" if marks[name] else "were not measured"
        mean, deviation = distribution.mean_bits, distribution.standard_deviation_bits
        said.append(
            f"{name}: {distribution.num_references:,} random fillings cost {figures.decimal(mean)} bits on average "
            f"(standard deviation {figures.decimal(deviation)}), the canaries {where}"
        )
    return "Log-perplexity " + "; ".join(said) + "."


def method_chart(summary: Summary) -> Chart:
    """Build the picture of several unlearnings: what is left of the secrets, against what was lost; seconds beside."""
    rows: list[dict[str, Any]] = [
        {
            "method": f"{shorten(method.name, _NAME_LENGTH)} ({figures.duration(method.seconds)})",
            "lost": -100 * method.accuracy_change,
            "left": method.max_exposure_bits,
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
    band = (
        alt.Chart(alt.Data(values=[{"from": 0, "to": NEVER_SEEN_BITS}]))
        .mark_rect(color=BAR, opacity=0.22)
        .encode(y="from:Q", y2="to:Q")
    )
    dots = base.mark_point(filled=True, size=110, shape="diamond", color=AFTER, opacity=1)
    names = base.mark_text(align="left", dx=10, dy=-8, color=INK, fontSize=12, font=FONT).encode(text="method:N")
    chart = alt.layer(band, dots, names).properties(width=520, height=280)
    said = "; ".join(f"{row['method']}: {row['left']:.1f} bits left, {row['lost']:.2f} points lost" for row in rows)
    return Chart("methods", "Unlearnings compared: secrets left, accuracy lost, time taken", said + ".", _spec(chart))


def finished(name: str, title: str, alternative: str, chart: alt.TopLevelMixin) -> Chart:
    """Return a chart of another module with the house's look."""
    return Chart(name, title, alternative, _spec(chart))


def _by_state(states: Sequence[str]) -> alt.Color:
    return alt.Color(
        "state:N", scale=alt.Scale(domain=states, range=[BEFORE, AFTER][: len(states)]), legend=_legend(states)
    )


def _legend(states: Sequence[str]) -> alt.Legend | None:
    return alt.Legend(title=None, orient="top", symbolOpacity=1) if len(states) > 1 else None


def _spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return the specification with the house's look."""
    axis = {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": INK,
        "domainColor": INK,
        "gridColor": INK,
        "gridOpacity": 0.2,
    }
    spec: dict[str, Any] = json.loads(chart.to_json())
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


def inline_svg(chart: Chart) -> str:
    """Return the picture for a page: names of its parts made unique, text in the page's own colour."""
    svg = chart.svg()
    svg = re.sub(r"\b(id=\"|url\(#|href=\"#)", rf"\g<1>{chart.name}-", svg)
    svg = re.sub(r"\sxmlns(:xlink)?=\"[^\"]*\"", "", svg, count=2)
    svg = svg.replace(f'"{INK}"', '"currentColor"')
    return svg.replace("<svg ", f'<svg role="img" aria-labelledby="{chart.name}-caption" ', 1)
