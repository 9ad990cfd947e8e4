"""What all charts share: each has one specification and a static picture.

Specifications contain numbers and names only, never a secret. Pictures are rendered without network access or a
browser. They are legible on light and dark backgrounds: the background is transparent and text is mid-gray. The two
colors (vermilion and blue of Okabe & Ito, the blue lightened to be visible on black) are distinguishable for
color-blind readers, and marks also differ in shape.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import altair as alt
import vl_convert

from canaryaudit import formatting as figures
from canaryaudit.report.verdicts import NEVER_SEEN_BITS

BEFORE, AFTER, BAR = "#D55E00", "#1F84C4", "#8c959f"
INK = "#767d85"
"""Mid-gray, legible on white and on black."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
MOST_CANARIES = 40
MOST_TEMPLATES = 6
"""Number of templates with a picture each."""
NAME_LENGTH = 24
NARROW = 240
"""Width of a chart's panels, without labels, that fits the screen of a phone."""

State = Literal["before", "after"]


_LONG = re.compile(r"-?\d*\.\d{3,}(?:e-?\d+)?")
_FRACTION = re.compile(r"-?\d*\.\d{2,}(?:e-?\d+)?")
_GEOMETRY = re.compile(r'\b(transform|d|x2|y2|width|height)="([^"]*)"')
_PARTS = re.compile(r' role="graphics-[^"]*"| aria-roledescription="[^"]*"| aria-hidden="true"')
_AXIS_LABEL = re.compile(r'( aria-roledescription="(?:axis|legend)") aria-label="[^"]*"')
_INHERITED = re.compile(
    r' (?:(?:fill|stroke)(?:-opacity)?|stroke-width|stroke-dasharray|font-size|font-weight|text-anchor)="[^"]*"'
)
_MARK = re.compile(r"<(?:path|line|text) [^>]*>")
_GROUP = re.compile(r"(<g class=\"mark-[^>]*)>((?:<(?:path|line)[^>]*/>|<text[^>]*>[^<]*</text>)+)</g>")
"""A group of marks, with its attributes and its marks."""
_LABEL = re.compile(r'aria-label="[^"]*"')


@dataclass(frozen=True)
class Chart:
    """A chart with a text alternative.

    Attributes:
        name: The file's name without its extension.
        title: What the chart shows.
        alternative: The chart in a sentence with figures.
        spec: Vega-Lite specification.
    """

    name: str
    title: str
    alternative: str
    spec: dict[str, Any]

    @property
    def file_name(self) -> str:
        """The name of the picture's file."""
        return f"{self.name}.svg"

    def svg(self, panel_width: int | None = None) -> str:
        """Return the chart as a static picture.

        Args:
            panel_width: Width of every panel in pixels; by default that of the specification.
        """
        return _drawn(json.dumps(self.spec if panel_width is None else _resized(self.spec, panel_width)))


@lru_cache(maxsize=32)
def _drawn(spec: str) -> str:
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_vegalite_version(), allowed_base_urls=[])
    return svg


