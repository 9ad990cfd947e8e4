"""The report as a notebook shows it: verdict, canaries and cost, in one fragment of HTML without scripts."""

from collections.abc import Iterable

from markupsafe import Markup, escape

from canaryaudit import formatting as figures
from canaryaudit.formatting import counted, shorten, visible
from canaryaudit.report.schema import CanarySummary, Summary
from canaryaudit.report.verdicts import SHORT_WORDS

MOST_CANARIES = 20
_COLUMNS = ("canary", "times", "secret", "exposure, bits", "worst case, bits", "verdict")


def render_notebook(summary: Summary) -> str:
    """Return the fragment; every value passes ``visible`` and is then escaped, and masked secrets stay masked."""
    shown = summary.canaries[:MOST_CANARIES]
    parts = [
        Markup("<p><b>{}</b></p>").format(visible(summary.overall.headline)),
        _list(summary.overall.sentences),
        _list(f"Warning: {warning}" for warning in summary.warnings),
        Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(
            _cells("th", _COLUMNS), Markup().join(_row(canary) for canary in shown)
        ),
    ]
    if more := len(summary.canaries) - len(shown):
        parts.append(Markup("<p>and {} more</p>").format(counted(more, "canary")))
    if method := summary.method:
        retraining = figures.retraining_time(method.retraining_seconds, method.speedup)
        parts.append(
            Markup("<p>{}: {}; retraining {}. Accuracy {}.</p>").format(
                visible(method.name),
                figures.duration(method.seconds),
                retraining,
                figures.points(method.shown_accuracy_change),
            )
        )
    return str(Markup("<div>{}</div>").format(Markup().join(parts)))


def _row(canary: CanarySummary) -> Markup:
    exposure = figures.decimal(canary.before.exposure.bits)
    if canary.after:
        exposure += f" → {figures.decimal(canary.after.exposure.bits)}"
    worst = canary.last.worst_case
    cells = (
        canary.id,
        f"{canary.repetitions:,}",
        shorten(canary.secret, 60),
        f"{exposure} of {figures.decimal(canary.space_bits)}",
        figures.decimal(worst.bits) if worst else figures.MISSING,
        SHORT_WORDS[canary.last.verdict],
    )
    return Markup("<tr>{}</tr>").format(_cells("td", cells))


def _cells(tag: str, texts: Iterable[str]) -> Markup:
    return Markup().join(Markup("<{0}>{1}</{0}>").format(Markup(tag), visible(text)) for text in texts)  # noqa: S704


def _list(sentences: Iterable[str]) -> Markup:
    items = Markup().join(Markup("<li>{}</li>").format(escape(visible(own))) for own in sentences)
    return Markup("<ul>{}</ul>").format(items) if items else Markup()
