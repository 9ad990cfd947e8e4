"""The curvature in Kronecker factors, against dense matrices of tiny LSTMs in float64."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.records import Architecture
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.training.data import gather
from canaryaudit.unlearning.curvature import kronecker
from canaryaudit.unlearning.curvature.kronecker import (
    InverseRoot,
    KroneckerBlock,
    KroneckerCurvature,
    kronecker_curvature,
)
from canaryaudit.unlearning.curvature.lstm_layers import LSTMLayers, unrolled
from canaryaudit.unlearning.curvature.products import DifferentiableLoss, as_function
from tests.unlearning.builders import story, text_with_canaries, trained_model

SYMBOLS = "abcd"


def lstm(*, layers: int = 2, hidden: int = 3, embedding: int = 2, seed: int = 0) -> CharLSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = {"embedding": embedding, "hidden": hidden, "layers": layers}
        return CharLSTM(Architecture(vocabulary=SYMBOLS, **shape)).double().eval()


def windows_of(count: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(len(SYMBOLS), (count, length), generator=torch.Generator().manual_seed(seed))


def sides_of(model: CharLSTM, windows: Tensor, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Return both sides of each layer's gradient, of labels that a generator draws."""

    def labels(logits: Tensor) -> Tensor:
        return torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]

    return {name: (use.left, use.right) for name, [use] in LSTMLayers(model).sides(windows, labels).items()}


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def places_of(model: CharLSTM) -> dict[str, Tensor]:
    """Return where each layer's matrix, read row by row, stands in the flat vector of all parameters."""
    first, parts = 0, {}
    for name, own in model.named_parameters():
        layer = f"lstm.{name[-1]}" if name.startswith("lstm") else name.partition(".")[0]
        parts.setdefault(layer, []).append(torch.arange(first, first + own.numel()).view(len(own), -1))
        first += own.numel()
    return {layer: torch.cat(own, 1).flatten() for layer, own in parts.items()}


def solved(curvature: KroneckerCurvature, model: CharLSTM, gradient: Tensor, damping: float) -> Tensor:
    """Return (F + damping I)^-1 g, as the minimization multiplies with it."""
    root = InverseRoot(curvature, LSTMLayers(model), 1.0, damping, torch.float64)
    return root.apply(root.transposed(gradient))


def bases_of(block: KroneckerBlock) -> tuple[Tensor, Tensor]:
    assert block.left is not None
    return block.left, block.right


def dense(curvature: KroneckerCurvature, model: CharLSTM) -> Tensor:
    """Write F out: one Kronecker product of eigenbases for each layer, nothing between layers."""
    size = sum(own.numel() for own in model.parameters())
    whole = torch.zeros(size, size, dtype=torch.float64)
    for name, where in places_of(model).items():
        own = curvature.blocks[name]
        basis = torch.kron(*bases_of(own))
        whole[where[:, None], where] = basis @ torch.diag(own.values.flatten()) @ basis.T
    return whole


def dense_fisher(model: CharLSTM, windows: Tensor) -> Tensor:
    """Write the Fisher matrix for each position out: the Gauss-Newton matrix of the cross-entropy, by its products."""
    parameters, predict = as_function(model)

    def loss(logits: Tensor, batch: object) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), windows.flatten(), reduction="sum")

    whole = DifferentiableLoss(parameters, predict, loss, [windows])
    columns = [whole.gauss_newton_product(unit) for unit in torch.eye(whole.size, dtype=torch.float64)]
    return torch.stack(columns, 1) / windows.numel()


# --- reading


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_unrolled_model_says_what_the_model_says(layers: int) -> None:
    model, windows = lstm(layers=layers), windows_of(4, 9)
    torch.testing.assert_close(unrolled(model, windows).outputs["output"], model(windows))


def test_inputs_and_gradients_of_all_time_steps_make_the_gradient_of_every_weight() -> None:
    """Both biases have one each; labels drawn alike from the same seed."""
    model, windows = lstm(), windows_of(4, 9)
    sides = sides_of(model, windows, torch.Generator().manual_seed(5))
    logits = model(windows)
    labels = torch.multinomial(logits.softmax(2).flatten(0, 1).detach(), 1, generator=torch.Generator().manual_seed(5))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 0], reduction="sum")
    expected = flat(list(torch.autograd.grad(loss, list(model.parameters()))))
    made = {name: torch.einsum("btr,btc->rc", left, right) for name, (left, right) in sides.items()}
    torch.testing.assert_close(kronecker.as_vector(made, LSTMLayers(model).layers), expected)
    again = kronecker.as_matrices(expected, LSTMLayers(model).layers)
    assert all(torch.allclose(again[name], own) for name, own in made.items())


# --- the curvature


def test_eigenbases_are_those_of_the_factors() -> None:
    model, windows = lstm(), windows_of(40, 9)
    curvature = kronecker_curvature(LSTMLayers(model), windows, 3, NullReporter())
    generator = torch.Generator().manual_seed(3)
    parts = [sides_of(model, batch, generator) for batch in torch.split(windows, kronecker.BATCH)]
    for name, own in curvature.blocks.items():
        for side, basis in enumerate(bases_of(own)):
            rows = torch.cat([part[name][side].flatten(0, 1) for part in parts])
            turned = basis.T @ (rows.T @ rows / windows.numel()) @ basis
            torch.testing.assert_close(turned, torch.diag(turned.diagonal()), rtol=0, atol=1e-12)
            torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis), dtype=torch.float64))


