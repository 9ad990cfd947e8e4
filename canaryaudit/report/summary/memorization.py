"""Exposure against repetitions: the records' curves, prepared for the summary."""

from collections.abc import Sequence

from canaryaudit import formatting as figures
from canaryaudit.records import Extraction, Measurement, MemorizationCurve, MemorizationPoint
from canaryaudit.report.schema import AttackFigures, CurveSummary, MemorizationSummary, OddsFigure


def memorization(
    before: Measurement, after: Measurement | None, templates: Sequence[str]
) -> MemorizationSummary | None:
    """Return the curves, or None if all canaries were inserted equally often.

    Args:
        before: The measurement of the model.
        after: The measurement of the unlearned model.
        templates: The templates' texts, in the summary's order.
    """
    if not before.memorization or sum(point.repetitions > 0 for point in before.memorization[0].points) < 2:
        return None
    later = {curve.template: curve for curve in after.memorization} if after else {}
    places: dict[str, int | None] = {"": None} | {text: place for place, text in enumerate(templates)}
    curves = tuple(
        CurveSummary(
            template=places[curve.template],
            before=curve.points,
            after=later_curve.points if (later_curve := later.get(curve.template)) else (),
            detected_from_before=curve.detected_from,
            detected_from_after=later_curve.detected_from if later_curve else None,
        )
        for curve in before.memorization
        if curve.template in places
    )
    return MemorizationSummary(answer=_answer(before, after, later.get("")), curves=curves)


def coarse_curves(curves: MemorizationSummary) -> MemorizationSummary:
    """Round curves to tenths of a bit, for runs with hidden secrets.

    A group may consist of one hidden canary: its mean is that canary's exposure E, and its p-value is 2^-E.
    """

    def coarse(point: MemorizationPoint) -> MemorizationPoint:
        bits = {name: round(getattr(point, name), 1) for name in ("mean_bits", "low", "high")}
        chances = {name: _one_digit(getattr(point, name)) for name in ("pvalue", "holm_pvalue")}
        return point.model_copy(update=bits | chances)

    return curves.model_copy(
        update={
            "curves": tuple(
                curve.model_copy(
                    update={"before": tuple(map(coarse, curve.before)), "after": tuple(map(coarse, curve.after))}
                )
                for curve in curves.curves
            )
        }
    )


def _one_digit(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.1g}")


def _answer(before: Measurement, after: Measurement | None, later: MemorizationCurve | None) -> str:
    """Return the detection thresholds in a sentence: how often a secret must occur to be detectable."""
    before_count = _count(before.memorization[0].detected_from)
    counts = f"{before_count} before unlearning, {_count(later.detected_from)} after it" if later else before_count
    answer = f"Smallest number of repetitions at which canaries are distinguishable from unseen secrets: {counts}."
    failed = [m for m in (before, after) if m and m.calibration and not m.calibration.passed]
    return answer + (" The controls failed, so this is unreliable." if failed else "")


def _count(detected_from: int | None) -> str:
    return "none of those tested" if detected_from is None else f"{detected_from:,}"


def detection_threshold(detected_from: int | None) -> str:
    """Write the smallest number of repetitions at which canaries are detectable."""
    return "not detectable" if detected_from is None else figures.counted(detected_from, "repetition")


def attack(extraction: Extraction) -> AttackFigures:
    """Return the cost of guessing and of sampling for an attacker."""
    return AttackFigures(
        guesses_low_log2=extraction.guesses_low_log2,
        guesses_high_log2=extraction.guesses_high_log2,
        guesses_exact=extraction.guesses_exact,
        sampling=tuple(OddsFigure.model_validate(odds.model_dump()) for odds in extraction.sampling),
        even_chance_log2=extraction.even_chance_log2,
    )


def guesses_with_interval(guesses_log2: float | None, attack: AttackFigures | None) -> str:
    """Write a number of guesses with its interval, or as exact if the rank is known."""
    number = figures.guesses(guesses_log2)
    if attack is None:
        return number
    if attack.guesses_exact:
        return f"{number} (exact)"
    return f"{number} ({figures.guesses(attack.guesses_low_log2)} to {figures.guesses(attack.guesses_high_log2)})"
