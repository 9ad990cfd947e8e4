"""Chart of corrected labels: the accuracy of every model with the same labels against what it cost."""

import altair as alt

from canaryaudit.report.charts.base import AFTER, BEFORE, INK, Chart, Rows, specification
from canaryaudit.report.images.schema import ImagesSummary

_CHEAPEST = 1e-3
"""Shares of the training's time below this are drawn there."""


def images_charts(summary: ImagesSummary) -> tuple[Chart, ...]:
    """Return the charts that the figures allow."""
    return (methods_chart(summary),) if sum(line.comparable for line in summary.results) > 1 else ()


def methods_chart(summary: ImagesSummary) -> Chart:
    """Draw every method's accuracy against its cost, with the accuracy before as a line."""
    rows = [
        {
            "method": line.name,
            "accuracy": 100 * line.accuracy,
            "cost": 100 * max(line.cost, _CHEAPEST),
            "kind": "baseline" if line.method in ("retrain", "fine-tune") else "update",
            "label": f"{line.name}: {100 * line.accuracy:.1f} % right, {100 * line.cost:.1f} % of the training's time",
        }
        for line in summary.results
        if line.comparable
    ]
    before = 100 * summary.accuracy_before
    scale = alt.Scale(domain=["update", "baseline"], range=[AFTER, BEFORE])
    shapes = alt.Scale(domain=["update", "baseline"], range=["diamond", "circle"])
    base = alt.Chart(Rows(values=rows)).encode(
        x=alt.X(
            "cost:Q",
            title="processor time, % of the training's",
            scale=alt.Scale(type="log", domainMax=1000, nice=False),
        ),
        y=alt.Y("accuracy:Q", title=f"accuracy, % of the {summary.evaluated_on}", scale=alt.Scale(zero=False)),
    )
    dots = base.mark_point(filled=True, size=90, opacity=0.9).encode(
        color=alt.Color("kind:N", scale=scale, legend=None),
        shape=alt.Shape("kind:N", scale=shapes, legend=None),
        description="label:N",
    )
    names = base.mark_text(align="left", dx=10, dy=-8, color=INK, fontSize=12, aria=False).encode(text="method:N")
    line = alt.Chart(Rows(values=[{"before": before}])).mark_rule(color=INK, strokeDash=[4, 4], aria=False)
    words = "; ".join(str(row["label"]) for row in rows)
    return Chart(
        "methods",
        "Methods: accuracy, and cost",
        f"{words}; before the request {before:.1f} %.",
        specification(alt.layer(line.encode(y="before:Q"), dots, names).properties(width=520, height=300)),
    )
