"""The report as one self-contained page: no script, no network, no external address."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from canaryaudit.report import figures
from canaryaudit.report import relearning as report_relearning
from canaryaudit.report.charts import Chart, inline_svg
from canaryaudit.report.memorisation import guesses_words
from canaryaudit.report.schema import Summary
from canaryaudit.report.verdicts import EXPOSED_BITS, NEVER_SEEN_BITS, WORDS
from canaryaudit.text import shorten, visible

UNFOLDED = 40
"""Rows that a table shows at once; the others are folded away."""
MOST_DETAILS = 200
"""Canaries, worst first, whose estimates and completions the page shows."""


def render_html(summary: Summary, drawn: Sequence[Chart]) -> str:
    """Return the page.

    Every value passes ``visible`` and is then escaped, whatever it is; only the style sheet and the
    pictures, which this package makes itself, go in as they are.
    """
    loader = PackageLoader("canaryaudit.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    style = loader.get_source(environment, "report.css")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
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
        shorten,
    ):
        environment.filters[function.__name__] = function
    return environment.get_template("report.html.j2").render(
        s=summary,
        method=summary.method,
        charts={chart.name: (chart, Markup(inline_svg(chart))) for chart in drawn},  # noqa: S704 - made by vl_convert
        style=Markup(style),  # noqa: S704 - the package's own
        style_hash=digest,
        words=WORDS,
        relearning=report_relearning,
        interval=figures.interval,
        guesses_words=guesses_words,
        shorten=shorten,
        unfolded=UNFOLDED,
        most_details=MOST_DETAILS,
        never_seen_bits=NEVER_SEEN_BITS,
        exposed_bits=EXPOSED_BITS,
    )


def _shown(value: Any) -> Any:
    """Make the text of every expression in a template visible; markup of our own passes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
