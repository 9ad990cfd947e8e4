"""What each canary of the page opens to: all figures of the worst, the main ones of the others, within a budget."""

from collections import Counter
from functools import partial
from typing import Any, get_args

from jinja2 import Environment
from markupsafe import Markup

from canaryaudit import formatting as figures
from canaryaudit.records import EstimatorName, only_bounds
from canaryaudit.report.charts.estimates import bounds
from canaryaudit.report.formats.columns import probe_lines, states_of
from canaryaudit.report.formats.likelihood import likelihoods, predicted
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary.memorization import guesses_with_interval

MOST_WHOLE, FEW_PROBES, MOST_PLACES = 50, 3, 20
"""Number of canaries, worst first, with every figure; number of probes of each of the others; places of each."""
MOST_DETAILS = 500
"""Number of canaries, worst first, that open."""


def canary_details(environment: Environment, summary: Summary, budget: int) -> list[Markup]:
    """Return what each of the worst canaries opens to, in at most ``budget`` characters.

    Args:
        environment: The page's templates.
        summary: The report's content.
        budget: Characters that are left of the page. At most a fifth of them goes to whole details.
    """
    macros: Any = environment.get_template("canary.html.j2").make_module(_names(summary))
    details: list[Markup] = []
    used = 0
    for place, canary in enumerate(summary.canaries[:MOST_DETAILS]):
        text = macros.detail(canary) if place < MOST_WHOLE and used < budget / 5 else macros.brief(canary)
        used += len(text.encode())
        if used > budget:
            break
        details.append(text)
    return details


def _names(summary: Summary) -> dict[str, Any]:
    prefixes = [summary.templates[canary.template].prefix for canary in summary.canaries]
    return {
        "s": summary,
        "shared": Counter(prefixes),
        "owners": {
            (prefix, c.secret): c.id for prefix, c in zip(prefixes, summary.canaries, strict=True) if not c.masked
        },
        "states_of": partial(states_of, summary),
        "probe_rows": partial(probe_lines, summary),
        "estimators": get_args(EstimatorName),
        "few_probes": FEW_PROBES,
        "most_places": MOST_PLACES,
        "likelihoods": likelihoods,
        "predicted": predicted,
        "interval": figures.interval,
        "bounds": bounds,
        "only_bounds": only_bounds,
        "guesses_with_interval": guesses_with_interval,
    }
