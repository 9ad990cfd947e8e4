"""Measures models that lie outside the run directory: those of ``transformers``, one or a series of checkpoints."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import ModelError, RunDirectoryError, UsageError
from canaryaudit.exposure import Execution, MeasuredModel, measure
from canaryaudit.exposure.config import MeasurementConfig
from canaryaudit.exposure.probes import check_prompts
from canaryaudit.models.device import resolve_device
from canaryaudit.models.huggingface import SCHEME, LoadedModel, ModelSource, digest_of, load_huggingface
from canaryaudit.pipeline.measure import finish_measurement, measurement_config
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import MeasureOptions
from canaryaudit.records import TRAINED_MODEL, Checkpoint, ExternalModel, Measurement, ModelId, ModelRecord

COST = (
    "bits of the tokens that cover the secret, from one tokenization of prompt, secret and what follows, each given "
    "all tokens before it"
)
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def source_of(model: ExternalModel) -> ModelSource:
    """Return where the model of a record lies.

    Raises:
        UsageError: It is behind an API, and only its answers are known.
    """
    if not model.source.startswith(SCHEME):
        raise UsageError(
            f"the run's model is known by its answers only: measure them with --scores FILE ({model.source})"
        )
    return ModelSource(model.source.removeprefix(SCHEME), model.adapter, model.dtype or "auto")


def run_external_measurement(session: RunSession, source: ModelSource, options: MeasureOptions) -> Measurement:
    """Measure a model, or the last of a series of checkpoints with the others' exposures beside it.

    Raises:
        ModelError: There is no such model, or it cannot be read safely.
        RunDirectoryError: The run has a model of its own, or several processes share the work.
    """
    run = session.run
    if session.processes.size > 1:
        raise RunDirectoryError("a model of transformers is measured by one process: leave out torchrun")
    if run.has_model(TRAINED_MODEL) and not run.external_model():
        raise RunDirectoryError(
            f"{run.path} already has a model that canaryaudit trained: insert again with -o for another run"
        )
    config = measurement_config(options)
    check_prompts(config.prompts, run.canary_set(), run_vocabulary(run.canary_set()))
    *earlier, last = _series(source)
    checkpoints = []
    names = distinct_names([own.path for own in (*earlier, last)])
    for each, name in zip(earlier, names, strict=False):
        loaded = load_source(each, options.device)
        found = _measure(session, loaded, config.model_copy(update={"probes": "none", "prompts": ()}))
        checkpoints.append(_checkpoint(name, loaded, found))
        session.progress.info(f"Measured {checkpoints[-1].name}: {_mean_words(checkpoints[-1])}.")
    loaded = load_source(last, options.device)
    device = loaded.model.device.type
    with session.stage("measure", str(TRAINED_MODEL), seed=config.seed, device=device, precision=loaded.dtype):
        measurement = _measure(session, loaded, config)
    measurement = measurement.model_copy(update={"checkpoints": tuple(checkpoints)})
    run.write_model_record(ModelRecord(external=described(last, loaded), sha256=loaded.sha256))
    return finish_measurement(session, measurement)


def run_result_measurement(session: RunSession, model_id: ModelId, options: MeasureOptions) -> Measurement:
    """Measure the result of an unlearning that lies outside the run.

    Raises:
        ModelError: It has changed, or cannot be read.
    """
    config, loaded = measurement_config(options), load_result(session, model_id, options.device)
    with session.stage(
        "measure", str(model_id), seed=config.seed, device=loaded.model.device.type, precision=loaded.dtype
    ):
        return finish_measurement(session, _measure(session, loaded, config, model_id))


def _series(source: ModelSource) -> list[ModelSource]:
    """Return the models of a pattern, in the order of the numbers in their names; one without a pattern."""
    if not any(sign in source.path for sign in "*?["):
        return [source]
    whole = Path(source.path).expanduser()
    base = Path(whole.anchor) if whole.is_absolute() else Path()
    found = [path for path in base.glob(str(whole.relative_to(base))) if path.is_dir()]
    if not found:
        raise ModelError(f"no folder fits {SCHEME}{source.path}: check the pattern, and quote it for the shell")
    paths = list(map(str, found))
    numbered = [([int(number) for number in re.findall(r"\d+", name)], name) for name in distinct_names(paths)]
    return [replace(source, path=path) for _, path in sorted(zip(numbered, paths, strict=True))]


def source_sha256(source: ModelSource) -> str:
    """Return the digest of a model without loading it."""
    return digest_of(source)


def load_source(source: ModelSource, device: str) -> LoadedModel:
    """Load a model onto a device that was asked for."""
    return load_huggingface(source, resolve_device(device))


def load_result(session: RunSession, model_id: ModelId, device: str) -> LoadedModel:
    """Load a recorded model that lies outside the run.

    Raises:
        ModelError: It cannot be read, or was written anew since.
    """
    record = session.run.model_record(model_id)
    if record.external is None:
        raise ModelError(f"{session.run.path} has the weights of {model_id} itself")
    source = source_of(record.external)
    loaded = load_source(source, device)
    check_unchanged(session, model_id, source, loaded)
    return loaded


def check_unchanged(session: RunSession, model_id: ModelId, source: ModelSource, loaded: LoadedModel) -> None:
    """Check that a checkpoint is the one whose figures the run has.

    Raises:
        ModelError: It was written anew since.
    """
    if loaded.sha256 != session.run.model_record(model_id).sha256:
        then = "measure it again" if model_id.is_trained else f"unlearn {model_id.unlearning!r} again with --force"
        raise ModelError(f"{SCHEME}{source.path} has changed since it was recorded: {then}")


@contextmanager
def memory_errors(task: str, way_out: str) -> Iterator[None]:
    """Turn a lack of memory into one line.

    Args:
        task: What it is needed for, after "to".
        way_out: What else may help, after "or".
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _NO_MEMORY):
            raise
        raise ModelError(f"not enough memory to {task}: use --device cpu or a larger machine, or {way_out}") from None


