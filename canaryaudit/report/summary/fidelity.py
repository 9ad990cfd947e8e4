"""What an unlearning left as it was: the model's quality, and the canaries that were to stay."""

from collections.abc import Sequence
from statistics import fmean

from canaryaudit.records import UnlearningRecord
from canaryaudit.report.schema import CanarySummary, FidelityLine, MethodSummary

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

    Args:
        method: The unlearning.
        canaries: As the report shows them: no figure of a hidden secret gets sharper here.
    """
    pairs = [
        (canary.before.exposure.bits, canary.after.exposure.bits)
        for canary in canaries
        if not canary.targeted and canary.after is not None
    ]
    known = [(before, after) for before, after in pairs if before is not None and after is not None]
    if not known:
        return method
    before, after = fmean(before for before, _ in known), fmean(after for _, after in known)
    name = f"Mean exposure of {len(known):,} other canaries, bits"
    line = FidelityLine(
        key="kept_exposure",
        name=name if len(known) > 1 else "Exposure of the other canary, bits",
        unit="bits",
        before=before,
        after=after,
        change=after - before,
        better="unchanged",
    )
    return method.model_copy(update={"fidelity": (*method.fidelity, line)})
