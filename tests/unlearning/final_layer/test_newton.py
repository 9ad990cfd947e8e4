"""The second-order update against scipy's minimizers, dense Hessians and retraining in closed form."""

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from canaryaudit.progress import NullReporter
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients, Solution
from canaryaudit.unlearning.final_layer import newton as second_order
from canaryaudit.unlearning.final_layer.newton import minimize
from canaryaudit.unlearning.final_layer.objective import FinalLayerProblem
from canaryaudit.unlearning.first_order import delta
from tests.unlearning.builders import WholeProblem, memorized_problem, random_problem

ENOUGH = 1e-3
"""How far, as a share, the objective may stay above its minimum; measured: 0.05 % at most."""


def minimum(whole: WholeProblem) -> Tensor:
    """Return the columns that scipy's L-BFGS finds for the whole loss."""
    shape = tuple(whole.origin.shape)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        columns = torch.from_numpy(flat.reshape(shape))
        return float(whole.loss(columns)), whole.gradient(columns).reshape(-1).numpy()

    start = whole.origin.reshape(-1).numpy().copy()
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-8}
    return torch.from_numpy(
        optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    )


@pytest.mark.parametrize("active", [(0, 2, 3), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_the_update_reaches_the_minimum_that_scipy_finds(seed: int, active: tuple[int, ...]) -> None:
    whole = random_problem(seed, active=active)
    problem = whole.reduced()
    found = minimize(problem, NullReporter())
    columns, steps = found.columns, found.steps
    lowest = problem.value(minimum(whole))
    assert lowest * (1 - 1e-9) <= problem.value(columns) <= lowest * (1 + ENOUGH)
    assert all(step.converged and step.curvature_min > 0 for step in steps)
    assert found.converged


@pytest.mark.parametrize("rest", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("seed", range(2))
def test_a_memorized_label_is_forgotten_however_certain_it_was(seed: int, rest: float) -> None:
    """There the Hessian vanishes, and a plain Newton step is arbitrarily long."""
    whole = memorized_problem(1 - rest, seed=seed)
    problem = whole.reduced()
    assert problem.probabilities(whole.origin)[:30, 3].min() >= 1 - rest * 1.001
    found = minimize(problem, NullReporter())
    columns, steps = found.columns, found.steps
    best = minimum(whole)
    assert problem.value(columns) <= problem.value(best) * (1 + ENOUGH)
    assert found.converged
    assert len(steps) < second_order.MAX_STEPS
    torch.testing.assert_close(problem.probabilities(columns), problem.probabilities(best), rtol=0, atol=0.005)


def test_single_precision_is_as_good() -> None:
    whole = memorized_problem(1 - 1e-6)
    columns = minimize(whole.single(), NullReporter()).columns
    assert whole.reduced().value(columns.double()) <= whole.reduced().value(minimum(whole)) * (1 + ENOUGH)


@pytest.mark.parametrize("whole", [random_problem(0), random_problem(3), memorized_problem(1 - 1e-6)])
def test_bfloat16_curvature_reaches_the_same_minimum(whole: WholeProblem) -> None:
    """Value and gradient are taken in single precision; the curvature only says which way to go."""
    exact, rough = (minimize(whole.single(precision), NullReporter()) for precision in ("fp32", "bf16"))
    assert rough.converged
    judge = whole.reduced()
    assert judge.value(rough.columns.double()) == pytest.approx(judge.value(exact.columns.double()), rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_the_minimum_is_reached_from_wherever_one_starts(seed: int) -> None:
    whole = random_problem(seed)
    problem = whole.reduced()
    start = whole.origin + torch.from_numpy(np.random.default_rng(seed).normal(size=tuple(whole.origin.shape)))
    found = minimize(problem, NullReporter(), start=start)
    assert found.steps[0].objective_before == problem.value(start)
    assert found.steps[0].objective_before != problem.value(whole.origin)
    assert problem.value(found.columns) <= problem.value(minimum(whole)) * (1 + ENOUGH)


def test_started_at_the_minimum_one_step_tells_so() -> None:
    whole = random_problem(1)
    best = minimum(whole)
    found = minimize(whole.reduced(), NullReporter(), start=best)
    assert found.converged
    assert len(found.steps) <= 1
    torch.testing.assert_close(found.columns, best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("limit", [1, 2])
def test_steps_that_still_gain_at_the_limit_have_not_converged(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = memorized_problem(1 - 1e-6).reduced()
    needed = len(minimize(problem, NullReporter()).steps)
    assert needed > 2
    monkeypatch.setattr(second_order, "MAX_STEPS", limit)
    found = minimize(problem, NullReporter())
    assert len(found.steps) == limit
    assert not found.converged
    monkeypatch.setattr(second_order, "MAX_STEPS", needed)
    assert minimize(problem, NullReporter()).converged, "the last step allowed may be the one that tells"


@pytest.mark.parametrize("seed", range(6))
def test_no_step_raises_the_objective(seed: int) -> None:
    whole = random_problem(seed, width=6, positions=16, ridge=1e-9)
    harsh = WholeProblem(whole.features * 8, whole.targets, whole.weights, whole.matrix * 3, whole.active, 1e-9)
    problem = harsh.reduced()
    found = minimize(problem, NullReporter())
    columns, steps = found.columns, found.steps
    assert all(step.objective_after <= step.objective_before for step in steps)
    assert [step.objective_before for step in steps[1:]] == [step.objective_after for step in steps[:-1]]
    assert steps[0].objective_before == problem.value(harsh.origin)
    assert steps[-1].objective_after == problem.value(columns)


def test_a_step_is_recorded_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms, objective, damping and residual of a first step, from dense matrices."""
    whole = random_problem(1)
    problem = whole.reduced()
    monkeypatch.setattr(second_order, "MAX_STEPS", 1)
    found = minimize(problem, NullReporter())
    columns, (step,), products = found.columns, found.steps, found.products
    moved = columns - whole.origin
    distribution = ((problem.probabilities(whole.origin) + whole.targets[:, whole.active]) / 2).numpy()
    features = np.c_[whole.features.numpy(), np.ones(len(distribution))]
    dense = sum(
        weight * np.kron(np.outer(h, h), np.diag(own) - np.outer(own, own))
        for h, own, weight in zip(features, distribution, whole.weights.numpy(), strict=True)
    ) + step.damping * np.eye(moved.numel())
    gradient = whole.gradient(whole.origin).reshape(-1).numpy()
    residual = np.linalg.norm(dense @ moved.reshape(-1).numpy() + gradient) / np.linalg.norm(gradient)
    assert step.residual == pytest.approx(residual, rel=1e-6)
    assert 0 < step.residual < 0.1
    assert step.gradient_norm == pytest.approx(np.linalg.norm(gradient))
    assert step.step_norm == pytest.approx(float(moved.norm()))
    assert step.damping == pytest.approx((1e-5 + whole.ridge) * float(whole.weights.sum()))
    assert step.curvature_min >= np.linalg.eigvalsh(dense)[0]
    assert products == step.solver_iterations + 1
    lowered = float(whole.loss(whole.origin) - whole.loss(columns))
    assert step.objective_before - step.objective_after == pytest.approx(lowered)


def test_damping_falls_after_good_steps() -> None:
    steps = minimize(random_problem(0).reduced(), NullReporter()).steps
    ridge = random_problem(0).reduced().ridge
    assert steps[1].damping - ridge == pytest.approx((steps[0].damping - ridge) / 8)


@pytest.mark.parametrize("size", [1e3, 1e200, float("nan")])
def test_a_step_that_does_not_do_what_it_promised_is_taken_back(size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one after which the objective is not a number: more damping, and on from where it was."""
    whole, calls = random_problem(2), []

    def once_too_far(self: ConjugateGradients, *args: object) -> Solution:
        solved = solve(self, *args)
        calls.append(1)
        return Solution(solved.x * size, 1.0, 1, 1.0, "stopped") if len(calls) == 1 else solved

    solve = ConjugateGradients.solve
    monkeypatch.setattr(ConjugateGradients, "solve", once_too_far)
    problem = whole.reduced()
    found = minimize(problem, NullReporter())
    columns, steps = found.columns, found.steps
    assert steps[0].step_norm == 0
    assert steps[0].objective_after == steps[0].objective_before
    assert steps[1].damping - problem.ridge == pytest.approx(8 * (steps[0].damping - problem.ridge))
    assert problem.value(columns) <= problem.value(minimum(whole)) * (1 + ENOUGH)


@pytest.mark.parametrize("symbols", [4, 5])  # a quarter is exact in binary, a fifth is not
def test_a_model_that_predicts_as_wanted_is_left_alone(symbols: int) -> None:
    problem = FinalLayerProblem.of(
        torch.zeros(6, 2),
        torch.full((6, symbols), 1 / symbols),
        torch.ones(6),
        torch.zeros(3, symbols),
        torch.tensor([0, 2, 3]),
        1e-3,
    )
    found = minimize(problem, NullReporter())
    columns, steps, products = found.columns, found.steps, found.products
    torch.testing.assert_close(columns, problem.origin, rtol=0, atol=1e-6)
    assert found.converged
    assert len(steps) <= 1
    assert products <= 2


def test_on_a_quadratic_loss_the_update_equals_retraining() -> None:
    """theta* - H^-1 Delta on linear regression, against the least-squares solution of the corrected data."""
    rng = np.random.default_rng(0)
    design, wanted = rng.normal(size=(150, 7)), rng.normal(size=150)
    corrected_design, corrected_wanted = design.copy(), wanted.copy()
    corrected_design[:100], corrected_wanted[:100] = rng.normal(size=(100, 7)), rng.normal(size=100)
    trained, retrained = (
        np.linalg.lstsq(x, y, rcond=None)[0] for x, y in ((design, wanted), (corrected_design, corrected_wanted))
    )
    theta = torch.from_numpy(trained).requires_grad_()

    def loss(points: Tensor) -> Tensor:
        return ((points[:, :-1] @ theta - points[:, -1]) ** 2).sum() / 2

    changed, original = (
        torch.from_numpy(np.c_[x, y][:100])  # Z-tilde and Z: features and labels both differ
        for x, y in ((corrected_design, corrected_wanted), (design, wanted))
    )
    (gradient,) = delta(loss, changed, original, [theta])
    hessian = torch.from_numpy(corrected_design.T @ corrected_design)
    solved = ConjugateGradients(tolerance=1e-12).solve(hessian.matmul, -gradient)
    np.testing.assert_allclose((theta.detach() + solved.x).numpy(), retrained, rtol=1e-9)
    assert np.abs(trained - retrained).max() > 0.05