def _measure(
    session: RunSession, loaded: LoadedModel, config: MeasurementConfig, model_id: ModelId = TRAINED_MODEL
) -> Measurement:
    run = session.run
    return measure(
        loaded.model,
        run.canary_set(),
        config,
        run_text=session.run_text() if config.probes != "none" or config.prompts else None,
        recorded_as=MeasuredModel(str(model_id), loaded.sha256, loaded.dtype),
        execution=Execution(
            progress=session.progress, cache=run.measurement_cache(f"{loaded.sha256} {loaded.dtype} {config}")
        ),
    )


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Return the parts of paths in which they differ; the last part if there is one path.

    Examples:
        >>> distinct_names(["runs/a/final", "runs/b/final"]), distinct_names(["out/checkpoint-1", "out/checkpoint-2"])
        (['a', 'b'], ['checkpoint-1', 'checkpoint-2'])
    """
    parts = [Path(own).parts for own in paths]
    if len(parts) == 1:
        return [Path(paths[0]).name]
    while min(map(len, parts)) > 1 and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    while min(map(len, parts)) > 1 and len({own[0] for own in parts}) == 1:
        parts = [own[1:] for own in parts]
    return ["/".join(own) for own in parts]


def _checkpoint(name: str, loaded: LoadedModel, found: Measurement) -> Checkpoint:
    return Checkpoint(
        name=name,
        sha256=loaded.sha256,
        exposures_bits={own.id: own.exposure.bits for own in found.canaries if not own.control},
        controls_mean_bits=found.calibration.mean_bits if found.calibration else None,
    )


def _mean_words(checkpoint: Checkpoint) -> str:
    bits = list(checkpoint.exposures_bits.values())
    return f"exposure {min(bits):.1f} to {max(bits):.1f} bits"


def described(source: ModelSource, loaded: LoadedModel) -> ExternalModel:
    """Return what records say of a model."""
    return ExternalModel(
        source=f"{SCHEME}{source.path}",
        kind=loaded.kind,
        parameters=loaded.parameters,
        adapter=source.adapter,
        dtype=loaded.dtype,
        tokenizer=loaded.tokenizer,
        starts_with=loaded.starts_with,
        cost=COST,
    )
