"""Gradient, Hessian and Gauss-Newton products against dense matrices, for three kinds of model."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian

from canaryaudit.errors import UnlearningError
from canaryaudit.unlearning.curvature.products import DifferentiableLoss, as_function
from canaryaudit.unlearning.first_order import delta
from tests.unlearning.builders import tiny_model

Batch = tuple[Tensor, Tensor]


def seeded(model: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return model().double()


def batches_of(inputs: Tensor, labels: Tensor) -> list[Batch]:
    """Cut a data set into uneven batches."""
    return list(zip(torch.split(inputs, 2), torch.split(labels, 2), strict=True))


def lstm() -> tuple[nn.Module, list[Batch]]:
    generator = torch.Generator().manual_seed(1)
    windows = torch.randint(4, (3, 7), generator=generator)
    return tiny_model("abcd", hidden=3).double(), batches_of(windows[:, :-1], windows[:, 1:])


def logistic_regression() -> tuple[nn.Module, list[Batch]]:
    generator = torch.Generator().manual_seed(2)
    inputs, labels = torch.randn(5, 4, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 2, 1, 0])
    return seeded(lambda: nn.Linear(4, 3)), batches_of(inputs, labels)


def convolution() -> tuple[nn.Module, list[Batch]]:
    generator = torch.Generator().manual_seed(4)
    images, labels = torch.randn(3, 1, 6, 6, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 1])
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.0), nn.Linear(8, 2)
        )
    ), batches_of(images, labels)


MODELS = {"lstm": lstm, "logistic regression": logistic_regression, "cnn": convolution}
every_model = pytest.mark.parametrize("kind", MODELS)


def cross_entropy(outputs: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(outputs.flatten(0, -2), batch[1].flatten(), reduction="sum")


def loss_of(kind: str, loss: Callable[[Tensor, Batch], Tensor] = cross_entropy) -> DifferentiableLoss[Batch]:
    model, batches = MODELS[kind]()
    parameters, predict = as_function(model)
    return DifferentiableLoss(parameters, lambda theta, batch: predict(theta, batch[0]), loss, batches)


def as_flat_function(loss: DifferentiableLoss[Batch]) -> tuple[Tensor, Callable[[Tensor, Batch], Tensor]]:
    """Return theta and the model's outputs as a function of it, written without the class under test."""
    shapes = [own.shape for own in loss.parameters]

    def outputs(theta: Tensor, batch: Batch) -> Tensor:
        parts = torch.split(theta, [shape.numel() for shape in shapes])
        with torch.backends.cudnn.flags(enabled=False):
            return loss.predict([part.view(shape) for part, shape in zip(parts, shapes, strict=True)], batch)

    return torch.cat([own.reshape(-1) for own in loss.parameters]), outputs


def dense_hessian(loss: DifferentiableLoss[Batch]) -> Tensor:
    theta, outputs = as_flat_function(loss)
    return hessian(lambda at: sum(loss.loss(outputs(at, batch), batch) for batch in loss.batches), theta)


def dense_gauss_newton(loss: DifferentiableLoss[Batch]) -> Tensor:
    """Return J' (diag p - p p') J, the law's covariance written out."""
    theta, outputs = as_flat_function(loss)
    total = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for batch in loss.batches:
        distributions = outputs(theta, batch).flatten(0, -2).softmax(1)
        slopes = jacobian(lambda at, own=batch: outputs(at, own).flatten(0, -2), theta)  # (P, V, N)
        for distribution, slope in zip(distributions, slopes, strict=True):
            total += slope.T @ (torch.diag(distribution) - torch.outer(distribution, distribution)) @ slope
    return total


def vectors(size: int, count: int = 3) -> Sequence[Tensor]:
    return torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).unbind()


@every_model
def test_value_and_gradient_are_those_of_plain_differentiation(kind: str) -> None:
    loss = loss_of(kind)
    theta, outputs = as_flat_function(loss)
    theta.requires_grad_()
    value = sum(loss.loss(outputs(theta, batch), batch) for batch in loss.batches)
    (gradient,) = torch.autograd.grad(value, theta)
    assert loss.value() == pytest.approx(float(value.detach()))
    torch.testing.assert_close(loss.gradient(), gradient)


@every_model
def test_hessian_products_are_those_of_the_dense_matrix(kind: str) -> None:
    loss = loss_of(kind)
    dense = dense_hessian(loss)
    for vector in vectors(loss.size):
        torch.testing.assert_close(loss.hessian_product(vector), dense @ vector, rtol=1e-9, atol=1e-11)


@every_model
def test_gauss_newton_products_are_those_of_the_dense_matrix(kind: str) -> None:
    loss = loss_of(kind)
    dense = dense_gauss_newton(loss)
    assert torch.linalg.eigvalsh(dense)[0] > -1e-10
    for vector in vectors(loss.size):
        torch.testing.assert_close(loss.gauss_newton_product(vector), dense @ vector, rtol=1e-9, atol=1e-11)


