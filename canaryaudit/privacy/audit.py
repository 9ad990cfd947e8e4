"""Membership and privacy loss of a measured run whose canaries were inserted by coins."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from canaryaudit.canaries.canary import CanarySet
from canaryaudit.privacy.guesses import guess_members, membership
from canaryaudit.privacy.one_run import DELTA, epsilon_ceiling, epsilon_lower_bound
from canaryaudit.records import Measurement, Privacy


def privacy_loss(measurement: Measurement, canary_set: CanarySet) -> Privacy | None:
    """Return the lower bound on epsilon and the figures of membership; None if no coins were tossed.

    A canary's score is its log-perplexity after its own prefix, with the mean over all candidates of its template
    taken off: templates differ in length and alphabet. That mean is the same whatever the coins, so the guesses use
    nothing that an adversary would not know.

    Args:
        measurement: Of one model.
        canary_set: The run's canaries and controls.
    """
    coins = {canary.id: canary for canary in canary_set.canaries if canary.coin is not None}
    measured = [canary for canary in measurement.canaries if canary.id in coins]
    if not measured:
        return None
    by_template = defaultdict(list)
    for canary in measured:
        by_template[canary.template].append(canary.log_perplexity_bits)
    means = {template: float(np.mean(bits)) for template, bits in by_template.items()}
    # By their secrets, an order that no coin had a part in: the inserted ones are numbered first.
    measured.sort(key=lambda canary: (canary.template, coins[canary.id].completion))
    scores = [means[canary.template] - canary.log_perplexity_bits for canary in measured]
    members = [coins[canary.id].coin == "in" for canary in measured]
    return privacy_of(scores, members, max((canary.repetitions for canary in coins.values()), default=0))


def privacy_of(scores: Sequence[float], members: Sequence[bool], copies: int) -> Privacy:
    """Return the lower bound on epsilon and the figures of membership.

    Args:
        scores: One per candidate, higher for what was planted; computed alike whatever the coins.
        members: Each candidate's coin.
        copies: How often a planted canary occurs.

    Raises:
        MeasurementError: There are too few candidates, or all coins came up alike.
    """
    found = guess_members(scores, members)
    return Privacy(
        candidates=found.candidates,
        inserted=sum(members),
        copies=copies,
        membership=membership(scores, members),
        guesses=found.guesses,
        correct=found.correct,
        delta=DELTA,
        epsilon_low=epsilon_lower_bound(found.correct, found.guesses, found.candidates),
        epsilon_ceiling=epsilon_ceiling(found.guesses, found.candidates),
    )
