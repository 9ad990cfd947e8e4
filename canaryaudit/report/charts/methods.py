"""Chart of each method's remaining exposure, loss of accuracy and duration."""

from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.report.charts.base import AFTER, INK, NAME_LENGTH, Chart, Rows, chance_band, specification
from canaryaudit.report.schema import Summary
from canaryaudit.report.verdicts import NEVER_SEEN_BITS


def method_chart(summary: Summary) -> Chart:
    """Draw the largest remaining exposure of each method against its loss of accuracy, labeled with its duration."""
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
            "label": f"{shorten(method.name, NAME_LENGTH)}: at most {method.max_exposure_bits:.1f} bits left, accuracy "
            f"{figures.points(method.shown_accuracy_change)}, {figures.duration(method.seconds)}",
        }
        for method in shown
    ]
    lost, left = [row["lost"] for row in rows] or [0.0], [row["left"] for row in rows] or [0.0]
    least, most = min(0.0, *lost), max(0.1, *lost)
    room = most + 0.4 * (most - least)  # For the label of the rightmost mark.
    base = alt.Chart(Rows(values=rows)).encode(
        x=alt.X(
            "lost:Q", title="accuracy lost, points", scale=alt.Scale(domain=[least, room]), axis=alt.Axis(tickCount=6)
        ),
        y=alt.Y(
            "left:Q",
            title="largest exposure, bits",
            scale=alt.Scale(domain=[0, max(1.5 * NEVER_SEEN_BITS, *left)], nice=True),
        ),
    )
    dots = base.mark_point(filled=True, shape="diamond", color=AFTER, opacity=0.9).encode(
        size=alt.Size("seconds:Q", scale=alt.Scale(type="sqrt", range=[60, 600]), legend=None), description="label:N"
    )
    names = base.mark_text(align="left", dx=14, dy=-10, color=INK, fontSize=12, aria=False).encode(text="method:N")
    chart = alt.layer(chance_band("y"), dots, names).properties(width=520, height=280)
    values = "; ".join(
        f"{row['method']}: {row['left']:.1f} bits left, "
        f"{figures.decimal(-100 * (method.shown_accuracy_change or 0.0), 2)} points lost"
        for row, method in zip(rows, shown, strict=True)
    )
    return Chart("methods", "Methods: largest exposure, accuracy lost and time", values + ".", specification(chart))