def test_an_embeddings_factor_counts_its_symbols() -> None:
    model, windows = lstm(), windows_of(6, 9)
    one_hot = unrolled(model, windows).inputs["embedding"].flatten(0, 1)
    counts = torch.bincount(windows.flatten(), minlength=4).double()
    torch.testing.assert_close(one_hot.T @ one_hot, torch.diag(counts))


def test_values_are_the_fisher_matrixs_own_with_time_steps_working_together() -> None:
    """On average over many draws of labels; where time steps were taken for independent, they would be far off."""
    model, windows = lstm(layers=1), windows_of(3, 6)
    with torch.no_grad():
        model.output.weight.mul_(6)
        model.lstm.bias_ih_l0[3:6] = 2  # it remembers for long
    many = windows.repeat(2000, 1)
    curvature, fisher = kronecker_curvature(LSTMLayers(model), many, 0, NullReporter()), dense_fisher(model, windows)
    sides = sides_of(model, many, torch.Generator().manual_seed(9))
    for name, where in places_of(model).items():
        own = curvature.blocks[name]
        basis = torch.kron(*bases_of(own))
        truth = (basis.T @ fisher[where[:, None], where] @ basis).diagonal().view_as(own.values)
        assert float((own.values - truth).norm()) < 0.05 * float(truth.norm()), name
        assert float(own.values.sum()) == pytest.approx(float(truth.sum()), rel=0.05)
    own, where = curvature.blocks["lstm.0"], places_of(model)["lstm.0"]
    independent = [
        (side @ basis).square().mean((0, 1)).sum() for side, basis in zip(sides["lstm.0"], bases_of(own), strict=True)
    ]
    assert float(independent[0] * independent[1]) < 0.7 * float(fisher.diagonal()[where].sum())


def test_it_is_exact_where_inputs_and_gradients_are_independent() -> None:
    """All symbols equally likely whatever was read: the output layer's Fisher matrix is E[xx'] (x) (diag p - pp')."""
    model, windows = lstm(), windows_of(3, 6)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
    curvature = kronecker_curvature(LSTMLayers(model), windows.repeat(1500, 1), 0, NullReporter())
    inputs = unrolled(model, windows).inputs["output"].flatten(0, 1)
    distribution = torch.full((4,), 0.25, dtype=torch.float64)
    exact = torch.kron(
        torch.diag(distribution) - torch.outer(distribution, distribution), inputs.T @ inputs / len(inputs)
    )
    where = places_of(model)["output"]
    torch.testing.assert_close(dense_fisher(model, windows)[where[:, None], where], exact)
    found = dense(curvature, model)[where[:, None], where]
    assert float((found - exact).norm()) < 0.05 * float(exact.norm())


def test_of_one_window_it_has_the_gradients_own_length() -> None:
    """A change of basis turns a gradient and does not stretch it."""
    model, window = lstm(), windows_of(1, 9)
    curvature = kronecker_curvature(LSTMLayers(model), window, 3, NullReporter())
    generator = torch.Generator().manual_seed(3)
    sides_of(model, window, generator)  # the first pass's labels; those of the second come after
    for name, (left, right) in sides_of(model, window, generator).items():
        gradient = torch.einsum("btr,btc->rc", left, right)
        expected = float(gradient.square().sum()) / window.numel()
        assert float(curvature.blocks[name].values.sum()) == pytest.approx(expected)


