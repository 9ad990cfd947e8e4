"""Layers of any module, by hooks, against gradients and dense Fisher matrices of tiny transformers in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.progress import NullReporter
from canaryaudit.unlearning.curvature.kronecker import InverseRoot, as_vector, kronecker_curvature
from canaryaudit.unlearning.curvature.module_layers import ModuleLayers
from tests.token_models import Arch, make_model

VOCABULARY = 7


def tiny(arch: Arch, *, tied: bool) -> Any:
    model = make_model(arch, VOCABULARY, width=4, layers=1, seed=3)
    if not tied and arch == "gpt2":
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    if tied and arch == "llama":
        model.lm_head.weight = model.get_input_embeddings().weight
    with torch.no_grad():
        for own in model.parameters():
            own.clamp_(-1.5, 1.5)
    return model.double().eval()


def layers_of(model: Any) -> ModuleLayers:
    return ModuleLayers(model, lambda ids: model(input_ids=ids).logits, [model.get_input_embeddings()])


def windows_of(count: int, length: int = 5) -> Tensor:
    return torch.randint(VOCABULARY, (count, length), generator=torch.Generator().manual_seed(1))


def drawn(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda logits: torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]


def flat_gradient(loss: Tensor, layers: ModuleLayers) -> Tensor:
    return torch.cat([own.reshape(-1) for own in torch.autograd.grad(loss, list(layers.moved))])


def product(rows: int, left: Tensor, right: Tensor) -> Tensor:
    """Return sum_t l_t r_t' of one example."""
    one_hot = left if left.is_floating_point() else nn.functional.one_hot(left, rows).to(right.dtype)
    return one_hot.T @ right


cases = pytest.mark.parametrize(("arch", "tied"), [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False)])


@cases
def test_sides_make_the_gradient_of_every_moved_weight(arch: Arch, tied: bool) -> None:
    """Of all examples together; a table with two uses gets the sum of both."""
    model = tiny(arch, tied=tied)
    layers, windows = layers_of(model), windows_of(3)
    uses = layers.sides(windows, drawn(5))
    logits = model(input_ids=windows).logits.flatten(0, 1)
    loss = nn.functional.cross_entropy(logits, drawn(5)(logits), reduction="sum")
    made = {
        name: sum(
            product(layers.layers[name].rows, one, other)
            for use in own
            for one, other in zip(use.left, use.right, strict=True)
        )
        for name, own in uses.items()
    }
    torch.testing.assert_close(as_vector(made, layers.layers), flat_gradient(loss, layers), rtol=1e-6, atol=1e-6)
    assert sorted(map(len, uses.values()))[-1] == (2 if tied else 1)


@cases
def test_values_are_the_diagonal_of_the_dense_fisher_matrix_in_the_blocks_bases(arch: Arch, tied: bool) -> None:
    """The dense one from per-example gradients that autograd takes one by one, with the labels that were drawn."""
    model = tiny(arch, tied=tied)
    layers, windows = layers_of(model), windows_of(4)
    curvature = kronecker_curvature(layers, windows, 3, NullReporter(), batch=1)
    draw = drawn(3)
    for _ in windows:  # the first pass's labels
        draw(model(input_ids=_[None]).logits[0])
    gradients = []
    for window in windows:
        logits = model(input_ids=window[None]).logits[0]
        gradients.append(flat_gradient(nn.functional.cross_entropy(logits, draw(logits), reduction="sum"), layers))
    fisher = sum(torch.outer(own, own) for own in gradients) / windows.numel()
    first = 0
    for name, layer in layers.layers.items():
        own, columns = curvature.blocks[name], sum(layer.widths)
        sizes = [layer.rows * width for width in layer.widths]
        parts = torch.split(torch.arange(first, first + sum(sizes)), sizes)
        where = torch.cat([part.view(layer.rows, -1) for part in parts], 1).flatten()
        first += sum(sizes)
        rows = torch.eye(layer.rows, dtype=torch.float64) if own.left is None else own.left
        basis = torch.kron(rows, own.right)
        truth = (basis.T @ fisher[where[:, None], where] @ basis).diagonal().view(layer.rows, columns)
        torch.testing.assert_close(own.values, truth, rtol=1e-5, atol=1e-7)
    assert first == len(fisher)


