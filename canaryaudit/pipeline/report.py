"""The report stage: what a run's records say, and the files that say it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from canaryaudit.errors import Inconclusive, NewerVersion, RunDirectoryError
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.exposure.probes import probes_of
from canaryaudit.pipeline.report_place import DEFAULT_REPORTS, refuse_inside, refuse_summary_inside
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import ReportOptions
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.report import (
    MAIN_FILES,
    EarlierReport,
    Summary,
    SummaryOptions,
    append_step_summary,
    build_summary,
    check_files,
    read_baseline,
    step_summary_path,
    write_gate_errors,
    write_report,
)
from canaryaudit.runs import layout
from canaryaudit.runs.findings import PROBLEMS, Finding
from canaryaudit.runs.seals import read_key
from canaryaudit.runs.verification import verify_run


def run_report(
    session: RunSession, options: ReportOptions, baseline: EarlierReport | None, faults: Sequence[str]
) -> tuple[Summary, list[Path]]:
    """Write the report of a run in which everything is measured; return its summary and its files."""
    with session.stage("report"):
        summary = summarize_run(session, options, faults, baseline)
        written = write_report(summary, report_directory(session, options), options.format)
        if options.step_summary:
            append_step_summary(summary)
        return summary, written


@contextmanager
def inconclusive_at_a_gate(session: RunSession, options: ReportOptions, faults: Sequence[str]) -> Iterator[None]:
    """Name the run's first fault if its faults make a report impossible; with a gate, that is inconclusive.

    Raises:
        Inconclusive: They do, and there is a gate.
        RunDirectoryError: They do.
    """
    try:
        yield
    except NewerVersion:  # its message says what to do: there is nothing to repair
        raise
    except Exception as error:  # figures that somebody edited may break anything that draws or words them
        if not faults:
            raise
        if options.fail_above is None and options.fail_worse is None:
            raise RunDirectoryError(f"{session.run.path}/{faults[0]}: {session.run.see_how}") from error
        raise Inconclusive(f"the gate cannot pass: {faults[0]}; {session.run.see_how}") from error


def write_gate_error(run: Path, options: ReportOptions, message: str) -> None:
    """Say in the report's directory that the gate is inconclusive and there is no report.

    Only in the formats that pipelines read, and there in place of an earlier report's: that one may have passed.

    Raises:
        RunDirectoryError: A file cannot be written, or is not a report's.
    """
    name = run.resolve().name
    write_gate_errors(options.output or DEFAULT_REPORTS / name, name, message, options.format)


def check_report(options: ReportOptions) -> None:
    """Check what a report needs besides the run.

    Raises:
        UsageError: The key cannot be read, or there is no file for the pipeline's summary.
    """
    if options.key:
        read_key(options.key)
    if options.step_summary:
        step_summary_path()


def verify_report(session: RunSession, options: ReportOptions) -> tuple[Finding, ...]:
    """Verify the run, whose lock the caller holds, and its signature if a key is given; return the faults."""
    key = read_key(options.key) if options.key else None
    verification = verify_run(session.run.path, check=measurement_fault, key=key, is_locked=True)
    return tuple(finding for finding in verification.findings if finding.state in PROBLEMS)


def summarize_run(
    session: RunSession, options: ReportOptions, faults: Sequence[str], baseline: EarlierReport | None = None
) -> Summary:
    """Return what a report would say of a run in which everything is measured.

    Args:
        session: The run.
        options: What to report.
        faults: Of the run's files.
        baseline: The earlier report of the gate.
    """
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
            faults=faults,
            signed=options.key is not None,
            has_signature=(run.path / layout.SIGNATURE).exists(),
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
    if options.step_summary:
        refuse_summary_inside(session.run.path, step_summary_path())
    check_files(directory, [MAIN_FILES[name] for name in options.format])
    return directory
