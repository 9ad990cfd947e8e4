"""What an unlearning left as it was: the model's quality, and the canaries that were to stay."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from canaryaudit.records import UnlearningRecord
from canaryaudit.report.schema import CanaryState, CanarySummary, FidelityLine, MethodSummary

KeptKey = Literal["kept_exposure", "kept_elsewhere"]
_NAMES = {
    "train_accuracy": "Accuracy on training text, outside the secrets",
    "train_accuracy_all": "Accuracy on training text, secrets included",
    "heldout_accuracy": "Accuracy on held-out text",
    "train_loss": "Loss on training text, bits per {unit}",
    "heldout_loss": "Loss on held-out text, bits per {unit}",
}


def fidelity_lines(record: UnlearningRecord, *, has_heldout: bool) -> tuple[FidelityLine, ...]:
    """Return the model's quality before and after an unlearning.

    Args:
        record: The unlearning.
        has_heldout: Whether text was held out; without, the record's figures of it are placeholders.
    """
    figures = record.fidelity.model_dump()
    lines = []
    for key, name in _NAMES.items():
        if key.startswith("heldout") and not has_heldout:
            continue
        before, after = figures[f"{key}_before"], figures[f"{key}_after"]
        unit, better = ("bits", "lower") if key.endswith("loss") else ("share", "higher")
        line = {"key": key, "name": name.format(unit=record.fidelity.unit), "unit": unit, "better": better}
        lines.append(FidelityLine.model_validate(line | {"before": before, "after": after, "change": after - before}))
    return tuple(lines)


def with_kept_canaries(method: MethodSummary, canaries: Sequence[CanarySummary]) -> MethodSummary:
    """Return the unlearning shown, with the mean exposure of the canaries that it was not to remove, if there are any.

    Behind their own prefixes, and under all other prompts: what stays behind the one may be gone under the others.

    Args:
        method: The unlearning.
        canaries: As the report shows them: no figure of a hidden secret gets sharper here.
    """
    states = [(own.before, own.after) for own in canaries if not own.targeted and own.after is not None]
    own = [(before.exposure.bits, after.exposure.bits) for before, after in states]
    elsewhere = [(_elsewhere(before), _elsewhere(after)) for before, after in states]
    lines = [*_kept_line("kept_exposure", own, ""), *_kept_line("kept_elsewhere", elsewhere, " under other prompts")]
    return method.model_copy(update={"fidelity": (*method.fidelity, *lines)}) if lines else method


def _elsewhere(state: CanaryState) -> float | None:
    """Return a canary's mean exposure under all probes but its own prefix; None without any."""
    others = [own.bits for own in state.probes or () if own.family != "template" and own.bits is not None]
    return fmean(others) if others else None


def _kept_line(key: KeptKey, pairs: Sequence[tuple[float | None, float | None]], where: str) -> Iterator[FidelityLine]:
    known = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not known:
        return
    before, after = fmean(before for before, _ in known), fmean(after for _, after in known)
    others = f"Mean exposure of {len(known):,} other canaries" if len(known) > 1 else "Exposure of the other canary"
    yield FidelityLine(
        key=key,
        name=f"{others}{where}, bits",
        unit="bits",
        before=before,
        after=after,
        change=after - before,
        better="unchanged",
    )
