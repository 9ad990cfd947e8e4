"""The report as one self-contained page: no network, no external address, and one small script for the charts' marks.

Why no charting library in the page: docs/notes/charts-in-the-page.md.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from canaryaudit import formatting as figures
from canaryaudit.formatting import shorten, visible
from canaryaudit.records import only_bounds
from canaryaudit.report.charts.base import MOST_TEMPLATES, NARROW, Chart, inline_svg
from canaryaudit.report.charts.estimates import bounds
from canaryaudit.report.formats.likelihood import expected, likelihoods
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary import relearning as report_relearning
from canaryaudit.report.summary.memorization import guesses_words
from canaryaudit.report.summary.probes import PROBES_WORDS
from canaryaudit.report.verdicts import EXPOSED_BITS, NEVER_SEEN_BITS, SHORT_WORDS, WORDS

UNFOLDED = 40
"""Rows that a table shows at once; the others are folded away."""
MOST_DETAILS = 50
"""Canaries, worst first, whose estimates and completions the page shows."""
MOST_PROMPTS = 200


def render_html(summary: Summary, drawn: Sequence[Chart]) -> str:
    """Return the page.

    Every value passes ``visible`` and is then escaped, whatever it is; only the style sheet, the script and the
    pictures, which this package makes itself, go in as they are. The page's policy names style sheet and script by
    their digests: a browser runs nothing else.
    """
    environment = make_environment()
    return environment.get_template("report.html.j2").render(
        s=summary,
        method=summary.method,
        charts={chart.name: drawing(chart) for chart in drawn},
        words=WORDS,
        short_words=SHORT_WORDS,
        likelihoods=likelihoods,
        expected=expected,
        relearning=report_relearning,
        interval=figures.interval,
        bounds=bounds,
        only_bounds=only_bounds,
        guesses_words=guesses_words,
        shorten=shorten,
        nothing_held_out=figures.NOTHING_HELD_OUT,
        unfolded=UNFOLDED,
        most_details=MOST_DETAILS,
        most_templates=MOST_TEMPLATES,
        most_prompts=MOST_PROMPTS,
        probes_words=PROBES_WORDS,
        never_seen_bits=NEVER_SEEN_BITS,
        exposed_bits=EXPOSED_BITS,
    )


def make_environment() -> Environment:
    """Return the templates' environment, with filters, style sheet and script."""
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
        shorten,
    ):
        environment.filters[function.__name__] = function
    return environment


def drawing(chart: Chart) -> dict[str, Any]:
    """Return a chart as the page shows it: for wide and for narrow windows, with its specification as data."""
    specification = json.dumps(chart.spec, separators=(",", ":"))
    for sign in "<>&":
        specification = specification.replace(sign, f"\\u{ord(sign):04x}")
    return {
        "chart": chart,
        "wide": Markup(inline_svg(chart)),  # noqa: S704 - made by vl_convert
        "narrow": Markup(inline_svg(chart, NARROW)),  # noqa: S704
        "specification": Markup(specification),  # noqa: S704 - JSON without a sign that HTML knows
    }


def _shown(value: Any) -> Any:
    """Make the text of every expression in a template visible; markup of our own passes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
