"""Comparison of several runs on tables: the last result of each beside the others', on one page."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canaryaudit import formatting as figures
from canaryaudit.errors import UsageError
from canaryaudit.records import ReportFormat
from canaryaudit.report.comparison.comparison import SHORTEST_NAME, labels, unique_names
from canaryaudit.report.comparison.writer import COMPARISON_FORMATS, MAIN_FILES
from canaryaudit.report.earlier import read_earlier
from canaryaudit.report.formats.files import earlier_formats, write_files
from canaryaudit.report.formats.html import UNFOLDED, make_environment
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.markdown import code, plain
from canaryaudit.report.judgment import Figure, GateStatus, Number, Part
from canaryaudit.report.tables.schema import TABLES_VERSION, TablesSummary

TABLES_COMPARISON_VERSION = 1
_WORST_FIRST: tuple[GateStatus, ...] = ("failed", "inconclusive", "passed")
_NAME = 60
_MOST_REASONS = 20


class TableRunLine(Part):
    """The last result of one run."""

    name: str
    verified: bool
    """Whether the figures are those of a run directory, which was verified; false for a ``report.json``."""
    table: str
    target: str
    estimator: str
    rows: int
    columns: int
    result: str
    """The unlearning that the figures are of."""
    requests: int
    """How many led to it."""
    path: str
    residual: Number
    tolerance: Number
    max_loss_difference: Figure
    """Largest difference of a row's loss to the retrained model; None if that was not asked for."""
    accuracy: Number
    f1: Number
    majority_accuracy: Number
    """Of the constant classifier."""
    sigma: Figure
    """Noise of the certificate; None without one."""
    coins_before: Figure
    coins_after: Figure
    """AUC of the canaries' coins, the largest of its kinds; None without canaries."""
    told: int
    """Removed columns that the others still tell."""
    seconds: Number
    speedup: Figure
    warnings: tuple[str, ...]


class TablesComparison(Part):
    """comparison.json of runs on tables."""

    schema_version: int = TABLES_COMPARISON_VERSION
    estimators: tuple[str, ...]
    """Estimators of all runs, each once."""
    runs: tuple[TableRunLine, ...]
    reasons: tuple[str, ...]
    """Why the gate did not pass; empty if it passed or there was no gate."""
    status: GateStatus | None
    """The worst result of any run's gate; None without a gate."""

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        exact = sum(run.residual <= run.tolerance for run in self.runs)
        return f"{exact:,} of {len(self.runs):,} updated models are the retrained ones, within their tolerances."

    @property
    def note(self) -> str:
        """Says which figures nothing verified; empty if all are of run directories."""
        names = [run.name for run in self.runs if not run.verified]
        return f"Read from report.json files, not verified: {', '.join(names)}." if names else ""


def read_tables_report(path: Path) -> TablesSummary:
    """Read an earlier report of a run on a table, without its gate, which may have judged another state of the run.

    Raises:
        UsageError: It cannot be read, or is no such report.
    """
    wanted = "a run directory on a table, or the report.json of its report"
    report = read_earlier(path, TablesSummary, str(path), wanted, "write the report again", TABLES_VERSION)
    if report.run is None:
        raise UsageError(f"{path} is not the report of a run: expected {wanted}")
    return report.model_copy(update={"run": report.run.model_copy(update={"gate": None})})


def compare_tables(
    summaries: Sequence[TablesSummary], paths: Sequence[str], reports: Collection[str] = ()
) -> TablesComparison:
    """Compare runs, in the given order.

    Args:
        summaries: The report of each run.
        paths: The runs' paths, which distinguish runs with the same name.
        reports: The paths of those that were read from a ``report.json``.
    """
    names = unique_names([own.run.name if own.run else "" for own in summaries], paths)
    lines = [
        _line(name, summary, verified=path not in reports)
        for name, path, summary in zip(names, paths, summaries, strict=True)
    ]
    gates = [(name, own.run.gate) for name, own in zip(names, summaries, strict=True) if own.run and own.run.gate]
    statuses = {gate.status for _, gate in gates}
    return TablesComparison(
        estimators=tuple(dict.fromkeys(own.estimator for own in summaries)),
        runs=tuple(lines),
        reasons=tuple(f"{name}: {remark}" for name, gate in gates for remark in gate.remarks),
        status=next((status for status in _WORST_FIRST if status in statuses), None),
    )


