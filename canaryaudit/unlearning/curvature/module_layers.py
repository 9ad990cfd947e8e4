"""The layers of any ``torch.nn.Module`` as a ``TrainableModel``, found by hooks: linear, convolutions, embeddings.

A linear layer's matrix is [W | b]. The ``Conv1D`` of ``transformers`` keeps W turned round, with the bias as one more
row. A convolution multiplies its kernel, (O, C x height x width), with the patch at every position of an image: the
positions share it as time steps share a matrix (Grosse & Martens 2016). A table that is an embedding and the output
layer at once (tied) is one matrix with two uses. All other parameters stay as they are: normalizations, positions, and
what no layer of these kinds holds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.unlearning.curvature.trainable_model import GradientSides, LabelDraw, LayerMatrix

MOST_ROWS = 1024
"""Rows up to which a matrix gets eigenvectors of its rows: those of a larger vocabulary would cost more than the
update."""


@dataclass(frozen=True)
class _Layer:
    """One matrix.

    Attributes:
        matrix: Its shape.
        tensors: Its parameters.
        has_bias: Whether a bias is its last column; of a turned one, its last row.
    """

    matrix: LayerMatrix
    tensors: tuple[nn.Parameter, ...]
    has_bias: bool


class ModuleLayers:
    """A module whose linear layers and chosen embeddings move.

    Args:
        module: The model.
        forward: Reads examples, shape (B, ...), with it, and returns logits, (B, ..., V).
        embeddings: The embeddings that move too; of the others the inputs are not examples (positions).

    Examples:
        >>> module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> {name: own.widths for name, own in ModuleLayers(module, module).layers.items()}
        {'0': (3, 1), '2': (4, 1)}
    """

    def __init__(
        self, module: nn.Module, forward: Callable[[Tensor], Tensor], embeddings: Sequence[nn.Module] = ()
    ) -> None:
        self._module, self._forward = module, forward
        self._layers: dict[str, _Layer] = {}
        self._names: dict[int, str] = {}  # of matrices, by their weight
        chosen = {id(own) for own in embeddings}
        for name, own in module.named_modules():
            if isinstance(own, nn.Embedding) and id(own) in chosen:
                self._add(name, own)
        for name, own in module.named_modules():
            if isinstance(own, nn.Linear) or _is_turned(own) or _is_convolution(own):
                self._add(name, own)
        if not self._layers:
            raise UnlearningError(
                "the model has no linear layer that could be changed: expected nn.Linear, nn.Conv2d or Conv1D"
            )

    def _add(self, name: str, module: Any) -> None:
        weight = module.weight
        if id(weight) in self._names:  # tied; a bias beside a tied table stays as it is
            return
        if isinstance(module, nn.Embedding):
            shape, has_bias = weight.shape, False
        elif _is_turned(module):
            shape, has_bias = (len(weight) + 1, weight.shape[1]), True
        else:
            shape, has_bias = (len(weight), weight[0].numel()), module.bias is not None
        rows = int(shape[0])
        widths = (int(shape[1]), 1) if has_bias and not _is_turned(module) else (int(shape[1]),)
        has_row_basis = rows <= MOST_ROWS and not isinstance(module, nn.Embedding)
        tensors: tuple[nn.Parameter, ...] = (weight, module.bias) if has_bias else (weight,)
        self._layers[name] = _Layer(LayerMatrix(rows, widths, has_row_basis), tensors, has_bias)
        self._names[id(weight)] = name

    @property
    def layers(self) -> Mapping[str, LayerMatrix]:
        """By the module's name."""
        return {name: own.matrix for name, own in self._layers.items()}

    @property
    def moved(self) -> Sequence[Tensor]:
        """Weights and biases, layer by layer."""
        return [tensor for own in self._layers.values() for tensor in own.tensors]

    def predictions(self, examples: Tensor) -> int:
        """Return how many predictions are made: one for each id, or each example that is no text."""
        return len(examples) if examples.is_floating_point() else examples.numel()

    def sides(self, examples: Tensor, labels: LabelDraw) -> Mapping[str, Sequence[GradientSides]]:
        """Return what each layer's gradient is made of; see ``TrainableModel``."""
        calls: list[tuple[nn.Module, Tensor, Tensor]] = []

        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((module, inputs[0].detach(), output))

        moving = [own for own in self._module.modules() if id(getattr(own, "weight", None)) in self._names]
        hooks = [own.register_forward_hook(record) for own in moving]
        try:
            with torch.enable_grad():
                logits = self._forward(examples)
                logits = logits.flatten(0, -2)
                loss = nn.functional.cross_entropy(logits.float(), labels(logits.float()), reduction="sum")
                gradients = torch.autograd.grad(loss, [output for _, _, output in calls])
        finally:
            for hook in hooks:
                hook.remove()
        found: dict[str, list[GradientSides]] = {name: [] for name in self._layers}
        for (module, given, _), gradient in zip(calls, gradients, strict=True):
            name = self._names[id(module.weight)]
            found[name].append(_sides_of(module, given, gradient, has_bias=self._layers[name].has_bias))
        return found


def _is_turned(module: nn.Module) -> bool:
    """Return whether a module is the ``Conv1D`` of ``transformers``: x W + b, W of shape (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers")


def _is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution whose patches can be cut out; others stay as they are."""
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _patches(module: Any, images: Tensor) -> Tensor:
    """Return what a convolution's kernel is multiplied with at every position, shape (B, T, C x height x width)."""
    cut = nn.functional.unfold(images, module.kernel_size, module.dilation, module.padding, module.stride)
    return cut.transpose(1, 2)


def _sides_of(module: nn.Module, given: Tensor, gradient: Tensor, *, has_bias: bool) -> GradientSides:
    """Return the sides of one call's gradient, with positions side by side: (B, T, ...)."""
    if isinstance(module, nn.Conv2d):
        given, gradient = _patches(module, given), gradient.flatten(2).transpose(1, 2)
    outer = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    if isinstance(module, nn.Embedding):
        return GradientSides(given.reshape(len(given), -1), outer)
    inner = given.reshape(len(given), -1, given.shape[-1])
    if has_bias:
        inner = torch.cat((inner, torch.ones_like(inner[..., :1])), 2)
    return GradientSides(inner, outer) if _is_turned(module) else GradientSides(outer, inner)
