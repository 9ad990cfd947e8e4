"""The one figure for a canary: the tightest that may be trusted.

1. ``exact``, where enumeration or branch and bound found the rank.
2. ``importance`` or ``sampled``, whichever is trusted and has the narrower interval.
3. Otherwise whatever of the two has the narrower interval.
4. Where neither was asked for, the lower of the search's certified bounds.

In 2 and 3 the interval is cut to the bounds that the search certified. The skew-normal figure is never the
headline: its interval is unknown.
"""

from collections.abc import Mapping

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.arrays import read_bits
from canaryaudit.records import Estimate, EstimatorName, Headline

_CANDIDATES: tuple[EstimatorName, ...] = ("importance", "sampled")


def choose_headline(estimates: Mapping[EstimatorName, Estimate]) -> Headline:
    """Choose the figure to report, by the rule above.

    Args:
        estimates: By estimator; at least one of exact, importance and sampled.

    Returns:
        The figure with its interval, in bits, and the estimator that it comes from.

    Raises:
        MeasurementError: There is none of these, or a figure is no finite number.

    Examples:
        >>> from canaryaudit.exposure.estimators import bounded_exposure, sampled_exposure
        >>> bounds = bounded_exposure(100, 200, space_bits=20)
        >>> drawn = sampled_exposure(9.5, [9.0, 10.0] * 50, space_bits=20)
        >>> headline = choose_headline({"exact": bounds, "sampled": drawn})
        >>> headline.method, headline.low >= bounds.low
        ('sampled', True)
    """
    for own, estimate in estimates.items():
        read_bits((estimate.bits, estimate.low, estimate.high), f"{own} estimate")
    exact = estimates.get("exact")
    if exact is not None and exact.trusted:
        return Headline(bits=exact.bits, low=exact.low, high=exact.high, method="exact")
    candidates = [(name, estimates[name]) for name in _CANDIDATES if name in estimates]
    trusted = [(name, estimate) for name, estimate in candidates if estimate.trusted]
    if not candidates and exact is not None:
        return Headline(bits=exact.bits, low=exact.low, high=exact.high, method="exact")
    if not candidates:
        raise MeasurementError("no headline: ask for at least one of the estimators exact, importance and sampled")
    name, estimate = min(trusted or candidates, key=lambda pair: pair[1].high - pair[1].low)
    low, high, bits = estimate.low, estimate.high, estimate.bits
    if exact is not None:
        # What is certified holds whatever the draws say.
        low, high = min(max(low, exact.low), exact.high), max(min(high, exact.high), exact.low)
        bits = min(max(bits, low), high)
    return Headline(bits=bits, low=low, high=high, method=name)
