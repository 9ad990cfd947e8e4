"""Updates of corrected labels against gradients and matrices of tiny networks, and what each leaves as it is."""

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.images import RelabelConfig, relabel, second_order
from canaryaudit.images.layers import cut
from canaryaudit.images.relabeling import activations, fused
from canaryaudit.images.second_order import Correction, gauss_newton_step, label_gradient
from canaryaudit.images.training import LoopConfig, fit
from canaryaudit.records.images import ImageMethod
from tests.images.pictures import labeled, tiny_network

METHODS: tuple[ImageMethod, ...] = get_args(ImageMethod)


def same(batch: Tensor) -> Tensor:
    return batch


@pytest.fixture(scope="module")
def wrong() -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """A network trained with most of one class's labels wrong; the images, those labels, and the right ones."""
    images, labels = labeled(200)
    old = labels.clone()
    old[torch.nonzero(labels == 0)[::4, 0]] = 1
    old[torch.nonzero(labels == 0)[1::2, 0]] = 1
    network = tiny_network()
    fit(network, images, old, LoopConfig(30, 1e-2, 50))
    return network, images, old, labels


def share_right(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).double().mean())


def mean_loss(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network(images), labels))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_corrects_labels_and_leaves_the_network_as_it_was(
    wrong: tuple[nn.Sequential, Tensor, Tensor, Tensor], method: ImageMethod
) -> None:
    network, images, old, labels = wrong
    before = copy.deepcopy(network.state_dict())
    fixes = {row: int(labels[row]) for row in torch.nonzero(old != labels)[:, 0].tolist()}
    epochs = 20 if method in ("retrain", "fine-tune") else None
    config = RelabelConfig(method, fresh=tiny_network, epochs=epochs, batch=20)
    found = relabel(network, images, old, fixes, config)
    again = relabel(network, images, old, fixes, config)
    assert all(torch.equal(own, before[name]) for name, own in network.state_dict().items())
    assert not found.module.training
    for own, other in zip(found.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(own, other)
    assert mean_loss(found.module, images, labels) < mean_loss(network, images, labels)
    assert share_right(network, images, labels) < 0.8
    if not method.startswith(("first", "second")):  # steps of a linear model of a network that is none
        assert share_right(found.module, images, labels) > 0.9
    assert (found.residual is not None) == (method == "output-layer")
    moved = {
        name
        for (name, own), (_, other) in zip(network.named_parameters(), found.module.named_parameters(), strict=True)
        if not torch.equal(own, other)
    }
    frozen = {
        "output-layer": {"0.", "1.", "4.", "7."},
        "second-order-dense": {"0.", "1.", "4."},
        "dense-layers": {"0.", "1.", "4."},
        "blocks": {"0.", "1."},
        "second-order": {"1."},
    }
    assert moved
    assert not [name for name in moved if name.startswith(tuple(frozen.get(method, ())) or ("none",))]


@pytest.mark.parametrize("epochs", [0.5, 1, 2, 3])
def test_few_images_and_epochs_are_trained_on(epochs: float) -> None:
    images, labels = labeled(30)
    network = tiny_network()
    before = network[-1].weight.clone()
    fit(network, images, labels, LoopConfig(epochs, batch=128))
    assert not torch.equal(network[-1].weight, before)
    assert network[-1].weight.isfinite().all()


def test_the_gradient_is_the_difference_of_both_losses(
    wrong: tuple[nn.Sequential, Tensor, Tensor, Tensor],
) -> None:
    network, images, old, labels = wrong
    correction = Correction(images, old, labels, same, "fp32", 0)
    found = label_gradient(network, correction, list(network.parameters()))
    both = [
        torch.autograd.grad(nn.functional.cross_entropy(network(images), own, reduction="sum"), network.parameters())
        for own in (labels, old)
    ]
    expected = torch.cat([(new - was).reshape(-1) for new, was in zip(*both, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_dense_step_solves_with_the_gauss_newton_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tiny dense network, whose matrix is formed here from per-row Jacobians."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3)).eval()
    images, old = torch.randn(40, 3), torch.arange(40) % 3
    new = old.clone()
    new[:8] = (new[:8] + 1) % 3
    correction = Correction(images, old, new, same, "fp32", 0)
    monkeypatch.setattr(second_order, "ITERATIONS", 200)
    taken: list[Tensor] = []

    def keep(_: nn.Module, __: Correction, ___: list[Tensor], direction: Tensor) -> float:
        taken.append(direction)
        return 1.0

    monkeypatch.setattr(second_order, "take_step", keep)
    gauss_newton_step(module, correction)
    parameters = list(module.parameters())
    size = sum(own.numel() for own in parameters)
    matrix = 0.01 * 40 * torch.eye(size, dtype=torch.float64)
    for image in images:
        logits = module(image[None])[0]
        rows = [
            torch.cat([own.reshape(-1) for own in torch.autograd.grad(own_logit, parameters, retain_graph=True)])
            for own_logit in logits
        ]
        jacobian, chances = torch.stack(rows).double(), logits.softmax(0).double()
        matrix += jacobian.T @ (chances.diag() - chances[:, None] * chances) @ jacobian
    right = -label_gradient(module, correction, parameters).double()
    residual = matrix @ taken[0].double() - right
    assert residual.norm() <= 0.11 * right.norm()


def test_a_step_is_never_worse_than_none(wrong: tuple[nn.Sequential, Tensor, Tensor, Tensor]) -> None:
    network, images, old, labels = wrong
    module = copy.deepcopy(network)
    correction = Correction(images, old, labels, same, "fp32", 0)
    parameters = list(module.parameters())
    against = label_gradient(module, correction, parameters)  # the direction that makes things worse
    assert second_order.take_step(module, correction, parameters, against) == 0.0
    assert all(torch.equal(own, other) for own, other in zip(parameters, network.parameters(), strict=True))


@pytest.mark.parametrize("part", ["output-layer", "dense-layers", "blocks"])
def test_activations_are_those_of_the_layers_below(part: str) -> None:
    """Though normalizations are merged into convolutions, in a copy."""
    network, (images, labels) = tiny_network(), labeled(30)
    parts = cut(network, part)  # type: ignore[arg-type]
    kept = activations(parts.below, Correction(images, labels, labels, same, "fp32", 0))
    with torch.no_grad():
        torch.testing.assert_close(kept, parts.below(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(parts.above(kept), network(images), rtol=1e-4, atol=1e-5)
    assert len(fused(cut(network, "output-layer").below)) == len(parts.below) + len(parts.above) - 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda images, labels: (images, labels, {}), "nothing to correct"),
        (lambda images, labels: (images, labels, {99: 1}), "row 99 is none of the 30 images"),
        (lambda images, labels: (images, labels, {0: 7}), "given class 7: expected 0 to 2"),
        (lambda images, labels: (images[:5], labels, {0: 1}), "got 5 images"),
        (lambda images, labels: (images.fill_(float("nan")), labels, {0: 1}), "not finite"),
    ],
)
def test_bad_requests_are_refused(change: object, expected: str) -> None:
    images, labels = labeled(30)
    labels[0] = 0
    with pytest.raises(UnlearningError, match=expected):
        relabel(tiny_network(), *change(images, labels))  # type: ignore[operator]


class Opaque(nn.Module):
    """A module whose layers' order only its code knows."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = tiny_network()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inside(images)
        return logits


@pytest.mark.parametrize(
    ("module", "method", "expected"),
    [
        (Opaque(), "dense-layers", "the layers of a Opaque are not known"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "blocks", "has no convolution"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1)), "output-layer", "ends in a Softmax"),
        (tiny_network(), "retrain", "needs the untrained network"),
        (tiny_network(), "magic", "unknown method 'magic'"),
    ],
)
def test_networks_that_do_not_fit_are_refused(module: nn.Module, method: ImageMethod, expected: str) -> None:
    images, labels = labeled(30)
    with pytest.raises(UnlearningError, match=expected):
        relabel(module, images, labels, {0: int(labels[0] + 1) % 3}, RelabelConfig(method))


@pytest.mark.parametrize("method", ["first-order", "second-order", "fine-tune"])
def test_any_module_can_be_brought(method: ImageMethod) -> None:
    images, labels = labeled(30)
    found = relabel(Opaque(), images, labels, {0: int(labels[0] + 1) % 3}, RelabelConfig(method))
    assert isinstance(found.module, Opaque)
