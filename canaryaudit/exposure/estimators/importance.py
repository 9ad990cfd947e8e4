"""Exposure from importance-weighted draws."""

import math
from typing import overload

import numpy as np
from scipy.stats import gamma

from canaryaudit.exposure.estimators.arrays import (
    Values,
    check_same_length,
    check_sign,
    estimate_each,
    read_bits,
    read_references,
    read_space_bits,
)
from canaryaudit.records import Estimate

ENOUGH_EFFECTIVE = 100.0
"""Effective sample size below which an estimate is not to be believed."""


TAIL = 0.015
"""Share beyond each end of the interval: less than 2.5 %, because the variance is itself an estimate. With it no rank
and no model tried came below 95 % by more than chance; the interval is a tenth wider."""


NEIGHBORS = 10
"""Draws just costlier than the secret that tell how much a likelier member that was not drawn may weigh."""


@overload
def importance_exposure(
    secrets: float, draws: Values, space_bits: float, *, log2_weights: Values, strata: Values | None = None
) -> Estimate: ...
@overload
def importance_exposure(
    secrets: Values, draws: Values, space_bits: float, *, log2_weights: Values, strata: Values | None = None
) -> list[Estimate]: ...
def importance_exposure(
    secrets: float | Values, draws: Values, space_bits: float, *, log2_weights: Values, strata: Values | None = None
) -> Estimate | list[Estimate]:
    """Estimate exposure from members of R that were drawn with known probabilities.

    rank(s) = 1 + mean of 1(Px(x) < Px(s)) / q(x) over draws x from q   (Veach & Guibas 1995; for passwords Dell'Amico
    & Filippone 2015, *Monte Carlo Strength Evaluation*); exposure is log2 |R| - log2 rank.

    The interval is a gamma distribution's, as for a weighted sum of Poisson counts (Fay & Feuer 1997,
    *Confidence intervals for directly standardized rates*), with the variance taken within strata: the lower
    end is the lower quantile of a gamma law with the estimate's mean and variance; for the upper end, one more
    draw of the largest weight met up to the secret's log-perplexity, or just beyond, is added. It is Clopper and
    Pearson's where all weights are equal and the counts small, a normal one where they are large, and it does
    not shrink to nothing where no draw is likelier.

    Args:
        secrets: Log-perplexity of one secret, or of several of one space, in bits, shape (k,).
        draws: Log-perplexities of the draws, in bits, shape (n,); infinite for those that are no reference: inserted
            secrets, and the secret itself.
        space_bits: log2 of the size of R.
        log2_weights: log2 of each draw's weight 1 / q(x), shape (n,).
        strata: Number of the proposal that each draw came from, shape (n,), where a fixed number was drawn from each;
            one proposal if not given.

    Returns:
        An ``Estimate`` for one secret, a list of them for several: exposure in bits with its 95 % interval. It is
        trusted when the effective number of likelier draws is at least ``ENOUGH_EFFECTIVE``.

    Raises:
        MeasurementError: Fewer than two draws, a value that is no number, arrays of different lengths, or
            ``space_bits`` below 1.

    Examples:
        Half of the draws come from the 1,000 likeliest of 2^20 members, whose ranks are their log-perplexities here:

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> ranks = np.concatenate([rng.integers(1, 1001, 5_000), rng.integers(1, 2**20 + 1, 5_000)])
        >>> q = 0.5 * (ranks <= 1000) / 1000 + 0.5 / 2**20
        >>> strata = np.repeat([0, 1], 5_000)
        >>> estimate = importance_exposure(100.0, ranks, space_bits=20, log2_weights=-np.log2(q), strata=strata)
        >>> print(f"{estimate.bits:.2f} bits, truth {20 - np.log2(100):.2f}")
        13.27 bits, truth 13.36
    """
    sample = read_references(draws, "draws", 2, infinite=True)
    space = read_space_bits(space_bits)
    weights = read_bits(log2_weights, "log2_weights")
    proposals = np.zeros(len(sample)) if strata is None else read_bits(strata, "strata")
    check_same_length(draws=sample, log2_weights=weights, strata=proposals)
    check_sign(read_bits(secrets, "secrets"), sample)
    result: Estimate | list[Estimate] = estimate_each(
        secrets, lambda cost: _estimate(cost, sample, space, weights, proposals)
    )
    return result


def _estimate(
    log_perplexity_bits: float, draw_bits: np.ndarray, space_bits: float, log2_weights: np.ndarray, strata: np.ndarray
) -> Estimate:
    count = len(draw_bits)
    likelier = (draw_bits < log_perplexity_bits) + 0.5 * (draw_bits == log_perplexity_bits)
    unit = _largest_log2_weight(log_perplexity_bits, draw_bits, log2_weights)
    # In units of the largest weight that matters, so that nothing overflows.
    terms = likelier * np.exp2(np.where(likelier > 0, log2_weights - unit, 0.0))
    mean = float(terms.mean())
    variance = 0.0
    for stratum in np.unique(strata):
        own = terms[strata == stratum]
        variance += len(own) * (float(own.var(ddof=1)) if len(own) > 1 else float(own[0]) ** 2)
    effective = float(terms.sum() ** 2 / (terms**2).sum()) if mean > 0 else 0.0
    if effective > 0:
        # Draws that happen to agree do not make the figure certain: the next few of their kind may differ.
        variance = max(variance, min(4.0, effective) * (float(terms.sum()) / effective) ** 2)
    variance /= count**2
    low = _gamma_quantile(TAIL, mean, variance)
    high = _gamma_quantile(1 - TAIL, mean + 1 / count, variance + 1 / count**2)
    trusted = effective >= ENOUGH_EFFECTIVE
    return Estimate(
        bits=_exposure_at(mean, unit, space_bits),
        low=_exposure_at(high, unit, space_bits),
        high=_exposure_at(low, unit, space_bits),
        trusted=trusted,
        note="" if trusted else f"effective sample size {effective:.0f}, expected at least {ENOUGH_EFFECTIVE:.0f}",
    )


def _largest_log2_weight(cost: float, draw_bits: np.ndarray, log2_weights: np.ndarray) -> float:
    """Return the largest weight of the draws up to the secret's cost and of the few that come next."""
    up_to = draw_bits <= cost
    beyond = np.flatnonzero(~up_to & np.isfinite(draw_bits))
    if len(beyond) > NEIGHBORS:
        beyond = beyond[np.argpartition(draw_bits[beyond], NEIGHBORS - 1)[:NEIGHBORS]]
    near = np.concatenate((log2_weights[up_to], log2_weights[beyond]))
    return float(near.max()) if len(near) else float(log2_weights.max())


def _gamma_quantile(share: float, mean: float, variance: float) -> float:
    if variance <= 0:
        return mean
    return float(gamma.ppf(share, mean**2 / variance, scale=variance / mean))


def _exposure_at(others: float, unit: float, space_bits: float) -> float:
    """Exposure of a secret, given the number of likelier members in units of 2^unit."""
    log2_rank = float(np.logaddexp2(0.0, math.log2(others) + unit)) if others > 0 else 0.0
    return min(max(0.0, space_bits - log2_rank), space_bits)
