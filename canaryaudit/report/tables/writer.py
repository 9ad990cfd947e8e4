"""The report on requests to a linear model, as one HTML page, Markdown or JSON."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from canaryaudit import formatting as figures
from canaryaudit.errors import UsageError
from canaryaudit.report.charts.base import Chart
from canaryaudit.report.charts.tables import tables_charts
from canaryaudit.report.formats.files import write_files
from canaryaudit.report.formats.html import UNFOLDED, drawing, make_environment
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.markdown import plain
from canaryaudit.report.tables.schema import TablesSummary

MOST_NAMES = 200
"""Removed columns that are listed."""


def write_tables(summary: TablesSummary, path: Path) -> list[Path]:
    """Write the report; the path's ending chooses the format. All files are written or none.

    Args:
        summary: The report's content.
        path: A file that ends in ``.html``, ``.md`` (with pictures in the same folder) or ``.json``.

    Returns:
        The files written, the main one first.

    Raises:
        UsageError: The path has another ending.
        RunDirectoryError: A file cannot be written, or is somebody else's.
    """
    makers: dict[str, Callable[[], dict[str, str]]] = {
        ".html": lambda: {path.name: render_tables_page(summary, tables_charts(summary))},
        ".md": lambda: _markdown_files(summary, path.name),
        ".json": lambda: {path.name: render_json(summary)},
    }
    if path.suffix not in makers:
        raise UsageError(f"{path.name}: a report ends in .html, .md or .json")
    return write_files(path.parent, makers[path.suffix]())


def render_tables_page(summary: TablesSummary, drawn: Sequence[Chart]) -> str:
    """Return the page."""
    return (
        make_environment()
        .get_template("tables.html.j2")
        .render(
            s=summary,
            charts={chart.name: drawing(chart) for chart in drawn},
            efficacy=efficacy(summary),
            certified=certified(summary),
            unfolded=UNFOLDED,
            most_names=MOST_NAMES,
        )
    )


def render_tables_markdown(summary: TablesSummary, drawn: Sequence[Chart]) -> str:
    """Return the report as Markdown, which refers to its pictures in the same folder."""
    pictures = {c.name: f"![{plain(c.title)}. {plain(c.alternative)}]({c.file_name})" for c in drawn}
    blocks = [f"# Requests to a {plain(summary.estimator)}", f"## {plain(summary.headline)}"]
    blocks += [f"> **Warning:** {plain(warning)}" for warning in summary.warnings]
    blocks += [_bullets(summary.requests), "## Efficacy", _bullets(efficacy(summary))]
    blocks += [pictures.get("loss-difference", ""), "## Methods", pictures.get("methods", ""), _methods(summary)]
    blocks += ["## Certificate", _bullets(certified(summary))]
    if summary.disclosures:
        rows = [[plain(own.column, 60), own.measure, figures.decimal(own.value, 3)] for own in summary.disclosures]
        blocks += ["## What the other columns still tell", _table(["Removed column", "Measure", "Value"], rows)]
    blocks += ["## Limitations", _bullets(summary.limits)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def efficacy(summary: TablesSummary) -> tuple[str, ...]:
    """Return what was achieved, in sentences."""
    update = summary.update
    sentences = [
        f"Residual {figures.significant(summary.residual)}; the tolerance is {figures.significant(summary.tolerance)}."
    ]
    if summary.retrained:
        sentences.append(
            "The loss of a row differs from the retrained model's by "
            f"{figures.significant(update.mean_loss_difference)} on average and "
            f"{figures.significant(update.max_loss_difference)} at most."
        )
    if summary.membership:
        own = summary.membership
        apart = "cannot be told from" if own.low <= 0.5 <= own.high else "differ from"
        sentences.append(
            f"The {own.deleted:,} deleted rows {apart} {own.unseen:,} rows never seen: AUC {own.auc:.3f}, 95 % "
            f"interval {own.low:.3f} to {own.high:.3f}."
        )
    return tuple(sentences)


def certified(summary: TablesSummary) -> tuple[str, ...]:
    """Return what is certified, in sentences."""
    own = summary.certificate
    if own is None:
        refused = summary.refused or "no certificate was asked for."
        return (refused[:1].upper() + refused[1:],)
    sentences = [
        f"Published with noise of {figures.significant(own.sigma)} on every coefficient, the model is "
        f"({own.epsilon:g}, {own.delta:g})-indistinguishable from a retrained one, for {own.releases:,} "
        f"{'release' if own.releases == 1 else 'releases'}.",
        f"It rests on a checked residual (up to {figures.significant(own.rounding)} of it rounding), a penalty of "
        f"{own.strong_convexity:g}, and a distance of at most {figures.significant(own.distance)} to retraining.",
        f"Accuracy {own.accuracy:.4f}, F1 {own.f1:.4f}; the constant classifier has "
        f"{summary.majority_accuracy:.4f} and {summary.majority_f1:.4f}.",
    ]
    if summary.published:
        other = summary.published
        sentences.append(
            f"The published scheme leaves a residual of {figures.significant(other.residual)}, asks for noise of "
            f"{figures.significant(other.sigma)} in the objective, and gives accuracy {other.accuracy:.4f}, F1 "
            f"{other.f1:.4f}. Its certificate is not valid."
        )
    return tuple(sentences)


def _markdown_files(summary: TablesSummary, name: str) -> dict[str, str]:
    drawn = tables_charts(summary)
    return {name: render_tables_markdown(summary, drawn), **{chart.file_name: chart.svg() for chart in drawn}}


def _methods(summary: TablesSummary) -> str:
    rows = [
        [
            plain(line.name),
            figures.significant(line.residual),
            figures.significant(line.mean_loss_difference),
            f"{line.accuracy:.4f}",
            f"{line.f1:.4f}",
            f"{1000 * line.seconds:.1f}",
            figures.times(line.speedup),
            plain(line.note),
        ]
        for line in summary.methods
    ]
    headings = ["Method", "Residual", "Loss difference", "Accuracy", "F1", "Time, ms", "Against retraining", ""]
    return _table(headings, rows)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines)


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)
