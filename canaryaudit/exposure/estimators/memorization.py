"""How often must a secret occur to be remembered? Exposure against repetitions, with honest intervals."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, gamma

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import (
    Flags,
    Values,
    check_same_length,
    is_one_value,
    read_bits,
    read_counts,
    read_flags,
    read_references,
)
from canaryaudit.records import CanaryMeasurement, MemorizationCurve, MemorizationPoint
from canaryaudit.stats import EXPECTED_MEAN_BITS, exposure_sum_pvalue, holm

SIGNIFICANCE = 0.05
"""How often at most a curve of secrets that the model never saw names a number of repetitions, by the rule below."""
_TAIL = 0.025
"""On either side of a 95 % interval."""
_LOG_STEP, _LOG_REACH = 0.05, 18.0
"""Of the integral over the logarithm of frequency: it is right to about 1e-7 then."""


def memorization_curves(canaries: Sequence[CanaryMeasurement]) -> tuple[MemorizationCurve, ...]:
    """Return the curve over all canaries and, where there are several templates, one for each of them.

    Args:
        canaries: Inserted canaries and controls, as measured.

    Returns:
        The curves, that over all canaries first.
    """
    templates = list(dict.fromkeys(canary.template for canary in canaries))
    groups = [("", list(canaries))]
    if len(templates) > 1:
        groups += [(text, [canary for canary in canaries if canary.template == text]) for text in templates]
    return tuple(
        memorization_curve(
            np.array([canary.repetitions for canary in group]),
            np.array([canary.exposure.bits for canary in group]),
            np.array([canary.space_bits for canary in group]),
            np.array([canary.extraction.greedy for canary in group]),
            low=np.array([canary.exposure.low for canary in group]),
            high=np.array([canary.exposure.high for canary in group]),
            template=text,
        )
        for text, group in groups
        if group
    )


def memorization_curve(
    repetitions: Values,
    exposures_bits: Values,
    space_bits: float | Values,
    greedy: Flags,
    *,
    low: Values | None = None,
    high: Values | None = None,
    template: str = "",
) -> MemorizationCurve:
    """Gather exposures by number of repetitions; controls are the point at 0.

    The answer, ``detected_from``, is the smallest number of repetitions at which the canaries are told from secrets
    that the model never saw. At each number of repetitions above 0, the hypothesis that the exposures are those
    of unseen secrets is tested (their sum is a gamma variable then, Jagielski 2023; one-sided); the p-values are
    corrected over all numbers of repetitions of the curve (Holm 1979), and the smallest number with a corrected p of
    at most 5 % is named. A curve of unseen secrets then names one in at most 5 % of audits. Where an exposure is not
    exact, the lower end of its interval is what is tested, so that an uncertain measurement makes the answer more
    cautious, never bolder.

    Args:
        repetitions: How often each secret was inserted, shape (n,); 0 for a control.
        exposures_bits: Exposure of each, in bits, shape (n,).
        space_bits: log2 of the size of the space, at which exposure is capped, one for all or shape (n,).
        greedy: Whether the greedy completion is the secret, shape (n,), bool.
        low: Lower ends of the exposures' 95 % intervals, shape (n,); the exposures themselves, as exact ones, if not
            given.
        high: Upper ends, shape (n,); as ``low``.
        template: Whose curve it is; empty for all together.

    Returns:
        The curve: for each number of repetitions the mean exposure with its 95 % interval, and the test.

    Raises:
        MeasurementError: The arrays differ in length or are empty, a value is no finite number, or an exposure is not
            within its interval and the interval within 0 and ``space_bits``.

    Examples:
        >>> exposures = [1.2, 0.4, 2.1, 2.6, 0.9, 1.7, 14.0, 19.9, 18.2]
        >>> curve = memorization_curve([0, 0, 0, 1, 1, 1, 8, 8, 8], exposures, 19.9, [False] * 7 + [True, False])
        >>> [(point.repetitions, round(point.mean_bits, 1)) for point in curve.points]
        [(0, 1.2), (1, 1.7), (8, 17.4)]
        >>> curve.detected_from
        8
    """
    numbers, bits = read_counts(repetitions, "repetitions", 0), read_references(exposures_bits, "exposures_bits")
    lows, highs = (bits if end is None else read_bits(end, name) for end, name in ((low, "low"), (high, "high")))
    spaces, completed = read_bits(space_bits, "space_bits"), read_flags(greedy, "greedy")
    spaces = np.full(len(bits), spaces[0]) if is_one_value(space_bits) else spaces
    check_same_length(
        repetitions=numbers, exposures_bits=bits, space_bits=spaces, greedy=completed, low=lows, high=highs
    )
    if (np.diff(np.stack([np.zeros(len(bits)), lows, bits, highs, spaces]), axis=0) < -1e-6).any():
        raise MeasurementError(
            "expected exposures with 0 <= low <= exposures_bits <= high <= space_bits: measure the canaries again"
        )
    counts = sorted(set(numbers.tolist()))
    rows = {count: np.flatnonzero(numbers == count) for count in counts}
    tested = [count for count in counts if count > 0]
    pvalues = [exposure_sum_pvalue(lows[rows[count]].tolist()) for count in tested]
    corrected = dict(zip(tested, zip(pvalues, holm(pvalues), strict=True), strict=True))
    points = []
    for count in counts:
        row = rows[count]
        number, extracted = len(row), int(completed[row].sum())
        mean_low, mean_high = mean_interval(lows[row], highs[row], spaces[row])
        share_low, share_high = share_interval(extracted, number)
        pvalue, holm_pvalue = corrected.get(count, (None, None))
        points.append(
            MemorizationPoint(
                repetitions=count,
                canaries=number,
                mean_bits=float(bits[row].mean()),
                low=mean_low,
                high=mean_high,
                single=number == 1,
                ceiling_bits=float(spaces[row].mean()),
                unseen_bits=float(gamma.ppf(1 - SIGNIFICANCE, number, scale=EXPECTED_MEAN_BITS / number)),
                greedy=extracted,
                greedy_low=share_low,
                greedy_high=share_high,
                pvalue=pvalue,
                holm_pvalue=holm_pvalue,
                detected=holm_pvalue is not None and holm_pvalue <= SIGNIFICANCE,
            )
        )
    detected = [point.repetitions for point in points if point.detected]
    return MemorizationCurve(template=template, points=tuple(points), detected_from=min(detected, default=None))


def share_interval(successes: int, number: int) -> tuple[float, float]:
    """Return the 95 % interval of Clopper & Pearson 1934 for a share."""
    low = float(beta.ppf(_TAIL, successes, number - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - _TAIL, successes + 1, number - successes)) if successes < number else 1.0
    return low, high


def mean_interval(low: np.ndarray, high: np.ndarray, space_bits: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval for the mean exposure of secrets like these.

    Exposures are bounded, pile up at the ceiling once a secret is memorized, and are few: Student's interval
    has no width at all where three canaries of three are at the ceiling, whatever the next ones would do. This one
    assumes nothing but the bounds (Gaffke 2005; Learned-Miller & Thomas 2019): the lower end is the 2.5 % quantile of
    the mean under random weights, uniform on the simplex, of the n figures *and one more at 0*; the upper end the
    same of what is wanting to each one's ceiling, taken from the ceilings' mean, so that canaries of several spaces
    are read as a fixed mix. For figures that are all 0 or 1 it is the interval of Clopper & Pearson, whose coverage
    is certain; for other laws no counterexample to it is known. The price is width: three canaries say little of a
    fourth. The measurement's own uncertainty is included: the lower end is computed from the figures' lower ends,
    the upper end from their upper ends. One figure gives its own interval: it says nothing of other canaries.

    Args:
        low: Lower ends of the exposures, shape (n,); the exposures themselves where they are exact.
        high: Upper ends, shape (n,).
        space_bits: The largest exposure that each can have, shape (n,).
    """
    low, high, space_bits = read_bits(low, "low"), read_bits(high, "high"), read_bits(space_bits, "space_bits")
    if len(low) == 1:
        return float(low[0]), float(high[0])
    return _least_mean(low), float(np.mean(space_bits)) - _least_mean(np.asarray(space_bits) - high)


