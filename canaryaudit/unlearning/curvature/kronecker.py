"""The curvature of the training loss in Kronecker factors: computed once, so that a request costs products only.

Every layer of the model multiplies a matrix W with inputs x at each position (an LSTM layer with x_t, h_{t-1}, 1 and 1
for its two biases; an embedding with one-hot symbols), and gradients g_t of its outputs come back. The gradient of W is
the sum of g_t x_t' over the time steps of a window, which share W, and its Fisher matrix

    F = E[vec(sum_t g_t x_t') vec(sum_t g_t x_t')']  ~  (U_G (x) U_A) diag(S) (U_G (x) U_A)'

with U_A the eigenvectors of A = E[x x'] and U_G those of G = E[g g'], for which each time step is a case of its own
(Martens & Grosse 2015; Martens, Ba & Johnson 2018; "expand" in Eschenhagen et al. 2023), and with S the diagonal of F
itself in that basis, S_ij = E[(U_G' (sum_t g_t x_t') U_A)_ij^2] (George et al. 2018). Products of the factors'
eigenvalues would take the time steps for independent; S holds how they work together, and puts all layers on one
scale. With the eigenbasis kept, (F + lambda I)^-1 is exact for every lambda: lambda need not be split between the
factors, as it must be where A and G are inverted by themselves.

Labels are drawn from the model's own predictions: F is the Fisher matrix, which for cross-entropy is the Gauss-Newton
matrix. Curvature between layers is left out.

What a layer is, the model says (``trainable_model``). Where the rows of W are a large vocabulary, U_G is the identity:
symbols are taken one by one. A matrix with several uses, such as an embedding that is the output layer too, has one
block: S sees the sum of its gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from canaryaudit.errors import UnlearningError
from canaryaudit.progress import ProgressReporter
from canaryaudit.unlearning.curvature.trainable_model import GradientSides, LayerMatrix, TrainableModel

BATCH = 32
"""Windows read at a time: some 300 MB for the 3.3 M-parameter model."""
WINDOWS = 128
"""Windows of text that are read. With 64 in the place of 256, an update of the embedded audit's model costs the text
0.03 points of accuracy more."""


@dataclass(frozen=True)
class KroneckerBlock:
    """The curvature of one layer's matrix W, shape (R, C), for each position of text.

    Attributes:
        left: Eigenvectors of the factor of W's rows, shape (R, R); None for the rows as they are.
        right: Eigenvectors of the factor of its columns, shape (C, C).
        values: S, shape (R, C).
    """

    left: Tensor | None
    right: Tensor
    values: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return its parts by name."""
        rows = {} if self.left is None else {"left": self.left}
        return {**rows, "right": self.right, "values": self.values}


