"""The statistical statements of a report: the test of all canaries, its power, and the test of the controls."""

from collections.abc import Mapping

from canaryaudit import formatting as figures
from canaryaudit.exposure.estimators.power import detectable_exposure
from canaryaudit.exposure.estimators.worst_case import joint_p_value
from canaryaudit.records import Closing, Measurement
from canaryaudit.report.judgment import DetectionFigures
from canaryaudit.report.schema import CalibrationFigures, CanaryState
from canaryaudit.report.summary.masking import Masker
from canaryaudit.stats import (
    LEVEL,
    Detection,
    detect,
    detectable_bits,
    detectable_mean_bits,
    exposure_sum_pvalue,
)

WORST_CASES = "sum of the worst cases, simulated with shared references"
EXPOSURES = "sum of the exposures, gamma test"


def detect_canaries(states: Mapping[str, CanaryState], measurement: Measurement) -> Detection | None:
    """Test all canaries of a model; None if there are none, or one was not measured.

    Without probes, an exposure that is not exact counts with the lower end of its interval.

    Args:
        states: The state of each inserted canary under the model.
        measurement: The model's measurement.
    """
    lows = [state.exposure.low for state in states.values()]
    known = [low for low in lows if low is not None]
    if not states or len(known) < len(lows):
        return None
    pvalues = [_pvalue(state, low) for state, low in zip(states.values(), known, strict=True)]
    joint = measurement.worst_cases.joint_pvalue if measurement.worst_cases else None
    closings = [state.closing.p_value if state.closing else None for state in states.values()]
    return detect(
        pvalues, exposure_sum_pvalue(known) if joint is None else joint, closings, _closing_joint(measurement) or 1.0
    )


def _closing_joint(measurement: Measurement) -> float | None:
    """Return the joint p-value of what follows all canaries; None where it was not measured."""
    by_template: dict[str, list[Closing]] = {}
    for canary in measurement.canaries:
        if canary.closing and not canary.control:
            by_template.setdefault(canary.template, []).append(canary.closing)
    judged = list(by_template.values())
    if not judged:
        return None
    return joint_p_value(
        [[own.p_value for own in group] for group in judged], [group[0].references for group in judged]
    )


def _pvalue(state: CanaryState, low: float) -> float:
    worst = state.worst_case
    return 2**-low if worst is None or worst.p_value is None else worst.p_value


def detection_figures(
    detection: Detection | None, states: Mapping[str, CanaryState], measurement: Measurement, masker: Masker
) -> DetectionFigures | None:
    """Return the test for the report, with what it could have detected."""
    if detection is None:
        return None
    cases, number = measurement.worst_cases, len(states)
    judged = cases is not None and all(state.worst_case for state in states.values())
    figures_of_each = 2 if any(state.closing for state in states.values()) else 1
    bits = (
        _detectable_with_probes(measurement, number, figures_of_each)
        if judged
        else detectable_bits(number, figures_of_each)
    )
    closing_joint = _closing_joint(measurement)
    smallest = min(canary.space_bits for canary in measurement.canaries if not canary.control)
    tested = cases is not None and cases.joint_pvalue is not None
    return DetectionFigures(
        pvalue=_shown(detection.pvalue, masker),
        joint_test=WORST_CASES if tested else EXPOSURES,
        joint_pvalue=_shown(detection.joint_pvalue, masker),
        closing_joint_pvalue=None if closing_joint is None else _shown(closing_joint, masker),
        smallest_pvalue=_shown(detection.smallest, masker),
        corrected_pvalue=_shown(min(detection.corrected), masker),
        named=tuple(name for name, is_named in zip(states, detection.named, strict=True) if is_named),
        detected=detection.is_detected,
        detectable_bits=bits if bits <= smallest else None,
        detectable_mean_bits=detectable_mean_bits(number, figures_of_each) if number > 1 else None,
    )


def _shown(pvalue: float, masker: Masker) -> float:
    """Round like the p-values of hidden secrets, if there are any."""
    return float(f"{pvalue:.1g}") if masker.hides else pvalue


def _detectable_with_probes(measurement: Measurement, canaries: int, figures_of_each: int) -> float:
    """Return the exposure that is detected under any template: with most probes chance has most ways to stand out."""
    references = measurement.worst_cases.references if measurement.worst_cases else 0
    probes = {tuple(sorted(probe.family for probe in canary.probes)) for canary in measurement.canaries}
    detectable = [
        detectable_exposure(families, references, canaries, figures_of_each)
        for families in probes
        if "template" in families
    ]
    return max(detectable, default=detectable_bits(canaries, figures_of_each))


def detection_sentence(detection: DetectionFigures, canaries: int) -> str:
    """State the test and its result."""
    result = "memorization is detected" if detection.detected else "no memorization is detected"
    whole = f"Test at {100 * LEVEL:g} %: {result}, p = {figures.significant(detection.pvalue)}"
    if canaries == 1:
        return f"{whole} for the one secret."
    how = detection.joint_test
    if detection.closing_joint_pvalue is not None:
        closing = f"closing texts, p = {figures.significant(detection.closing_joint_pvalue)}"
        how = f"twice the smaller p of: {how}; {closing}"
    return (
        f"{whole}. Two tests share the level: all {canaries:,} secrets jointly, p = "
        f"{figures.significant(detection.joint_pvalue)} ({how}), and one by one, smallest p = "
        f"{figures.significant(detection.corrected_pvalue)} after Holm's correction."
    )


def power_sentence(detection: DetectionFigures) -> str:
    """Say what the test could have detected."""
    bits, mean = detection.detectable_bits, detection.detectable_mean_bits
    if bits is not None and mean is not None and mean >= bits:
        mean = None  # One secret alone is detected sooner: a larger mean of all would seem to contradict that.
    one = f"one secret with {bits:.1f} bits of exposure with its prefix" if bits is not None else ""
    every = f"all secrets with a mean of {mean:.1f} bits" if mean is not None else ""
    if not one:
        one_by_one = "The spaces are too small for a single secret to be detected, however well it is memorized"
        return f"Power: {one_by_one}; with probability 80 %, {every} would be." if every else f"Power: {one_by_one}."
    both = " or ".join(part for part in (one, every) if part)
    return f"Power: with probability 80 %, this audit detects {both} (unseen secrets: 1.4)."


def calibration_figures(measurement: Measurement, masker: Masker) -> CalibrationFigures | None:
    """Return the test of the controls for the report; None without controls."""
    if measurement.calibration is None:
        return None
    exposures = sorted(canary.exposure.bits for canary in measurement.canaries if canary.control)
    spread = {}
    if exposures:
        tail = len(exposures) // 20
        spread = {"low_bits": exposures[tail], "high_bits": exposures[-1 - tail]}
    shown = measurement.calibration.model_dump(exclude={"confirmation"})
    shown |= {"note": masker.text(measurement.calibration.note)}
    if fresh := measurement.calibration.confirmation:
        shown |= {"fresh_controls": fresh.controls, "fresh_pvalue": fresh.ks_pvalue}
    return CalibrationFigures.model_validate(shown | spread)
