"""What correcting labels takes against retraining, estimated from counts before anything is computed.

The unit is one multiplication of a convolution. A value that a layer gives out is read and written by what follows it,
and every layer of a step is called: on a few hundred small images the calls are most of it, and steps on cached
activations are as many as those of training. So the same images and network give the same estimate on every machine.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canaryaudit.images.layers import cut
from canaryaudit.images.network import make_network
from canaryaudit.images.relabeling import BLOCK_EPOCHS, DENSE_EPOCHS, cached_batch
from canaryaudit.images.training import LoopConfig
from canaryaudit.records.images import ImageMethod, NetworkShape

ABOUT_AS_LONG = 0.8
"""Share of retraining's work from which retraining is the better answer: the old labels leave nothing behind in it."""
_VALUE, _CALL = 17.0, 8e6
"""What a value that a layer gives out takes, and a call of a layer in a training step, in multiplications."""
_STEP = 3
"""Passes forward that a training step takes: one forward and two back."""


@dataclass(frozen=True)
class _Layers:
    """Counts of some layers: the work of one image forward, and how many there are."""

    forward: float
    number: int


def share_of_retraining(shape: NetworkShape, method: ImageMethod, images: int, loop: LoopConfig) -> float | None:
    """Return the estimated work of a method as a share of retraining's; None of a method that takes a pass or two.

    Args:
        shape: Of the network.
        method: How labels are corrected.
        images: How many the network was trained on.
        loop: How it was trained.
    """
    with torch.device("meta"):
        network = make_network(shape).eval()
    counted = _counted(network, shape)

    def part(layers: nn.Sequential) -> _Layers:
        own = [counted[layer] for layer in layers if layer in counted]
        return _Layers(sum(own), len(layers))

    def trained(layers: _Layers, epochs: float, batch: int) -> float:
        return epochs * (_STEP * layers.forward * images + math.ceil(images / batch) * layers.number * _CALL)

    def on_activations(name: str, epochs: float) -> float:
        parts = cut(network, "dense-layers" if name == "dense" else "blocks")
        return part(parts.below).forward * images + trained(part(parts.above), epochs, cached_batch(images))

    retraining = trained(part(network), loop.epochs, loop.batch)
    if method == "retrain":
        return 1.0
    if method == "fine-tune":
        return trained(part(network), 1.0, loop.batch) / retraining
    if method == "dense-layers":
        return on_activations("dense", DENSE_EPOCHS) / retraining
    if method == "blocks":
        return (on_activations("blocks", BLOCK_EPOCHS) + on_activations("dense", DENSE_EPOCHS)) / retraining
    return None


def _counted(network: nn.Sequential, shape: NetworkShape) -> dict[nn.Module, float]:
    """Return the work of every layer for one image, forward."""
    found: dict[nn.Module, float] = {}

    def count(layer: nn.Module, _: tuple[Tensor, ...], given: Tensor) -> None:
        products = 0
        if isinstance(layer, nn.Conv2d | nn.Linear):
            products = given.numel() * layer.weight[0].numel()
        found[layer] = products + _VALUE * given.numel()

    hooks = [layer.register_forward_hook(count) for layer in network]
    network(torch.empty(1, shape.channels, shape.height, shape.width, device="meta"))
    for hook in hooks:
        hook.remove()
    return found
