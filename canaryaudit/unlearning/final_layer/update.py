"""The second-order update of the final layer: Newton steps to the minimum of its corrected-data objective."""

from canaryaudit.errors import Inconclusive
from canaryaudit.unlearning.final_layer.newton import MAX_STEPS, minimize
from canaryaudit.unlearning.final_layer.problem import build_problem, swap_target_distributions, write_columns
from canaryaudit.unlearning.method import MethodInput, MethodResult
from canaryaudit.unlearning.replacement import Replacement


def update_final_layer(given: MethodInput, replacement: Replacement) -> MethodResult:
    """Minimize the final layer's corrected-data objective, from the layers below as they are now.

    Args:
        given: The copy to change, and what may be used.
        replacement: What takes the secrets' place.

    Raises:
        Inconclusive: No step serves the corrected text.
    """
    problem, active, readings = build_problem(given, replacement)
    first = minimize(problem, given.progress)
    rounds = [(problem, first)]
    exchanged = swap_target_distributions(given, replacement, problem, active, first.columns, readings)
    if exchanged is not problem:
        rounds.append((exchanged, minimize(exchanged, given.progress, start=first.columns)))
    steps = [step for _, minimum in rounds for step in minimum.steps]
    if not any(step.step_norm for step in steps):
        raise Inconclusive(
            "no second-order step lowers the loss: nothing was saved; the model may not have memorized the secrets, or "
            "try --method first-order"
        )
    write_columns(given.updated, active, rounds[-1][1].columns)
    notes = []
    if not all(minimum.converged for _, minimum in rounds):
        notes.append(f"the minimization stopped after {MAX_STEPS} steps without convergence")
    read = sum(len(part.weights) * len(minimum.steps) for part, minimum in rounds)
    products = sum(minimum.products for _, minimum in rounds)
    return MethodResult(steps, read / given.config.window, products, tuple(notes))
