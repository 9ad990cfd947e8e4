"""The loss in a secret's place, against its formula written out symbol by symbol."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from canaryaudit.unlearning.all_layers.conditional import ConditionalTargets, closings, conditional_loss, symbol_weights

ALLOWED = torch.tensor(
    [[True, True, True, False, False], [False, True, False, True, True], [False, False, True, False, False]]
)


def targets(seed: int = 0) -> ConditionalTargets:
    rng = np.random.default_rng(seed)
    distributions = torch.from_numpy(rng.dirichlet(np.ones(5), 3)) * ALLOWED
    distributions = distributions / distributions.sum(1, keepdim=True)
    weights = symbol_weights(ALLOWED, distributions, torch.tensor([1, 4, 2]), torch.tensor([0.5, 0.0, 0.5]).double())
    return ConditionalTargets(
        allowed=ALLOWED,
        log_distributions=torch.where(ALLOWED, distributions.clamp_min(1e-9).log(), 0.0),
        symbol_weights=weights,
        masses=torch.tensor([0.3, 0.9, 0.6]).double(),
        weights=torch.tensor([1.0, 2.0, 0.5]).double(),
    )


def written_out(logits: Tensor, wanted: ConditionalTargets) -> float:
    total = 0.0
    for row, allowed, log_q, weights, mass, weight in zip(
        logits.tolist(),
        wanted.allowed.tolist(),
        wanted.log_distributions.tolist(),
        wanted.symbol_weights.tolist(),
        wanted.masses.tolist(),
        wanted.weights.tolist(),
        strict=True,
    ):
        chances = [math.exp(value) / sum(map(math.exp, row)) for value in row]
        inside = sum(chance for chance, own in zip(chances, allowed, strict=True) if own)
        own = [index for index, is_allowed in enumerate(allowed) if is_allowed]
        differences = {index: math.log(chances[index] / inside) - log_q[index] for index in own}
        mean = sum(weights[index] * differences[index] for index in own)
        spread = sum(weights[index] * (differences[index] - mean) ** 2 for index in own) / 2
        kept = mass * math.log(mass / inside) + (1 - mass) * math.log((1 - mass) / (1 - inside))
        total += weight * (spread + kept)
    return total


def test_the_loss_is_its_formula() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(conditional_loss(logits, targets())) == pytest.approx(written_out(logits, targets()))


def test_its_gradient_is_the_formulas() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (gradient,) = torch.autograd.grad(conditional_loss(logits, targets()), logits)
    step = 1e-5
    for index in np.ndindex(3, 5):
        moved = torch.zeros(3, 5, dtype=torch.float64)
        moved[index] = step
        values = [written_out(logits.detach() + sign * moved, targets()) for sign in (1, -1)]
        assert float(gradient[index]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_it_is_nothing_where_the_model_says_what_is_wanted() -> None:
    wanted = targets()
    inside = wanted.log_distributions.exp() * wanted.masses[:, None]
    outside = (1 - wanted.masses[:, None]) / (~ALLOWED).sum(1, keepdim=True)
    logits = torch.where(ALLOWED, inside, outside).log()
    assert float(conditional_loss(logits, wanted)) == pytest.approx(0, abs=1e-12)


def test_a_secret_that_is_predicted_with_certainty_still_has_a_gradient() -> None:
    """Unlike in a square of its own log-probability, whose slope vanishes with 1 - p."""
    logits = torch.tensor([[0.0, 40.0, 0.0, 0.0, 0.0]], dtype=torch.float64).requires_grad_()
    one = {name: value[:1] for name, value in vars(targets()).items()}
    (gradient,) = torch.autograd.grad(conditional_loss(logits, ConditionalTargets(**one)), logits)
    assert float(gradient[0, 1]) > 5


def test_weights_sum_to_one_and_stay_inside_the_alphabet() -> None:
    weights = targets().symbol_weights
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert float(weights[~ALLOWED].abs().max()) == 0
    assert float(weights[0, 1]) > 0.5, "what follows in a secret weighs half, and its share of the rest"


def test_a_secret_closes_as_is_typical_of_decoys_and_decoys_as_on_average() -> None:
    # Three decoys, two closing symbols: the odds of the symbol that follows are 1/9, 1 and 9, then all alike.
    first = torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.5, 0.0], [0.9, 0.0, 0.1]])
    second = torch.tensor([[0.2, 0.7, 0.1]]).expand(3, 3)
    average, typical = closings(torch.stack((first, second), 1), torch.tensor([0, 1]))
    assert torch.allclose(average, torch.stack((first.mean(0), second[0])))
    assert typical[0, 0] == pytest.approx(0.5)  # the mean of the log odds is zero
    assert torch.allclose(typical[0, 1:], 0.5 * first.mean(0)[1:] / first.mean(0)[1:].sum())
    assert torch.allclose(typical[1], second[0])
    skewed = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.999, 0.001]])[:, None]
    average, typical = closings(skewed, torch.tensor([1]))
    assert average[0, 1] == pytest.approx(0.37525)
    assert 0.1 < float(typical[0, 1]) < float(average[0, 1])  # one decoy that ends otherwise moves it further


def test_nothing_closes_a_template_that_ends_with_its_secret() -> None:
    average, typical = closings(torch.empty(4, 0, 3), torch.empty(0, dtype=torch.int64))
    assert average.shape == typical.shape == (0, 3)
