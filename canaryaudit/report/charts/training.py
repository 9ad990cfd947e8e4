"""Loss curves of the audited model's training."""

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.report.charts.base import AFTER, BEFORE, Chart, Rows, specification
from canaryaudit.report.schema import Summary

_NAMES = ("training text", "held-out text")


def training_chart(summary: Summary) -> Chart:
    """Draw the loss on training and held-out text after each epoch."""
    rows = [
        {
            "epoch": epoch.epoch,
            "text": name,
            "loss": loss,
            "label": f"{name}, epoch {epoch.epoch:,}: {loss:.3f} bits per character",
        }
        for epoch in summary.training
        for name, loss in zip(_NAMES, (epoch.loss_bits, epoch.heldout_loss_bits), strict=True)
        if loss is not None
    ]
    names = [name for name in _NAMES if any(row["text"] == name for row in rows)]
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    color = alt.Color("text:N", scale=alt.Scale(domain=names, range=[BEFORE, AFTER][: len(names)]), legend=legend)
    shape = alt.Shape("text:N", scale=alt.Scale(domain=names, range=["circle", "diamond"][: len(names)]), legend=legend)
    base = alt.Chart(Rows(values=rows)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        y=alt.Y("loss:Q", title="loss, bits per character", scale=alt.Scale(zero=True)),
        color=color,
    )
    lines = base.mark_line(strokeWidth=1.5, opacity=0.6, aria=False)
    marks = base.mark_point(filled=True, size=40, opacity=1).encode(shape=shape, description="label:N")
    chart = alt.layer(lines, marks).properties(width=520, height=200)
    return Chart("training", "Loss by epoch of training", _words(summary), specification(chart))


def _words(summary: Summary) -> str:
    first, last = summary.training[0], summary.training[-1]
    words = (
        f"Loss on training text, in bits per character: {figures.decimal(first.loss_bits, 3)} after epoch "
        f"{first.epoch:,}, {figures.decimal(last.loss_bits, 3)} after epoch {last.epoch:,}"
    )
    heldout = [epoch for epoch in summary.training if epoch.heldout_loss_bits is not None]
    if heldout:
        best = min(heldout, key=lambda epoch: epoch.heldout_loss_bits or 0.0)
        words += (
            f"; on held-out text: {figures.decimal(last.heldout_loss_bits, 3)} at the end, lowest "
            f"{figures.decimal(best.heldout_loss_bits, 3)} after epoch {best.epoch:,}"
        )
    return words + "."