def _resized(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """Return a specification with another panel width, including that of nested panels."""
    changed = spec | ({"width": width} if "width" in spec else {})
    for parts in {"hconcat", "vconcat", "layer"} & set(spec):
        changed[parts] = [_resized(part, width) for part in spec[parts]]
    return changed


def _vegalite_version() -> str:
    """Return the Vega-Lite version of altair's specifications, in the notation of vl_convert."""
    wanted = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    return ".".join(wanted) if ".".join(wanted) in known else known[-1]


class Rows(alt.Data):
    """What a chart shows. Nothing changes it, so that altair's many copies of a chart may share it."""

    def __init__(self, values: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(values=values)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: object = None) -> "Rows":
        """Return the rows themselves."""
        return self


def exposure_label(bits: float | None, low: float | None, high: float | None) -> str:
    """Write an exposure with its interval."""
    spread = figures.interval(low, high)
    return f"{figures.decimal(bits)} bits" + (f", between {spread.replace(' to ', ' and ')}" if spread else "")


def chance_band(axis: Literal["x", "y"]) -> Any:
    """Return the band that contains 95 % of unseen secrets."""
    band = alt.Chart(Rows(values=[{"from": 0, "to": NEVER_SEEN_BITS}])).mark_rect(color=BAR, opacity=0.22, aria=False)
    return band.encode(x="from:Q", x2="to:Q") if axis == "x" else band.encode(y="from:Q", y2="to:Q")


def by_state(states: Sequence[str]) -> alt.Color:
    """Encode before and after by color."""
    return alt.Color(
        "state:N", scale=alt.Scale(domain=states, range=[BEFORE, AFTER][: len(states)]), legend=legend(states)
    )


def shape_by_state(states: Sequence[str]) -> alt.Shape:
    """Encode before and after by shape too, for color-blind readers."""
    scale = alt.Scale(domain=states, range=["circle", "diamond"][: len(states)])
    return alt.Shape("state:N", scale=scale, legend=legend(states))


def legend(states: Sequence[str]) -> alt.Legend | None:
    """Return the legend of before and after; None if there is only one state."""
    return alt.Legend(title=None, orient="top", symbolOpacity=1) if len(states) > 1 else None


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return the specification with the report's style."""
    axis = {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": INK,
        "domainColor": INK,
        "gridColor": INK,
        "gridOpacity": 0.2,
    }
    spec: dict[str, Any] = json.loads(
        chart.to_json(validate=False, indent=None), parse_float=lambda text: float(f"{float(text):.5g}")
    )
    del spec["$schema"]  # A URL; the version is passed to the renderer instead.
    # Labels are measured with another font than a reader may have: without room on the left, and below vertical ones,
    # the longest loses a letter, and a title of an axis touches its numbers.
    spec["padding"] = {"left": 16, "top": 5, "right": 5, "bottom": 16}
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
        "axisY": {"labelPadding": 6, "titlePadding": 12},
        "legend": {"labelColor": INK, "labelFontSize": 12, "titleColor": INK, "titleFontSize": 12},
        "title": {"color": INK},
    }
    return spec


def inline_svg(chart: Chart, panel_width: int | None = None) -> str:
    """Return the picture for embedding in a page.

    The ids of its parts become unique, text takes the page's color and font, and only marks keep their labels.
    Coordinates are rounded to a tenth of a pixel, and what all marks of a group share stands at the group. A quarter of
    the size remains.

    Args:
        chart: The chart to draw.
        panel_width: Width of every panel in pixels; by default that of the specification.
    """
    name = chart.name if panel_width is None else f"{chart.name}-{panel_width}"
    svg = chart.svg(panel_width)
    svg = re.sub(r"\b(id=\"|url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r"\sxmlns(:xlink)?=\"[^\"]*\"", "", svg, count=2)
    svg = svg.replace(f'"{INK}"', '"currentColor"')
    svg = re.sub(r' font-family="[^"]*"| pointer-events="none"| opacity="1"| stroke-miterlimit="10"', "", svg)
    svg = _PARTS.sub("", _AXIS_LABEL.sub(r"\1", svg))
    svg = _GEOMETRY.sub(lambda match: f'{match[1]}="{_FRACTION.sub(_rounded, match[2])}"', svg)
    svg = _GROUP.sub(_shared, svg)
    # The picture is one image with a name: what its marks say is no longer a label for assistive technology, but text
    # that the page's script shows.
    svg = _LABEL.sub(lambda match: "data-" + _LONG.sub(_significant, match[0]).removeprefix("aria-"), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-labelledby="{chart.name}-caption" ', 1)


def _rounded(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _shared(match: re.Match[str]) -> str:
    """Move inherited attributes that all marks of a group share to the group."""
    marks = [set(_INHERITED.findall(mark)) for mark in _MARK.findall(match[2])]
    shared = set.intersection(*marks) if len(marks) > 2 else set()
    names = [name for name in _INHERITED.findall(match[2]) if name in shared]
    body = match[2]
    for attribute in shared:
        body = body.replace(attribute, "")
    return f"{match[1]}{''.join(dict.fromkeys(names))}>{body}</g>"


def _significant(match: re.Match[str]) -> str:
    return f"{float(match[0]):.4g}"
