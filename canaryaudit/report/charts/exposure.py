"""Every canary's exposure before and after, as a chart."""

import itertools
import math
from typing import Any

import altair as alt

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.report.charts.base import (
    BAR,
    MOST_CANARIES,
    NAME_LENGTH,
    Chart,
    Rows,
    State,
    by_state,
    chance_band,
    exposure_label,
    shape_by_state,
    specification,
)
from canaryaudit.report.schema import CalibrationFigures, CanarySummary, Summary
from canaryaudit.report.verdicts import NEVER_SEEN_BITS


def exposure_chart(summary: Summary) -> Chart:
    """Draw each canary's exposure before and after, worst first, over the band of unseen secrets."""
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
    data = Rows(values=[*rows, *controls])
    lines = (
        alt.Chart(Rows(values=joins))
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
        .encode(y=y, x=x, color=by_state(states), shape=shape_by_state(states), description="label:N")
    )
    layers = [chance_band("x"), *([lines] if joins else []), whiskers, points]
    chart = alt.layer(*layers).properties(width=520, height=alt.Step(24))
    cut = f", the worst {len(canaries)} of {len(summary.canaries):,}" if len(canaries) < len(summary.canaries) else ""
    title = "Exposure before and after unlearning" if summary.unlearned else "Exposure"
    values = "; ".join(
        f"{shorten(canary.id, NAME_LENGTH)} {figures.decimal(canary.before.exposure.bits)}"
        + (f" to {figures.decimal(canary.after.exposure.bits)}" if canary.after else "")
        for canary in canaries
    )
    return Chart("exposure", title + cut, f"Exposure in bits, worst canary first: {values}.", specification(chart))


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
            "label": f"{name}, {when}: {exposure_label(state.exposure.bits, state.exposure.low, state.exposure.high)} "
            f"({state.exposure.method})",
        }
        for when, state in states
        if state is not None and state.exposure.bits is not None
    ]


def _controls_row(state: str, calibration: CalibrationFigures, *, unlearned: bool) -> dict[str, Any] | None:
    """Return the row of the controls, which shows the chance level in this measurement."""
    if calibration.mean_bits is None or calibration.low_bits is None or calibration.high_bits is None:
        return None
    spread = f"{calibration.low_bits:.1f} to {calibration.high_bits:.1f}"
    return {
        "canary": f"controls {state}" if unlearned else "controls",
        "state": state,
        "bits": calibration.mean_bits,
        "low": calibration.low_bits,
        "high": calibration.high_bits,
        "label": f"{calibration.controls:,} controls, {state}: {calibration.mean_bits:.2f} bits on average, 90 % "
        f"within {spread}",
    }
