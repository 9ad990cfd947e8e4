"""The built-in test: secrets that were never inserted must look as if they had never been inserted."""

import math

import numpy as np
from scipy import stats

from canaryaudit.records import Calibration

EXPECTED_MEAN_BITS = 1 / math.log(2)
SMALLEST_PVALUE = 0.01


def calibrate(control_exposures_bits: np.ndarray) -> Calibration | None:
    """Test controls' exposures against their law, exponential with mean 1/ln 2   (Jagielski 2023).

    Args:
        control_exposures_bits: Exposure of each control, shape (n,).

    Returns:
        The test's result; None where there are no controls.
    """
    count = len(control_exposures_bits)
    if count == 0:
        return None
    mean = float(np.mean(control_exposures_bits))
    pvalue = float(stats.kstest(control_exposures_bits, "expon", args=(0, EXPECTED_MEAN_BITS)).pvalue)
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
