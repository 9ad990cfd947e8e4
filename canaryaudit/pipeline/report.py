"""The report stage: what a run's records say, and the files that say it."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.errors import UsageError
from canaryaudit.exposure.probes import probes_of
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import ReportOptions
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.report import (
    MAIN_FILES,
    EarlierReport,
    Summary,
    SummaryOptions,
    build_summary,
    check_files,
    read_baseline,
    write_report,
)

DEFAULT_REPORTS = Path("reports")


def run_report(
    session: RunSession, options: ReportOptions, baseline: EarlierReport | None
) -> tuple[Summary, list[Path]]:
    """Write the report of a run in which everything is measured; return its summary and its files."""
    with session.stage("report"):
        summary = summarize_run(session, options, baseline)
        return summary, write_report(summary, report_directory(session, options), options.format)


def summarize_run(session: RunSession, options: ReportOptions, baseline: EarlierReport | None = None) -> Summary:
    """Return what a report would say of a run in which everything is measured."""
    run = session.run
    return build_summary(
        run.manifest,
        run.canary_set(),
        run.model_record(),
        run.measurement(TRAINED_MODEL),
        [(record, run.measurement(ModelId(record.name))) for record in session.unlearnings()],
        run.path.resolve().name,
        SummaryOptions(
            reveal_secrets=options.reveal_secrets,
            fail_above=options.fail_above,
            baseline=baseline,
            prompt_texts=_prompt_texts(session) if options.reveal_secrets else {},
        ),
    )


def find_baseline(session: RunSession, options: ReportOptions) -> EarlierReport | None:
    """Return the earlier report that this one must not be worse than, if one is given.

    Raises:
        UsageError: It is not a report, or the new report would overwrite it; or the new one has no place.
        RunDirectoryError: The new report would overwrite something else.
    """
    directory = report_directory(session, options)
    return None if options.fail_worse is None else read_baseline(options.fail_worse, directory / MAIN_FILES["json"])


def _prompt_texts(session: RunSession) -> dict[tuple[str, str], str]:
    """Return the texts of the prompts that measurements leave out, drawn again, by template and id."""
    measurement = session.run.measurement(TRAINED_MODEL)
    if not measurement.worst_cases:
        return {}
    probes = probes_of(measurement, session.run.canary_set(), session.run_text())
    return {(own.template, prompt.id): prompt.text for own in probes for prompt in own.prompts}


def report_directory(session: RunSession, options: ReportOptions) -> Path:
    """Return where the report goes, checked before hours of training.

    Raises:
        UsageError: It is in the run directory, which nobody else may read.
        RunDirectoryError: A file there is not a report's.
    """
    directory = options.output or DEFAULT_REPORTS / session.run.path.resolve().name
    refuse_inside([session.run.path], directory)
    check_files(directory, [MAIN_FILES[name] for name in options.format])
    return directory


def refuse_inside(runs: Sequence[Path], directory: Path) -> None:
    """Raise an error if a report would be written into a run directory.

    Raises:
        UsageError: It would.
    """
    for run in runs:
        if directory.resolve().is_relative_to(run.resolve()):
            raise UsageError(
                f"-o {directory} is in the run directory, which holds secrets and is not to be shared: choose another, "
                f"such as {DEFAULT_REPORTS / run.resolve().name}"
            )
