"""The loss in a secret's place: how a symbol is chosen from its alphabet, and how likely the alphabet is.

At a position whose alphabet is A (the symbols that the secret's space allows there) a prediction p falls into the
alphabet's total mass p(A) and the conditional distribution p(a | A). The first belongs to the text, the second to the
secret. The loss keeps the one and matches the other with the replacement's distribution q:

    L = KL(m || p(A)) + 1/2 sum_a v_a (d_a - d)^2,   d_a = log p(a | A) - log q(a),   d = sum_a v_a d_a

with m the mass to keep, as two outcomes, and v weights that sum to one. Unlike KL(q || p), which hardly sees a rare
symbol that is four times too likely, the square sees just what a rank sees; it does not saturate where the secret is
predicted with certainty; and it is quadratic in the logits, so that a quasi-Newton step is as long as it should be.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CLEAR_MASS = (1e-6, 1 - 1e-5)
"""Masses are kept within these: what lies beyond is not worth a change of the weights."""


@dataclass(frozen=True)
class ConditionalTargets:
    """What is wanted at P positions.

    Attributes:
        allowed: The alphabet A, shape (P, V), bool.
        log_distributions: log q(a), shape (P, V); 0 outside the alphabet.
        symbol_weights: v, shape (P, V); 0 outside the alphabet, sums to 1.
        masses: m, shape (P,).
        weights: What each position counts, shape (P,).
    """

    allowed: Tensor
    log_distributions: Tensor
    symbol_weights: Tensor
    masses: Tensor
    weights: Tensor


def symbol_weights(allowed: Tensor, distributions: Tensor, following: Tensor, emphasis: Tensor) -> Tensor:
    """Return v: half the alphabet's uniform and half the replacement's own weights, with emphasis on what follows.

    Args:
        allowed: The alphabets, shape (P, V), bool.
        distributions: q, shape (P, V).
        following: The symbol that follows each position in its row, shape (P,).
        emphasis: Share of the weight that this symbol gets, shape (P,): over 0 along secrets.
    """
    inside = allowed.to(distributions.dtype)
    spread = (inside / inside.sum(1, keepdim=True) + distributions * inside) / 2
    ahead = torch.nn.functional.one_hot(following, allowed.shape[1]) * inside
    mixed = (1 - emphasis[:, None]) * spread + emphasis[:, None] * ahead
    weights: Tensor = mixed / mixed.sum(1, keepdim=True)
    return weights


def log_masses(log_probabilities: Tensor, allowed: Tensor) -> Tensor:
    """Return log p(A) at every position: (..., V) -> (...)."""
    return log_probabilities.masked_fill(~allowed, -torch.inf).logsumexp(-1)


def conditional_loss(logits: Tensor, targets: ConditionalTargets) -> Tensor:
    """Return the weighted sum of L over positions, in nats.

    Args:
        logits: Shape (P, V).
        targets: What is wanted there.
    """
    return conditional_divergence(logits.log_softmax(1), targets)


def conditional_divergence(predicted: Tensor, targets: ConditionalTargets) -> Tensor:
    """Return the weighted sum of L over positions, in nats.

    Args:
        predicted: Log-probabilities, shape (P, V); of a vocabulary, those of the tokens that secrets can have suffice.
        targets: What is wanted there.
    """
    log_mass = log_masses(predicted, targets.allowed)
    difference = torch.where(targets.allowed, predicted - log_mass[:, None] - targets.log_distributions, 0.0)
    mean = (targets.symbol_weights * difference).sum(1, keepdim=True)
    spread = (targets.symbol_weights * (difference - mean).square()).sum(1) / 2
    kept = targets.masses.clamp(*CLEAR_MASS)
    outside = torch.log1p(-log_mass.exp().clamp(max=1 - 1e-6))
    moved = kept * (kept.log() - log_mass) + (1 - kept) * (torch.log1p(-kept) - outside)
    total: Tensor = (targets.weights * (spread + moved)).sum()
    return total


def closings(distributions: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is to be predicted for what closes decoys, and secrets, shape (S, V) each.

    After a decoy the average, so that a completion ends as the text does; after a secret the symbol that follows is as
    likely as is typical after decoys (the mean logit), lest a secret be confirmed by what comes after it.

    Args:
        distributions: What the original model predicts after decoys, shape (D, S, V).
        following: The symbols that close them, shape (S,).
    """
    average = distributions.mean(0)
    follows = torch.nn.functional.one_hot(following, average.shape[1]).bool()
    typical = distributions[:, follows].logit(eps=1e-6).mean(0).sigmoid()[:, None]
    others = average.masked_fill(follows, 0.0)
    return average, torch.where(follows, typical, (1 - typical) * others / others.sum(1, keepdim=True))
