"""Products of a loss's Hessian and Gauss-Newton matrix with vectors, for any differentiable model and loss.

A loss is written as l(theta) = sum over batches of loss(predict(theta, batch), batch), with ``predict`` the model
and ``loss`` a sum over what it gives out. Then, without ever forming a matrix,

    H v = d/dtheta (g'v), g the gradient           (Pearlmutter 1994: reverse over reverse)
    G v = J' L (J v), J = d predict / d theta,
                      L = d^2 loss / d outputs^2   (Schraudolph 2002: forward, then reverse)

Both are exact. Sums are accumulated over batches, one of which is in memory at a time. Regularization and
damping are no part of these matrices: what solves with them adds them.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError

B = TypeVar("B")

Predictor = Callable[[Sequence[Tensor], B], Tensor]
"""(parameters, batch) -> the model's outputs, of any shape."""


@dataclass(frozen=True)
class DifferentiableLoss(Generic[B]):
    """A summed loss as a function of parameters; every vector is flat, shape (N,), in the parameters' order.

    Attributes:
        parameters: Where value, gradient and curvature are taken.
        predict: The model, as a function of parameters and a batch.
        loss: Outputs and their batch to a scalar, summed over the batch. The Gauss-Newton matrix is positive
            semi-definite where it is convex in the outputs.
        batches: What is summed over.
        output_curvature: (outputs, batch, v) -> L v, in place of the second derivative of ``loss``.
    """

    parameters: Sequence[Tensor]
    predict: Predictor[B]
    loss: Callable[[Tensor, B], Tensor]
    batches: Sequence[B]
    output_curvature: Callable[[Tensor, B, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.parameters:
            raise UnlearningError("no parameters to differentiate by: expected at least one")
        object.__setattr__(self, "parameters", [own.detach() for own in self.parameters])

    @property
    def size(self) -> int:
        """Number of parameters, N."""
        return sum(own.numel() for own in self.parameters)

    @torch.no_grad()
    def value(self) -> float:
        """Return the loss."""
        return sum((float(self.loss(self.predict(self.parameters, batch), batch)) for batch in self.batches), 0.0)

    def gradient(self) -> Tensor:
        """Return d loss / d theta, shape (N,)."""
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """Return the loss and its gradient, shape (N,), for the price of the gradient."""
        leaves, total, values = self._leaves(), self._zeros(), 0.0
        for batch in self.batches:
            value = self.loss(self.predict(leaves, batch), batch)
            total += _flat(_gradients(value, leaves))
            values += float(value.detach())
        return values, total

    def hessian_product(self, vector: Tensor) -> Tensor:
        """Return H v, shape (N,)."""
        parts, leaves, total = self._split(vector), self._leaves(), self._zeros()
        with twice_differentiable():
            for batch in self.batches:
                slopes = _gradients(self.loss(self.predict(leaves, batch), batch), leaves, create_graph=True)
                # A gradient that depends on nothing, as of a loss linear in a parameter, has no derivative.
                along = [(own * part).sum() for own, part in zip(slopes, parts, strict=True) if own.requires_grad]
                if along:
                    total += _flat(_gradients(torch.stack(along).sum(), leaves))
        return total

    def gauss_newton_product(self, vector: Tensor) -> Tensor:
        """Return G v, shape (N,)."""
        parts, leaves, total = self._split(vector), self._leaves(), self._zeros()
        for batch in self.batches:
            with twice_differentiable(forward_mode=True), torch.no_grad():
                pushed: Tensor = torch.func.jvp(
                    lambda *theta, batch=batch: self.predict(theta, batch), tuple(self.parameters), tuple(parts)
                )[1]
            outputs = self.predict(leaves, batch)
            total += _flat(_gradients(outputs, leaves, self._through_outputs(outputs.detach(), batch, pushed)))
        return total

    def moved(self, vector: Tensor) -> "DifferentiableLoss[B]":
        """Return the same loss at parameters + vector."""
        parameters = [own + part for own, part in zip(self.parameters, self._split(vector), strict=True)]
        return DifferentiableLoss(parameters, self.predict, self.loss, self.batches, self.output_curvature)

    def over(self, batches: Sequence[B]) -> "DifferentiableLoss[B]":
        """Return the loss of other batches, at the same parameters."""
        return DifferentiableLoss(self.parameters, self.predict, self.loss, batches, self.output_curvature)

    def _through_outputs(self, outputs: Tensor, batch: B, vector: Tensor) -> Tensor:
        """Return L v, of the outputs' shape."""
        if self.output_curvature is not None:
            return self.output_curvature(outputs, batch, vector)
        free = outputs.requires_grad_()
        (slope,) = torch.autograd.grad(self.loss(free, batch), free, create_graph=True)
        if not slope.requires_grad:  # a loss that is linear in the outputs
            return torch.zeros_like(vector)
        (image,) = torch.autograd.grad(slope, free, vector)
        return image

    def _leaves(self) -> list[Tensor]:
        return [own.detach().requires_grad_() for own in self.parameters]

    def _zeros(self) -> Tensor:
        return torch.zeros(self.size, dtype=self.parameters[0].dtype, device=self.parameters[0].device)

    def _split(self, vector: Tensor) -> list[Tensor]:
        if vector.shape != (self.size,):
            raise UnlearningError(f"expected a vector of shape ({self.size},), got {tuple(vector.shape)}")
        parts = torch.split(vector, [own.numel() for own in self.parameters])
        return [part.view_as(own) for part, own in zip(parts, self.parameters, strict=True)]


def as_function(model: nn.Module) -> tuple[list[Tensor], Predictor[object]]:
    """Return a module's trainable parameters, and the module as a function of them and of its input."""
    named = {name: own for name, own in model.named_parameters() if own.requires_grad}

    def predict(parameters: Sequence[Tensor], batch: object) -> Tensor:
        outputs: Tensor = torch.func.functional_call(model, dict(zip(named, parameters, strict=True)), (batch,))
        return outputs

    return list(named.values()), predict


@contextmanager
def twice_differentiable(*, forward_mode: bool = False) -> Iterator[None]:
    """Switch off the recurrent layers that cannot be differentiated: cuDNN's twice, oneDNN's in forward mode."""
    enabled = torch.backends.mkldnn.enabled
    # Not mkldnn.flags(): it sets TF32 as well, and warns of it.
    torch.backends.mkldnn.enabled = bool(enabled) and not forward_mode  # type: ignore[assignment]
    try:
        with torch.backends.cudnn.flags(enabled=False), warnings.catch_warnings():
            # PyTorch loads its rules for forward mode when first asked, by a function that it has deprecated.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
            yield
    finally:
        torch.backends.mkldnn.enabled = enabled


def _gradients(
    value: Tensor, leaves: Sequence[Tensor], outer: Tensor | None = None, *, create_graph: bool = False
) -> list[Tensor]:
    """Return the gradients, zero where a leaf does not enter."""
    found = torch.autograd.grad(value, leaves, outer, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(own) if one is None else one for one, own in zip(found, leaves, strict=True)]


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1) for part in parts])
