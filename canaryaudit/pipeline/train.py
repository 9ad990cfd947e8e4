"""Train stage: trains the model, resumes an interrupted training, or recognizes a finished one."""

from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.errors import ModelError, command
from canaryaudit.formatting import NOTHING_HELD_OUT, counted
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import TrainOptions
from canaryaudit.records import TRAINED_MODEL, Manifest, ModelRecord, TrainingRecord
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.training.config import EPOCHS, TrainingConfig, read_state
from canaryaudit.training.loop import seconds_per_step, train


def run_training(session: RunSession, options: TrainOptions, *, anew: bool = False) -> ModelRecord:
    """Train the model, go on with an interrupted training, or say that it is trained.

    Args:
        session: The run.
        options: How to train; one that has its default fits whatever is there.
        anew: Train again although there is a model; everything made from the old one is then stale.

    Raises:
        ModelError: A model, or an interrupted training, was made with other options.
    """
    run, progress = session.run, session.progress
    if run.external_model():
        _ = run.model_record().lstm  # refuses
    if run.has_model(TRAINED_MODEL) and not anew:
        run.verify_weights(TRAINED_MODEL)
        record = run.model_record()
        if record.training:
            _check_asked(run, options, record.training, "a model trained")
        _tidy(run, record)
        progress.info(f"Already trained: {_quality(record, run.manifest)}.")
        return record
    # With ``anew``, a checkpoint of the same training is still used: the result is identical.
    config = (None if anew else _interrupted(run, options)) or training_config(options)
    data, vocabulary = session.data(resolve_device(config.device))
    with session.stage("train", seed=config.seed, device=config.device, precision=config.precision):
        model, training = train(data, vocabulary, config, progress, run.checkpoint_path, processes=session.processes)
        sha256 = run.write_weights(TRAINED_MODEL, weights_bytes(model))
    record = ModelRecord(architecture=model.architecture, sha256=sha256, training=training)
    run.write_model_record(record)
    run.remove_checkpoint()
    progress.info(f"Trained in {training.seconds:.0f} s: {_quality(record, run.manifest)}.")
    return record


def training_config(options: TrainOptions) -> TrainingConfig:
    """Convert options to a configuration, with device and precision resolved for this machine."""
    device = resolve_device(options.device)
    return options.configure(
        TrainingConfig,
        epochs=options.epochs or EPOCHS[options.size],
        device=device.type,
        precision=resolve_precision(options.precision, device),
    )


def training_seconds(made: InsertionPlan, options: TrainOptions) -> float:
    """Estimate the training time of a plan's text on this machine, from a few steps."""
    config = training_config(options)
    steps = config.epochs * made.assembly.characters / (config.batch_size * config.window)
    return steps * seconds_per_step(len(made.vocabulary), config)


def _interrupted(run: RunDirectory, options: TrainOptions) -> TrainingConfig | None:
    """Return the configuration of an interrupted training to resume; None if there is none."""
    state = read_state(run.checkpoint_path)
    if state is None:
        return None
    _check_asked(run, options, state.config, "an interrupted training")
    return state.config


def _tidy(run: RunDirectory, record: ModelRecord) -> None:
    """Remove this training's checkpoint, if the command was interrupted just before removing it."""
    state = read_state(run.checkpoint_path)
    if state and record.training and state.seconds == record.training.seconds:
        run.remove_checkpoint()


def _check_asked(run: RunDirectory, options: TrainOptions, made: TrainingConfig | TrainingRecord, what: str) -> None:
    for name, default in TrainOptions():
        asked, found = getattr(options, name), getattr(made, name)
        if asked in (default, found):
            continue
        if isinstance(made, TrainingRecord) and _is_met(name, asked, made):
            continue
        flag, known = f"--{name.replace('_', '-')}", "none" if found is None else found
        again = command("canaryaudit", "train", run.path, flag, asked, "--force")
        raise ModelError(
            f"{run.path} has {what} with {name.replace('_', ' ')} {known}, not with {flag} {asked}: drop the "
            f"option to keep it, or replace it with: {again}"
        )


def _is_met(name: str, asked: object, training: TrainingRecord) -> bool:
    """Return whether a finished training satisfies a requested option that has another value."""
    if name == "target_accuracy" and isinstance(asked, float):
        return training.train.accuracy >= asked
    return name == "epochs" and isinstance(asked, int) and bool(training.reached_target) and training.epochs <= asked


def _quality(record: ModelRecord, manifest: Manifest) -> str:
    training = record.training
    if training is None:
        return "no training record"
    held = f"held-out loss {training.heldout.loss_bits:.2f} bits a character"
    return (
        f"accuracy {training.train.accuracy:.3f} on training text, "
        f"{held if manifest.corpus.heldout_characters else NOTHING_HELD_OUT}, {counted(training.epochs, 'epoch')}"
    )
