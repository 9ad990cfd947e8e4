"""Tests of what a measurement with probes is said to detect, by simulation of another kind."""

import math

import numpy as np
import pytest
from scipy.special import ndtri

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators import power
from canaryaudit.exposure.estimators.power import detectable_exposure
from canaryaudit.exposure.estimators.worst_case import ReferenceScores, extended_p_value, log2_weights
from canaryaudit.stats import POWER, single_limit

FAMILIES = ("template", "context", "context", "reworded", "bare", "partial")
TIMES = 150


def probed_p_values(bits: float, references: int, rng: np.random.Generator, times: int) -> list[float]:
    """Put probes, as correlated as real ones, to references and to a secret of this exposure after its prefix."""
    weights = log2_weights(FAMILIES)
    probes = len(FAMILIES)
    found = []
    for _ in range(times):
        common = rng.normal(size=references + 1)
        costs = 30 + 3 * (0.7 * common + 0.7 * rng.normal(size=(probes, references + 1)))
        # Its cost after the prefix is that of the share 2^-bits of the space.
        costs[0, 0] = 30 + 3 * math.sqrt(0.98) * ndtri(2**-bits)
        worst = ReferenceScores(costs[:, 1:], weights).judge(costs[:, 0])
        found.append(extended_p_value(worst, bits, float(weights[0])))
    return found


@pytest.mark.parametrize(("canaries", "references"), [(1, 127), (9, 1023), (40, 255)])
def test_an_exposure_said_to_be_detected_is_detected_four_times_in_five(canaries: int, references: int) -> None:
    """By simulation: references and secret after correlated probes, judged by the code that measures them."""
    rng = np.random.default_rng(0)
    bits, limit = detectable_exposure(FAMILIES, references, canaries), single_limit(canaries)
    p_values = probed_p_values(bits, references, rng, times=TIMES)
    assert np.mean(np.array(p_values) < limit) >= POWER - 0.07  # two standard errors
    weak = probed_p_values(bits - 4, references, rng, times=TIMES)
    assert np.mean(np.array(weak) < limit) < 0.6, "it is no needlessly large figure"


def test_more_references_and_fewer_canaries_detect_less() -> None:
    assert detectable_exposure(FAMILIES, 1023, 1) <= detectable_exposure(FAMILIES, 127, 1)
    assert detectable_exposure(FAMILIES, 1023, 1) < detectable_exposure(FAMILIES, 1023, 9)
    assert detectable_exposure(FAMILIES, 1023, 9) < detectable_exposure(FAMILIES, 1023, 500)
    assert detectable_exposure(("template",), 255, 9) < detectable_exposure(FAMILIES, 255, 9)


def test_any_number_of_references_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a record that was edited."""
    monkeypatch.setattr(power, "_MOST_CELLS", 600)
    assert detectable_exposure(FAMILIES, 10**12, 4) == detectable_exposure(FAMILIES, 100, 4)


def test_without_the_templates_own_prefix_there_is_nothing_to_say() -> None:
    with pytest.raises(MeasurementError, match="own prefix"):
        detectable_exposure(("bare",), 31, 1)