def _line(name: str, summary: TablesSummary, *, verified: bool) -> TableRunLine:
    run, update = summary.run, summary.update
    if run is None:
        raise ValueError("only runs are compared")
    coins = run.coins
    return TableRunLine(
        name=name,
        verified=verified,
        table=run.table,
        target=run.target,
        estimator=summary.estimator,
        rows=summary.rows,
        columns=summary.columns,
        result=run.result,
        requests=len(summary.requests),
        path=summary.path,
        residual=summary.residual,
        tolerance=summary.tolerance,
        max_loss_difference=update.max_loss_difference if summary.retrained else None,
        accuracy=update.accuracy,
        f1=update.f1,
        majority_accuracy=summary.majority_accuracy,
        sigma=summary.certificate.sigma if summary.certificate else None,
        coins_before=max((own.before[0] for own in coins), default=None),
        coins_after=max((own.after[0] for own in coins), default=None),
        told=sum(line.telling for line in summary.disclosures),
        seconds=update.seconds,
        speedup=update.speedup,
        warnings=(*run.faults, *summary.warnings),
    )


def write_tables_comparison(
    comparison: TablesComparison, directory: Path, formats: Sequence[ReportFormat]
) -> list[Path]:
    """Write the comparison in all requested formats, and in those of an earlier one: all files or none.

    Raises:
        RunDirectoryError: The directory or a file cannot be written.
    """
    makers: dict[ReportFormat, Callable[[], str]] = {
        "html": lambda: render_tables_comparison_page(comparison),
        "md": lambda: render_tables_comparison_markdown(comparison),
        "json": lambda: render_json(comparison),
    }
    requested = [name for name in COMPARISON_FORMATS if name in formats]
    wanted = requested + earlier_formats(directory, MAIN_FILES, formats)
    return write_files(directory, {MAIN_FILES[name]: makers[name]() for name in wanted})


def render_tables_comparison_page(comparison: TablesComparison) -> str:
    """Return the page."""
    template = make_environment().get_template("tables_comparison.html.j2")
    return template.render(c=comparison, rows=_rows(comparison), headings=_HEADINGS, unfolded=UNFOLDED)


def render_tables_comparison_markdown(comparison: TablesComparison) -> str:
    """Return the comparison as Markdown."""
    lines = [_HEADINGS, ["---"] * len(_HEADINGS)]
    lines += [[code(row[0], _NAME), *(plain(cell, 120) for cell in row[1:])] for row in _rows(comparison)]
    reasons = comparison.reasons
    blocks = [
        "# Comparison of runs on tables",
        f"## {plain(comparison.headline)}",
        *(f"> **Warning**, {code(own.name, _NAME)}: {plain(text)}" for own in comparison.runs for text in own.warnings),
        plain(comparison.note),
        f"Gate: **{comparison.status}**" if comparison.status else "",
        "\n".join(f"- {plain(reason)}" for reason in reasons[:_MOST_REASONS]),
        f"and {len(reasons) - _MOST_REASONS:,} more, in comparison.json" if len(reasons) > _MOST_REASONS else "",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def render_tables_comparison_terminal(comparison: TablesComparison) -> RenderableType:
    """Return what the command prints."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("run", "residual", "loss difference", "accuracy", "F1", "AUC", "speed"):
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for name, own in zip(labels(comparison.runs, SHORTEST_NAME), comparison.runs, strict=True):
        table.add_row(
            Text(name),
            figures.significant(own.residual),
            figures.significant(own.max_loss_difference),
            f"{own.accuracy:.4f}",
            f"{own.f1:.4f}",
            _change(own),
            figures.times(own.speedup),
        )
    return Group(table, render_tables_comparison_result(comparison))


def render_tables_comparison_result(comparison: TablesComparison) -> RenderableType:
    """Return the result, warnings and the gate."""
    lines = [comparison.headline]
    lines += [f"! {own.name}: {warning}" for own in comparison.runs for warning in own.warnings]
    lines += [comparison.note] if comparison.note else []
    lines += [f"Gate: {comparison.status}"] if comparison.status else []
    return Group(*(Text(figures.visible(line)) for line in lines))


_HEADINGS = [
    "Run",
    "Table, target",
    "Model",
    "Result",
    "By",
    "Residual",
    "Largest loss difference",
    "Accuracy",
    "F1",
    "Constant classifier",
    "AUC of canaries",
    "Columns told",
    "Noise",
    "Time, ms",
    "Against retraining",
]


def _rows(comparison: TablesComparison) -> list[list[str]]:
    return [
        [
            own.name,
            f"{own.table}, {own.target}",
            f"{own.estimator}, {own.rows:,} rows, {own.columns:,} columns",
            f"{own.result}, {figures.counted(own.requests, 'request')}",
            own.path,
            figures.significant(own.residual),
            figures.significant(own.max_loss_difference),
            f"{own.accuracy:.4f}",
            f"{own.f1:.4f}",
            f"{own.majority_accuracy:.4f}",
            _change(own),
            f"{own.told:,}",
            figures.significant(own.sigma),
            f"{1000 * own.seconds:.1f}",
            figures.times(own.speedup),
        ]
        for own in comparison.runs
    ]


def _change(own: TableRunLine) -> str:
    if own.coins_before is None or own.coins_after is None:
        return figures.MISSING
    return f"{own.coins_before:.3f} → {own.coins_after:.3f}"
