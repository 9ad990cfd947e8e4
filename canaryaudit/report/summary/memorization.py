"""Exposure against repetitions: what the records say of it, for the summary."""

from collections.abc import Sequence

from canaryaudit import formatting as figures
from canaryaudit.records import Extraction, Measurement, MemorizationCurve, MemorizationPoint
from canaryaudit.report.schema import AttackFigures, CurveSummary, MemorizationSummary, OddsFigure


def memorization(
    before: Measurement, after: Measurement | None, templates: Sequence[str]
) -> MemorizationSummary | None:
    """Return the curves; None where the canaries were all inserted equally often.

    Args:
        before: The measurement of the model.
        after: That of the unlearned model.
        templates: Texts of the templates, in the summary's order.
    """
    if not before.memorization or sum(point.repetitions > 0 for point in before.memorization[0].points) < 2:
        return None
    later = {curve.template: curve for curve in after.memorization} if after else {}
    places: dict[str, int | None] = {"": None} | {text: place for place, text in enumerate(templates)}
    curves = tuple(
        CurveSummary(
            template=places[curve.template],
            before=curve.points,
            after=found.points if (found := later.get(curve.template)) else (),
            detected_from_before=curve.detected_from,
            detected_from_after=found.detected_from if found else None,
        )
        for curve in before.memorization
        if curve.template in places
    )
    return MemorizationSummary(answer=_answer(before, after, later.get("")), curves=curves)


def coarse_curves(curves: MemorizationSummary) -> MemorizationSummary:
    """Return curves in tenths of a bit, for runs with hidden secrets.

    A group of one hidden canary is that canary, and its p is 2 to the power of minus its exposure.
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
    """Say in a sentence how often a secret must occur to be remembered."""
    told = _named(before.memorization[0].detected_from)
    said = "The smallest number of repetitions at which the canaries are told from secrets that the model never saw: "
    said += f"{told} before unlearning, {_named(later.detected_from)} afterwards." if later else f"{told}."
    failed = [m for m in (before, after) if m and m.calibration and not m.calibration.passed]
    return said + (" The controls failed: do not rely on this." if failed else "")


def _named(detected_from: int | None) -> str:
    return "none of those tried" if detected_from is None else f"{detected_from:,}"


def attack(extraction: Extraction) -> AttackFigures:
    """Return what guessing and sampling cost an attacker."""
    return AttackFigures(
        guesses_low_log2=extraction.guesses_low_log2,
        guesses_high_log2=extraction.guesses_high_log2,
        guesses_exact=extraction.guesses_exact,
        sampling=tuple(OddsFigure.model_validate(odds.model_dump()) for odds in extraction.sampling),
        even_chance_log2=extraction.even_chance_log2,
    )


def guesses_words(guesses_log2: float | None, attack: AttackFigures | None) -> str:
    """Write a number of guesses with its interval, and say where it is the rank itself."""
    said = figures.guesses(guesses_log2)
    if attack is None:
        return said
    if attack.guesses_exact:
        return f"{said} (exact)"
    return f"{said} ({figures.guesses(attack.guesses_low_log2)} to {figures.guesses(attack.guesses_high_log2)})"
