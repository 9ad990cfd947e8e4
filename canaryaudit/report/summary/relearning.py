"""Relearning attacks in words, as a table's rows and as curves beside the retrained model's."""

from collections.abc import Sequence

from canaryaudit import formatting as figures
from canaryaudit.records import Relearning, RelearningAttack, RelearningCurve, RelearningPoint
from canaryaudit.report.schema import MethodSummary
from canaryaudit.report.summary.masking import Masker
from canaryaudit.report.summary.probes import asked

ATTACK_WORDS: dict[RelearningAttack, str] = {
    "canary-window": "one window of its own text in every batch",
    "other-text": "other text only",
}
RELEARNING_RULE = (
    "A secret comes back sooner than in the retrained model where, after some step of training with one window of its "
    "own text among others, its exposure lies more than {:g} bits above the retrained model's at the same step, and "
    "their 95 % intervals lie apart. Training on other text brings it back where its exposure gains more than {:g} "
    "bit beyond what it gains in the retrained model, and its interval lies above that at the start."
)
_UNLEARNED, _RETRAINED = "unlearned", "retrained"


def relearning_rule(relearning: Relearning) -> str:
    """Return the rule that attacks were judged by."""
    return RELEARNING_RULE.format(relearning.canary_window_margin_bits, relearning.other_text_margin_bits)


def relearning_sentences(relearning: Relearning, speedup: float | None) -> tuple[str, ...]:
    """Say for each kind of attack whether secrets come back, by the worst curve of its kind.

    Args:
        relearning: What was found.
        speedup: How many times faster than training again the unlearning was; None where that is unknown.
    """
    said = []
    for attack in ATTACK_WORDS:
        if curves := [curve for curve in relearning.curves if curve.attack == attack]:
            worst = max(curves, key=lambda curve: (curve.comes_back, curve.excess_bits))
            said.append(_sentence(worst, relearning, fast=speedup is not None and speedup > 1))
    return tuple(said)


def _sentence(curve: RelearningCurve, relearning: Relearning, *, fast: bool) -> str:
    steps = figures.counted(curve.excess_step, "step")
    if curve.comes_back_at is not None:
        verdict = "Fast but comes back" if fast else "Comes back"
        point, other = _at(curve.unlearned, curve.excess_step), _at(curve.retrained, curve.excess_step)
        first = figures.counted(curve.comes_back_at, "step")
        sooner = f", and comes back from {first} on" if curve.comes_back_at != curve.excess_step else ""
        return (
            f"{verdict}: trained further on {ATTACK_WORDS[curve.attack]}, {named(curve)} has {point.exposure.bits:.1f} "
            f"bits after {steps}, where the model retrained on corrected text has {other.exposure.bits:.1f}{sooner}."
        )
    if curve.attack == "canary-window":
        margin = relearning.canary_window_margin_bits
        close = "the intervals overlap" if curve.excess_bits > margin else f"{margin:g} would be too many"
        where = f"at most {figures.decimal(curve.excess_bits)} bits above it, after {steps} ({close})"
        if curve.excess_bits < 0:
            where = f"at least {figures.decimal(-curve.excess_bits)} bits below it at every step"
        return (
            f"Does not come back sooner than in the retrained model: trained further on {ATTACK_WORDS[curve.attack]}, "
            f"{named(curve)} lies {where}."
        )
    gains = (
        f"{named(curve)} gains at most {figures.decimal(max(0.0, curve.excess_bits))} bits beyond what it gains in the "
        "retrained model"
    )
    if curve.excess_bits > relearning.other_text_margin_bits:
        return (
            f"Not shown to come back: trained further on {ATTACK_WORDS[curve.attack]}, {gains}, after {steps} (its "
            "interval and that at the start overlap)."
        )
    return f"Training further on other text brings nothing back: {gains}."


def named(curve: RelearningCurve) -> str:
    """Name a curve's canary, and how it was asked where that is not by its template's own prefix."""
    if curve.probe is None or curve.retrained_probe is None:
        return curve.canary
    other = "" if curve.retrained_probe == curve.probe else f"; the retrained model {asked(curve.retrained_probe)}"
    return f"{curve.canary} (asked {asked(curve.probe)}{other})"


def _at(points: Sequence[RelearningPoint], step: int) -> RelearningPoint:
    return next(point for point in points if point.step == step)


def masked_relearning(relearning: Relearning | None, masker: Masker) -> Relearning | None:
    """Return a record with whatever its user named hidden where it tells a secret; ranks are rounded then."""
    if relearning is None:
        return None
    curves = tuple(map(_coarse, relearning.curves)) if masker.hides else relearning.curves
    return relearning.model_copy(update={"retrained_name": masker.text(relearning.retrained_name), "curves": curves})


def _coarse(curve: RelearningCurve) -> RelearningCurve:
    """Round to tenths of a bit: with the model at hand, an exact rank would tell the secret."""

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
    """Return what the page's headline must add where secrets come back; empty otherwise."""
    if method is None or method.relearning is None or not method.relearning.comes_back:
        return ""
    fast = method.speedup is not None and method.speedup > 1
    return (
        " Fast but comes back: training further restores it."
        if fast
        else " It comes back when the model is trained further."
    )


def relearning_verdict(method: MethodSummary) -> str:
    """Return the attacks' verdict on one unlearning in a few words."""
    if method.relearning is None:
        return "not attacked"
    if not method.relearning.comes_back:
        return "no sooner than in the retrained model"
    return "fast but comes back" if method.speedup is not None and method.speedup > 1 else "comes back"


def relearning_rows(relearning: Relearning) -> list[list[str]]:
    """Return the table's rows: canary, attack, model, exposure after each number of steps."""
    return [
        [named(curve), ATTACK_WORDS[curve.attack], name, *(figures.decimal(point.exposure.bits) for point in points)]
        for curve in relearning.curves
        for name, points in ((_UNLEARNED, curve.unlearned), (_RETRAINED, curve.retrained))
    ]


def relearning_facts(relearning: Relearning) -> str:
    """Say how the attack was made."""
    return (
        f"{relearning.optimizer}, learning rate {relearning.learning_rate:g}, {relearning.batch_size} windows of "
        f"{relearning.window} characters a step, seed {relearning.seed}; the very same batches for the "
        f"model trained again on corrected text ({relearning.retrained_name}). References are drawn afresh each time."
    )
