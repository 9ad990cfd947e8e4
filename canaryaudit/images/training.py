"""Train a network on images: Adam with a one-cycle learning rate, reproducible from a seed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canaryaudit.models.device import autocast
from canaryaudit.progress import NullReporter, ProgressReporter

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class LoopConfig:
    """How to train.

    Attributes:
        epochs: Passes over the images; a fraction of one is allowed.
        learning_rate: The largest of the cycle.
        batch: Images of one step.
        seed: Of the order of the images, and of dropout.
        precision: Of matrix products, ``fp32`` or ``bf16``.
        weight_decay: As in AdamW.
        warm_up: Share of the steps in which the learning rate rises.
    """

    epochs: float
    learning_rate: float = 4e-3
    batch: int = 128
    seed: int = 0
    precision: str = "fp32"
    weight_decay: float = 0.0
    warm_up: float = 0.25


Prepare = Callable[[Tensor], Tensor]


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: LoopConfig,
    *,
    prepare: Prepare = lambda batch: batch,
    progress: ProgressReporter | None = None,
    after_epoch: Callable[[int], None] = lambda _: None,
) -> None:
    """Train a model in place and leave it in evaluation mode.

    Args:
        model: Its parameters that require a gradient are trained.
        images: What it takes, shape (N, ...), before ``prepare``.
        labels: Classes from 0, shape (N,).
        config: How to train.
        prepare: Turns a batch of images into the model's input.
        progress: Told of progress.
        after_epoch: Called with the number of each whole epoch that is done.
    """
    told = progress or NullReporter()
    device = labels.device
    parameters = [own for own in model.parameters() if own.requires_grad]
    per_epoch = math.ceil(len(labels) / config.batch)
    steps = max(3, round(config.epochs * per_epoch))  # to rise, to be there, and to fall
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    warm_up = max(config.warm_up, 2 / steps)  # a rise of no step would divide by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps, pct_start=warm_up
    )
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model.train()
        order = torch.empty(0, dtype=torch.long)
        for step in range(steps):
            place = step % per_epoch
            if not place:
                order = torch.randperm(len(labels), generator=generator)
            rows = order[place * config.batch : (place + 1) * config.batch].to(device)
            if len(rows) < 2:  # one image has no batch statistics
                rows = order[-2:].to(device)
            with autocast(device, config.precision):
                loss = nn.functional.cross_entropy(model(prepare(images[rows])).float(), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            told.update("training", step + 1, steps)
            if place == per_epoch - 1:
                after_epoch(step // per_epoch + 1)
    model.eval()


@torch.no_grad()
def outputs(
    model: nn.Module, images: Tensor, *, prepare: Prepare = lambda batch: batch, precision: str = "fp32"
) -> Tensor:
    """Return a model's outputs, shape (N, ...), in evaluation mode."""
    model.eval()
    parts = []
    for first in range(0, len(images), EVALUATION_BATCH):
        with autocast(images.device, precision):
            parts.append(model(prepare(images[first : first + EVALUATION_BATCH])).float())
    return torch.cat(parts)
