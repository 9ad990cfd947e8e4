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
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import ProgressReporter

BATCH = 32
"""Windows read at a time: some 300 MB for the 3.3 M-parameter model."""
WINDOWS = 128
"""Windows of text that are read. With 64 in the place of 256, an update of the embedded audit's model costs the text
0.03 points of accuracy more."""
_PARTS = ("left", "right", "values")


@dataclass(frozen=True)
class Activity:
    """What every layer's matrix is multiplied with, and what comes out, by the layer's name.

    Attributes:
        inputs: Shape (B, T, D).
        outputs: Shape (B, T, O), in the graph: an LSTM layer's are what its gates get before their nonlinearities.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class KroneckerBlock:
    """The curvature of one layer's matrix W, shape (R, C), for each position of text.

    Attributes:
        left: Eigenvectors of the factor of W's rows, shape (R, R).
        right: Eigenvectors of the factor of its columns, shape (C, C).
        values: S, shape (R, C).
    """

    left: Tensor
    right: Tensor
    values: Tensor


@dataclass(frozen=True)
class KroneckerCurvature:
    """The curvature of a model's training loss, layer by layer, for each position of text.

    Attributes:
        blocks: By layer: ``embedding``, ``lstm.0`` and so on, ``output``.
    """

    blocks: Mapping[str, KroneckerBlock]

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is to be stored, by name."""
        return {f"{name}.{part}": getattr(own, part) for name, own in self.blocks.items() for part in _PARTS}

    @classmethod
    def of(cls, model: CharLSTM, tensors: Mapping[str, Tensor]) -> "KroneckerCurvature":
        """Make a curvature from what was stored, as ``tensors`` returned it.

        Raises:
            UnlearningError: It is not of this model's sizes, not finite, or negative somewhere.
        """
        expected: dict[str, tuple[int, ...]] = {}
        for name, (rows, widths) in widths_of(model).items():
            shapes = ((rows, rows), (sum(widths), sum(widths)), (rows, sum(widths)))
            expected |= {f"{name}.{part}": shape for part, shape in zip(_PARTS, shapes, strict=True)}
        found = {name: tuple(own.shape) for name, own in tensors.items()}
        for name in {**expected, **found}:
            if found.get(name) != expected.get(name):
                raise UnlearningError(
                    f"the curvature's {name[:100]} is of shape {found.get(name)}, expected {expected.get(name)}"
                )
            if not tensors[name].isfinite().all() or (name.endswith(".values") and (tensors[name] < 0).any()):
                raise UnlearningError(f"the curvature's {name} holds numbers that are not finite, or negative")
        like = model.output.weight
        parts = {name: tensors[name].to(like.device, like.dtype) for name in expected}
        return cls({name: KroneckerBlock(*(parts[f"{name}.{part}"] for part in _PARTS)) for name in widths_of(model)})


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
        self, curvature: KroneckerCurvature, model: CharLSTM, scale: float, damping: float, kind: torch.dtype
    ) -> None:
        if not damping > 0:
            raise UnlearningError(f"a stored curvature may be singular: expected a damping over 0, got {damping}")
        self.damping, self._widths = damping, widths_of(model)
        self._roots = {name: (scale * own.values + damping).rsqrt() for name, own in curvature.blocks.items()}
        self._sides = {name: (own.left.to(kind), own.right.to(kind)) for name, own in curvature.blocks.items()}

    @torch.no_grad()
    def transposed(self, gradient: Tensor) -> Tensor:
        """Return R' g of a gradient in the order of the model's parameters, shape (N,) -> (N,)."""
        matrices, parts = as_matrices(gradient, self._widths), []
        for name, (left, right) in self._sides.items():
            turned = left.T @ (matrices[name].to(left.dtype) @ right)
            parts.append((turned.to(gradient.dtype) * self._roots[name]).reshape(-1))
        return torch.cat(parts)

    @torch.no_grad()
    def apply(self, coordinates: Tensor) -> Tensor:
        """Return R u in the order of the model's parameters, shape (N,) -> (N,)."""
        matrices, first = {}, 0
        for name, (left, right) in self._sides.items():
            root = self._roots[name]
            own = coordinates[first : first + root.numel()].view_as(root) * root
            first += root.numel()
            matrices[name] = (left @ own.to(left.dtype) @ right.T).to(coordinates.dtype)
        return as_vector(matrices, self._widths)


def kronecker_curvature(model: CharLSTM, windows: Tensor, seed: int, progress: ProgressReporter) -> KroneckerCurvature:
    """Compute the curvature of the training loss in two passes over windows of text: factors, then S.

    Args:
        model: The model.
        windows: Symbol ids to read, shape (W, T).
        seed: Of the labels' draws.
        progress: Told of progress.

    Raises:
        UnlearningError: There is no window.
    """
    if not windows.numel():
        raise UnlearningError("no window of text to take the curvature from: expected at least one")
    generator = torch.Generator(windows.device).manual_seed(seed)
    batches = torch.split(windows, BATCH)
    bases: dict[str, tuple[Tensor, Tensor]] = {}
    factors: dict[str, list[Tensor]] = {}
    values: dict[str, Tensor] = {}
    for index, batch in enumerate((*batches, *batches)):
        if index == len(batches):
            bases = {name: (_eigenvectors(left), _eigenvectors(right)) for name, (left, right) in factors.items()}
            factors.clear()
        for name, sides in sides_of(model, batch, generator).items():
            if not bases:
                own = factors.setdefault(name, [side.new_zeros(2 * side.shape[2:]) for side in sides])
                for total, side in zip(own, sides, strict=True):
                    rows = side.flatten(0, 1)
                    total.addmm_(rows.T, rows, alpha=1 / windows.numel())
            else:
                left, right = (side @ basis for side, basis in zip(sides, bases[name], strict=True))
                total = values.setdefault(name, left.new_zeros(left.shape[2], right.shape[2]))
                for one, other in zip(left, right, strict=True):  # each as large as the matrix itself
                    whole = one.T @ other
                    total.addcmul_(whole, whole, value=1 / windows.numel())
        progress.update("curvature", index + 1, 2 * len(batches))
    return KroneckerCurvature({name: KroneckerBlock(*bases[name], values[name]) for name in values})


