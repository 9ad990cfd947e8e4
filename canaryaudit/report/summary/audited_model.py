"""What a report says of the audited model: its kind, its training, and how it reads text."""

from canaryaudit import formatting as figures
from canaryaudit.records import ExternalModel, Measurement, ModelRecord
from canaryaudit.report.schema import CheckpointFigures
from canaryaudit.report.summary.masking import Masker

_TOLD_BITS, _NOTICED_BITS = 0.05, 1.0
"""From where a bound is worth telling, and from where other spellings change what an exposure means."""


def model_facts(
    model_record: ModelRecord, before: Measurement, masker: Masker, *, heldout: bool
) -> list[tuple[str, str]]:
    """Describe the audited model.

    Args:
        model_record: The model.
        before: Its measurement.
        masker: Hides secrets in what the user wrote.
        heldout: Whether text was held out.
    """
    if model_record.external:
        return _external_facts(model_record.external, before, masker)
    shape, training = model_record.lstm, model_record.training
    described = (
        f"character LSTM, {figures.counted(shape.layers, 'layer')} of {shape.hidden:,} units, vocabulary of "
        f"{len(shape.vocabulary):,} symbols"
    )
    if training is None:
        return [("Model", described)]
    trained = (
        f"{figures.counted(training.epochs, 'epoch')} in {figures.duration(training.seconds)} on {training.device} "
        f"({training.precision}); accuracy {figures.percent(training.train.accuracy)} on training text"
    )
    if heldout:
        trained += f", {figures.percent(training.heldout.accuracy)} on held-out text"
    return [("Model", f"{described}, {training.parameters:,} parameters"), ("Training", trained)]


def _external_facts(model: ExternalModel, before: Measurement, masker: Masker) -> list[tuple[str, str]]:
    parts = [model.kind, f"{model.parameters:,} parameters" if model.parameters else "", model.dtype]
    described = ", ".join(part for part in parts if part)
    adapter = f", with the adapter {masker.text(model.adapter)}" if model.adapter else ""
    facts = [("Model", f"{described}; {masker.text(model.source)}{adapter}")]
    if model.tokenizer:
        first = f"; every text begins with {model.starts_with}" if model.starts_with else ""
        facts.append(("Tokenizer", f"{model.tokenizer}{first}"))
    facts.append(("Cost of a secret", model.cost))
    if before.spellings:
        facts.append(("Other spellings", _spelling_words(before)))
    return facts


def _spelling_words(before: Measurement) -> str:
    """Say what other tokenizations of the same text add, and what follows from it."""
    secrets = [bits for own in before.spellings for bits in own.secrets_bits.values()]
    whole = sum(own.references for own in before.spellings)
    mean = sum(own.references * own.references_mean_bits for own in before.spellings) / whole
    most = max(own.references_max_bits for own in before.spellings)
    uncertain = max(own.uncertain_bits for own in before.spellings)
    said = (
        f"the same text in other tokens makes secrets up to {max(secrets, default=0.0):.1f} bits cheaper, and "
        f"references {mean:.1f} bits on average, {most:.1f} at most"
    )
    if uncertain >= _TOLD_BITS:
        said += f" (at most {uncertain:.1f} more by tokens too unlikely to be read)"
    if mean >= _NOTICED_BITS:
        said += (
            "; references are cheaper than the tokenizer's own tokens let them seem, so a secret's exposure may be up "
            "to that much lower"
        )
    return said


def checkpoint_figures(before: Measurement) -> tuple[CheckpointFigures, ...]:
    """Return what each checkpoint says of the secrets, the measured model last; nothing without a series."""
    if not before.checkpoints:
        return ()
    last = [own.exposure.bits for own in before.canaries if not own.control]
    controls = before.calibration.mean_bits if before.calibration else None
    series = [(own.name, list(own.exposures_bits.values()), own.controls_mean_bits) for own in before.checkpoints]
    return tuple(
        CheckpointFigures(name=name, mean_bits=sum(bits) / len(bits), max_bits=max(bits), controls_bits=unseen)
        for name, bits, unseen in (*series, ("the measured model", last, controls))
        if bits
    )
