"""The report stage: what a run's records say, and the files that say it."""

from pathlib import Path

from canaryaudit.exposure.probes import probes_of
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import ReportOptions
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.report import EarlierReport, Summary, SummaryOptions, build_summary, read_baseline, write_report

DEFAULT_REPORTS = Path("reports")


def run_report(
    session: RunSession, options: ReportOptions, baseline: EarlierReport | None
) -> tuple[Summary, list[Path]]:
    """Write the report of a run in which everything is measured; return its summary and its files."""
    with session.stage("report"):
        summary = summarize_run(session, options, baseline)
        return summary, write_report(summary, _directory(session, options), options.format)


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
        UsageError: It is not a report, or the new report would overwrite it.
    """
    if options.fail_worse is None:
        return None
    return read_baseline(options.fail_worse, _directory(session, options) / "report.json")


def _prompt_texts(session: RunSession) -> dict[tuple[str, str], str]:
    """Return the texts of the prompts that measurements leave out, drawn again, by template and id."""
    measurement = session.run.measurement(TRAINED_MODEL)
    if not measurement.worst_cases:
        return {}
    probes = probes_of(measurement, session.run.canary_set(), session.run_text())
    return {(own.template, prompt.id): prompt.text for own in probes for prompt in own.prompts}


def _directory(session: RunSession, options: ReportOptions) -> Path:
    return options.output or DEFAULT_REPORTS / session.run.path.resolve().name
