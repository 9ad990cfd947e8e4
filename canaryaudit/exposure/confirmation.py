"""Fresh controls for a measurement whose calibration failed: drawn, measured like the others, and tested alone."""

from collections.abc import Callable, Sequence

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.exposure.estimators.calibration import FRESH_CONTROLS, confirm
from canaryaudit.records import Calibration, CanaryMeasurement

SEED = 4
"""Apart from the seeds of references, searches, fresh members and what is looked into."""
_TRIES = 20
_LEAST = 32
"""Fresh controls without which the first test stands: few would hardly ever find what it found."""
_MeasureFresh = Callable[[str, list[Canary], int], Sequence[CanaryMeasurement]]


def confirm_calibration(
    first: Calibration | None, canary_set: CanarySet, seed: int, measure_fresh: _MeasureFresh
) -> Calibration | None:
    """Return a measurement's calibration, decided by fresh controls where the first test failed.

    Args:
        first: The test of the run's own controls; None without any.
        canary_set: Canaries and controls; no fresh control is one of them.
        seed: Of the measurement.
        measure_fresh: Measures the members of a template, given its text, them and a number for the template.
    """
    if first is None or first.passed:
        return first
    groups = [text for text, members in canary_set.by_template().items() if any(own.control for own in members)]
    each = -(-FRESH_CONTROLS // len(groups))
    measured = []
    for index, text in enumerate(groups):
        if fresh := _draw(canary_set, text, each, np.random.default_rng((seed, SEED, index))):
            inserted = [own for own in canary_set.inserted if own.template == text]
            measured += [own for own in measure_fresh(text, [*inserted, *fresh], index) if own.control]
    if len(measured) < _LEAST:
        return first
    bits, spaces = [own.exposure.bits for own in measured], [own.space_bits for own in measured]
    return confirm(first, bits, spaces, (seed, SEED))


def _draw(canary_set: CanarySet, template: str, count: int, rng: np.random.Generator) -> list[Canary]:
    """Draw different members of a template's space, no canary or control among them: fewer if there are no more."""
    members = canary_set.by_template()[template]
    space = canary_set.space(members[0].parsed_template)
    taken = {own.completion for own in members}
    drawn: dict[str, None] = {}
    for _ in range(_TRIES * count):
        completion = space.sample(rng)
        if completion not in taken:
            drawn[completion] = None
        if len(drawn) == count:
            break
    return [
        Canary(id=f"fresh-{number:03}", template=template, completion=own, repetitions=0, control=True)
        for number, own in enumerate(drawn, 1)
    ]
