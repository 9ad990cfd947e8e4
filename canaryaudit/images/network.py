"""A VGG-like network for small images: blocks of two convolutions, then a dense layer and the output layer."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from canaryaudit.records.images import NetworkShape

MOST_BLOCKS = 3
SMALLEST_MAP = 4
"""Height or width, in pixels, under which a further pooling would leave too little to look at."""
FIRST_FILTERS = 16
DENSE = 128


def default_blocks(height: int, width: int) -> tuple[int, ...]:
    """Return the filters of each block: their number doubles wherever pooling halves the image.

    Examples:
        >>> default_blocks(32, 32), default_blocks(8, 8)
        ((16, 32, 64), (16,))
    """
    halvings = int(math.log2(max(min(height, width) / SMALLEST_MAP, 2)))
    return tuple(FIRST_FILTERS * 2**block for block in range(min(MOST_BLOCKS, halvings)))


def make_network(shape: NetworkShape) -> nn.Sequential:
    """Return an untrained network; it takes images of shape (B, C, H, W), with values from 0 to 1.

    Args:
        shape: Of images and layers.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = shape.channels, shape.height, shape.width
    layers["standardize"] = Standardize()
    for block, filters in enumerate(shape.blocks, 1):
        for part in (1, 2):
            layers[f"convolution_{block}_{part}"] = nn.Conv2d(channels, filters, 3, padding=1)
            layers[f"norm_{block}_{part}"] = nn.BatchNorm2d(filters)
            layers[f"relu_{block}_{part}"] = nn.ReLU()
            channels = filters
        layers[f"pool_{block}"] = nn.MaxPool2d(2)
        layers[f"dropout_{block}"] = nn.Dropout(shape.dropout)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(channels * height * width, shape.dense)
    layers["norm"] = nn.BatchNorm1d(shape.dense)
    layers["relu"] = nn.ReLU()
    layers["output"] = nn.Linear(shape.dense, shape.classes)
    return nn.Sequential(layers)


class Standardize(nn.Module):
    """Shift values of 0 to 1 to the middle, without looking at any image: nothing of the data is left in it."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images with values of about unit size."""
        return (images - 0.5) * 4.0


def as_input(images: Tensor) -> Tensor:
    """Turn bytes, shape (B, H, W, C), into values of 0 to 1, shape (B, C, H, W), in the order that is fast."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
