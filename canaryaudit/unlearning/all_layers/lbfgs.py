"""L-BFGS from a stored curvature: a quasi-Newton minimization whose first inverse Hessian is the curvature's own.

    H0 = gamma (c F + lambda I)^-1,   gamma = s'y / y'(c F + lambda I)^-1 y   (Nocedal & Wright 2006, section 7.2)

with F the Kronecker-factored curvature of the trained model, s and y the last step and change of gradient. All vectors
are kept in the coordinates u with theta = theta_0 + R u, R R' = (c F + lambda I)^-1, in which H0 is gamma I: an
iteration costs one product with R and one with R', half of them each of a solve with the curvature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from canaryaudit.progress import ProgressReporter, check_signals
from canaryaudit.records import UpdateStep
from canaryaudit.unlearning.curvature.kronecker import InverseRoot

MEMORY = 12
"""Pairs of steps and changes of the gradient that are kept."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step must bring (Armijo)."""
REGROWTH = 3.0
"""A step is first tried at this many times the share that the last one was cut to."""
TRIALS = 8
"""Lengths that are tried for one step."""

Objective = Callable[[], Tensor]


@dataclass(frozen=True)
class Minimization:
    """What a minimization did.

    Attributes:
        steps: Every step, with its health.
        gradients: How often the gradient was taken.
        values: How often the objective alone was.
        solves: Products with the curvature's inverse.
        stalled: Whether no length of the last direction brought a decrease.
    """

    steps: tuple[UpdateStep, ...]
    gradients: int
    values: int
    solves: int
    stalled: bool


@dataclass(frozen=True)
class _Pair:
    step: Tensor
    change: Tensor
    along: float


class _Point:
    """The weights, as a function of which the objective is taken."""

    def __init__(self, parameters: list[Tensor], objective: Objective, root: InverseRoot) -> None:
        self.parameters, self.objective, self.root = parameters, objective, root
        self.weights = torch.nn.utils.parameters_to_vector(parameters).detach()
        self.gradients = self.values = 0

    def place(self, weights: Tensor) -> None:
        torch.nn.utils.vector_to_parameters(weights, self.parameters)

    def gradient(self) -> tuple[float, float, Tensor]:
        """Return the objective, its gradient's norm, and R' times its gradient."""
        check_signals()
        self.gradients += 1
        loss = self.objective()
        whole = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, self.parameters)])
        return float(loss.detach()), float(whole.norm()), self.root.transposed(whole)

    @torch.no_grad()
    def value(self) -> float:
        check_signals()
        self.values += 1
        return float(self.objective())


def minimize(
    parameters: list[Tensor],
    objective: Objective,
    root: InverseRoot,
    progress: ProgressReporter,
    *,
    iterations: int,
    tolerance: float,
) -> Minimization:
    """Lower an objective by moving parameters in place.

    Args:
        parameters: What it depends on, in the order of the curvature's vectors.
        objective: Returns it, in the graph of the parameters.
        root: R.
        progress: Told of every step.
        iterations: Steps at most.
        tolerance: The objective at which they end.
    """
    point = _Point(parameters, objective, root)
    value, norm, gradient = point.gradient()
    pairs: list[_Pair] = []
    steps: list[UpdateStep] = []
    share, stalled = 1.0, False
    for index in range(iterations):
        if value <= tolerance:
            break
        direction = _direction(gradient, pairs, value)
        slope = float(gradient @ direction)
        if not slope > 0:
            stalled = True
            break
        move = root.apply(direction)
        found = _advance(point, move, value, slope, min(1.0, REGROWTH * share))
        if found is None:
            point.place(point.weights)
            stalled = True
            break
        share, after, steepness, there = found
        pair = _Pair(-share * direction, there - gradient, float(-share * direction @ (there - gradient)))
        if pair.along > 0:
            pairs = [*pairs, pair][-MEMORY:]
        steps.append(
            UpdateStep(
                step_norm=share * float(move.norm()),
                gradient_norm=norm,
                objective_before=value,
                objective_after=after,
                damping=root.damping,
            )
        )
        value, norm, gradient = after, steepness, there
        progress.update("unlearn", index + 1, iterations, f"objective {value:.3f}")
    solves = len(steps) + int(stalled)
    return Minimization(tuple(steps), point.gradients, point.values, solves, stalled)


def _direction(gradient: Tensor, pairs: list[_Pair], value: float) -> Tensor:
    """Return the product of the inverse Hessian's estimate with the gradient, by the two-loop recursion."""
    direction = gradient.clone()
    shares = []
    for pair in reversed(pairs):
        shares.append(float(pair.step @ direction) / pair.along)
        direction -= shares[-1] * pair.change
    if pairs:
        direction *= pairs[-1].along / float(pairs[-1].change @ pairs[-1].change)
    else:  # as long as would halve the objective, were it as steep all the way
        direction *= min(1.0, value / 2 / max(float(gradient @ gradient), 1e-12))
    for pair, share in zip(pairs, reversed(shares), strict=True):
        direction += pair.step * (share - float(pair.change @ direction) / pair.along)
    return direction


def _advance(
    point: _Point, move: Tensor, value: float, slope: float, share: float
) -> tuple[float, float, float, Tensor] | None:
    """Move on by a share of a move that lowers the objective enough; None if none of those tried does.

    A whole move is tried with its gradient at once, for mostly it is taken; shorter ones, each at the lowest point of
    the parabola through what was tried, by forward passes alone.

    Returns:
        The share, and there the objective, its gradient's norm, and R' times its gradient.
    """
    begun = point.weights
    for trial in range(TRIALS):
        point.weights = begun - share * move
        point.place(point.weights)
        found = point.gradient() if share == 1 and trial == 0 else None
        tried = found[0] if found else point.value()
        if tried <= value - SUFFICIENT * share * slope:
            return (share, *(found or point.gradient()))
        lowest = slope * share**2 / 2 / max(tried - value + slope * share, 1e-12)
        share = min(max(lowest, 0.1 * share), 0.5 * share)
    point.weights = begun
    return None
