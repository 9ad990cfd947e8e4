"""A run's figures against the guesses made by hand, and what coins may have a part in."""

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.privacy.audit import privacy_loss
from canaryaudit.privacy.one_run import epsilon_ceiling, epsilon_lower_bound
from canaryaudit.records import Measurement
from tests.report import builders

TEMPLATES = ("pin {digits:6}.", "the long code {lower:9}.")

LETTERS = str.maketrans("0123456789", "abcdefghij")


def tossed(costs: np.ndarray, coins: np.ndarray, copies: int = 1) -> tuple[Measurement, CanarySet]:
    """Return a run of one candidate per cost, the templates in turn."""
    canaries = tuple(
        Canary(
            id=f"{'canary' if own else 'kept-out'}-{number:03}",
            template=TEMPLATES[number % 2],
            completion=f"{number:06}"
            if number % 2 == 0
            else f"{number:09}".translate(str.maketrans("0123456789", "abcdefghij")),
            repetitions=copies if own else 0,
            control=not own,
            coin="in" if own else "out",
        )
        for number, own in enumerate(coins)
    )
    control = Canary(id="control-001", template=TEMPLATES[0], completion="999999", repetitions=0, control=True)
    canary_set = CanarySet(corpus_symbols="", canaries=(*canaries, control))
    bits = dict(zip((canary.id for canary in canaries), costs, strict=True)) | {"control-001": 0.0}
    sound = builders.measurement(canary_set, dict.fromkeys(bits, 1.0))
    measured = [own.model_copy(update={"log_perplexity_bits": float(bits[own.id])}) for own in sound.canaries]
    return sound.model_copy(update={"canaries": tuple(measured)}), canary_set


def test_the_figures_are_those_of_the_scores() -> None:
    rng = np.random.default_rng(2)
    coins = rng.random(60) < 0.5
    costs = rng.normal(20, 1, 60) + 30 * (np.arange(60) % 2) - 1.5 * coins  # the long template costs more
    found = privacy_loss(*tossed(costs, coins, copies=3))
    assert found is not None
    centered = costs.copy()
    for parity in (0, 1):
        centered[parity::2] -= costs[parity::2].mean()
    order = np.argsort(centered)
    correct = int(coins[order[:10]].sum() + (~coins[order[-10:]]).sum())
    assert (found.candidates, found.inserted, found.guesses, found.correct) == (60, coins.sum(), 20, correct)
    assert found.copies == 3
    assert found.epsilon_low == epsilon_lower_bound(correct, 20, 60) > 0.3
    assert found.epsilon_ceiling == epsilon_ceiling(20, 60)
    pairs = [own < other for own in centered[coins] for other in centered[~coins]]
    assert found.membership.auc == pytest.approx(np.mean(pairs))


def test_ties_do_not_tell_the_coins() -> None:
    """Inserted canaries are numbered first, so an order by number would guess rightly without any model."""
    rng = np.random.default_rng(0)
    correct = []
    for _ in range(60):
        coins = rng.random(36) < 0.5
        measurement, canary_set = tossed(np.full(36, 20.0), coins)
        first = sorted(canary_set.canaries, key=lambda canary: canary.coin != "in")
        found = privacy_loss(measurement, canary_set.model_copy(update={"canaries": tuple(first)}))
        assert found is not None
        correct.append(found.correct / found.guesses)
    assert 0.4 < np.mean(correct) < 0.6


def test_without_coins_there_is_no_bound() -> None:
    canary_set = builders.canary_set()
    assert privacy_loss(builders.measurement(canary_set, builders.EXPOSED), canary_set) is None
