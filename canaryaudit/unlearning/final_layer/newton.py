"""The second-order update of the final layer: theta* - (H + lambda I)^-1 Delta, iterated to its minimum.

Source: Warnecke et al. 2023, section 4; there one step is taken, with the inverse Hessian estimated. Here
the objective is convex (see ``objective``), so every step is solved by conjugate gradients to a certified
residual, and steps are repeated, with Delta and curvature taken afresh, until they no longer gain.

Two things make a few steps enough. The curvature of a position is taken at the mean of what is predicted
and what is wanted: a memorized secret is predicted with certainty, where the Hessian vanishes and a Newton
step is arbitrarily long; the mean is the law half-way. And lambda follows the trust-region rule of
Levenberg and Marquardt: smaller after a step that did what its model promised, larger after one that did
not.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from canaryaudit.progress import ProgressReporter
from canaryaudit.records import UpdateStep
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients
from canaryaudit.unlearning.final_layer.objective import FinalLayerProblem, KroneckerInverse

MAX_STEPS = 16
_ENOUGH = 1e-2
"""Stop when a step lowers the objective by less than this share."""
_ROUNDING = 1e-6
"""A gain below this, for each unit of weight, is taken for rounding in float32."""


@dataclass(frozen=True)
class NewtonResult:
    """Where ``minimize`` came to.

    Attributes:
        columns: The active columns, shape (D, A).
        steps: The steps, with their health.
        products: Number of curvature products.
        converged: Whether steps had ceased to gain; False where the limit of ``MAX_STEPS`` ended them.
    """

    columns: Tensor
    steps: tuple[UpdateStep, ...]
    products: int
    converged: bool


def minimize(problem: FinalLayerProblem, progress: ProgressReporter, start: Tensor | None = None) -> NewtonResult:
    """Minimize the corrected-data objective.

    Args:
        problem: The objective.
        progress: Told of every step.
        start: Where to begin, shape (D, A); None for the original weights.
    """
    columns = problem.origin if start is None else start
    value, probabilities = problem.value_and_probabilities(columns)
    damping = 1e-5 * float(problem.weights.sum())
    steps: list[UpdateStep] = []
    products, converged = 0, False
    for index in range(MAX_STEPS):
        gradient = problem.gradient(columns, probabilities)
        distribution = (probabilities[problem.rows] + problem.targets[problem.rows]) / 2
        inverse = KroneckerInverse(problem, distribution)
        damped = damping
        solver = ConjugateGradients(0.1, 30, partial(inverse.apply, damping=damped + problem.ridge))
        solved = solver.solve(partial(problem.curvature_product, distribution), -gradient, damped)
        if solved.iterations == 0:  # no gradient: the model predicts as wanted already
            converged = True
            break
        products += solved.iterations + 1
        # With (H + lambda) x = r - g the quadratic model promises -g'x - x'Hx/2.
        promised = -float((gradient * solved.x).sum()) / 2 + damped / 2 * float((solved.x**2).sum())
        new_value, new_probabilities = problem.value_and_probabilities(columns + solved.x)
        gain = value - new_value
        enough = max(_ENOUGH * value, _ROUNDING * float(problem.weights.sum()))
        accepted = gain > 0
        steps.append(
            UpdateStep(
                step_norm=float(solved.x.norm()) if accepted else 0.0,
                gradient_norm=float(gradient.norm()),
                objective_before=value,
                objective_after=new_value if accepted else value,
                damping=damped + problem.ridge,
                residual=solved.residual,
                curvature_min=solved.curvature_min,
                solver_iterations=solved.iterations,
                converged=solved.converged,
            )
        )
        progress.update("unlearn", index + 1, MAX_STEPS, f"objective {min(value, new_value):.1f}")
        quality = gain / max(promised, 1e-12)
        if accepted:
            columns, value, probabilities = columns + solved.x, new_value, new_probabilities
        # A step that was taken back ends it too where it promised no more than rounding.
        if (gain if accepted else promised) < enough:
            converged = True
            break
        if quality > 0.75:
            damping /= 8
        elif not quality >= 0.25:  # a step so long that the objective is not a number did not do it either
            damping *= 8
    return NewtonResult(columns, tuple(steps), products, converged)
