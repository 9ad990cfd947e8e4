"""The fitted curve and its tail: what a skew-normal distribution says where no reference was drawn."""

import math

import numpy as np
from scipy import special

from canaryaudit.report.schema import Distribution, FitFigures

_POINTS = 121
_FINE = 8
"""Steps of the integral for each point that is drawn."""
_REACH = 8.0
"""Standard deviations below the lowest point at which the integral begins; less than 2^-45 lies further down."""
_UNDRAWN = 2001
"""Places from there to the lowest point."""


def density(fit: FitFigures, low: float, high: float) -> list[tuple[float, float]]:
    """Return points (bits, share per bit) of the skew-normal density 2/w phi(z) Phi(a z), z = (x - location)/w."""
    if not _usable(fit):
        return []
    places = np.linspace(low, high, _POINTS)
    return list(zip(places.tolist(), np.exp(_log_density(fit, places)).tolist(), strict=True))


def fitted_exposure(fit: FitFigures, low: float, high: float, most_bits: float) -> list[tuple[float, float]]:
    """Return points (bits, exposure) of -log2 F, F the fit's distribution function, as far as ``most_bits``.

    The integral is summed in log space: F itself underflows long before a memorised secret is reached.

    Args:
        fit: The curve.
        low: Where to begin, in bits of log-perplexity.
        high: Where to end.
        most_bits: Exposures above it are left out: no secret of the space has one.
    """
    if not _usable(fit) or high <= low or fit.scale is None:
        return []
    # Where the drawn part begins, the density may fall steeply: the undrawn part's steps are finest there.
    undrawn = low - _REACH * fit.scale * np.linspace(1.0, 0.0, _UNDRAWN) ** 3
    places = np.concatenate((undrawn, np.linspace(low, high, (_POINTS - 1) * _FINE + 1)[1:]))
    log_density = _log_density(fit, places)
    trapezia = np.logaddexp(log_density[:-1], log_density[1:]) + np.log(np.diff(places) / 2)
    log_shares = np.logaddexp.accumulate(trapezia)[_UNDRAWN - 2 :: _FINE]
    points = zip(places[_UNDRAWN - 1 :: _FINE].tolist(), (-log_shares / math.log(2)).tolist(), strict=True)
    return [(place, max(0.0, bits)) for place, bits in points if bits <= most_bits]


def observed_exposure(distribution: Distribution) -> list[tuple[float, float]]:
    """Return points (bits, exposure) of -log2 of the share of references up to each edge of the histogram."""
    counts = np.cumsum(distribution.counts)
    return [
        (edge, math.log2(counts[-1] / count))
        for edge, count in zip(distribution.edges_bits[1:], counts.tolist(), strict=False)
        if count
    ]


def _usable(fit: FitFigures) -> bool:
    return fit.shape is not None and fit.location is not None and bool(fit.scale) and (fit.scale or 0) > 0


def _log_density(fit: FitFigures, places: np.ndarray) -> np.ndarray:
    shape, location, scale = fit.shape or 0.0, fit.location or 0.0, fit.scale or 1.0
    z = (places - location) / scale
    logs: np.ndarray = (
        math.log(2 / scale) - z * z / 2 - math.log(2 * math.pi) / 2 + special.log_ndtr(np.clip(shape * z, -1e6, 1e6))
    )
    return logs