def _eigenvectors(factor: Tensor) -> Tensor:
    """Return a factor's eigenvectors as the columns of a matrix, row after row in memory.

    LAPACK returns them column after column, and a file holds rows. Matrix products round otherwise for another order in
    memory, on some processors and for some sizes: a curvature read from its file would give other steps than a new one.
    """
    vectors: Tensor = torch.linalg.eigh(factor)[1].contiguous()
    return vectors


def sides_of(model: CharLSTM, windows: Tensor, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what each layer's gradient is made of: sum_t l_t r_t' of a window, in the shape of the layer's matrix.

    Args:
        model: The model.
        windows: Symbol ids, shape (B, T).
        generator: Of the labels, drawn from the model's own predictions.

    Returns:
        By layer l and r, shapes (B, T, R) and (B, T, C).
    """
    activity = unrolled(model, windows)
    logits = activity.outputs["output"]
    with torch.no_grad():
        labels = torch.multinomial(logits.softmax(2).flatten(0, 1), 1, generator=generator)[:, 0]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")
    names = list(activity.outputs)
    gradients = dict(zip(names, torch.autograd.grad(loss, [activity.outputs[name] for name in names]), strict=True))
    # An embedding's table has a row for each symbol: its matrix stands turned round.
    return {
        name: (activity.inputs[name], gradients[name])
        if name == "embedding"
        else (gradients[name], activity.inputs[name])
        for name in names
    }


def unrolled(model: CharLSTM, symbols: Tensor) -> Activity:
    """Read symbols, shape (B, T), from the zero state, one time step after the other, with all layers at hand."""
    one_hot = nn.functional.one_hot(symbols, len(model.architecture.vocabulary))
    below: Tensor = model.embedding(symbols)
    inputs, outputs = {"embedding": one_hot.to(below.dtype)}, {"embedding": below}
    for layer, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(model.lstm.all_weights):
        given = nn.functional.linear(below, weight_ih, bias_ih + bias_hh)  # (B, T, 4H)
        cell = hidden = below.new_zeros(len(symbols), model.architecture.hidden)
        hiddens = [hidden]
        for own in given.unbind(1):  # a gate's gradient is that of what it is given from below
            to_keep, forget, candidate, to_show = (own + hidden @ weight_hh.T).chunk(4, 1)  # (B, H) each
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(to_keep) * torch.tanh(candidate)
            hidden = torch.sigmoid(to_show) * torch.tanh(cell)
            hiddens.append(hidden)
        ones = below.new_ones(*symbols.shape, 2)
        inputs[f"lstm.{layer}"] = torch.cat((below, torch.stack(hiddens[:-1], 1), ones), 2).detach()
        outputs[f"lstm.{layer}"] = given
        below = torch.stack(hiddens[1:], 1)
    inputs["output"] = torch.cat((below, torch.ones_like(below[..., :1])), 2).detach()
    outputs["output"] = model.output(below)
    return Activity(inputs, outputs)


def as_matrices(vector: Tensor, widths: Mapping[str, tuple[int, Sequence[int]]]) -> dict[str, Tensor]:
    """Cut a flat vector, in the parameters' order, into one matrix for each layer: its tensors side by side."""
    sizes = [rows * width for rows, own in widths.values() for width in own]
    if vector.shape != (sum(sizes),):
        raise UnlearningError(f"expected a vector of shape ({sum(sizes)},), got {tuple(vector.shape)}")
    parts = iter(torch.split(vector, sizes))
    return {
        name: torch.cat([next(parts).view(rows, width) for width in own], 1) for name, (rows, own) in widths.items()
    }


def as_vector(matrices: Mapping[str, Tensor], widths: Mapping[str, tuple[int, Sequence[int]]]) -> Tensor:
    """Undo ``as_matrices``."""
    return torch.cat(
        [part.reshape(-1) for name, (_, own) in widths.items() for part in torch.split(matrices[name], list(own), 1)]
    )


def widths_of(model: CharLSTM) -> dict[str, tuple[int, Sequence[int]]]:
    """Return each layer's number of rows, and the columns of its tensors, in the parameters' order."""
    size, hidden = len(model.architecture.vocabulary), model.architecture.hidden
    lstm = {
        f"lstm.{layer}": (4 * hidden, (hidden if layer else model.architecture.embedding, hidden, 1, 1))
        for layer in range(model.architecture.layers)
    }
    return {"embedding": (size, (model.architecture.embedding,)), **lstm, "output": (size, (hidden, 1))}
