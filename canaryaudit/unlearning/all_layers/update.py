"""The update of all layers: preconditioned steps, or damped Gauss-Newton steps."""

from canaryaudit.errors import Inconclusive
from canaryaudit.models.char_lstm import differentiable
from canaryaudit.unlearning.all_layers.gauss_newton import SOLVERS, STEPS, gauss_newton
from canaryaudit.unlearning.all_layers.objective import AllLayersProblem
from canaryaudit.unlearning.all_layers.preconditioned_adam import PreconditionedProblem, take_steps
from canaryaudit.unlearning.curvature.kronecker import KRONECKER_STEPS, KroneckerSolver
from canaryaudit.unlearning.curvature.solvers import Solver
from canaryaudit.unlearning.method import MethodInput, MethodResult
from canaryaudit.unlearning.replacement import Replacement


def update_all_layers(given: MethodInput, replacement: Replacement) -> MethodResult:
    """Take preconditioned steps over all layers, or Gauss-Newton steps.

    Args:
        given: The copy to change, and what may be used.
        replacement: What takes the secrets' place.

    Raises:
        Inconclusive: No Gauss-Newton step serves the corrected text.
    """
    config = given.config
    common = (given.model, given.data.train, given.places, replacement, given.retained)
    if config.solver == "adam":
        rows = PreconditionedProblem(*common, precision=config.precision, rng=given.rng)
        with differentiable(given.updated):
            taken = take_steps(given.updated, rows, given.progress)
        return MethodResult(list(taken.steps), taken.symbols / config.window, 0)
    problem = AllLayersProblem(*common, window=config.window, rng=given.rng)
    solver: Solver
    if config.solver == "kronecker" and given.curvature:
        solver, steps = KroneckerSolver(given.curvature, problem.retained_weight), KRONECKER_STEPS
    else:
        solver, steps = SOLVERS[config.solver](), STEPS
    with differentiable(given.updated):
        done = gauss_newton(given.updated, problem, solver, config.max_fidelity_drop, given.progress, steps)
    if not any(step.step_norm for step in done.steps):
        states = ", ".join(dict.fromkeys(step.note for step in done.steps if step.note)) or "no descent"
        raise Inconclusive(
            f"no second-order step over all layers lowers the loss within the fidelity limit ({states}): nothing was "
            "saved; use --scope final-layer, or --solver cg"
        )
    return MethodResult(list(done.steps), done.gradients / config.window, done.products)
