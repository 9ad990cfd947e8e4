"""Bring corrected labels into a trained network without training it again.

What an update costs is mostly reading the images through the convolutions, so the cheap ones do it once and keep the
activations: ``output-layer``, ``dense-layers`` and ``second-order`` those behind the last convolution, ``blocks``
those behind the first pooling.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from canaryaudit.errors import UnlearningError
from canaryaudit.images.clock import work_seconds
from canaryaudit.images.layers import Cut, Part, cut
from canaryaudit.images.output_layer import solve_output_layer
from canaryaudit.images.second_order import Correction, first_order, gauss_newton_step, kronecker_step
from canaryaudit.images.training import LoopConfig, fit, outputs
from canaryaudit.progress import ProgressReporter
from canaryaudit.records.images import ImageMethod

PENALTY = 0.01
"""Of the exact output layer, for each row: with less it trusts features that the network memorized rows by."""
DENSE_DROPOUT = 0.5
"""On the cached activations: the network memorized the training images' own, and new images have others."""
DENSE_EPOCHS, BLOCK_EPOCHS = 8.0, 2.5
RATE = 2e-3
STEPS_PER_EPOCH, SMALLEST_BATCH, LARGEST_BATCH = 40, 16, 256
"""Steps on cached activations: of a small set of images more and smaller ones, or an epoch would change nothing."""


@dataclass(frozen=True)
class Training:
    """How the network was trained, for the baselines.

    Attributes:
        loop: The training's own loop.
        fresh: Returns the untrained network; None if it cannot be trained again.
    """

    loop: LoopConfig
    fresh: Callable[[], nn.Module] | None = None


@dataclass(frozen=True, eq=False)
class Relabeled:
    """A network with corrected labels, and what it took.

    Attributes:
        module: A changed copy, in evaluation mode.
        words: What was done.
        parameters: How many of its parameters were updated.
        residual: Norm of the gradient that the exact output layer left, for each image; None without one.
        seconds: Processor time; elapsed time on a GPU.
    """

    module: nn.Module
    words: str
    parameters: int
    residual: float | None
    seconds: float


def relabel_network(
    network: nn.Module,
    correction: Correction,
    method: ImageMethod,
    training: Training,
    progress: ProgressReporter,
    epochs: float | None = None,
) -> Relabeled:
    """Correct labels in a copy of a network.

    Args:
        network: As it was trained with the old labels; it is not changed.
        correction: Images, old and new labels.
        method: How.
        training: How it was trained.
        progress: Told of progress.
        epochs: Passes over images or cached activations, of the methods that train; by default the method's own.

    Raises:
        UnlearningError: Nothing is corrected, or the network does not fit the method.
        Inconclusive: The output layer's residual stays above the tolerance.
    """
    if not len(correction.rows):
        raise UnlearningError("every row has its label already: there is nothing to correct")
    with work_seconds(correction.new.device) as spent, torch.random.fork_rng(devices=[]):
        torch.manual_seed(correction.seed)
        done = _UPDATES[method](copy.deepcopy(network), _Request(correction, training, progress, epochs))
    return replace(done, seconds=spent())


@dataclass(frozen=True, eq=False)
class _Request:
    correction: Correction
    training: Training
    progress: ProgressReporter
    epochs: float | None


def _first_order(module: nn.Module, request: _Request) -> Relabeled:
    length = first_order(module, request.correction)
    return Relabeled(module, f"first-order step of length {length:g} over all layers", _count(module), None, 0.0)


def _second_order(module: nn.Module, request: _Request) -> Relabeled:
    length, layers = kronecker_step(module, request.correction, request.progress)
    words = f"second-order step of length {length:g} over all layers, curvature in Kronecker factors"
    return Relabeled(module, words, sum(own.numel() for own in layers.moved), None, 0.0)


def _second_order_dense(module: nn.Module, request: _Request) -> Relabeled:
    parts = cut(module, "dense-layers")
    length = gauss_newton_step(parts.above, _on_activations(parts, request.correction))
    words = f"second-order step of length {length:g} over the dense layers, conjugate gradients on all images"
    return Relabeled(module, words, _count(parts.above), None, 0.0)