def test_an_lstm_has_curvature_that_gauss_newton_leaves_out() -> None:
    """Else the tests above could not tell the two matrices apart."""
    loss = loss_of("lstm")
    assert torch.linalg.eigvalsh(dense_hessian(loss))[0] < -1e-3
    assert (dense_hessian(loss) - dense_gauss_newton(loss)).norm() > 0.1 * dense_hessian(loss).norm()


def test_for_a_linear_model_both_matrices_are_one() -> None:
    loss = loss_of("logistic regression")
    (vector,) = vectors(loss.size, 1)
    torch.testing.assert_close(loss.hessian_product(vector), loss.gauss_newton_product(vector))


@every_model
def test_delta_is_the_difference_of_two_gradients(kind: str) -> None:
    """Delta(Z, Z-tilde) of the first-order update, from this class and from its own loop."""
    model, batches = MODELS[kind]()
    parameters, predict = as_function(model)
    loss = DifferentiableLoss(parameters, lambda theta, batch: predict(theta, batch[0]), cross_entropy, batches)
    corrected, original = batches[:1], batches[1:]

    def summed(index: Tensor) -> Tensor:
        return sum(cross_entropy(model(batches[i][0]), batches[i]) for i in index.tolist())

    by_loop = delta(summed, torch.tensor([0]), torch.arange(1, len(batches)), parameters)
    difference = loss.over(corrected).gradient() - loss.over(original).gradient()
    torch.testing.assert_close(difference, torch.cat([part.reshape(-1) for part in by_loop]))


def test_the_output_curvature_may_be_given() -> None:
    loss = loss_of("lstm")
    given = DifferentiableLoss(
        loss.parameters,
        loss.predict,
        loss.loss,
        loss.batches,
        output_curvature=lambda outputs, batch, vector: 2 * vector,
    )
    theta, outputs = as_flat_function(loss)
    (vector,) = vectors(loss.size, 1)
    slopes = torch.cat([jacobian(lambda at, own=own: outputs(at, own).flatten(), theta) for own in loss.batches])
    torch.testing.assert_close(given.gauss_newton_product(vector), 2 * slopes.T @ (slopes @ vector))


def test_a_loss_that_is_linear_has_no_curvature() -> None:
    loss = loss_of("logistic regression", lambda outputs, batch: outputs.sum())
    (vector,) = vectors(loss.size, 1)
    assert (loss.hessian_product(vector) == 0).all()
    assert (loss.gauss_newton_product(vector) == 0).all()


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    for own in model[0].parameters():
        own.requires_grad_(False)
    parameters, predict = as_function(model)
    loss = DifferentiableLoss(parameters, predict, lambda z, _: (z**2).sum(), [torch.ones(1, 4, dtype=torch.float64)])
    assert loss.size == 8
    assert loss.gradient().shape == (8,)


def test_moving_leaves_the_loss_as_it_was() -> None:
    loss = loss_of("cnn")
    before, (step, *_) = loss.value(), vectors(loss.size)
    value, gradient = loss.value_and_gradient()
    ahead = loss.moved(1e-6 * step).value()
    assert ahead - value == pytest.approx(1e-6 * float(gradient @ step), rel=1e-3)
    assert loss.value() == before


def test_backend_switches_are_put_back() -> None:
    loss = loss_of("lstm")
    (vector,) = vectors(loss.size, 1)
    before = (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)
    loss.gauss_newton_product(vector)
    loss.hessian_product(vector)
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == before


def test_single_precision_through_onednn_agrees() -> None:
    """The fused kernels are used in float32 only: forward mode would fail in them."""
    single = lstm()[0].float()
    parameters, predict = as_function(single)
    double = loss_of("lstm")
    loss = DifferentiableLoss(parameters, lambda theta, batch: predict(theta, batch[0]), cross_entropy, double.batches)
    for vector in vectors(loss.size):
        for name in ("hessian_product", "gauss_newton_product"):
            exact = getattr(double, name)(vector)
            torch.testing.assert_close(
                getattr(loss, name)(vector.float()).double(), exact, rtol=0, atol=1e-4 * float(exact.norm())
            )


def test_a_vector_of_another_length_is_an_error() -> None:
    with pytest.raises(UnlearningError, match=r"expected a vector of shape \(15,\), got \(3,\)"):
        loss_of("logistic regression").hessian_product(torch.zeros(3, dtype=torch.float64))


def test_no_parameters_are_an_error() -> None:
    with pytest.raises(UnlearningError, match="no parameters"):
        DifferentiableLoss([], lambda theta, batch: torch.zeros(1), lambda z, batch: z.sum(), [])
