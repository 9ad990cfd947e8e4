"""Publish stage of a run on a table: a model with the certificate's noise, and a record of every release."""

from dataclasses import dataclass
from pathlib import Path

from canaryaudit.errors import UnlearningError, command
from canaryaudit.formatting import counted
from canaryaudit.pipeline.tables.session import TableSession
from canaryaudit.pipeline.tables.skops_files import check_destination, estimator_bytes
from canaryaudit.records import ModelId
from canaryaudit.records.tables import Release, ReleasesRecord, last_result
from canaryaudit.storage.files import PUBLIC, atomic_path
from canaryaudit.table_plan import TablePublishOptions
from canaryaudit.tabular.certificate import Certificate


@dataclass(frozen=True)
class Published:
    """A release.

    Attributes:
        model: Which model of the run.
        certificate: What it was published under.
        number: Which of the planned releases it was, from 1.
        file: Where the estimator is.
    """

    model: ModelId
    certificate: Certificate
    number: int
    file: Path


def publish_table(session: TableSession, options: TablePublishOptions, *, anew: bool = False) -> Published:
    """Write a model with noise to a file, and count the release before the file is there.

    Args:
        session: The run.
        options: What to publish, and under which plan.
        anew: Replace the file.

    Raises:
        UnlearningError: The certificate would not hold, all planned releases were made, or the plan is another one.
        Damaged: What was published before cannot be told.
    """
    run = session.run
    check_destination(options.output, run.path, "-o", replace=anew)
    plan = _plan(run.releases(), options, run.path)
    model = options.model or _last(session)
    prepared = session.model(model)
    certificate = prepared.certificate(*options.certify, releases=plan.planned)
    if model.is_trained:
        session.progress.warn(
            "the certificate covers requests before a release: whoever has this model and a later one can compare them"
        )
    release = Release(
        model=model,
        model_sha256=run.model_sha256(model),
        tolerance=prepared.tolerance,
        residual=certificate.residual,
        rounding=certificate.rounding,
        sigma=certificate.sigma,
    )
    with session.stage("publish", str(model)):
        data = estimator_bytes(prepared.publish(*options.certify, releases=plan.planned))
        made = plan.model_copy(update={"made": (*plan.made, release)})
        with atomic_path(options.output, PUBLIC) as temporary:  # a file that cannot be made is no release
            run.write_releases(made)
            temporary.write_bytes(data)
    return Published(model, certificate, len(made.made), options.output)


def _plan(plan: ReleasesRecord | None, options: TablePublishOptions, path: Path) -> ReleasesRecord:
    """Return the plan that a release belongs to.

    Raises:
        UnlearningError: It does not belong to the run's plan, or is one too many.
    """
    epsilon, delta = options.certify
    if plan is None:
        return ReleasesRecord(epsilon=epsilon, delta=delta, planned=options.releases)
    if len(plan.made) >= plan.planned:
        raise UnlearningError(
            f"all {plan.planned:,} planned releases of {path} were made, and one more would void their "
            "certificate: plan more from the start with --releases, in a new run"
        )
    if (plan.epsilon, plan.delta, plan.planned) != (epsilon, delta, options.releases):
        again = command("--certify", f"{plan.epsilon:g},{plan.delta:g}", "--releases", plan.planned)
        raise UnlearningError(
            f"the first release of {path} planned {counted(plan.planned, 'release')} at epsilon {plan.epsilon:g} and "
            f"delta {plan.delta:g}: give {again}"
        )
    return plan


def _last(session: TableSession) -> ModelId:
    result = last_result(session.run.unlearnings_in_order())
    if result is None:
        raise UnlearningError(f"nothing was unlearned yet: run {command('canaryaudit', 'unlearn', session.run.path)}")
    return ModelId(result.name)
