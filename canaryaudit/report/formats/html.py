"""The report as one self-contained page: no network access, no external URL, one small script for tooltips.

See docs/notes/charts-in-the-page.md for why the page has no charting library.
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
from canaryaudit.report.formats.likelihood import likelihoods, predicted
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary import relearning as report_relearning
from canaryaudit.report.summary.memorization import guesses_with_interval
from canaryaudit.report.summary.probes import PROBES_WORDS
from canaryaudit.report.verdicts import EXPOSED_BITS, NEVER_SEEN_BITS, SHORT_WORDS, WORDS

UNFOLDED = 40
"""Rows that a table shows at once; the others are collapsed."""
MOST_DETAILS = 50
"""Number of canaries, worst first, whose estimates and completions the page shows."""
MOST_PROMPTS = 200


def render_html(summary: Summary, drawn: Sequence[Chart]) -> str:
    """Return the page.

    Every value passes ``visible`` and is then escaped. The only exceptions are the style sheet, the script and the
    pictures, which this package creates. The page's security policy lists the digests of style sheet and script, so a
    browser runs nothing else.
    """
    environment = make_environment()
    return environment.get_template("report.html.j2").render(
        s=summary,
        method=summary.method,
        charts={chart.name: drawing(chart) for chart in drawn},
        words=WORDS,
        short_words=SHORT_WORDS,
        likelihoods=likelihoods,
        predicted=predicted,
        relearning=report_relearning,
        interval=figures.interval,
        bounds=bounds,
        only_bounds=only_bounds,
        guesses_with_interval=guesses_with_interval,
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
    ):
        environment.filters[function.__name__] = function
    return environment


def drawing(chart: Chart) -> dict[str, Any]:
    """Return a chart for the page: a picture for wide and one for narrow windows, and the specification as data."""
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
    """Make the text of every template expression visible; the package's markup stays unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