def _least_mean(figures: np.ndarray) -> float:
    """Return the 2.5 % quantile of the mean of 0 and ``figures``, at least 0, weighted uniformly on the simplex."""
    values = np.append(0.0, np.maximum(figures, 0.0))
    least, most = float(values.min()), float(values.max())
    if most - least < 1e-9:
        return least
    # By the inequality of Cantelli the quantile lies here; much further out the integral is lost in its rounding.
    mean, deviation = float(values.mean()), float(values.std()) / math.sqrt(len(values) + 1)
    least = max(least, mean - math.sqrt(1 / _TAIL - 1) * deviation)
    most = min(most, mean + math.sqrt(_TAIL / (1 - _TAIL)) * deviation)
    found: float = brentq(lambda x: _share_below(values - x) - _TAIL, least, most, xtol=1e-9 * (most - least))
    return found


def _share_below(offsets: np.ndarray) -> float:
    """Return P(sum_j w_j a_j <= 0) for weights w uniform on the simplex.

    The weights are exponential variables over their sum, so that it is P(sum_j a_j E_j <= 0), which inverting
    the characteristic function gives (Imhof 1961):
    1/2 - 1/pi int_0^inf sin(sum_j arctan(a_j t)) / (t prod_j sqrt(1 + a_j^2 t^2)) dt.
    """
    if offsets.min() >= 0 or offsets.max() <= 0:
        return float(offsets.max() <= 0)
    scaled = offsets / np.abs(offsets).max()
    # Over log t the integrand is smooth and dies away on both sides: the trapezoidal rule converges exponentially.
    logs = np.arange(-_LOG_REACH, _LOG_REACH + _LOG_STEP, _LOG_STEP)
    total = 0.0
    for some in np.array_split(logs, 1 + logs.size * scaled.size // 1_000_000):  # Thousands of canaries fit too.
        turned = np.exp(some)[:, None] * scaled  # (frequencies, n)
        total += float(np.sum(np.sin(np.arctan(turned).sum(1)) * np.exp(-0.5 * np.log1p(turned * turned).sum(1))))
    return 0.5 - total * _LOG_STEP / math.pi
