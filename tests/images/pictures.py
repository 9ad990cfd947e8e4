"""Small images for the tests: scikit-learn's handwritten digits, and tiny networks."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def digits(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of 8 x 8 pixels as bytes, and their labels."""
    data = load_digits()
    return np.rint(data.images[:number] * (255 / 16)).astype(np.uint8), data.target[:number]


def write_npz(path: Path, number: int = 600) -> None:
    images, labels = digits(number)
    np.savez(path, image=images, label=labels)


def tiny_network(*, channels: int = 1, classes: int = 3) -> nn.Sequential:
    """Return a network of two convolutions for images of 8 x 8 pixels, in evaluation mode."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(channels, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.ReLU(),
        nn.Linear(5, classes),
    )
    with torch.no_grad():
        network(torch.rand(50, channels, 8, 8))  # for the normalization's statistics
    return network.eval()


def labeled(number: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Return images that tell their class by where they are bright, and the classes."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (number,), generator=generator)
    images = 0.5 * torch.rand(number, 1, 8, 8, generator=generator)
    for row, label in enumerate(labels.tolist()):
        images[row, :, 2 * label : 2 * label + 3] += 0.5
    return images, labels
