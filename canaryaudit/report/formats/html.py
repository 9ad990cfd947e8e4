"""The report as one self-contained page: no network access, no external URL, one small script for tooltips.

See docs/notes/charts-in-the-page.md for why the page has no charting library.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten, visible
from canaryaudit.report.charts.base import MOST_TEMPLATES, NARROW, Chart, inline_svg
from canaryaudit.report.definitions import DEFINITIONS
from canaryaudit.report.formats.canary_details import canary_details
from canaryaudit.report.formats.columns import quality_term, side_by_side
from canaryaudit.report.formats.json_text import download_of
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary import relearning as report_relearning
from canaryaudit.report.summary.decision import (
    asked,
    next_step,
    run_directory,
    section_commands,
    tiles,
    worst_secret,
)
from canaryaudit.report.summary.probes import PROBES_WORDS
from canaryaudit.report.summary.wording import EXPOSURE_DEFINITION
from canaryaudit.report.verdicts import SEVERITY, SHORT_WORDS, WORDS

UNFOLDED = 40
"""Rows that a table shows at once; the others are collapsed."""
MOST_LINES = 50
"""Rows of a table of templates or steps."""
MOST_PROMPTS = 200
MOST_BYTES, FRAME_BYTES = 2_000_000, 100_000
"""Size of a page of 500 canaries at most, and what is kept free for all but charts, data and canaries."""
ROW_BYTES = 450
"""A canary's row without what it opens to."""
STATUS_WORDS = {
    "pass": "✓ Pass",
    "fail": "✗ Fail",
    "check": "! Check",
    "inconclusive": "? Inconclusive",
    "untested": "– Not tested",
}


def render_html(summary: Summary, drawn: Sequence[Chart]) -> str:
    """Return the page.

    Every value passes ``visible`` and is then escaped. The only exceptions are the style sheet, the script and the
    pictures, which this package creates. The page's security policy lists the digests of style sheet and script, so a
    browser runs nothing else.
    """
    environment = make_environment()
    pictures = {chart.name: drawing(chart) for chart in drawn}
    download = download_of(summary)
    used = FRAME_BYTES + ROW_BYTES * len(summary.canaries) + (len(download.uri) if download else 0)
    used += sum(len(picture[width].encode()) for picture in pictures.values() for width in ("wide", "narrow"))
    return environment.get_template("report.html.j2").render(
        s=summary,
        method=summary.method,
        charts=pictures,
        words=WORDS,
        short_words=SHORT_WORDS,
        status_words=STATUS_WORDS,
        severity=SEVERITY,
        asked=asked(summary),
        tiles=tiles(summary),
        next=next_step(summary),
        worst_secret=worst_secret(summary),
        # The definition of exposure stands with all others, below the first figures.
        findings=[sentence for sentence in summary.overall.sentences if sentence != EXPOSURE_DEFINITION],
        definitions=DEFINITIONS,
        commands=section_commands(summary),
        run_directory=run_directory(summary),
        side_by_side=side_by_side(summary),
        has_worst=any(canary.last.worst_case for canary in summary.canaries),
        details=canary_details(environment, summary, max(0, MOST_BYTES - used)),
        download=download,
        relearning=report_relearning,
        interval=figures.interval,
        shorten=shorten,
        nothing_held_out=figures.NOTHING_HELD_OUT,
        unfolded=UNFOLDED,
        most_lines=MOST_LINES,
        most_templates=MOST_TEMPLATES,
        most_prompts=MOST_PROMPTS,
        probes_words=PROBES_WORDS,
    )


def make_environment() -> Environment:
    """Return the template environment with filters, style sheet and script."""
    loader = PackageLoader("canaryaudit.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    for name in ("style", "script"):
        source = loader.get_source(environment, {"style": "report.css", "script": "report.js"}[name])[0]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        environment.globals[name] = Markup(source)  # noqa: S704 - the package's own
        environment.globals[f"{name}_hash"] = f"sha256-{digest}"
    for function in (
        figures.counted,
        figures.decimal,
        figures.signed,
        figures.percent,
        figures.points,
        figures.duration,
        figures.guesses,
        figures.odds,
        figures.pvalue,
        figures.significant,
        figures.times,
        figures.retraining_time,
        shorten,
        quality_term,
    ):
        environment.filters[function.__name__] = function
    return environment


def drawing(chart: Chart) -> dict[str, Any]:
    """Return a chart for the page: a picture for wide and one for narrow windows."""
    return {
        "chart": chart,
        "wide": Markup(inline_svg(chart)),  # noqa: S704 - made by vl_convert
        "narrow": Markup(inline_svg(chart, NARROW)),  # noqa: S704
    }


def _shown(value: Any) -> Any:
    """Make the text of every template expression visible; the package's markup stays unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
