"""Relearning attacks as sentences and table rows, compared with the same attacks on a retrained model."""

from collections.abc import Sequence

from canaryaudit import formatting as figures
from canaryaudit.records import Relearning, RelearningAttack, RelearningCurve, RelearningPoint
from canaryaudit.report.schema import MethodSummary
from canaryaudit.report.summary.masking import Masker
from canaryaudit.report.summary.probes import asked

ATTACK_WORDS: dict[RelearningAttack, str] = {
    "canary-window": "one window of the canary's text in every batch",
    "other-text": "other text only",
}
RELEARNING_RULE = (
    "With one window of its text in every batch, a secret comes back if two conditions hold at some step. Its exposure "
    "is more than {:g} bits above the retrained model's, and the 95 % intervals do not overlap. With other text only, "
    "a secret comes back if it gains over {:g} bit more exposure than in the retrained model, and its interval lies "
    "above the interval at step 0."
)
_UNLEARNED, _RETRAINED = "unlearned", "retrained"


def relearning_rule(relearning: Relearning) -> str:
    """Return the rule by which attacks are judged."""
    return RELEARNING_RULE.format(relearning.canary_window_margin_bits, relearning.other_text_margin_bits)


def relearning_sentences(relearning: Relearning, speedup: float | None) -> tuple[str, ...]:
    """Say for each kind of attack whether secrets come back, using its worst curve.

    Args:
        relearning: The attacks' record.
        speedup: Duration of retraining divided by that of unlearning; None if it is unknown.
    """
    lines = []
    for attack in ATTACK_WORDS:
        if curves := [curve for curve in relearning.curves if curve.attack == attack]:
            worst = max(curves, key=lambda curve: (curve.comes_back, curve.excess_bits))
            lines.append(_sentence(worst, relearning, fast=speedup is not None and speedup > 1))
    return tuple(lines)


def _sentence(curve: RelearningCurve, relearning: Relearning, *, fast: bool) -> str:
    steps = figures.counted(curve.excess_step, "step")
    training = f"after training on {ATTACK_WORDS[curve.attack]}"
    if curve.comes_back_at is not None:
        verdict = "Fast but comes back" if fast else "Comes back"
        unlearned, retrained = _at(curve.unlearned, curve.excess_step), _at(curve.retrained, curve.excess_step)
        since = figures.counted(curve.comes_back_at, "step")
        onset = "" if curve.comes_back_at == curve.excess_step else f" It first exceeds the limit after {since}."
        return (
            f"{verdict}: {training}, {named(curve)} reaches {unlearned.exposure.bits:.1f} bits after {steps}, from "
            f"{curve.unlearned[0].exposure.bits:.1f} before (retrained model: {retrained.exposure.bits:.1f}, from "
            f"{curve.retrained[0].exposure.bits:.1f}).{onset}"
        )
    if curve.attack == "canary-window":
        margin = relearning.canary_window_margin_bits
        reason = "the intervals overlap" if curve.excess_bits > margin else f"limit: {margin:g}"
        position = f"is at most {figures.decimal(curve.excess_bits)} bits above it, after {steps} ({reason})"
        if curve.excess_bits < 0:
            position = f"is at least {figures.decimal(-curve.excess_bits)} bits below it at every step"
        return f"Comes back no faster than in the retrained model: {training}, {named(curve)} {position}."
    gain = (
        f"{named(curve)} gains at most {figures.decimal(max(0.0, curve.excess_bits))} bits more than in the retrained "
        "model"
    )
    if curve.excess_bits > relearning.other_text_margin_bits:
        return f"Not shown to come back: {training}, {gain}, after {steps} (overlaps with the interval at step 0)."
    return f"Training on other text brings nothing back: {gain}."


def named(curve: RelearningCurve) -> str:
    """Return a curve's canary, and its probe unless that is the template's prefix."""
    if curve.probe is None or curve.retrained_probe is None:
        return curve.canary
    other = "" if curve.retrained_probe == curve.probe else f"; the retrained model {asked(curve.retrained_probe)}"
    return f"{curve.canary} (asked {asked(curve.probe)}{other})"


def _at(points: Sequence[RelearningPoint], step: int) -> RelearningPoint:
    return next(point for point in points if point.step == step)


def masked_relearning(relearning: Relearning | None, masker: Masker) -> Relearning | None:
    """Mask secrets in the name that a user gave, and round ranks if any secret is hidden."""
    if relearning is None:
        return None
    curves = tuple(map(_coarse, relearning.curves)) if masker.hides else relearning.curves
    return relearning.model_copy(update={"retrained_name": masker.text(relearning.retrained_name), "curves": curves})


def _coarse(curve: RelearningCurve) -> RelearningCurve:
    """Round to tenths of a bit: with access to the model, an exact rank would identify the secret."""

    def rounded(points: Sequence[RelearningPoint]) -> tuple[RelearningPoint, ...]:
        return tuple(
            point.model_copy(
                update={
                    "log_perplexity_bits": round(point.log_perplexity_bits, 1),
                    "exposure": point.exposure.model_copy(
                        update={name: round(getattr(point.exposure, name), 1) for name in ("bits", "low", "high")}
                    ),
                }
            )
            for point in points
        )

    return curve.model_copy(
        update={
            "unlearned": rounded(curve.unlearned),
            "retrained": rounded(curve.retrained),
            "excess_bits": round(curve.excess_bits, 1),
        }
    )


def headline_addition(method: MethodSummary | None) -> str:
    """Return the headline's second sentence if secrets come back, and otherwise nothing."""
    if method is None or method.relearning is None or not method.relearning.comes_back:
        return ""
    fast = method.speedup is not None and method.speedup > 1
    return (
        " Fast but comes back: further training restores a secret."
        if fast
        else " But further training restores a secret."
    )


def relearning_verdict(method: MethodSummary) -> str:
    """Return the attacks' verdict on one unlearning in a few words."""
    if method.relearning is None:
        return "not attacked"
    if not method.relearning.comes_back:
        return "comes back no faster than in the retrained model"
    return "fast but comes back" if method.speedup is not None and method.speedup > 1 else "comes back"


def relearning_rows(relearning: Relearning) -> list[list[str]]:
    """Return the table's rows: canary, attack, model, exposure after each number of steps."""
    return [
        [named(curve), ATTACK_WORDS[curve.attack], name, *(figures.decimal(point.exposure.bits) for point in points)]
        for curve in relearning.curves
        for name, points in ((_UNLEARNED, curve.unlearned), (_RETRAINED, curve.retrained))
    ]


def relearning_facts(relearning: Relearning) -> str:
    """Describe the settings of the attack."""
    return (
        f"{relearning.optimizer}, learning rate {relearning.learning_rate:g}, {relearning.batch_size} windows of "
        f"{relearning.window} {relearning.unit}s per step, seed {relearning.seed}. The model retrained on corrected "
        f"text ({relearning.retrained_name}) gets the same batches. References are redrawn for each measurement."
    )
