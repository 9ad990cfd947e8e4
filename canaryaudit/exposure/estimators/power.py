"""What a measurement with probes could have detected: the smallest exposure of one secret, by simulation."""

from functools import cache

import numpy as np
from scipy.special import ndtri

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.estimators.worst_case import ReferenceScores, extended_p_value, log2_weights
from canaryaudit.stats import POWER, single_limit

_POOLS = 50
"""Simulated sets of references: the 80 % quantile of what they detect is then known to half a bit or so."""
_MOST_CELLS = 50_000
"""Costs in a simulated set; where there are more, fewer references are simulated, which detect no more."""
_MOST_BITS = 32.0
_HALVINGS = 7


@cache
def detectable_exposure(families: tuple[str, ...], references: int, canaries: int, figures: int = 1) -> float:
    """Return the exposure after the template's own prefix that is detected with a probability of 80 %.

    A secret and its references are put through the code that judges them. Log-perplexities are normal, and independent
    from probe to probe: the dependence of real ones leaves chance fewer ways to stand out, so that more is detected.
    The secret's cost after its own prefix is that of the member ranked 2^-exposure |R|; after other prompts it is like
    an unseen one. It is detected where its p-value is small enough by itself, whatever the other canaries'.

    Args:
        families: Family of each probe; one is ``template``.
        references: References per probe.
        canaries: Number of canaries that are tested together.
        figures: How many figures of each are tested.

    Raises:
        MeasurementError: No probe is the template's own prefix.

    Examples:
        >>> detectable_exposure(("template", "bare"), 255, 4) < detectable_exposure(("template", "bare"), 255, 40)
        True
    """
    if "template" not in families:
        raise MeasurementError("expected the template's own prefix among the probes")
    references = min(references, max(2, _MOST_CELLS // len(families)))
    own, weights = families.index("template"), log2_weights(families)
    rng, limit = np.random.default_rng(0), single_limit(canaries, figures)
    smallest = []
    for _ in range(_POOLS):
        scores = ReferenceScores(rng.normal(size=(len(families), references)), weights)
        secret = rng.normal(size=len(families))
        low, high = 0.0, _MOST_BITS
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            secret[own] = ndtri(2.0**-middle)
            detected = extended_p_value(scores.judge(secret), middle, float(weights[own])) < limit
            low, high = (low, middle) if detected else (middle, high)
        smallest.append(high)
    return float(np.quantile(smallest, POWER, method="higher"))
