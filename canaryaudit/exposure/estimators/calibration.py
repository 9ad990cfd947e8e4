"""The built-in test: secrets that were never inserted must look as if they had never been inserted."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import (
    Values,
    check_same_length,
    is_one_value,
    read_bits,
    read_references,
)
from canaryaudit.records import Calibration, Confirmation
from canaryaudit.stats import EXPECTED_MEAN_BITS

SMALLEST_PVALUE = 0.01
SMALLEST_CONFIRMED_PVALUE = 0.05
FRESH_CONTROLS = 96
"""Fresh controls of a second test: three times as many as there are by default, so that it sees what the first saw."""
_FAILED = "controls are not distributed as unseen secrets must be: do not rely on this measurement"
_ROUNDING = 1e-6
"""By how many bits an exposure may be out of its range."""


def calibrate(exposures_bits: Values, space_bits: float | Values | None = None) -> Calibration | None:
    """Test controls' exposures against the distribution that they have where nothing was memorized.

    exposure ~ Exp with mean 1/ln 2   (Jagielski 2023, *A note on interpreting canary exposure*), by the test of
    Kolmogorov and Smirnov. Among the members of a finite space the distribution is a staircase, which the test would
    take for a fault in spaces of less than some thousands. Each rank is therefore spread evenly over its own step, by
    a fixed seed; the distribution is then met exactly.

    Args:
        exposures_bits: Exposure of each control, in bits, shape (n,).
        space_bits: log2 of the size of each control's space, one for all or shape (n,); without it, taken as
            boundless.

    Returns:
        The test's result; None where there are no controls.

    Raises:
        MeasurementError: An exposure is no finite number, below 0 or above its ``space_bits``, or shapes do not fit.

    Examples:
        >>> import numpy as np
        >>> ranks = np.random.default_rng(0).integers(1, 10**6 + 1, size=64)  # of secrets never inserted
        >>> calibration = calibrate(np.log2(10**6) - np.log2(ranks), np.log2(10**6))
        >>> calibration.passed, round(calibration.mean_bits, 1), round(calibration.expected_mean_bits, 2)
        (True, 1.6, 1.44)
    """
    exposures = read_references(exposures_bits, "exposures_bits", 0)
    count = len(exposures)
    if count == 0:
        return None
    if space_bits is None:
        spaces = np.full(count, np.inf)
    else:
        spaces = read_bits(space_bits, "space_bits")
        spaces = np.full(count, spaces[0]) if is_one_value(space_bits) else spaces
        check_same_length(exposures_bits=exposures, space_bits=spaces)
    if ((exposures < -_ROUNDING) | (exposures > spaces + _ROUNDING)).any():
        raise MeasurementError("expected exposures from 0 to space_bits: measure the controls again")
    mean = float(np.mean(exposures))
    pvalue = _pvalue(exposures, None if space_bits is None else spaces)
    passed = pvalue >= SMALLEST_PVALUE
    note = "" if passed else _FAILED
    if count < 10:
        note = note or f"only {count} controls: the test says little; use --controls 32 or more"
    return Calibration(
        controls=count,
        mean_bits=mean,
        expected_mean_bits=EXPECTED_MEAN_BITS,
        ks_pvalue=pvalue,
        passed=passed,
        note=note,
    )


def confirm(
    first: Calibration, exposures_bits: Sequence[float], space_bits: Sequence[float], seed: Sequence[int]
) -> Calibration:
    """Decide on a failed calibration by fresh controls, drawn after it failed.

    A two-stage test: the measurement fails where the controls' p-value is below 1 %, and then that of the fresh ones,
    *tested alone*, below 5 %. They are drawn anew and independent of the first, so that of sound measurements 1 in
    2,000 fails, and no choice of when to stop comes into it. Of a broken one the first test finds what it found before;
    the second, with more controls and a milder limit, hardly ever takes that back.

    Args:
        first: The failed test.
        exposures_bits: Exposure of each fresh control, in bits, shape (n,), at least one.
        space_bits: log2 of the size of each one's space, shape (n,).
        seed: Of their draws, for the record.

    Returns:
        The calibration, passed if the fresh controls are as they must be.
    """
    fresh = np.asarray(exposures_bits, dtype=float)
    pvalue = _pvalue(fresh, np.asarray(space_bits, dtype=float))
    passed = pvalue >= SMALLEST_CONFIRMED_PVALUE
    return first.model_copy(
        update={
            "passed": passed,
            "note": f"the first test failed by chance: {len(fresh)} fresh controls are as they must be"
            if passed
            else _FAILED,
            "confirmation": Confirmation(
                controls=len(fresh),
                seed=tuple(seed),
                exposures_bits=tuple(fresh.tolist()),
                space_bits=tuple(float(bits) for bits in space_bits),
                mean_bits=float(fresh.mean()),
                ks_pvalue=pvalue,
                passed=passed,
            ),
        }
    )


def _pvalue(exposures: np.ndarray, spaces: np.ndarray | None) -> float:
    """Return the p-value of Kolmogorov and Smirnov's test, each rank spread over its own step of the staircase."""
    shares = np.exp2(-exposures)
    if spaces is not None:
        shares = shares - np.random.default_rng(0).random(len(exposures)) * np.exp2(-spaces)
    return float(stats.kstest(shares, "uniform").pvalue)