def test_the_same_seed_gives_the_same_curvature_and_another_one_another() -> None:
    model, windows = lstm(), windows_of(40, 9)
    one, same, other = (
        kronecker_curvature(LSTMLayers(model), windows, seed, NullReporter()).tensors() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.allclose(one["output.values"], other["output.values"])


def test_progress_is_told_of_both_passes() -> None:
    told = []

    class Listener(NullReporter):
        def update(self, stage: str, done: float, total: float, facts: str = "") -> None:
            told.append((stage, done, total))

    kronecker_curvature(LSTMLayers(lstm()), windows_of(40, 9), 0, Listener())
    assert told == [("curvature", 1, 4), ("curvature", 2, 4), ("curvature", 3, 4), ("curvature", 4, 4)]


# --- the inverse


@pytest.mark.parametrize("damping", [1e-6, 1e-3, 10.0])
def test_the_inverse_product_is_the_dense_inverses(damping: float) -> None:
    model = lstm()
    curvature = kronecker_curvature(LSTMLayers(model), windows_of(40, 9), 0, NullReporter())
    whole = dense(curvature, model)
    gradient = torch.randn(len(whole), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.solve(whole + damping * torch.eye(len(whole), dtype=torch.float64), gradient)
    torch.testing.assert_close(solved(curvature, model, gradient, damping), expected, rtol=1e-7, atol=1e-7)


def test_its_direction_is_closer_to_the_gauss_newton_step_than_the_gradient_is() -> None:
    """In a trained LSTM, for gradients of other text and for a secret's; G the Fisher matrix on the same windows."""
    pieces = story(np.random.default_rng(0))
    data, _, vocabulary = text_with_canaries(
        ["".join(pieces[:45]), "".join(pieces[45:])], [("code {digits:4}!", "7391")]
    )
    model = trained_model(data, vocabulary, window=20, steps=120, hidden=3).double()
    windows = gather(data.train, np.arange(0, 200, 20), 20)
    curvature = kronecker_curvature(LSTMLayers(model), windows.repeat(16, 1), 0, NullReporter())
    fisher = dense_fisher(model, windows)
    place = int(data.secret.nonzero()[0])
    for start in (1500, 2000, place - 10):
        window = data.train[start : start + 21][None]
        loss = nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        gradient = flat(list(torch.autograd.grad(loss, list(model.parameters()))))
        for damping in (1e-3, 1e-4):
            step = torch.linalg.solve(fisher + damping * torch.eye(len(fisher), dtype=torch.float64), gradient)
            ours = solved(curvature, model, gradient, damping)
            plain, found = (float(nn.functional.cosine_similarity(own, step, 0)) for own in (gradient, ours))
            assert found > plain + 0.1


# --- what is stored, and what is refused


def test_what_is_stored_gives_the_same_products(tmp_path: Path) -> None:
    model = lstm()
    curvature = kronecker_curvature(LSTMLayers(model), windows_of(6, 9), 0, NullReporter())
    gradient = torch.ones(sum(own.numel() for own in model.parameters()), dtype=torch.float64)
    file = CheckpointFile(tmp_path / "curvature.safetensors", "key")
    file.save(curvature.tensors(), {})
    tensors, _ = file.load() or ({}, b"")
    again = KroneckerCurvature.of(LSTMLayers(model), tensors)
    assert torch.equal(solved(again, model, gradient, 0.1), solved(curvature, model, gradient, 0.1))
    # The products above agree on some processors whatever the order in memory; on all where it is the file's.
    for name, tensor in curvature.tensors().items():
        assert tensor.stride() == tensors[name].stride(), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.pop("output.left"), r"output.left is of shape None, expected \(4, 4\)"),
        (lambda own: own.update(more=torch.ones(2)), r"more is of shape \(2,\), expected None"),
        (
            lambda own: own.update({"lstm.1.values": torch.ones(12, 7)}),
            r"lstm.1.values is of shape \(12, 7\), expected",
        ),
        (lambda own: own["embedding.right"].fill_(torch.nan), "embedding.right holds numbers that are not finite"),
        (lambda own: own["output.values"].sub_(1), "output.values holds numbers that are not finite, or negative"),
    ],
)
def test_what_is_no_curvature_of_this_model_is_refused(
    change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    model = lstm()
    tensors = kronecker_curvature(LSTMLayers(model), windows_of(6, 9), 0, NullReporter()).tensors()
    change(tensors)
    with pytest.raises(UnlearningError, match=message):
        KroneckerCurvature.of(LSTMLayers(model), tensors)


def test_bad_requests_are_refused() -> None:
    model = lstm()
    curvature = kronecker_curvature(LSTMLayers(model), windows_of(6, 9), 0, NullReporter())
    size = sum(own.numel() for own in model.parameters())
    with pytest.raises(UnlearningError, match=rf"expected a vector of shape \({size},\), got \(3,\)"):
        solved(curvature, model, torch.ones(3, dtype=torch.float64), 1.0)
    with pytest.raises(UnlearningError, match="no window of text"):
        kronecker_curvature(LSTMLayers(model), windows_of(0, 9), 0, NullReporter())


# --- the coordinates that it gives


@pytest.mark.parametrize("damping", [1e-4, 10.0])
def test_the_root_squared_is_the_dense_inverse(damping: float) -> None:
    model = lstm()
    curvature = kronecker_curvature(LSTMLayers(model), windows_of(40, 9), 0, NullReporter())
    root = InverseRoot(curvature, LSTMLayers(model), 7.0, damping, torch.float64)
    whole = dense(curvature, model)
    size = len(whole)
    dense_root = torch.stack([root.apply(own) for own in torch.eye(size, dtype=torch.float64)], 1)
    expected = torch.linalg.inv(7 * whole + damping * torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(dense_root @ dense_root.T, expected, rtol=1e-7, atol=1e-9)
    turned = torch.stack([root.transposed(own) for own in torch.eye(size, dtype=torch.float64)], 1)
    torch.testing.assert_close(turned, dense_root.T, rtol=1e-9, atol=1e-9)


def test_a_root_without_damping_is_refused() -> None:
    model = lstm()
    curvature = kronecker_curvature(LSTMLayers(model), windows_of(6, 9), 0, NullReporter())
    for damping in (0.0, -1.0, float("nan")):
        with pytest.raises(UnlearningError, match="expected a damping over 0"):
            InverseRoot(curvature, LSTMLayers(model), 1.0, damping, torch.float64)