@dataclass(frozen=True)
class KroneckerCurvature:
    """The curvature of a model's training loss, layer by layer, for each position of text.

    Attributes:
        blocks: By layer.
    """

    blocks: Mapping[str, KroneckerBlock]

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is to be stored, by name."""
        return {f"{name}.{part}": own for name, block in self.blocks.items() for part, own in block.tensors().items()}

    @classmethod
    def of(cls, model: TrainableModel, tensors: Mapping[str, Tensor]) -> "KroneckerCurvature":
        """Make a curvature from what was stored, as ``tensors`` returned it.

        Raises:
            UnlearningError: It is not of this model's sizes, not finite, or negative somewhere.
        """
        expected: dict[str, tuple[int, ...]] = {}
        for name, layer in model.layers.items():
            columns = sum(layer.widths)
            if layer.has_row_basis:
                expected[f"{name}.left"] = (layer.rows, layer.rows)
            expected |= {f"{name}.right": (columns, columns), f"{name}.values": (layer.rows, columns)}
        found = {name: tuple(own.shape) for name, own in tensors.items()}
        for name in {**expected, **found}:
            if found.get(name) != expected.get(name):
                raise UnlearningError(
                    f"the curvature's {name[:100]} is of shape {found.get(name)}, expected {expected.get(name)}"
                )
            if not tensors[name].isfinite().all() or (name.endswith(".values") and (tensors[name] < 0).any()):
                raise UnlearningError(f"the curvature's {name} holds numbers that are not finite, or negative")
        like = model.moved[0]
        parts = {name: tensors[name].to(like.device, like.dtype) for name in expected}
        return cls(
            {
                name: KroneckerBlock(parts.get(f"{name}.left"), parts[f"{name}.right"], parts[f"{name}.values"])
                for name in model.layers
            }
        )


class InverseRoot:
    """R with R R' = (scale F + damping I)^-1: what turns the curvature into a choice of coordinates.

    In these coordinates weights move freely along what the text does not depend on, and hardly along the rest.

    Args:
        curvature: F, layer by layer.
        model: The model that it belongs to.
        scale: Positions of text that the objective weighs as much as F does one.
        damping: lambda.
        kind: Of the eigenvectors in products: bfloat16 where that is fast.
    """

    def __init__(
        self, curvature: KroneckerCurvature, model: TrainableModel, scale: float, damping: float, kind: torch.dtype
    ) -> None:
        if not damping > 0:
            raise UnlearningError(f"a stored curvature may be singular: expected a damping over 0, got {damping}")
        self.damping, self._layers = damping, dict(model.layers)
        self._roots = {name: (scale * own.values + damping).rsqrt() for name, own in curvature.blocks.items()}
        self._bases = {
            name: (None if own.left is None else own.left.to(kind), own.right.to(kind))
            for name, own in curvature.blocks.items()
        }

    @torch.no_grad()
    def transposed(self, gradient: Tensor) -> Tensor:
        """Return R' g of a gradient in the order of the model's moved parameters, shape (N,) -> (N,)."""
        matrices, parts = as_matrices(gradient, self._layers), []
        for name, (left, right) in self._bases.items():
            turned = matrices[name].to(right.dtype) @ right
            turned = turned if left is None else left.T @ turned
            parts.append((turned.to(gradient.dtype) * self._roots[name]).reshape(-1))
        return torch.cat(parts)

    @torch.no_grad()
    def apply(self, coordinates: Tensor) -> Tensor:
        """Return R u in the order of the model's moved parameters, shape (N,) -> (N,)."""
        matrices, first = {}, 0
        for name, (left, right) in self._bases.items():
            root = self._roots[name]
            own = coordinates[first : first + root.numel()].view_as(root) * root
            first += root.numel()
            turned = own.to(right.dtype) if left is None else left @ own.to(right.dtype)
            matrices[name] = (turned @ right.T).to(coordinates.dtype)
        return as_vector(matrices, self._layers)


def kronecker_curvature(
    model: TrainableModel, examples: Tensor, seed: int, progress: ProgressReporter, batch: int = BATCH
) -> KroneckerCurvature:
    """Compute the curvature of the training loss in two passes over examples: factors, then S.

    Args:
        model: The model.
        examples: What it reads, the first dimension being their number: windows of ids, shape (W, T), of text.
        seed: Of the labels' draws.
        progress: Told of progress.
        batch: Examples read at a time.

    Raises:
        UnlearningError: There is no example.
    """
    if not examples.numel():
        raise UnlearningError("no window of text to take the curvature from: expected at least one")
    generator = torch.Generator(examples.device).manual_seed(seed)

    def labels(logits: Tensor) -> Tensor:
        return torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]

    layers, share = model.layers, 1 / model.predictions(examples)
    batches = torch.split(examples, batch)
    bases: dict[str, tuple[Tensor | None, Tensor]] = {}
    factors: dict[str, _Factors] = {}
    values: dict[str, Tensor] = {}
    for index, part in enumerate((*batches, *batches)):
        if index == len(batches):
            bases = {name: own.bases() for name, own in factors.items()}
            factors.clear()
        for name, uses in model.sides(part, labels).items():
            if not bases:
                factors.setdefault(name, _Factors(layers[name], uses[0].right)).add(uses, share)
            else:
                values[name] = _add_squares(values.get(name), layers[name].rows, uses, bases[name], share)
        progress.update("curvature", index + 1, 2 * len(batches))
    return KroneckerCurvature({name: KroneckerBlock(*bases[name], values[name]) for name in values})