def _output_layer(module: nn.Module, request: _Request) -> Relabeled:
    parts, correction = cut(module, "output-layer"), request.correction
    layer = parts.above[0]
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise UnlearningError("the output layer has no bias: expected nn.Linear with one")
    features = activations(parts.below, correction)
    start = torch.cat([layer.weight, layer.bias[:, None]], 1).detach()
    solved = solve_output_layer(
        features.double().cpu().numpy(),
        correction.new.cpu().numpy(),
        start.double().cpu().numpy(),
        PENALTY * len(correction.new),
    )
    weights = torch.from_numpy(np.ascontiguousarray(solved.weights)).to(layer.weight)
    with torch.no_grad():
        layer.weight.copy_(weights[:, :-1])
        layer.bias.copy_(weights[:, -1])
    words = f"output layer solved exactly on cached features in {solved.steps} Newton steps"
    return Relabeled(module, words, _count(layer), solved.residual, 0.0)


def _dense_layers(module: nn.Module, request: _Request) -> Relabeled:
    epochs = request.epochs or DENSE_EPOCHS
    parameters = _train_part(module, "dense-layers", request, epochs, DENSE_DROPOUT)
    return Relabeled(module, f"dense layers trained on cached activations for {epochs:g} epochs", parameters, None, 0.0)


def _blocks(module: nn.Module, request: _Request) -> Relabeled:
    epochs = request.epochs or BLOCK_EPOCHS
    parameters = _train_part(module, "blocks", request, epochs, None)
    _train_part(module, "dense-layers", request, DENSE_EPOCHS, DENSE_DROPOUT)
    words = f"blocks behind the first pooling trained on cached activations for {epochs:g} epochs, then dense layers"
    return Relabeled(module, words, parameters, None, 0.0)


def _fine_tune(module: nn.Module, request: _Request) -> Relabeled:
    correction, epochs = request.correction, request.epochs or 1.0
    config = replace(request.training.loop, epochs=epochs, learning_rate=RATE, seed=correction.seed)
    fit(module, correction.images, correction.new, config, prepare=correction.prepare, progress=request.progress)
    return Relabeled(module, f"fine-tuned on all images for {epochs:g} epochs", _count(module), None, 0.0)


def _retrain(_: nn.Module, request: _Request) -> Relabeled:
    if request.training.fresh is None:
        raise UnlearningError("retraining needs the untrained network: give a function that makes it")
    module, correction = request.training.fresh(), request.correction
    loop = request.training.loop
    fit(module, correction.images, correction.new, loop, prepare=correction.prepare, progress=request.progress)
    return Relabeled(module, f"retrained for {loop.epochs:g} epochs", _count(module), None, 0.0)


_UPDATES: dict[ImageMethod, Callable[[nn.Module, _Request], Relabeled]] = {
    "first-order": _first_order,
    "second-order": _second_order,
    "second-order-dense": _second_order_dense,
    "output-layer": _output_layer,
    "dense-layers": _dense_layers,
    "blocks": _blocks,
    "fine-tune": _fine_tune,
    "retrain": _retrain,
}


def cached_batch(images: int) -> int:
    """Return how many cached activations one step takes."""
    return min(max(images // STEPS_PER_EPOCH, SMALLEST_BATCH), LARGEST_BATCH)


def _train_part(module: nn.Module, part: Part, request: _Request, epochs: float, dropout: float | None) -> int:
    """Train a part of a network on the activations below it; return its number of parameters."""
    parts = cut(module, part)
    correction = _on_activations(parts, request.correction)
    config = LoopConfig(epochs, RATE, cached_batch(len(correction.new)), correction.seed, correction.precision)
    dropped = parts.above
    if dropout is not None:
        own = [layer for layer in parts.above if not isinstance(layer, nn.Dropout)]
        dropped = nn.Sequential(nn.Dropout(dropout), *own)  # shares the layers
    fit(dropped, correction.images, correction.new, config, prepare=correction.prepare, progress=request.progress)
    return _count(parts.above)


def _on_activations(parts: Cut, correction: Correction) -> Correction:
    """Return the correction of the upper part, with cached activations in the place of images."""
    return replace(correction, images=activations(parts.below, correction), prepare=lambda batch: batch.float())


def activations(below: nn.Sequential, correction: Correction) -> Tensor:
    """Return what the lower part gives out for all images, in half precision if products are."""
    computed = outputs(fused(below), correction.images, prepare=correction.prepare, precision=correction.precision)
    kept = computed.bfloat16() if correction.precision == "bf16" else computed
    return kept.contiguous(memory_format=torch.channels_last) if kept.dim() == 4 else kept


def fused(below: nn.Sequential) -> nn.Sequential:
    """Return a copy of layers in evaluation mode in which normalizations are part of the convolutions before them."""
    layers: list[nn.Module] = []
    for own in below.eval():
        if isinstance(own, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], own).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            layers.append(own)
    return nn.Sequential(*layers).eval()


def _count(module: nn.Module) -> int:
    return sum(own.numel() for own in module.parameters())
