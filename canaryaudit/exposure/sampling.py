"""Exposure as the share of uniform references that are likelier than the secret, with its exact interval."""

import math

import numpy as np
from scipy.stats import beta

from canaryaudit.errors import MeasurementError
from canaryaudit.records import Estimate

ENOUGH_LIKELIER = 10
"""Likelier references from which the figure is trusted: its interval is then about a factor of two wide."""


def sampled_exposure(log_perplexity_bits: float, reference_bits: np.ndarray, space_bits: float) -> Estimate:
    """Estimate exposure(s) = -log2 P(Px(r) <= Px(s)) over r uniform in R   (Carlini et al. 2019, section 4.3).

    With k of n references likelier (ties count half) the estimate is -log2((k + 1/2) / (n + 1)), whose mean
    over secrets that are themselves uniform draws is that of the true exposure. The interval is that of
    Clopper & Pearson 1934 for the share p of likelier members: rank / |R| = 1 / |R| + p (1 - 1 / |R|). With
    k = 0 its lower end is the bound that the sample gives.

    Args:
        log_perplexity_bits: Cost of the secret.
        reference_bits: Costs of members drawn uniformly, the inserted secrets and the secret itself not among
            them, shape (n,).
        space_bits: log2 of the size of R, at which exposure is capped.

    Raises:
        MeasurementError: Fewer than two references.
    """
    count = len(reference_bits)
    if count < 2:
        raise MeasurementError(f"expected at least 2 references, got {count}: raise --samples")
    likelier = float((reference_bits < log_perplexity_bits).sum()) + 0.5 * float(
        (reference_bits == log_perplexity_bits).sum()
    )
    bits = -math.log2((likelier + 0.5) / (count + 1))
    share_high = float(beta.ppf(0.975, likelier + 1, count - likelier)) if likelier < count else 1.0
    share_low = float(beta.ppf(0.025, likelier, count - likelier + 1)) if likelier > 0 else 0.0
    none = likelier < 1
    note = (
        f"none of {count} references is likelier: only the lower bound is known"
        if none
        else f"only {likelier:g} of {count} references are likelier"
        if likelier < ENOUGH_LIKELIER
        else ""
    )
    low, high = _exposure_at(share_high, space_bits), _exposure_at(share_low, space_bits)
    return Estimate(
        bits=min(max(low, bits), high),
        low=low,
        high=high,
        trusted=likelier >= ENOUGH_LIKELIER,
        note=note,
    )


def _exposure_at(share: float, space_bits: float) -> float:
    """Exposure of a secret, given the share of the other members that are likelier."""
    if share <= 0 or space_bits == 0:
        return space_bits
    log2_rank = np.logaddexp2(0.0, space_bits + math.log2(share) + math.log1p(-(2.0**-space_bits)) / math.log(2))
    return min(max(0.0, space_bits - float(log2_rank)), space_bits)
