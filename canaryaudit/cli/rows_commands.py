"""What the commands do on a run on rows, whether of a table or of images."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from canaryaudit.cli.console import (
    command_line,
    print_json,
    progress_reporter,
    shell_quote,
    show,
    show_rows_comparison,
    show_rows_report,
)
from canaryaudit.errors import Damaged, Inconclusive
from canaryaudit.records import TRAINED_MODEL, ModelId, RunKind
from canaryaudit.runs.rows_verification import AnyRows
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.table_plan import RowsReportOptions

if TYPE_CHECKING:
    from canaryaudit.pipeline.rows.compare import RowsComparing
    from canaryaudit.pipeline.rows.insertion import RowsInsertion
    from canaryaudit.pipeline.rows.pipeline import RowsPipeline


@dataclass(frozen=True)
class Shown:
    """What a command shows.

    Attributes:
        as_json: One JSON document.
        quiet: Results only.
        verbose: Everything.
    """

    as_json: bool
    quiet: bool
    verbose: bool


@dataclass(frozen=True)
class RowsCommands:
    """The commands on runs on rows of one kind; what computes is imported when it is needed.

    Attributes:
        directory: The run directory.
        pipeline: Imports and returns the stages.
        insertion: Imports and returns how rows are inserted.
        document: Returns an insertion as a JSON document.
        view: Returns measurements for the terminal.
        views: Imports and returns what a report says in the terminal: all, and the result only.
        comparing: Imports and returns how runs are compared.
        after_insert: The next command.
    """

    directory: type[AnyRows]
    pipeline: Callable[[], type["RowsPipeline[Any, Any]"]]
    insertion: Callable[[], "RowsInsertion"]
    document: Callable[[Any, Any, Path | None], dict[str, Any]]
    view: Callable[[Sequence[Any]], RenderableType]
    views: Callable[[], tuple[Callable[[Any], RenderableType], Callable[[Any], RenderableType]]]
    comparing: Callable[[], "RowsComparing"]
    after_insert: str

    @contextmanager
    def opened(
        self, path: Path, context: typer.Context, output: Shown, *, reading: bool = False
    ) -> Iterator["RowsPipeline[Any, Any]"]:
        """Open and lock a run directory and yield its pipeline, which tells of its progress.

        Args:
            path: The run directory.
            context: The command line's.
            output: What to show.
            reading: The command can do with a read-only run.
        """
        with progress_reporter(output.quiet, output.verbose) as progress:
            run = self.directory.open(path)
            with run.lock(reading=reading):
                yield self.pipeline()(run, command_line(context), progress)

    def insert(
        self, context: typer.Context, options: Any, path: Path, output: Shown, *, dry_run: bool, force: bool
    ) -> None:
        """Insert canaries into rows, or find in them what is sensitive.

        Args:
            context: The command line's.
            options: What to insert.
            path: The run directory.
            output: What to show.
            dry_run: Write nothing.
            force: Replace an existing run.
        """
        insertion = self.insertion()
        with progress_reporter(output.quiet, output.verbose) as progress:
            if dry_run:
                made = insertion.planned(options, progress)
            elif plan := None if force else insertion.find(path, options, progress):
                made = plan
                progress.info(f"{path} already exists, made from these rows with these options: nothing was written.")
            else:
                made = insertion.make(path, options, command_line(context), progress, replace=force)
        if output.as_json:
            print_json(self.document(made.record, made.facts, None if dry_run else path))
            return
        show(*(Text(sentence) for sentence in insertion.sentences(made)))
        if not dry_run and not output.quiet:
            show(Text(f"Next: canaryaudit {self.after_insert} {shell_quote(path)}"))

    def train(self, context: typer.Context, run: Path, options: Any, output: Shown, *, force: bool) -> None:
        """Train a model on a run's rows."""
        with self.opened(run, context, output) as stages:
            record = stages.train(options, anew=force)
        if output.as_json:
            print_json(record)
        elif not output.quiet:
            show(Text(f"Next: canaryaudit unlearn {shell_quote(run)}"))

    def measure(self, context: typer.Context, run: Path, model: str, device: str, output: Shown) -> None:
        """Measure models of a run."""
        with self.opened(run, context, output) as stages:
            models = stages.session.models() if model == "all" else [ModelId.parse(model)]
            measured = [stages.measure(own, device) for own in models]
        if output.as_json:
            print_json([own.model_dump(mode="json") for own in measured] if model == "all" else measured[0])
        else:
            show(self.view(measured))

    def unlearn(self, context: typer.Context, run: Path, options: Any, output: Shown, *, force: bool) -> None:
        """Carry out a request on a model of a run."""
        with self.opened(run, context, output) as stages:
            record = stages.unlearn(options, anew=force)
            measured = [stages.run.measurement(own) for own in (TRAINED_MODEL, ModelId(record.name))]
        if output.as_json:
            print_json(record)
            return
        show(self.view(measured))
        if not output.quiet:
            show(Text(f"Next: canaryaudit report {shell_quote(run)}"))

    def report(self, context: typer.Context, run: Path, options: RowsReportOptions, output: Shown) -> None:
        """Write the report of a run."""
        with said_where_there_is_no_report(run, options), self.opened(run, context, output, reading=True) as stages:
            summary, written = stages.report(options)
        show_rows_report(summary, written, self.views()[output.quiet], as_json=output.as_json)

    def compare(self, context: typer.Context, runs: list[Path], options: RowsReportOptions, output: Shown) -> None:
        """Compare runs on one page."""
        comparing = self.comparing()
        try:
            with progress_reporter(output.quiet, output.verbose) as progress:
                comparison, written = comparing.compare_runs(runs, options, command_line(context), progress)
        except Damaged as error:
            if not options.is_gated:
                raise
            raise Inconclusive(f"the gate cannot pass: {error}") from error
        view = comparing.view
        render = view.result if output.quiet else view.terminal
        show_rows_comparison(comparison, written, render, as_json=output.as_json)

    def audit(self, context: typer.Context, audit: Any, output: Shown) -> None:
        """Run a whole audit from a plan."""
        pipeline, insertion = self.pipeline(), self.insertion()
        from canaryaudit.pipeline.rows.audit import run_rows_audit

        with (
            progress_reporter(output.quiet, output.verbose) as progress,
            said_where_there_is_no_report(audit.run, audit.report),
        ):
            summary, written = run_rows_audit(audit, insertion, pipeline, command_line(context), progress)
        show_rows_report(summary, written, self.views()[output.quiet], as_json=output.as_json)


@contextmanager
def said_where_there_is_no_report(run: Path, options: RowsReportOptions) -> Iterator[None]:
    """With a gate, a run without a report ends with the status for an inconclusive gate, and files say so."""
    gated = options.is_gated
    try:
        yield
    except (Damaged, Inconclusive) as error:
        inconclusive = isinstance(error, Inconclusive)
        message = str(error) if inconclusive or not gated else f"the gate cannot pass: {error}"
        if options.step_summary:
            from canaryaudit.pipeline.report_place import refuse_summary_inside
            from canaryaudit.report import append_step_error, step_summary_path

            refuse_summary_inside(run, step_summary_path())
            append_step_error(message, gated=gated)
        if not gated:
            raise
        from canaryaudit.pipeline.report_place import replace_earlier_report

        replace_earlier_report(run, options.output, options.format, message)  # It may say that the gate passed.
        if inconclusive:
            raise
        raise Inconclusive(message) from error


def kind_of_report(path: Path) -> RunKind:
    """Return which kind of run a run directory, or an earlier report, is of."""
    if not path.is_file():
        return kind_of_run(path)
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return "text"
    keys = {*document} if isinstance(document, dict) else set()
    return "table" if "estimator" in keys else "images" if "images" in keys else "text"
