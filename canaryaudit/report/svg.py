"""A chart's picture inside a page: smaller, with names of its own, and legible on light and dark."""

import re

from canaryaudit.report.charts import INK, Chart

_LONG = re.compile(r"-?\d*\.\d{3,}(?:e-?\d+)?")
_GEOMETRY = re.compile(r'\b(transform|d|x2|y2|width|height)="([^"]*)"')
_PARTS = re.compile(r' role="graphics-[^"]*"| aria-roledescription="[^"]*"| aria-hidden="true"')
_AXIS_LABEL = re.compile(r'( aria-roledescription="(?:axis|legend)") aria-label="[^"]*"')
_LABEL = re.compile(r'aria-label="[^"]*"')


def inline_svg(chart: Chart, panel_width: int | None = None) -> str:
    """Return the picture for a page.

    Names of its parts become unique, text takes the page's own colour and font, only marks keep their words, and
    coordinates are rounded to a hundredth of a pixel: a third of the size is left.

    Args:
        chart: What to draw.
        panel_width: Of every panel, in pixels; by default as wide as it was specified.
    """
    name = chart.name if panel_width is None else f"{chart.name}-{panel_width}"
    svg = chart.svg(panel_width)
    svg = re.sub(r"\b(id=\"|url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r"\sxmlns(:xlink)?=\"[^\"]*\"", "", svg, count=2)
    svg = svg.replace(f'"{INK}"', '"currentColor"')
    svg = re.sub(r' font-family="[^"]*"| pointer-events="none"| opacity="1"', "", svg)
    svg = _PARTS.sub("", _AXIS_LABEL.sub(r"\1", svg))
    svg = _GEOMETRY.sub(lambda match: f'{match[1]}="{_LONG.sub(_rounded, match[2])}"', svg)
    svg = _LABEL.sub(lambda match: _LONG.sub(_significant, match[0]), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-labelledby="{chart.name}-caption" ', 1)


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _significant(match: re.Match[str]) -> str:
    return f"{float(match[0]):.4g}"
