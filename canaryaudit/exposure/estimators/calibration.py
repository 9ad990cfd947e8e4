"""The built-in test: secrets that were never inserted must look as if they had never been inserted."""

import numpy as np
from scipy import stats

from canaryaudit.records import Calibration
from canaryaudit.stats import EXPECTED_MEAN_BITS

SMALLEST_PVALUE = 0.01


def calibrate(control_exposures_bits: np.ndarray, space_bits: np.ndarray | None = None) -> Calibration | None:
    """Test controls' exposures against their law, exponential with mean 1/ln 2   (Jagielski 2023).

    Among the members of a finite space the law is a staircase, which the test would take for a fault in spaces
    of less than some thousands. Each rank is therefore spread evenly over its own step, by a fixed seed; the law
    is then met exactly.

    Args:
        control_exposures_bits: Exposure of each control, shape (n,).
        space_bits: log2 of the size of each control's space, shape (n,); without it, taken as boundless.

    Returns:
        The test's result; None where there are no controls.
    """
    count = len(control_exposures_bits)
    if count == 0:
        return None
    mean = float(np.mean(control_exposures_bits))
    shares = np.exp2(-np.asarray(control_exposures_bits, dtype=float))
    if space_bits is not None:
        shares = shares - np.random.default_rng(0).random(count) * np.exp2(-np.asarray(space_bits, dtype=float))
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
