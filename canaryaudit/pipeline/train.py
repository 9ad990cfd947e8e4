"""Train stage: its configuration, and the description of a trained model."""

from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.formatting import NOTHING_HELD_OUT, counted
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.plan import TrainOptions
from canaryaudit.records import Manifest, ModelRecord, TrainingRecord
from canaryaudit.training.config import EPOCHS, TrainingConfig
from canaryaudit.training.loop import seconds_per_step


def training_config(options: TrainOptions) -> TrainingConfig:
    """Convert options to a configuration, with device and precision resolved for this machine."""
    device = resolve_device(options.device)
    return TrainingConfig(
        size=options.size,
        epochs=options.epochs or EPOCHS[options.size],
        target_accuracy=options.target_accuracy,
        seed=options.seed,
        device=device.type,
        precision=resolve_precision(options.precision, device),
    )


def training_seconds(made: InsertionPlan, options: TrainOptions) -> float:
    """Estimate the training time of a plan's text on this machine, from a few steps."""
    config = training_config(options)
    steps = config.epochs * made.assembly.characters / (config.batch_size * config.window)
    return steps * seconds_per_step(len(made.vocabulary), config)


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
