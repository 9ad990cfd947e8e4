"""Cut a sequential network in two: what stays as it is, whose activations are computed once, and what is updated."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from canaryaudit.errors import UnlearningError

Part = Literal["output-layer", "dense-layers", "blocks", "all-layers"]
"""How much of a network is updated, from its end."""
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_CONTAINERS = (nn.Sequential,)


@dataclass(frozen=True)
class Cut:
    """A network in two parts, which are the network's own layers and not copies.

    Attributes:
        below: Kept as it is.
        above: Updated.
    """

    below: nn.Sequential
    above: nn.Sequential


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a sequential network in the order in which they are applied.

    Raises:
        UnlearningError: It is not sequential, or does not end in a linear layer.
    """
    layers = _flat(model)
    if not isinstance(model, _CONTAINERS) or not layers:
        raise UnlearningError(
            f"the layers of a {type(model).__name__} are not known: give an nn.Sequential that ends in nn.Linear, or "
            "use fine-tuning or retraining, which take any module"
        )
    if not isinstance(layers[-1], nn.Linear):
        raise UnlearningError(
            f"the network ends in a {type(layers[-1]).__name__}: expected nn.Linear, whose outputs are the logits"
        )
    return layers


def _flat(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, _CONTAINERS):
        return [own for child in module for own in _flat(child)]
    return [module]


def cut(model: nn.Module, part: Part) -> Cut:
    """Cut a sequential network below the part that is to be updated.

    The output layer is the last one. The dense layers are all behind the last convolution and its pooling. The
    blocks begin behind the first pooling that convolutions follow.

    Raises:
        UnlearningError: It is not sequential, or has no convolution.
    """
    layers = layers_of(model)
    place = _place(layers, part)
    return Cut(nn.Sequential(*layers[:place]), nn.Sequential(*layers[place:]))


def _place(layers: list[nn.Module], part: Part) -> int:
    if part == "output-layer":
        return len(layers) - 1
    if part == "all-layers":
        return 0
    convolutions = [place for place, own in enumerate(layers) if isinstance(own, nn.Conv2d)]
    if not convolutions:
        raise UnlearningError("the network has no convolution: update its output layer or all layers")
    last = convolutions[-1]
    if part == "dense-layers":
        after = [place for place in range(last + 1, len(layers)) if isinstance(layers[place], nn.Flatten | nn.Linear)]
        place = after[0]
        while isinstance(layers[place - 1], nn.Dropout | nn.Dropout2d):
            place -= 1  # It is to be drawn anew for every pass over the cached activations.
        return place
    pooled = [place for place in range(last) if isinstance(layers[place], _POOLING)]
    return pooled[0] + 1 if pooled else last
