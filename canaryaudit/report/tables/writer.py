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
from canaryaudit.report.tables.schema import CoinFigures, TablesSummary

_ENDINGS = (".html", ".md", ".json")
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
    if path.suffix not in _ENDINGS:
        raise UsageError(f"{path.name}: a report ends in .html, .md or .json")
    return write_files(path.parent, tables_files(summary, path.suffix, path.stem))


def tables_files(summary: TablesSummary, ending: str, stem: str) -> dict[str, str]:
    """Return the files of one format by their names.

    Args:
        summary: The report's content.
        ending: ``.html``, ``.md`` or ``.json``.
        stem: The main file's name without it.
    """
    makers: dict[str, Callable[[], dict[str, str]]] = {
        ".html": lambda: {f"{stem}.html": render_tables_page(summary, tables_charts(summary))},
        ".md": lambda: _markdown_files(summary, f"{stem}.md"),
        ".json": lambda: {f"{stem}.json": render_json(summary)},
    }
    return makers[ending]()


def render_tables_page(summary: TablesSummary, drawn: Sequence[Chart]) -> str:
    """Return the page."""
    return (
        make_environment()
        .get_template("tables.html.j2")
        .render(
            s=summary,
            charts={chart.name: drawing(chart) for chart in drawn},
            efficacy=(*efficacy(summary), *run_sentences(summary)),
            gate=result_words(summary),
            certified=certified(summary),
            unfolded=UNFOLDED,
            most_names=MOST_NAMES,
        )
    )


def render_tables_markdown(summary: TablesSummary, drawn: Sequence[Chart]) -> str:
    """Return the report as Markdown, which refers to its pictures in the same folder."""
    pictures = {c.name: f"![{plain(c.title)}. {plain(c.alternative)}]({c.file_name})" for c in drawn}
    run = summary.run
    blocks = [f"# Requests to a {plain(summary.estimator)}", f"## {plain(summary.headline)}"]
    blocks += [f"> **Warning:** {plain(warning)}" for warning in summary.warnings]
    blocks += [f"> **Warning:** {plain(fault)}" for fault in (run.faults if run else ())]
    blocks += [plain(result_words(summary)), bullets(run.gate.remarks) if run and run.gate else ""]
    blocks += [bullets(summary.requests), "## Efficacy", bullets((*efficacy(summary), *run_sentences(summary)))]
    blocks += [pictures.get("loss-difference", ""), "## Methods", pictures.get("methods", ""), _methods(summary)]
    blocks += ["## Results", markdown_results(summary)] if run else []
    blocks += ["## Certificate", bullets(certified(summary))]
    if summary.disclosures:
        rows = [[plain(own.column, 60), own.measure, figures.decimal(own.value, 3)] for own in summary.disclosures]
        blocks += ["## What the other columns still tell", markdown_table(["Removed column", "Measure", "Value"], rows)]
    blocks += ["## Limitations", bullets(summary.limits)]
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
    if told := [line for line in summary.disclosures if line.telling]:
        examined = figures.counted(len(summary.disclosures), "removed column")
        sentences.append(
            f"The other columns still tell {len(told):,} of the {examined} examined, best {told[0].column}: "
            f"{told[0].measure} {figures.decimal(told[0].value, 3)}."
        )
    elif any(line.value is not None for line in summary.disclosures):
        sentences.append(f"The other columns tell none of the {len(summary.disclosures):,} removed columns examined.")
    if summary.membership:
        own = summary.membership
        apart = "cannot be told from" if own.low <= 0.5 <= own.high else "differ from"
        words = (
            f"The {own.deleted:,} deleted rows {apart} {own.unseen:,} rows never seen: AUC {own.auc:.3f}, 95 % "
            f"interval {own.low:.3f} to {own.high:.3f}."
        )
        if own.retrained is not None:
            words += f" In the retrained model their AUC is {own.retrained:.3f}"
            alike = apart == "differ from" and own.by_selection
            words += ", so they differ by which rows they are, not because the model knows them." if alike else "."
        sentences.append(words)
    return tuple(sentences)


def run_sentences(summary: TablesSummary) -> tuple[str, ...]:
    """Return what the run directory adds, in sentences."""
    if summary.run is None:
        return ()
    sentences = [coin_sentence(coins) for coins in summary.run.coins]
    last = next(line for line in summary.run.results if line.name == summary.run.result)
    retrained = last.path == "fit from nothing"
    chosen = "retrained" if retrained else "updated"
    chosen += ", which is cheaper here" if retrained and last.retraining_work <= last.update_work else ""
    update, retraining = (figures.significant(own) for own in (last.update_work, last.retraining_work))
    sentences.append(f"{last.name} was {chosen}: {update} multiplications as an update, {retraining} from nothing.")
    return tuple(sentences)


def result_words(summary: TablesSummary) -> str:
    """Return the gate's result in a sentence; empty without a gate."""
    gate = summary.run.gate if summary.run else None
    return "" if gate is None else gate_words(gate.status, f"residual at most {gate.fail_residual:g}")


def gate_words(status: str, condition: str) -> str:
    """Return a gate's result in a sentence."""
    return f"Gate, {condition}: {status}."


def coin_sentence(coins: CoinFigures) -> str:
    """Return what a model tells of one kind of canaries before and after the requests."""
    (auc, low, high, epsilon, planted, candidates), after = coins.before, coins.after
    return (
        f"Of {candidates:,} candidates for {coins.what}, {planted:,} were planted. Before the requests the model "
        f"tells which: AUC {auc:.3f} ({low:.3f} to {high:.3f}), epsilon at least {epsilon:.2f}. After them: AUC "
        f"{after[0]:.3f} ({after[1]:.3f} to {after[2]:.3f}), epsilon at least {after[3]:.2f}."
    )


def certified(summary: TablesSummary) -> tuple[str, ...]:
    """Return what is certified, in sentences."""
    own = summary.certificate
    published = _published(summary)
    if own is None:
        refused = summary.refused or "no certificate was asked for."
        return (refused[:1].upper() + refused[1:], *published)
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
    return (*sentences, *published)


def _published(summary: TablesSummary) -> tuple[str, ...]:
    releases = summary.run.releases if summary.run else None
    if releases is None:
        return ()
    return (
        f"{releases.made:,} of {releases.planned:,} planned releases at epsilon {releases.epsilon:g} and delta "
        f"{releases.delta:g} were made.",
    )


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
    return markdown_table(headings, rows)


def markdown_results(summary: TablesSummary) -> str:
    """Return all results of the run as a table."""
    rows = [
        [
            plain(line.name),
            plain(line.origin),
            plain(line.words),
            line.path,
            figures.significant(line.residual),
            figures.significant(line.max_loss_difference),
            f"{line.accuracy:.4f}",
            f"{1000 * line.seconds:.1f}",
            f"{1000 * line.retraining_seconds:.1f}",
        ]
        for line in (summary.run.results if summary.run else ())
    ]
    headings = [
        "Name",
        "From",
        "Request",
        "By",
        "Residual",
        "Largest loss difference",
        "Accuracy",
        "ms",
        "Retraining, ms",
    ]
    return markdown_table(headings, rows)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines)


def bullets(sentences: Iterable[str]) -> str:
    """Return a list in Markdown."""
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)
