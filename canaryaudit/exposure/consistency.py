"""What a measurement's figures follow from, recomputed: the canaries, the estimates and the references' number.

No model is asked. What only a model can tell, such as an estimate itself, is taken as it is.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.calibration import calibrate, confirm
from canaryaudit.exposure.estimators.headline import choose_headline
from canaryaudit.exposure.estimators.memorization import memorization_curves
from canaryaudit.exposure.estimators.worst_case import joint_p_value, log2_weights
from canaryaudit.formatting import shorten
from canaryaudit.records import Calibration, CanaryMeasurement, Measurement, Record
from canaryaudit.records.base import ProbeFamily

_CLOSE = 1e-6
_JOINT_CLOSE = 1e-9


def measurement_fault(measurement: Measurement, canary_set: CanarySet) -> str:
    """Return the first figure of a measurement that does not follow from the others; empty if all do.

    Args:
        measurement: The measurement.
        canary_set: The run's canaries and controls.
    """
    try:
        return next(_faults(measurement, canary_set), "")
    except (MeasurementError, ValueError) as error:
        return f"its figures contradict each other ({shorten(str(error).partition(':')[0], 120)})"


def _faults(measurement: Measurement, canary_set: CanarySet) -> Iterator[str]:
    canaries = {canary.id: canary for canary in canary_set.canaries}
    spaces = {
        group[0].template: canary_set.space(group[0].parsed_template).bits
        for group in canary_set.by_template().values()
    }
    if [canary.id for canary in measurement.canaries] != list(canaries):
        yield "it was measured with other canaries"
        return
    if sorted(own.template for own in measurement.efforts) != sorted(canary_set.by_template()):
        yield "its efforts are not those of its templates"
        return
    for measured in measurement.canaries:
        canary = canaries[measured.id]
        name = shorten(measured.id, 40)
        if not _is_of(measured, canary, spaces[canary.template]):
            yield f"{name} is described otherwise than in canaries.json"
        elif what := _canary_fault(measured, measurement):
            yield f"{name}: {what}"
    if not _closings_agree(measurement):
        yield "the closing text of a template was not read after the same members for all of its canaries"
    if not _equal(measurement.calibration, _calibration(measurement)):
        yield "its calibration does not follow from its controls"
    curves = memorization_curves(measurement.canaries)
    if len(curves) != len(measurement.memorization) or not all(map(_equal, curves, measurement.memorization)):
        yield "its figures by repetitions do not follow from its canaries"
    if (joint := _joint_pvalue(measurement, canary_set)) is not None:
        recorded = measurement.worst_cases.joint_pvalue if measurement.worst_cases else None
        if recorded is None or abs(recorded - joint) > _JOINT_CLOSE:
            yield "its joint p-value does not follow from its worst cases"


def _calibration(measurement: Measurement) -> Calibration | None:
    controls = [canary for canary in measurement.canaries if canary.control]
    bits = np.array([canary.exposure.bits for canary in controls])
    first = calibrate(bits, np.array([canary.space_bits for canary in controls]))
    confirmation = measurement.calibration.confirmation if measurement.calibration else None
    if first is None or first.passed or confirmation is None:
        return first
    return confirm(first, confirmation.exposures_bits, confirmation.space_bits, confirmation.seed)


def _is_of(measured: CanaryMeasurement, canary: Canary, space_bits: float) -> bool:
    described = (measured.template, measured.repetitions, measured.control, measured.masked)
    return described == (canary.template, canary.repetitions, canary.control, canary.masked) and (
        abs(measured.space_bits - space_bits) < _CLOSE
    )


def _canary_fault(measured: CanaryMeasurement, measurement: Measurement) -> str:
    exposure, space_bits, found = measured.exposure, measured.space_bits, measured.extraction
    if not _equal(exposure, choose_headline(measured.estimates)):
        return "its exposure does not follow from its estimates"
    if not _ascending(0, exposure.low, exposure.bits, exposure.high, space_bits):
        return "its exposure lies outside its interval or its space"
    guesses = (found.guesses_low_log2, found.guesses_log2, found.guesses_high_log2)
    expected = (space_bits - exposure.high, space_bits - exposure.bits, space_bits - exposure.low)
    if not np.allclose(guesses, expected, rtol=0, atol=_CLOSE):
        return "its number of guesses does not follow from its exposure"
    if fault := _closing_fault(measured):
        return fault
    cases, worst = measurement.worst_cases, measured.worst_case
    if worst is None:
        return ""
    if cases is None:
        return "it has a worst case, but no probes"
    if not _ascending(0, worst.low, worst.bits, worst.high, worst.space_bits):
        return "its worst case lies outside its interval or its space"
    least = 1 / (1 + cases.references)
    if not measured.control:
        weights = probe_weights([probe.family for probe in measured.probes])
        least = min(least, math.exp2(-(worst.low + weights.get(worst.probe.family, 0.0))))
    if worst.p_value < least * (1 - _CLOSE):
        return "its p-value is smaller than its references and its exposure allow"
    return ""


def _closing_fault(measured: CanaryMeasurement) -> str:
    if (closing := measured.closing) is None:
        return ""
    if not Template.parse(measured.template).suffix:
        return "its template has no closing text, but something is recorded of it"
    rank = closing.p_value * (1 + closing.references)
    if rank < 1 - _CLOSE or abs(rank - round(rank)) > _CLOSE * (1 + closing.references):
        return "its closing text's p-value is none that its references allow"
    return ""


def _closings_agree(measurement: Measurement) -> bool:
    """Return whether a template's canaries were all judged by the same number of references, controls by the others."""
    numbers: dict[str, set[int | None]] = {}
    for canary in measurement.canaries:
        number = canary.closing.references + canary.control if canary.closing else None
        numbers.setdefault(canary.template, set()).add(number)
    return all(len(own) == 1 for own in numbers.values())


def probe_weights(families: list[ProbeFamily]) -> dict[ProbeFamily, float]:
    """Return log2 of the weight of each family's probes."""
    return dict(zip(families, log2_weights(families).tolist(), strict=True)) if families else {}


def _joint_pvalue(measurement: Measurement, canary_set: CanarySet) -> float | None:
    """Return the joint p-value of the worst cases; None where one of them is missing."""
    cases = measurement.worst_cases
    if cases is None:
        return None
    p_values, references = [], []
    asked = {own.template: own.probe_references for own in measurement.efforts}
    for template, group in canary_set.by_template().items():
        controls = sum(canary.control for canary in group)
        size = canary_set.space(group[0].parsed_template).size
        # A small space has no more members to compare with: all but the canaries.
        references.append(min(max(controls, asked[template]), controls + size - len({own.completion for own in group})))
        own = [c for c in measurement.canaries if c.template == template and not c.control]
        p_values.append([c.worst_case.p_value for c in own if c.worst_case])
        if len(p_values[-1]) < len(own):
            return None
    return joint_p_value(p_values, references) if any(p_values) else None


def _ascending(*figures: float) -> bool:
    return all(first <= second + _CLOSE for first, second in pairwise(figures))


def _equal(one: Record | None, other: Record | None) -> bool:
    """Return whether two records are equal but for rounding."""
    if one is None or other is None:
        return one is other
    return _same(one.model_dump(mode="python"), other.model_dump(mode="python"))


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
