"""Chart of one template's reference distribution: histogram, fitted curve, and the tail of memorized secrets."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from scipy import special

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten
from canaryaudit.report.charts.base import AFTER, BAR, BEFORE, INK, NAME_LENGTH, Chart, Rows, State, specification
from canaryaudit.report.schema import CanarySummary, Distribution, FitFigures, Summary, TemplateSummary

MOST_MARKS = 24
"""Maximum number of canaries, worst first, and of controls; more would overlap."""


_POINTS = 121
_FINE = 8
"""Integration steps per point that is drawn."""
_REACH = 8.0
"""The integral starts this many standard deviations below the lowest point; less than 2^-45 lies further down."""
_UNDRAWN = 2001
"""Number of grid points from there to the lowest point."""


def reference_chart(summary: Summary, index: int) -> Chart:
    """Build one template's panels, before and after.

    The upper panel shows the log-perplexity of the references, the fitted curve and the canaries. The lower panel shows
    exposure by log-perplexity: from the references, extrapolated by the fit, and measured for canaries and controls.
    """
    template = summary.templates[index]
    canaries = [canary for canary in summary.canaries if canary.template == index][:MOST_MARKS]
    shown: list[tuple[State, Distribution]] = [("before", template.before)] if template.before else []
    if template.after:
        shown.append(("after", template.after))
    marks = {name: _marks(canaries, name) for name, _ in shown}
    places = [mark["from"] for rows in marks.values() for mark in rows]
    lowest, highest = min([0.0, *places]), max([d.edges_bits[-1] for _, d in shown] + places)
    scale = alt.Scale(domain=[lowest, highest], nice=True)
    most = template.space_bits or 0.0
    panels: list[Any] = []
    for name, distribution in shown:
        heading = name if summary.unlearned else ""
        panels += [
            _histogram(name, distribution, marks[name], scale, heading),
            _tail(name, distribution, marks[name], scale, (lowest, highest), most),
        ]
    chart = alt.vconcat(*panels, spacing=14).resolve_scale(x="shared")
    return Chart(
        f"reference-{index + 1}",
        f"Template {index + 1}: log-perplexity and exposure of references and canaries",
        _words(template, marks),
        specification(chart),
    )


def _marks(canaries: Sequence[CanarySummary], name: State) -> list[dict[str, Any]]:
    rows = []
    for canary in canaries:
        state = canary.before if name == "before" else canary.after
        if state is None or state.log_perplexity_bits is None:
            continue
        bits = state.exposure.bits
        rows.append(
            {
                "from": state.log_perplexity_bits,
                "exposure": bits,
                "label": f"{shorten(canary.id, NAME_LENGTH)}, {name}: log-perplexity "
                f"{figures.decimal(state.log_perplexity_bits)} bits, exposure {figures.decimal(bits)} bits "
                f"({state.exposure.method})",
            }
        )
    return rows


def _axis(title: str | None = None) -> dict[str, Any]:
    return {"title": title, "axis": alt.Axis(grid=False)}


def _histogram(
    name: State, distribution: Distribution, marks: list[dict[str, Any]], scale: alt.Scale, heading: str
) -> Any:
    edges, total = distribution.edges_bits, max(1, sum(distribution.counts))
    bars = [
        {
            "from": low,
            "to": high,
            "density": count / total / (high - low),
            "label": f"{figures.decimal(low)} to {figures.decimal(high)} bits: {count:,} of {total:,}",
        }
        for low, high, count in zip(edges, edges[1:], distribution.counts, strict=False)
        if high > low and count
    ]
    x = alt.X("from:Q", scale=scale, **_axis())
    y = alt.Y("density:Q", title="share per bit", axis=alt.Axis(tickCount=3, format="~g"))
    layers: list[Any] = [
        alt.Chart(Rows(values=bars))
        .mark_rect(color=BAR, opacity=0.55)
        .encode(x=x, x2="to:Q", y=y, y2=alt.datum(0), description="label:N")
    ]
    if distribution.skew_normal and (curve := density(distribution.skew_normal, edges[0], edges[-1])):
        layers.append(_line([{"from": place, "density": share} for place, share in curve], "density", scale, dash=True))
    ticks = alt.Chart(Rows(values=marks)).mark_rule(color=_color(name), strokeWidth=2, opacity=0.9)
    layers.append(ticks.encode(x=x, description="label:N"))
    titled = {"title": alt.TitleParams(heading, color=_color(name), anchor="start", fontSize=13)} if heading else {}
    return alt.layer(*layers).properties(width=520, height=110, **titled)


def _tail(
    name: State,
    distribution: Distribution,
    marks: list[dict[str, Any]],
    scale: alt.Scale,
    reach: tuple[float, float],
    most_bits: float,
) -> Any:
    x = alt.X("from:Q", scale=scale, **_axis("log-perplexity, bits (left: more likely)"))
    y = alt.Y(
        "exposure:Q",
        title="exposure, bits",
        scale=alt.Scale(domain=[0, max(1.0, most_bits)]),
        axis=alt.Axis(tickCount=3),
    )
    seen = [{"from": place, "exposure": bits} for place, bits in observed_exposure(distribution)]
    layers: list[Any] = [_line(seen, "exposure", scale, dash=False)]
    if distribution.skew_normal and (curve := fitted_exposure(distribution.skew_normal, *reach, most_bits)):
        layers.append(_line([{"from": place, "exposure": bits} for place, bits in curve], "exposure", scale, dash=True))
    controls = [
        {"from": point.log_perplexity_bits, "exposure": point.exposure_bits}
        for point in distribution.controls[:MOST_MARKS]
    ]
    shape = "circle" if name == "before" else "diamond"
    unseen = alt.Chart(Rows(values=controls)).mark_point(filled=True, color=BAR, size=22, opacity=0.9, aria=False)
    points = alt.Chart(Rows(values=marks)).mark_point(
        filled=True, color=_color(name), size=60, opacity=0.9, shape=shape
    )
    layers += [unseen.encode(x=x, y=y), points.encode(x=x, y=y, description="label:N")]
    return alt.layer(*layers).properties(width=520, height=90)


def _line(rows: list[dict[str, float]], field: str, scale: alt.Scale, *, dash: bool) -> Any:
    pattern = [5, 3] if dash else [1, 0]
    mark = alt.Chart(Rows(values=rows)).mark_line(color=INK, strokeWidth=1.5, strokeDash=pattern, aria=False)
    return mark.encode(x=alt.X("from:Q", scale=scale), y=f"{field}:Q")


def _color(name: State) -> str:
    return BEFORE if name == "before" else AFTER


def _words(template: TemplateSummary, marks: dict[State, list[dict[str, Any]]]) -> str:
    descriptions = []
    distributions: list[tuple[State, Distribution | None]] = [("before", template.before), ("after", template.after)]
    for name, distribution in distributions:
        if distribution is None:
            continue
        places = [mark["from"] for mark in marks[name]]
        where = f"{min(places):.1f} to {max(places):.1f} bits" if places else "not measured"
        mean, deviation = distribution.mean_bits, distribution.standard_deviation_bits
        descriptions.append(
            f"{name}: {distribution.num_references:,} references, mean {figures.decimal(mean)} bits "
            f"(standard deviation {figures.decimal(deviation)}); canaries {where}"
        )
    return "Log-perplexity " + "; ".join(descriptions) + "."


def density(fit: FitFigures, low: float, high: float) -> list[tuple[float, float]]:
    """Return points (bits, share per bit) of the skew-normal density 2/w phi(z) Phi(a z), z = (x - location)/w."""
    if not _usable(fit):
        return []
    places = np.linspace(low, high, _POINTS)
    return list(zip(places.tolist(), np.exp(_log_density(fit, places)).tolist(), strict=True))


def fitted_exposure(fit: FitFigures, low: float, high: float, most_bits: float) -> list[tuple[float, float]]:
    """Return points (bits, exposure) of -log2 F up to ``most_bits``, where F is the fit's distribution function.

    The integral is computed in log space, because F underflows long before the exposure of a memorized secret.

    Args:
        fit: The fitted curve.
        low: Lowest log-perplexity, in bits.
        high: Highest log-perplexity.
        most_bits: Size of the space; larger exposures are omitted, as no secret can have one.
    """
    if not _usable(fit) or high <= low or fit.scale is None:
        return []
    # The density may fall steeply where the drawn part begins, so the steps of the undrawn part are finest there.
    undrawn = low - _REACH * fit.scale * np.linspace(1.0, 0.0, _UNDRAWN) ** 3
    places = np.concatenate((undrawn, np.linspace(low, high, (_POINTS - 1) * _FINE + 1)[1:]))
    log_density = _log_density(fit, places)
    trapezia = np.logaddexp(log_density[:-1], log_density[1:]) + np.log(np.diff(places) / 2)
    log_shares = np.logaddexp.accumulate(trapezia)[_UNDRAWN - 2 :: _FINE]
    points = zip(places[_UNDRAWN - 1 :: _FINE].tolist(), (-log_shares / math.log(2)).tolist(), strict=True)
    return [(place, max(0.0, bits)) for place, bits in points if bits <= most_bits]


def observed_exposure(distribution: Distribution) -> list[tuple[float, float]]:
    """Return points (bits, exposure): -log2 of the share of references up to each edge of the histogram."""
    counts = np.cumsum(distribution.counts)
    return [
        (edge, math.log2(counts[-1] / count))
        for edge, count in zip(distribution.edges_bits[1:], counts.tolist(), strict=False)
        if count
    ]


def _usable(fit: FitFigures) -> bool:
    return fit.shape is not None and fit.location is not None and bool(fit.scale) and (fit.scale or 0) > 0


def _log_density(fit: FitFigures, places: np.ndarray) -> np.ndarray:
    shape, location, scale = fit.shape or 0.0, fit.location or 0.0, fit.scale or 1.0
    z = (places - location) / scale
    logs: np.ndarray = (
        math.log(2 / scale) - z * z / 2 - math.log(2 * math.pi) / 2 + special.log_ndtr(np.clip(shape * z, -1e6, 1e6))
    )
    return logs
