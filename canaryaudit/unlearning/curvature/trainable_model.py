"""What a stored curvature needs of a model: its layers' matrices, and what their gradients are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

LabelDraw = Callable[[Tensor], Tensor]
"""Draws labels, shape (P,), from logits, shape (P, V)."""


@dataclass(frozen=True)
class LayerMatrix:
    """The matrix W of one layer, shape (R, C): its tensors side by side.

    Attributes:
        rows: R.
        widths: Columns of each tensor, in the order of the model's moved parameters; their sum is C.
        has_row_basis: Whether W's rows get eigenvectors of their own. Where they are a large vocabulary they do not:
            the curvature is then taken row by row.
    """

    rows: int
    widths: tuple[int, ...]
    has_row_basis: bool = True


@dataclass(frozen=True)
class GradientSides:
    """One use of a layer's matrix: its gradient is sum_t l_t r_t' over the positions t of an example.

    Attributes:
        left: l, shape (B, T, R); or the one row that each position reads, int64, shape (B, T), for l one-hot.
        right: r, shape (B, T, C).
    """

    left: Tensor
    right: Tensor


class TrainableModel(Protocol):
    """A model whose weights an update may move.

    Parameters outside the layers' matrices (normalizations, positions) are left out: they stay as they are.
    """

    @property
    def layers(self) -> Mapping[str, LayerMatrix]:
        """The layers' matrices, in the order in which ``moved`` has their tensors."""

    @property
    def moved(self) -> Sequence[Tensor]:
        """The parameters that make up the matrices; flat vectors are in their order."""

    def sides(self, examples: Tensor, labels: LabelDraw) -> Mapping[str, Sequence[GradientSides]]:
        """Return what each layer's gradient is made of, of the loss summed over all predictions.

        Args:
            examples: What the model reads, the first dimension being B.
            labels: Draws the labels from the model's own predictions.

        Returns:
            By layer, one entry for each use of its matrix: two for an embedding that is the output layer too.
        """

    def predictions(self, examples: Tensor) -> int:
        """Return how many predictions the model makes of some examples: the curvature is taken for each."""
