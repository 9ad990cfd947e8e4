"""Measure stage: measures the exposures under one model and writes them down."""

from canaryaudit.errors import RunDirectoryError, command
from canaryaudit.exposure import Execution, MeasuredModel, MeasurementConfig, measure
from canaryaudit.exposure.references import DRAFT_FROM
from canaryaudit.exposure.scoring_models import share_scoring_models
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import MeasureOptions
from canaryaudit.privacy.audit import privacy_loss
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import Measurement, ModelId
from canaryaudit.report.summary.probes import unread_words


def run_measurement(session: RunSession, model_id: ModelId, options: MeasureOptions) -> Measurement:
    """Measure a model, even if it was measured before.

    Raises:
        RunDirectoryError: There is no such model.
    """
    run = session.run
    if model_id.unlearning is not None and not run.has_model(model_id):
        make = command("canaryaudit", "unlearn", run.path, "--name", model_id.unlearning)
        raise RunDirectoryError(
            f"{run.path} has no model '{model_id}': choose one of {', '.join(map(str, session.models()))}, or run: "
            f"{make}"
        )
    device = resolve_device(options.device)
    record = run.model_record(model_id)
    model = session.model(model_id, device)
    config = measurement_config(options)
    large = options.num_references >= DRAFT_FROM
    with_draft = large and resolve_precision(options.precision, device) == "bf16"
    with session.stage("measure", str(model_id), seed=config.seed, device=device.type, precision="fp32"):
        readers = share_scoring_models(model, large=large, with_draft=with_draft, processes=session.processes)
        measurement = measure(
            readers.model,
            run.canary_set(),
            config,
            draft=readers.draft,
            run_text=session.run_text() if config.probes != "none" or config.prompts else None,
            recorded_as=MeasuredModel(str(model_id), record.sha256),
            execution=Execution(
                progress=session.progress,
                cache=run.measurement_cache(f"{model_id} {record.sha256} {config} {readers.draft is not None}"),
                processes=session.processes,
            ),
        )
    return finish_measurement(session, measurement)


def finish_measurement(session: RunSession, measurement: Measurement) -> Measurement:
    """Add what follows from a measurement's figures, write it down, and say what it shows."""
    run = session.run
    _tell_effort(measurement, session.progress)
    measurement = measurement.model_copy(update={"privacy": privacy_loss(measurement, run.canary_set())})
    run.write_measurement(measurement)
    run.remove_parts()
    _tell_exposure(measurement, session.progress)
    return measurement


def measurement_config(options: MeasureOptions) -> MeasurementConfig:
    """Convert a command's options to a measurement configuration."""
    return options.configure(MeasurementConfig)


def _tell_effort(measurement: Measurement, progress: ProgressReporter) -> None:
    """Say what the time limit lowered."""
    references = min(own.num_references for own in measurement.efforts)
    draws = min((own.max_draws for own in measurement.efforts if own.max_draws), default=measurement.max_draws)
    if references < measurement.num_references or draws < measurement.max_draws:
        progress.info(
            f"Within the time limit of {measurement.time_limit:g} s: at least {references:,} references and at most "
            f"{draws:,} draws per template; raise --time-limit for narrower intervals."
        )


def _tell_exposure(measurement: Measurement, progress: ProgressReporter) -> None:
    inserted = [canary for canary in measurement.canaries if not canary.control]
    exposures = [canary.exposure.bits for canary in inserted]
    calibration = measurement.calibration
    controls = f"; controls average {calibration.mean_bits:.2f} bits (expected 1.44)" if calibration else ""
    greedy = sum(canary.extraction.greedy for canary in inserted)
    progress.info(
        f"Measured {measurement.model}: exposure {min(exposures):.1f} to {max(exposures):.1f} bits, "
        f"{greedy} of {len(inserted)} secrets completed greedily{controls}."
    )
    if unread := unread_words(measurement):
        progress.warn(unread)
    if calibration and not calibration.passed:
        progress.warn(f"{calibration.note} (p = {calibration.ks_pvalue:.2g})")
