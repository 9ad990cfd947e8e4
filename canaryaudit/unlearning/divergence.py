"""The divergence between a model's predictions before and after an update."""

import torch
from torch import Tensor


def weighted_divergence(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i w_i KL(t_i || softmax(logits_i)), in nats.

    Args:
        logits: Shape (..., V).
        targets: t, shape (..., V).
        weights: w, shape (...).
    """
    parts = torch.special.xlogy(targets, targets) - targets * torch.log_softmax(logits, -1)
    total: Tensor = (weights * parts.sum(-1)).sum()
    return total
