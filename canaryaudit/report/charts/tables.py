"""Charts of requests to linear models: loss differences to retraining, and methods by error and time."""

import math

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.report.charts.base import AFTER, BEFORE, INK, Chart, Rows, specification
from canaryaudit.report.tables.schema import TablesSummary

_SMALLEST = 1e-12
"""Loss differences below this are drawn there: they are rounding."""


def tables_charts(summary: TablesSummary) -> tuple[Chart, ...]:
    """Return the charts that the figures allow."""
    drawn = (loss_chart(summary),) if summary.points else ()
    return (*drawn, methods_chart(summary)) if len(summary.methods) > 1 else drawn


def loss_chart(summary: TablesSummary) -> Chart:
    """Draw how the requests changed every row's loss, in the update against in the retrained model."""
    rows = [
        {
            "retrained": point.retrained,
            "updated": point.updated,
            "label": f"retrained {point.retrained:+.3g}, updated {point.updated:+.3g}",
        }
        for point in summary.points
    ]
    ends = [min(row[axis] for row in rows for axis in ("retrained", "updated"))]  # type: ignore[type-var]
    ends.append(max(row[axis] for row in rows for axis in ("retrained", "updated")))  # type: ignore[type-var]
    unit = "loss" if "squared" in summary.loss else "nats"
    line = alt.Chart(Rows(values=[{"at": end} for end in ends])).mark_line(color=INK, strokeDash=[4, 4], aria=False)
    dots = alt.Chart(Rows(values=rows)).mark_point(filled=True, color=AFTER, opacity=0.7, size=36)
    chart = alt.layer(
        line.encode(x="at:Q", y="at:Q"),
        dots.encode(
            x=alt.X("retrained:Q", title=f"change by retraining, {unit}"),
            y=alt.Y("updated:Q", title=f"change by the update, {unit}"),
            description="label:N",
        ),
    ).properties(width=420, height=320)
    far = max(abs(point.retrained - point.updated) for point in summary.points)
    return Chart(
        "loss-difference",
        "Change of every row's loss, by the update and by retraining",
        f"{figures.counted(len(rows), 'row')}; the farthest lies {figures.significant(far)} from the diagonal, on "
        "which update and retraining agree.",
        specification(chart),
    )


def methods_chart(summary: TablesSummary) -> Chart:
    """Draw every method's loss difference to retraining against its time."""
    lines = [line for line in summary.methods if line.seconds > 0]
    rows = [
        {
            "method": line.name,
            "error": max(line.mean_loss_difference, _SMALLEST),
            "seconds": 1000 * line.seconds,
            "kind": "update" if place == 0 else "other",
            "label": f"{line.name}: {figures.significant(line.mean_loss_difference)} a row, "
            f"{figures.duration(line.seconds)}",
        }
        for place, line in enumerate(lines)
    ]
    color = alt.Color("kind:N", scale=alt.Scale(domain=["update", "other"], range=[AFTER, BEFORE]), legend=None)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=["update", "other"], range=["diamond", "circle"]), legend=None)
    longest = max(1000 * line.seconds for line in lines)
    base = alt.Chart(Rows(values=rows)).encode(
        x=alt.X(
            "seconds:Q",
            title="processor time, ms",
            scale=alt.Scale(type="log", domainMax=10 ** (math.log10(longest) + 0.8), nice=False),
        ),
        y=alt.Y(
            "error:Q",
            title="mean loss difference to retraining",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format=".0e", tickCount=6),
        ),
    )
    dots = base.mark_point(filled=True, size=90, opacity=0.9).encode(color=color, shape=shape, description="label:N")
    names = base.mark_text(align="left", dx=10, dy=-8, color=INK, fontSize=12, aria=False).encode(text="method:N")
    words = "; ".join(str(row["label"]) for row in rows)
    return Chart(
        "methods",
        "Methods: loss difference to retraining, and time",
        words + ".",
        specification(alt.layer(dots, names).properties(width=520, height=300)),
    )
