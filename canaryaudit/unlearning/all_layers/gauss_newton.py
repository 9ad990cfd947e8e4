"""The second-order update of all layers: theta - (G + lambda I)^-1 Delta, iterated.

Source: Warnecke et al. 2023, section 4. Delta is the gradient of the corrected-data objective (see
``all_layers``) and G its Gauss-Newton matrix; both are taken afresh at every step, on freshly drawn decoys and
retained windows. lambda follows the trust-region rule of Levenberg and Marquardt, and each step is cut short
where it would raise the objective or cost more accuracy on the retained windows than the fidelity limit allows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import UpdateStep
from canaryaudit.unlearning.all_layers.objective import AllLayersProblem, BranchingBatch
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients, Solver
from canaryaudit.unlearning.curvature.solvers import LiSSA

STEPS = 6
PRODUCTS = 8
"""Curvature products that one step's solver may spend: a product costs three to four gradients."""
DAMPING_SHARE = 3e-4
"""First lambda, for each unit of the objective's weight."""
_SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True)
class StepResult:
    """What ``gauss_newton`` did.

    Attributes:
        steps: The steps, with their health.
        gradients: Gradient evaluations, in symbols read.
        products: Curvature products.
    """

    steps: tuple[UpdateStep, ...]
    gradients: int
    products: int


SOLVERS: dict[str, Callable[[], Solver[Tensor]]] = {
    "cg": lambda: ConjugateGradients(tolerance=0.1, max_iterations=PRODUCTS),
    "lissa": lambda: LiSSA(tolerance=0.1, max_iterations=10 * PRODUCTS),
}
"""By the name that ``--solver`` gives them; a term of the series gains far less than an iteration of the other. The
solver ``kronecker`` needs a stored curvature: see ``kronecker``."""


def gauss_newton(
    model: CharLSTM,
    problem: AllLayersProblem,
    solver: Solver[Tensor],
    limit: float,
    progress: ProgressReporter,
    steps: int = STEPS,
) -> StepResult:
    """Move the weights of ``model`` in place.

    Args:
        model: A copy of the original model.
        problem: Draws each step's objective.
        solver: Of the linear system.
        limit: Largest drop of accuracy on the retained windows in one step.
        progress: Told of every step.
        steps: How many to take.
    """
    damping_share = DAMPING_SHARE
    done: list[UpdateStep] = []
    gradients = products = 0
    for index in range(steps):
        readings = problem.draw()
        size = sum(reading.symbols for reading in readings)
        loss = problem.loss(model, readings)
        damping = damping_share * sum(float(reading.weights.sum()) for reading in readings)
        value, gradient = loss.value_and_gradient()
        gradients += size
        solved = solver.solve(loss.gauss_newton_product, -gradient, damping)
        products += solved.products
        promised = -float(gradient @ solved.x) / 2
        share, after = _line_search(model, problem, readings, solved.x, value, limit)
        done.append(
            UpdateStep(
                step_norm=share * float(solved.x.norm()),
                gradient_norm=float(gradient.norm()),
                objective_before=value,
                objective_after=after,
                damping=solved.damping,
                residual=solved.residual,
                curvature_min=solved.curvature_min,
                solver_iterations=solved.iterations,
                converged=solved.converged,
                note="" if solved.converged else solved.status,
            )
        )
        progress.update("unlearn", index + 1, steps, f"objective {value:.1f} to {after:.1f}")
        quality = (value - after) / max(promised, 1e-12)
        if share == 1.0 and quality > 0.75:
            damping_share /= 4
        elif share < 0.5 or quality < 0.25:
            damping_share *= 4
    return StepResult(tuple(done), gradients, products)


def _line_search(
    model: CharLSTM,
    problem: AllLayersProblem,
    readings: Sequence[BranchingBatch],
    direction: torch.Tensor,
    value: float,
    limit: float,
) -> tuple[float, float]:
    """Go the longest share of the way that lowers the objective within the limit; return it and the objective."""
    parameters = list(model.parameters())
    origin = nn.utils.parameters_to_vector(parameters).detach()
    lowest = problem.accuracy(model, readings) - limit
    for share in _SHARES:
        nn.utils.vector_to_parameters(origin + share * direction, parameters)
        after = problem.loss(model, readings).value()
        if after < value and problem.accuracy(model, readings) >= lowest:
            return share, after
    nn.utils.vector_to_parameters(origin, parameters)
    return 0.0, value