def test_the_root_squared_is_the_dense_inverse_where_rows_have_no_basis() -> None:
    model = tiny("gpt2", tied=True)
    layers = layers_of(model)
    curvature = kronecker_curvature(layers, windows_of(6), 0, NullReporter())
    root = InverseRoot(curvature, layers, 7.0, 1e-2, torch.float64)
    size = sum(own.numel() for own in layers.moved)
    gradient = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solved, expected, first = root.apply(root.transposed(gradient)), [], 0
    for name, layer in layers.layers.items():
        own, columns = curvature.blocks[name], sum(layer.widths)
        rows = torch.eye(layer.rows, dtype=torch.float64) if own.left is None else own.left
        basis = torch.kron(rows, own.right)
        whole = basis @ torch.diag(7 * own.values.flatten() + 1e-2) @ basis.T
        assert layer.widths == (columns,)  # of Conv1D the bias is a row, and the tied table has none
        part = gradient[first : first + layer.rows * columns]
        expected.append(torch.linalg.solve(whole, part))
        first += len(part)
    torch.testing.assert_close(solved, torch.cat(expected), rtol=1e-7, atol=1e-9)
    assert curvature.blocks["transformer.wte"].left is None


def test_what_stands_in_no_layer_stays_out() -> None:
    """Normalizations and positions; each other parameter once."""
    model = tiny("gpt2", tied=True)
    moved = {id(own) for own in layers_of(model).moved}
    out = {name for name, own in model.named_parameters() if id(own) not in moved}
    assert len(moved) == len(layers_of(model).moved)
    assert out
    assert all("ln_" in name or "wpe" in name for name in out)


def test_a_module_of_floats_makes_one_prediction_of_each_example() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    layers, examples = ModuleLayers(module, module), torch.randn(9, 3, dtype=torch.float64)
    assert layers.predictions(examples) == 9
    assert {name: own.rows for name, own in layers.layers.items()} == {"0": 4, "2": 2}
    assert kronecker_curvature(layers, examples, 0, NullReporter()).blocks["2"].values.shape == (2, 5)


def test_a_module_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(UnlearningError, match="no linear layer that could be changed"):
        ModuleLayers(nn.Embedding(3, 2), nn.Embedding(3, 2))


def small_convolutions() -> nn.Sequential:
    torch.manual_seed(4)
    layers = (nn.Conv2d(2, 2, 3, padding=1, stride=2, bias=False), nn.Tanh(), nn.Conv2d(2, 3, 2), nn.Tanh())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3, 3)).double().eval()


def test_sides_of_convolutions_make_every_image_s_gradient() -> None:
    model = small_convolutions()
    layers = ModuleLayers(model, model)
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    assert {name: own.widths for name, own in layers.layers.items()} == {"0": (18,), "2": (8, 1), "5": (3, 1)}
    sides = layers.sides(images, drawn(2))
    labels = drawn(2)(model(images))
    for place in range(3):
        loss = nn.functional.cross_entropy(model(images[place : place + 1]), labels[place : place + 1])
        made = {name: own[0].left[place].T @ own[0].right[place] for name, own in sides.items()}
        torch.testing.assert_close(as_vector(made, layers.layers), flat_gradient(loss, layers))


def test_the_curvature_of_convolutions_is_the_fisher_matrix_s_diagonal_in_its_basis() -> None:
    """Against dense per-image gradients, for the very labels that were drawn."""
    model = small_convolutions()
    layers = ModuleLayers(model, model)
    images = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    curvature = kronecker_curvature(layers, images, 7, NullReporter(), batch=5)
    draw = drawn(7)
    _ = draw(model(images))  # of the first pass, over the factors
    labels = draw(model(images))
    squares = {name: torch.zeros_like(own.values) for name, own in curvature.blocks.items()}
    for place in range(5):
        loss = nn.functional.cross_entropy(model(images[place : place + 1]), labels[place : place + 1])
        gradients = iter(torch.autograd.grad(loss, list(layers.moved)))
        for name, layer in layers.layers.items():
            matrix = torch.cat([next(gradients).reshape(layer.rows, width) for width in layer.widths], 1)
            left = curvature.blocks[name].left
            assert left is not None
            squares[name] += (left.T @ matrix @ curvature.blocks[name].right) ** 2 / 5
    for name, expected in squares.items():
        torch.testing.assert_close(curvature.blocks[name].values, expected)


def test_convolutions_whose_patches_cannot_be_cut_stay_as_they_are() -> None:
    own = (nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 2, 3, padding="same"))
    model = nn.Sequential(*own, nn.Flatten(), nn.Linear(8, 2))
    assert [*ModuleLayers(model, model).layers] == ["3"]
