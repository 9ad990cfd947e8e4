"""Delta against finite differences and automatic differentiation; the line search's promises."""

import pytest
import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.unlearning.first_order import delta, line_search
from tests.unlearning.builders import tiny_model

SYMBOLS = "abcde"


def summed_loss(model: CharLSTM, windows: Tensor) -> Tensor:
    logits = model(windows[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="sum")


@pytest.fixture
def model() -> CharLSTM:
    return tiny_model(SYMBOLS).double()


def windows(seed: int, count: int = 70) -> Tensor:
    """More than one batch."""
    return torch.randint(len(SYMBOLS), (count, 9), generator=torch.Generator().manual_seed(seed))


def test_delta_is_the_gradient_of_the_difference_of_the_losses(model: CharLSTM) -> None:
    corrected, original = windows(1), windows(2)
    parameters = list(model.parameters())
    found = delta(lambda batch: summed_loss(model, batch), corrected, original, parameters)
    expected = torch.autograd.grad(summed_loss(model, corrected) - summed_loss(model, original), parameters)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_delta_agrees_with_finite_differences(model: CharLSTM) -> None:
    corrected, original = windows(1, 5), windows(2, 3)  # Z-tilde may hold more windows than Z
    parameters = list(model.parameters())
    found = delta(lambda batch: summed_loss(model, batch), corrected, original, parameters)
    generator, step = torch.Generator().manual_seed(3), 1e-5

    @torch.no_grad()
    def difference(directions: list[Tensor], length: float) -> float:
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter += length * direction
        value = float(summed_loss(model, corrected) - summed_loss(model, original))
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter -= length * direction
        return value

    for _ in range(5):
        directions = [
            torch.randn(parameter.shape, generator=generator, dtype=torch.float64) for parameter in parameters
        ]
        slope = (difference(directions, step) - difference(directions, -step)) / (2 * step)
        along = sum(float((mine * direction).sum()) for mine, direction in zip(found, directions, strict=True))
        assert along == pytest.approx(slope, rel=1e-6)


def test_delta_vanishes_where_nothing_is_corrected(model: CharLSTM) -> None:
    same = windows(1)
    found = delta(lambda batch: summed_loss(model, batch), same, same.clone(), list(model.parameters()))
    assert max(float(part.abs().max()) for part in found) < 1e-10


def test_delta_can_be_taken_of_some_parameters(model: CharLSTM) -> None:
    chosen = list(model.output.parameters())
    found = delta(lambda batch: summed_loss(model, batch), windows(1), windows(2), chosen)
    assert [part.shape for part in found] == [parameter.shape for parameter in chosen]


class Slope:
    """One weight at 1; Z-tilde's loss is (w - 0.7)^2, and each unit of movement costs accuracy."""

    def __init__(self, cost: float, best: float = 0.7) -> None:
        self.weight, self.cost, self.best = nn.Parameter(torch.ones(1, dtype=torch.float64)), cost, best

    def search(self, limit: float, taus: tuple[float, ...] | None) -> tuple[float, object]:
        return line_search(
            [self.weight],
            [torch.ones(1, dtype=torch.float64) * 2],
            corrected_loss=lambda: float((self.weight.detach() - self.best) ** 2),
            fidelity_drop=lambda: self.cost * abs(1 - self.weight.item()),
            limit=limit,
            taus=taus,
            progress=NullReporter(),
        )


def test_the_best_step_within_the_limit_is_taken() -> None:
    slope = Slope(cost=0.0)
    tau, step = slope.search(0.1, (0.05, 0.1, 0.14, 0.3))
    assert tau == 0.14
    assert slope.weight.item() == pytest.approx(1 - 2 * 0.14)
    assert step.step_norm == pytest.approx(0.28)
    assert step.gradient_norm == 2
    assert step.objective_before == pytest.approx(0.09)
    assert step.objective_after == pytest.approx(0.02**2)


def test_no_step_over_the_limit_is_taken_even_if_it_serves_better() -> None:
    slope = Slope(cost=1.0)
    tau, _ = slope.search(0.11, (0.05, 0.1, 0.14))
    assert tau == 0.05
    assert slope.weight.item() == pytest.approx(0.9)


@pytest.mark.parametrize(("cost", "best"), [(1e6, 0.7), (0.0, 1.5)])
def test_the_weights_stay_where_they_were_if_nothing_helps(cost: float, best: float) -> None:
    """Every step breaks the limit, or every step leads away from the best place."""
    slope = Slope(cost, best)
    tau, step = slope.search(0.1, None)
    assert tau == 0
    assert slope.weight.item() == 1
    assert step.step_norm == 0
    assert step.objective_after == step.objective_before


def test_a_given_step_length_is_honoured() -> None:
    slope = Slope(cost=0.0)
    tau, _ = slope.search(0.1, (0.03,))
    assert tau == 0.03
    assert slope.weight.item() == pytest.approx(0.94)


def test_without_step_lengths_the_weights_move_by_up_to_a_quarter_of_their_norm() -> None:
    slope = Slope(cost=0.0, best=-100.0)
    tau, step = slope.search(0.1, None)
    assert step.step_norm == pytest.approx(0.25)
    assert tau == pytest.approx(0.125)
