"""L-BFGS from the stored curvature, on quadratics whose minima are known."""

import pytest
import torch
from torch import Tensor

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.records import Architecture
from canaryaudit.unlearning.all_layers.lbfgs import Minimization, minimize
from canaryaudit.unlearning.curvature.kronecker import InverseRoot, KroneckerCurvature, kronecker_curvature
from canaryaudit.unlearning.curvature.lstm_layers import LSTMLayers


def lstm() -> CharLSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CharLSTM(Architecture(vocabulary="abcd", embedding=2, hidden=3, layers=1)).double().eval()


def stored(model: CharLSTM) -> KroneckerCurvature:
    windows = torch.randint(4, (40, 9), generator=torch.Generator().manual_seed(1))
    return kronecker_curvature(LSTMLayers(model), windows, 0, NullReporter())


def minimized(model: CharLSTM, root: InverseRoot, matrix: Tensor, aim: Tensor, iterations: int) -> Minimization:
    """Minimize (x - aim)' matrix (x - aim) / 2 over the model's weights."""
    parameters = list(model.parameters())

    def objective() -> Tensor:
        away = torch.cat([own.reshape(-1) for own in parameters]) - aim
        return away @ matrix @ away / 2

    return minimize(parameters, objective, root, NullReporter(), iterations=iterations, tolerance=1e-12)


def weights_of(model: CharLSTM) -> Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_where_the_hessian_is_the_stored_curvature_a_few_steps_solve() -> None:
    """The first step is cut to what halves the objective; the second has the length, and is exact."""
    model = lstm()
    curvature = stored(model)
    root = InverseRoot(curvature, LSTMLayers(model), 3.0, 0.01, torch.float64)
    size = len(weights_of(model))
    inverse = torch.stack([root.apply(root.transposed(own)) for own in torch.eye(size, dtype=torch.float64)], 1)
    aim = weights_of(model) + torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    done = minimized(model, root, torch.linalg.inv(inverse), aim, 4)
    torch.testing.assert_close(weights_of(model), aim, rtol=1e-5, atol=1e-5)
    assert len(done.steps) <= 4
    assert done.gradients == len(done.steps) + 1
    assert done.solves == len(done.steps)


def test_any_convex_quadratic_is_solved_and_every_step_lowers_it() -> None:
    model = lstm()
    root = InverseRoot(stored(model), LSTMLayers(model), 1.0, 0.1, torch.float64)
    size = len(weights_of(model))
    factor = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    matrix = factor @ factor.T / size + 0.5 * torch.eye(size, dtype=torch.float64)
    aim = weights_of(model) + 1
    done = minimized(model, root, matrix, aim, 200)
    torch.testing.assert_close(weights_of(model), aim, rtol=1e-4, atol=1e-4)
    assert all(step.objective_after < step.objective_before for step in done.steps)
    assert done.steps[-1].objective_after <= 1e-12
    assert done.steps[0].damping == pytest.approx(0.1)


def test_a_better_curvature_needs_fewer_steps() -> None:
    """The objective's Hessian is the curvature: with it as the first inverse Hessian there is little to learn."""
    counts = []
    for damping in (1e-3, 1e6):  # the second drowns the curvature: plain L-BFGS
        model = lstm()
        curvature = stored(model)
        own = InverseRoot(curvature, LSTMLayers(model), 1.0, 1e-3, torch.float64)
        size = len(weights_of(model))
        inverse = torch.stack([own.apply(own.transposed(unit)) for unit in torch.eye(size, dtype=torch.float64)], 1)
        aim = weights_of(model) + torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        root = InverseRoot(curvature, LSTMLayers(model), 1.0, damping, torch.float64)
        counts.append(len(minimized(model, root, torch.linalg.inv(inverse), aim, 300).steps))
    assert counts[0] < counts[1] / 3


def test_at_a_minimum_there_is_no_step() -> None:
    model = lstm()
    root = InverseRoot(stored(model), LSTMLayers(model), 1.0, 0.1, torch.float64)
    size = len(weights_of(model))
    done = minimized(model, root, torch.eye(size, dtype=torch.float64), weights_of(model), 5)
    assert done.steps == ()
    assert done.gradients == 1


def test_where_no_length_helps_the_weights_stay() -> None:
    """An objective whose gradient lies: it points where the value rises."""
    model = lstm()
    root = InverseRoot(stored(model), LSTMLayers(model), 1.0, 0.1, torch.float64)
    before = weights_of(model)
    parameters = list(model.parameters())

    def objective() -> Tensor:
        total = sum((own.sum() for own in parameters), torch.zeros((), dtype=torch.float64))
        return 5.0 - total + 2 * total.detach()

    done = minimize(parameters, objective, root, NullReporter(), iterations=3, tolerance=0.0)
    assert done.stalled
    assert done.steps == ()
    torch.testing.assert_close(weights_of(model), before)
