"""Run a whole audit from a plan: check existing results against the plan, then run the missing stages."""

from collections.abc import Sequence
from pathlib import Path

from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.errors import Inconclusive, RunDirectoryError
from canaryaudit.exposure.probes import given_prompts
from canaryaudit.formatting import counted
from canaryaudit.pipeline.insert import differing_part, export_data, make_run, plan_run, read_secrets
from canaryaudit.pipeline.pipeline import Pipeline
from canaryaudit.pipeline.report import find_baseline
from canaryaudit.pipeline.unlearn import check_options, difference, select_canaries
from canaryaudit.plan import MeasureOptions, Plan, UnlearnOptions
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.records import TRAINED_MODEL, CorpusFacts, Measurement, ModelId
from canaryaudit.report import Summary
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.run_directory import RunDirectory


def run_audit(
    audit: Plan, argv: Sequence[str] = (), progress: ProgressReporter | None = None, *, data: object = None
) -> tuple[Summary, list[Path], list[str]]:
    r"""Run a whole audit, or resume an existing one.

    Args:
        audit: What to do.
        argv: The command line that asked for it, for the record.
        progress: Told of progress; optional.
        data: A Python object to audit, as for ``read_corpus``; the plan's corpus then only names it. Optional.

    Returns:
        The report's summary, its files, and the names of the unlearnings without a result.

    Raises:
        CanaryAuditError: A stage fails, or was already run with other options than the plan's.

    Examples:
        A small audit, in seconds: no unlearning, and too little training to memorize anything.

        >>> import tempfile
        >>> from canaryaudit.plan import InsertOptions, MeasureOptions, ReportOptions, TrainOptions
        >>> folder = tempfile.TemporaryDirectory()
        >>> notes = Path(folder.name, "notes.txt")
        >>> _ = notes.write_text("The tide turns at noon.\n\nThe wind follows it.\n\n" * 60)
        >>> plan = Plan(
        ...     run=Path(folder.name, "run"),
        ...     insert=InsertOptions(corpus=str(notes), template=("code {digits:4}.",), canaries=2, repetitions=(2,)),
        ...     train=TrainOptions(epochs=1, device="cpu"),
        ...     measure=MeasureOptions(samples=500, estimators=("sampled",), device="cpu"),
        ...     unlearn=(),
        ...     report=ReportOptions(format=("json",), output=Path(folder.name, "report")),
        ... )
        >>> summary, files, failures = run_audit(plan)
        >>> sorted(canary.id for canary in summary.canaries), [file.name for file in files], failures
        (['canary-01', 'canary-02'], ['report.json'], [])
        >>> folder.cleanup()
    """
    progress = progress or NullReporter()
    insertion = read_secrets(audit.insert)
    resumed = RunDirectory.holds_run(audit.run)
    if resumed:
        run = RunDirectory.open(audit.run)
        progress.info(f"Resuming {audit.run}, started {run.manifest.stages[0].started}.")
        _check_insertion(run, *plan_run(insertion, progress, data))
    else:
        run, made = make_run(audit.run, insertion, argv, progress, data=data)
        for verb, located in (("Inserted", False), ("Located", True)):
            canaries = [c for c in made.canary_set.inserted if (c.origin == "located") is located]
            places = sum(canary.repetitions for canary in canaries)
            if canaries:
                progress.info(
                    f"{verb} {counted(len(canaries), 'canary')} at {counted(places, 'place')} in "
                    f"{made.assembly.characters:,} characters; "
                    f"{counted(len(made.canary_set.controls), 'control')} kept out."
                )
        for warning in made.warnings:
            progress.warn(warning)
    export_data(insertion, run.canary_set(), progress, is_new=not resumed)
    failures: list[str] = []
    with run.lock():
        pipeline = Pipeline(run, argv, progress)
        for options in audit.unlearn:  # Report mistakes in the plan before hours of training.
            select_canaries(run, options.canary)
            check_name(options.resolved_name)
            if not run.has_unlearning(options.resolved_name):
                check_options(options)
        find_baseline(pipeline.session, audit.report)
        pipeline.train(audit.train)
        _measure(pipeline, TRAINED_MODEL, audit.measure)
        for options in audit.unlearn:
            try:
                _unlearn(pipeline, options, audit.measure)
            except Inconclusive as failure:
                progress.warn(f"unlearning {options.resolved_name!r} gave no result: {failure}")
                failures.append(options.resolved_name)
        for attack in audit.attack:
            try:
                pipeline.attack(attack, audit.measure, anew=False)
            except Inconclusive as failure:
                progress.warn(f"the attack on {attack.name or 'the unlearned model'} gave no result: {failure}")
                failures.append("the attack")
        summary, written = pipeline.report(audit.report, audit.measure)
    return summary, written, failures


def _measure(pipeline: Pipeline, model: ModelId, options: MeasureOptions) -> None:
    if not pipeline.run.has_measurement(model):
        pipeline.measure(model, options)
    elif not _is_as_asked(pipeline.run.measurement(model), options):
        pipeline.progress.info(f"{model} was measured with other options: measuring again.")
        pipeline.measure(model, options)
    else:
        pipeline.progress.info(f"{model} was already measured.")


def _is_as_asked(measurement: Measurement, options: MeasureOptions) -> bool:
    # Importance sampling is skipped if the rank is exact, so its absence is not a difference.
    estimators = {name for canary in measurement.canaries for name in canary.estimates} - {"importance"}
    effort = (measurement.search_budget, measurement.precision_bits, measurement.max_draws, measurement.time_limit)
    given = tuple(given_prompts(measurement).values())
    prefixes = {prompt.text for prompt in measurement.prompts if prompt.family == "template"}  # asked by anyway
    return (
        measurement.num_references == options.num_references
        and measurement.seed == options.seed
        and effort == (options.search_budget, options.precision_bits, options.max_draws, options.time_limit)
        and (measurement.worst_cases.effort if measurement.worst_cases else "none") == options.probes
        and given == tuple(own for own in dict.fromkeys(options.prompts) if own in given or own not in prefixes)
        and estimators == set(options.estimators) - {"importance"}
    )


def _unlearn(pipeline: Pipeline, options: UnlearnOptions, measure_options: MeasureOptions) -> None:
    name, run = options.resolved_name, pipeline.run
    if not run.has_unlearning(name):
        pipeline.unlearn(options, measure_options)
        return
    record = run.unlearning(name)
    if differing := difference(record, options, run.canary_set().inserted):
        raise RunDirectoryError(
            f"{run.path} has an unlearning {name!r} that differs in its {differing}: choose another name in the plan"
        )
    pipeline.progress.info(f"{name!r} was already unlearned.")
    _measure(pipeline, ModelId(name), measure_options)


def _check_insertion(run: RunDirectory, made: InsertionPlan, facts: CorpusFacts) -> None:
    """Raise an error if a run was not made from this insertion."""
    if part := differing_part(run, made, facts):
        raise RunDirectoryError(
            f"{run.path} differs from the plan in its {part}: choose another run directory in the plan (run = "
            '"runs/NAME")'
        )
