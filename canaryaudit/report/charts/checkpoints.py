"""Exposure over the checkpoints of a training."""

from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.report.charts.base import AFTER, BAR, BEFORE, Chart, Rows, specification
from canaryaudit.report.schema import CheckpointFigures, Summary

_LINES = ("largest of a canary", "mean of canaries", "mean of controls")


def checkpoints_chart(summary: Summary) -> Chart:
    """Draw the largest and the mean exposure at each checkpoint, over the controls'."""
    rows = [
        {
            "place": place,
            "checkpoint": figures.shorten(own.name, 24),
            "line": line,
            "bits": bits,
            "label": f"{own.name}: {line} {bits:.1f} bits",
        }
        for place, own in enumerate(summary.checkpoints)
        for line, bits in zip(_LINES, (own.max_bits, own.mean_bits, own.controls_bits), strict=True)
        if bits is not None
    ]
    names = [name for name in _LINES if any(row["line"] == name for row in rows)]
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    scale = alt.Scale(domain=names, range=[BEFORE, AFTER, BAR][: len(names)])
    order = [figures.shorten(own.name, 24) for own in summary.checkpoints]
    base: Any = alt.Chart(Rows(values=rows)).encode(
        x=alt.X("checkpoint:N", title=None, sort=order, axis=alt.Axis(labelAngle=-30, labelOverlap="greedy")),
        y=alt.Y("bits:Q", title="exposure, bits", scale=alt.Scale(zero=True)),
        color=alt.Color("line:N", scale=scale, legend=legend),
    )
    shapes = alt.Scale(domain=names, range=["circle", "diamond", "square"][: len(names)])
    lines = base.mark_line(strokeWidth=1.5, opacity=0.6, aria=False)
    marks = base.mark_point(filled=True, size=40, opacity=1).encode(
        shape=alt.Shape("line:N", scale=shapes, legend=legend), description="label:N"
    )
    chart = alt.layer(lines, marks).properties(width=520, height=200)
    words = "; ".join(map(_words, summary.checkpoints))
    return Chart("checkpoints", "Exposure over training", f"{words[:1].upper()}{words[1:]}.", specification(chart))


def _words(own: CheckpointFigures) -> str:
    return f"{own.name}: mean {own.mean_bits:.1f}, largest {own.max_bits:.1f} bits"
