"""Exposure over the steps of a relearning attack, as a chart."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.records import Relearning, RelearningAttack, RelearningCurve, RelearningPoint
from canaryaudit.report.charts.base import AFTER, BAR, INK, Chart, Rows, chance_band, exposure_label, specification
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary.relearning import _RETRAINED, _UNLEARNED, ATTACK_WORDS, named
from canaryaudit.report.verdicts import NEVER_SEEN_BITS


def relearning_charts(summary: Summary) -> tuple[Chart, ...]:
    """Draw one chart for each unlearning that was attacked, named by its index among the methods."""
    return tuple(
        _chart(f"relearning-{place}", method.name, method.relearning)
        for place, method in enumerate(summary.methods, 1)
        if method.relearning
    )


def _chart(name: str, method: str, relearning: Relearning) -> Chart:
    """Draw a panel for each attack: exposure by step, of the unlearned and of the retrained model."""
    kinds = [kind for kind in ATTACK_WORDS if any(curve.attack == kind for curve in relearning.curves)]
    highest = max(point.exposure.high for curve in relearning.curves for point in (*curve.unlearned, *curve.retrained))
    scale = alt.Scale(domain=[0, max(1.5 * NEVER_SEEN_BITS, highest)], nice=True)
    panels = [_panel(kind, [c for c in relearning.curves if c.attack == kind], scale) for kind in kinds]
    chart = alt.hconcat(*panels, spacing=24) if len(panels) > 1 else panels[0]
    courses = "; ".join(
        f"{named(curve)}, {ATTACK_WORDS[curve.attack]}: {_course(curve.unlearned)}; in the retrained model "
        f"{_course(curve.retrained)}"
        for curve in relearning.curves
    )
    title = f"Relearning after {shorten(method, 40)}, compared with the retrained model"
    return Chart(name, title, courses + ".", specification(chart))


def _course(points: Sequence[RelearningPoint]) -> str:
    start, end = points[0].exposure.bits, points[-1].exposure.bits
    return f"{start:.1f} bits at step 0, {end:.1f} after {figures.counted(points[-1].step, 'step')}"


def _panel(
    kind: RelearningAttack, curves: Sequence[RelearningCurve], scale: alt.Scale
) -> alt.LayerChart | alt.FacetChart:
    rows: list[dict[str, Any]] = [
        {
            "canary": named(curve),
            "model": name,
            "step": point.step,
            "bits": point.exposure.bits,
            "low": point.exposure.low,
            "high": point.exposure.high,
            "label": f"{named(curve)}, {name}, after {figures.counted(point.step, 'step')}: "
            f"{exposure_label(point.exposure.bits, point.exposure.low, point.exposure.high)}",
        }
        for curve in curves
        for name, points in ((_UNLEARNED, curve.unlearned), (_RETRAINED, curve.retrained))
        for point in points
    ]
    steps = sorted({row["step"] for row in rows})
    names = [_UNLEARNED, _RETRAINED]
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    x = alt.X("step:O", sort=steps, title="training steps", axis=alt.Axis(labelAngle=0))
    y = alt.Y("bits:Q", title="exposure, bits", scale=scale)
    color = alt.Color("model:N", scale=alt.Scale(domain=names, range=[AFTER, BAR]), legend=legend)
    base = alt.Chart(Rows(values=rows)).encode(x=x, detail="canary:N")
    whiskers = base.mark_rule(strokeWidth=5, opacity=0.3, aria=False).encode(
        y=alt.Y("low:Q", scale=scale), y2="high:Q", color=color
    )
    dashes = alt.StrokeDash("model:N", scale=alt.Scale(domain=names, range=[[1, 0], [5, 3]]), legend=None)
    lines = base.mark_line(strokeWidth=2, aria=False).encode(y=y, color=color, strokeDash=dashes)
    shapes = alt.Shape("model:N", scale=alt.Scale(domain=names, range=["diamond", "circle"]), legend=legend)
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y, color=color, shape=shapes, description="label:N"
    )
    heading = alt.TitleParams(ATTACK_WORDS[kind], color=INK, anchor="start", fontSize=13)
    return alt.layer(chance_band("y"), whiskers, lines, marks).properties(width=250, height=220, title=heading)
