"""The built-in test: secrets that were never inserted must look as if they had never been inserted."""

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
from canaryaudit.records import Calibration
from canaryaudit.stats import EXPECTED_MEAN_BITS

SMALLEST_PVALUE = 0.01
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
    shares = np.exp2(-exposures)
    if space_bits is not None:
        shares = shares - np.random.default_rng(0).random(count) * np.exp2(-spaces)
    pvalue = float(stats.kstest(shares, "uniform").pvalue)
    passed = pvalue >= SMALLEST_PVALUE
    note = "" if passed else "controls are not distributed as unseen secrets must be: do not rely on this measurement"
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