class _Factors:
    """The factors of one layer's matrix: E[l l'] of its rows, and E[r r'] of its columns."""

    def __init__(self, layer: LayerMatrix, like: Tensor) -> None:
        columns = sum(layer.widths)
        self._rows = like.new_zeros(layer.rows, layer.rows) if layer.has_row_basis else None
        self._columns = like.new_zeros(columns, columns)

    def add(self, uses: Sequence[GradientSides], share: float) -> None:
        """Add a batch's; where a matrix has several uses, each counts as much as its other side is long."""
        for use in uses:
            weight = share * (_mean_square(use.left) if len(uses) > 1 else 1.0)
            right = use.right.flatten(0, 1)
            if self._rows is not None:
                left = use.left.flatten(0, 1)
                self._rows.addmm_(left.T, left, alpha=share)
            self._columns.addmm_(right.T, right, alpha=weight)

    def bases(self) -> tuple[Tensor | None, Tensor]:
        """Return the eigenvectors of both."""
        return None if self._rows is None else _eigenvectors(self._rows), _eigenvectors(self._columns)


def _mean_square(left: Tensor) -> float:
    """Return the mean of |l|^2 over positions."""
    return float(left.square().sum(-1).mean()) if left.is_floating_point() else 1.0


def _add_squares(
    total: Tensor | None,
    rows: int,
    uses: Sequence[GradientSides],
    bases: tuple[Tensor | None, Tensor],
    share: float,
) -> Tensor:
    """Add the squares of each example's gradient, turned into the bases, to S."""
    row_basis, column_basis = bases
    turned = [(use.left if row_basis is None else use.left @ row_basis, use.right @ column_basis) for use in uses]
    if total is None:
        total = turned[0][1].new_zeros(rows, turned[0][1].shape[2])
    for parts in zip(*(zip(left, right, strict=True) for left, right in turned), strict=True):
        whole = None  # as large as the matrix itself
        for one, other in parts:
            if one.is_floating_point():
                product = one.T @ other
                whole = product if whole is None else whole + product
            else:
                whole = (torch.zeros_like(total) if whole is None else whole).index_add_(0, one, other)
        if whole is not None:
            total.addcmul_(whole, whole, value=share)
    return total


def _eigenvectors(factor: Tensor) -> Tensor:
    """Return a factor's eigenvectors as the columns of a matrix, row after row in memory.

    LAPACK returns them column after column, and a file holds rows. Matrix products round otherwise for another order in
    memory, on some processors and for some sizes: a curvature read from its file would give other steps than a new one.
    """
    vectors: Tensor = torch.linalg.eigh(factor)[1].contiguous()
    return vectors


def as_matrices(vector: Tensor, layers: Mapping[str, LayerMatrix]) -> dict[str, Tensor]:
    """Cut a flat vector, in the parameters' order, into one matrix for each layer: its tensors side by side."""
    sizes = [layer.rows * width for layer in layers.values() for width in layer.widths]
    if vector.shape != (sum(sizes),):
        raise UnlearningError(f"expected a vector of shape ({sum(sizes)},), got {tuple(vector.shape)}")
    parts = iter(torch.split(vector, sizes))
    return {
        name: torch.cat([next(parts).view(layer.rows, width) for width in layer.widths], 1)
        for name, layer in layers.items()
    }


def as_vector(matrices: Mapping[str, Tensor], layers: Mapping[str, LayerMatrix]) -> Tensor:
    """Undo ``as_matrices``."""
    return torch.cat(
        [
            part.reshape(-1)
            for name, layer in layers.items()
            for part in torch.split(matrices[name], list(layer.widths), 1)
        ]
    )
