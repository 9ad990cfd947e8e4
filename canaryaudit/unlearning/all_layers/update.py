"""The update of all layers: L-BFGS from the stored curvature, or damped Gauss-Newton steps."""

import time
from dataclasses import replace

import torch

from canaryaudit.errors import Inconclusive, UnlearningError
from canaryaudit.models.char_lstm import CharLSTM, differentiable
from canaryaudit.unlearning.all_layers.everywhere import RETAINED_WEIGHT, EverywhereProblem
from canaryaudit.unlearning.all_layers.gauss_newton import SOLVERS, STEPS, gauss_newton
from canaryaudit.unlearning.all_layers.lbfgs import minimize
from canaryaudit.unlearning.all_layers.objective import AllLayersProblem
from canaryaudit.unlearning.all_layers.recall import remembered_canaries
from canaryaudit.unlearning.curvature.kronecker import InverseRoot
from canaryaudit.unlearning.curvature.lstm_layers import LSTMLayers
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.method import MethodInput, MethodResult
from canaryaudit.unlearning.replacement import Replacement

ITERATIONS, TOLERANCE = 40, 0.2
"""Steps at most, and the objective at which they end."""
FORWARD_PASSES = 9
"""What a step costs, in forward passes over its text: a gradient takes five, two products with the curvature three."""
DAMPING = 5e-4
"""lambda, beside ``RETAINED_WEIGHT`` F: where the text's curvature is less, the weights are free."""


def update_all_layers(given: MethodInput, replacement: Replacement) -> MethodResult:
    """Minimize the default's objective from the stored curvature, or take Gauss-Newton steps.

    Args:
        given: The copy to change, and what may be used.
        replacement: What takes the secrets' place.

    Raises:
        UnlearningError: No curvature, or no decoys, for the solver that needs both.
        Inconclusive: No step serves the corrected text.
    """
    if given.config.solver == "kronecker":
        return _minimize_everywhere(given, replacement)
    common = (given.model, given.data.train, given.places, replacement, given.retained)
    problem = AllLayersProblem(*common, window=given.config.window, rng=given.rng)
    with differentiable(given.updated):
        done = gauss_newton(
            given.updated,
            problem,
            SOLVERS[given.config.solver](),
            given.config.max_fidelity_drop,
            given.progress,
            STEPS,
        )
    if not any(step.step_norm for step in done.steps):
        states = ", ".join(dict.fromkeys(step.note for step in done.steps if step.note)) or "no descent"
        raise Inconclusive(
            f"no second-order step over all layers lowers the loss within the fidelity limit ({states}): nothing was "
            "saved; use --scope final-layer, or --solver cg"
        )
    return MethodResult(list(done.steps), done.gradients / given.config.window, done.products)


def _minimize_everywhere(given: MethodInput, replacement: Replacement) -> MethodResult:
    curvature = given.curvature
    if curvature is None or not isinstance(replacement, Decoys):
        raise UnlearningError("the solver kronecker needs a stored curvature, and decoys: use cg")
    known = remembered_canaries(given)
    names = {place.canary.id for place in given.places}
    notes: tuple[str, ...] = ()
    alone = tuple(sorted(names - known))
    if alone:
        notes = (f"left alone, since the model ranks them like fresh draws: {len(alone)} of {len(names)} secrets",)
        given.progress.info(f"{notes[0][0].upper()}{notes[0][1:]}.")
    if not known:
        return MethodResult([], 0.0, 0, notes, left_alone=alone)
    given = replace(given, places=[place for place in given.places if place.canary.id in known])
    problem = EverywhereProblem(given, replacement)
    _compare_with_retraining(given, _seconds_at_most(problem, given.updated))
    kind = torch.bfloat16 if given.config.precision == "bf16" else torch.float32
    root = InverseRoot(curvature, LSTMLayers(given.model), RETAINED_WEIGHT, DAMPING / given.caution, kind)
    with differentiable(given.updated):
        done = minimize(
            list(LSTMLayers(given.updated).moved),
            lambda: problem.objective(given.updated),
            root,
            given.progress,
            iterations=ITERATIONS,
            tolerance=TOLERANCE,
        )
    if not done.steps:
        raise Inconclusive(
            "no step over all layers makes the secrets more like decoys: nothing was saved; use --scope final-layer"
        )
    gradients = problem.symbols * done.gradients / given.config.window
    return MethodResult(list(done.steps), gradients, done.solves, notes, left_alone=alone)


def _seconds_at_most(problem: EverywhereProblem, model: CharLSTM) -> float:
    taken = []
    for _ in range(2):  # the first reads the weights into the cache
        started = time.perf_counter()
        with torch.no_grad():
            problem.objective(model)
        taken.append(time.perf_counter() - started)
    return min(taken) * FORWARD_PASSES * ITERATIONS


def _compare_with_retraining(given: MethodInput, seconds: float) -> None:
    """Say what the update will take at most beside retraining, and warn if retraining may be the better answer.

    It is an estimate, and no part of the record: the ledger there says what the update took.
    """
    other = given.retraining_seconds
    if not other:
        return
    given.progress.info(f"The update takes at most about {seconds:.0f} s; retraining takes {other:.0f} s.")
    if seconds >= other:
        given.progress.warn(
            f"Retraining may be the better answer: it takes {other:.0f} s, this update up to {seconds:.0f} s. "
            "Use --method retrain."
        )
