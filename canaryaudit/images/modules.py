"""Correct labels of any torch module that was trained on images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.images.relabeling import Relabeled, Training, relabel_network
from canaryaudit.images.second_order import Correction
from canaryaudit.images.training import LoopConfig
from canaryaudit.progress import NullReporter
from canaryaudit.records.images import ImageMethod


@dataclass(frozen=True)
class RelabelConfig:
    """How to correct labels.

    Attributes:
        method: One of first-order, second-order, second-order-dense, output-layer, dense-layers, blocks, fine-tune and
            retrain. The first, fine-tuning and retraining take any module, second-order what has linear or convolution
            layers; all others an ``nn.Sequential`` that ends in ``nn.Linear``.
        epochs: Passes of the methods that train; by default the method's own, and 16 of retraining.
        fresh: Makes the untrained module, for retraining.
        batch: Images of a step of fine-tuning and retraining.
        seed: Of all that is drawn.
        precision: Of matrix products: fp32 or bf16.
    """

    method: ImageMethod = "dense-layers"
    epochs: float | None = None
    fresh: Callable[[], nn.Module] | None = None
    batch: int = 128
    seed: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.method not in get_args(ImageMethod):
            raise UnlearningError(f"unknown method {self.method!r}: expected one of {', '.join(get_args(ImageMethod))}")
        if self.batch < 2:
            raise UnlearningError(f"batch: expected at least 2 images, got {self.batch}")
        if self.epochs is not None and not self.epochs > 0:
            raise UnlearningError(f"epochs: expected a number above 0, got {self.epochs}")


def relabel(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    corrections: Mapping[int, int],
    config: RelabelConfig | None = None,
) -> Relabeled:
    """Bring corrected labels into a module without training it again.

    Args:
        module: Trained on ``labels``; it is not changed.
        images: What the module takes, shape (N, ...).
        labels: Classes from 0, shape (N,).
        corrections: The right class of each row whose label was wrong.
        config: How.

    Returns:
        The changed copy as ``module``, and what it took.

    Raises:
        UnlearningError: A row or a class is unknown, nothing is corrected, or the module does not fit the method.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
        >>> relabel(module, images, labels, {0: 1}, RelabelConfig("output-layer")).parameters
        146
    """
    used = config or RelabelConfig()
    new = corrected_labels(images, labels, corrections)
    correction = Correction(images, labels, new, _unchanged, used.precision, used.seed)
    loop = LoopConfig(used.epochs or 16, batch=used.batch, seed=used.seed, precision=used.precision)
    return relabel_network(module, correction, used.method, Training(loop, used.fresh), NullReporter(), used.epochs)


def corrected_labels(images: Tensor, labels: Tensor, corrections: Mapping[int, int]) -> Tensor:
    """Return the labels with corrections, after checking everything.

    Raises:
        UnlearningError: Shapes do not fit, or a row or a class is unknown.
    """
    if labels.ndim != 1 or len(images) != len(labels) or labels.dtype != torch.long:
        raise UnlearningError(
            f"expected one class of type int64 for each image, got {len(images):,} images and labels of shape "
            f"{tuple(labels.shape)} and type {labels.dtype}"
        )
    if not images.isfinite().all():
        raise UnlearningError("the images hold values that are missing or not finite: correct them")
    classes = int(labels.max()) + 1
    new = labels.clone()
    for row, label in corrections.items():
        if not 0 <= row < len(labels):
            raise UnlearningError(f"row {row} is none of the {len(labels):,} images: rows count from 0")
        if not 0 <= label < classes:
            raise UnlearningError(f"row {row} is given class {label}: expected 0 to {classes - 1}")
        new[row] = label
    return new


def _unchanged(batch: Tensor) -> Tensor:
    return batch
