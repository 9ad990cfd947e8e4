"""Exposure against the number of repetitions, as a chart."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.records import MemorizationPoint
from canaryaudit.report.charts.base import (
    BAR,
    MOST_TEMPLATES,
    Chart,
    Rows,
    by_state,
    exposure_label,
    shape_by_state,
    specification,
)
from canaryaudit.report.schema import CurveSummary, MemorizationSummary
from canaryaudit.report.verdicts import NEVER_SEEN_BITS


def memorization_chart(memorization: MemorizationSummary, *, unlearned: bool) -> Chart:
    """Draw mean exposure against repetitions, over the band of the means of equally many unseen secrets."""
    shown = memorization.curves[: MOST_TEMPLATES + 1]
    panels = [_curve_panel(curve, unlearned=unlearned, titled=len(shown) > 1) for curve in shown]
    chart = alt.vconcat(*panels, spacing=18) if len(panels) > 1 else panels[0]
    whole = shown[0]
    descriptions = [_points_words(whole.before, "before unlearning" if unlearned else "")]
    descriptions += [_points_words(whole.after, "after unlearning")] if whole.after else []
    words = f"{memorization.answer} Mean exposure in bits: {'; '.join(descriptions)}."
    return Chart("memorization", "Mean exposure against repetitions", words, specification(chart))


def _points_words(points: Sequence[MemorizationPoint], when: str) -> str:
    values = ", ".join(f"{p.mean_bits:.1f} ({p.low:.1f} to {p.high:.1f}) at {p.repetitions:,}" for p in points)
    return f"{when}, {values}" if when else values


def _curve_panel(curve: CurveSummary, *, unlearned: bool, titled: bool) -> Any:
    counts = sorted({point.repetitions for point in (*curve.before, *curve.after)})
    ceiling = math.ceil(max(p.high for p in (*curve.before, *curve.after)))
    states = ["before", "after"] if unlearned else ["before"]
    x = alt.X(
        "times:Q",
        title="repetitions (0: controls)",
        scale=alt.Scale(type="symlog", domain=[0, counts[-1]], nice=False, padding=14),
        axis=alt.Axis(values=counts, grid=False, format=",d", labelOverlap="greedy"),
    )
    scale = alt.Scale(domain=[0, max(ceiling, math.ceil(1.5 * NEVER_SEEN_BITS))], nice=False)
    y = alt.Y("bits:Q", title="mean exposure, bits", scale=scale, axis=alt.Axis(tickCount=5))
    unseen = [{"times": point.repetitions, "bits": point.unseen_bits} for point in curve.before]
    layers: list[Any] = [alt.Chart(Rows(values=unseen)).mark_area(color=BAR, opacity=0.22, aria=False).encode(x=x, y=y)]
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
                "label": f"{figures.counted(p.canaries, 'canary') if p.repetitions else 'controls'}, inserted "
                f"{p.repetitions:,} times, {state}: {exposure_label(p.mean_bits, p.low, p.high)} on average",
            }
            for p in points
        ]
        base = alt.Chart(Rows(values=rows)).encode(x=x, y=y, color=by_state(states))
        offset = aside if unlearned else 0
        layers += [
            base.mark_line(strokeWidth=1.5, opacity=0.6, xOffset=offset, aria=False).encode(),
            base.mark_rule(strokeWidth=5, opacity=0.35, xOffset=offset, aria=False).encode(
                y=alt.Y("low:Q"), y2="high:Q"
            ),
            base.mark_point(filled=True, size=85, opacity=1, xOffset=offset).encode(
                shape=shape_by_state(states), description="label:N"
            ),
        ]
    name = "All templates" if curve.template is None else f"Template {curve.template + 1}"
    heading = {"title": alt.TitleParams(name, anchor="start", fontSize=13)} if titled else {}
    return alt.layer(*layers).properties(width=520, height=180, **heading)
