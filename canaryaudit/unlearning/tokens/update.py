"""The update of a causal model over tokens: L-BFGS from its Kronecker-factored curvature, within the fidelity limit."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.errors import Inconclusive, UnlearningError
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.tokenizer import Tokenizer
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import Fidelity, UnlearningCost, UpdateStep
from canaryaudit.unlearning.all_layers.lbfgs import Minimization, minimize
from canaryaudit.unlearning.curvature.kronecker import InverseRoot, KroneckerCurvature
from canaryaudit.unlearning.curvature.module_layers import ModuleLayers
from canaryaudit.unlearning.fidelity import (
    CAUTION,
    MOST_TRIES,
    Evaluations,
    accuracy_drop,
    as_trained,
    scale_back_update,
)
from canaryaudit.unlearning.tokens.objective import RETAINED_WEIGHT, RequestTexts, TokenProblem
from canaryaudit.unlearning.tokens.quality import (
    TokenQuality,
    TokenWindow,
    fidelity_by_tokens,
    retained_windows,
    windows_with_secrets,
)

ITERATIONS, TOLERANCE = 30, 0.2
"""Steps at most, and the objective at which they end. Sixteen do on models of a million weights; on smaller ones a
secret is still told by then, and canaries that are to stay have lost what later steps give back."""
DAMPING = 2e-3
"""lambda, beside ``RETAINED_WEIGHT`` F: where the text's curvature is less, the weights are free. A tenth of it takes
half as many steps more for the same objective; ten times as much costs the text 0.5 % of loss."""
WINDOW, WINDOWS = 64, 8
SECRET_WINDOW, SECRET_WINDOWS = 48, 24
"""Tokens of a window of text, and the windows that are held to what the model predicts there: of other text, and of
text with secrets in it."""
CURVATURE_WINDOWS = 256
"""With 128 in their place, an update of the benchmark's Llama costs its training text 1 % of loss more."""
CurvatureSource = Callable[[ModuleLayers, Callable[[], Tensor]], KroneckerCurvature]
"""Returns the curvature of a model's layers: a stored one, or a new one from windows of token ids."""


@dataclass(frozen=True)
class TokenRequest:
    """What to unlearn from a causal model, and what is known of it.

    Attributes:
        canary_set: The run's canaries.
        chosen: Those to be unlearned; earlier requests' included.
        text: The training text.
        heldout: The held-out text; may be empty.
        seed: Of every draw.
        max_fidelity_drop: Largest drop of accuracy allowed, as a share.
        trained: An earlier request's figures, whose "before" is the model as trained; None without any.
        dtype: In which the result will be written: its quality is that of the rounded weights.
    """

    canary_set: CanarySet
    chosen: Sequence[Canary]
    text: RunText
    heldout: RunText
    seed: int
    max_fidelity_drop: float
    trained: Fidelity | None = None
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class TokenResult:
    """An updated copy of a causal model, in float32, and what is to be said of it; see ``UnlearningResult``."""

    model: Any
    updates: tuple[UpdateStep, ...]
    fidelity: Fidelity
    cost: UnlearningCost
    affected_windows: int
    retention_windows: int
    notes: tuple[str, ...]


def module_layers(model: Any) -> ModuleLayers:
    """Return the layers of a causal model of ``transformers`` that an update moves."""
    return ModuleLayers(model, lambda ids: model(input_ids=ids).logits, [model.get_input_embeddings()])


def unlearn_tokens(
    model: Any, tokenizer: Tokenizer, request: TokenRequest, source: CurvatureSource, progress: ProgressReporter
) -> TokenResult:
    """Make a copy of a causal model that has forgotten the secrets of the chosen canaries.

    Args:
        model: The model, in float32; it is left as it is.
        tokenizer: Its tokenizer.
        request: What to unlearn.
        source: Of the curvature.
        progress: Told of progress.

    Raises:
        UnlearningError: Nothing to unlearn, or the text has no window without a secret.
        Inconclusive: No step forgets anything within the fidelity limit.
    """
    quality = TokenQuality(tokenizer, request.text, request.heldout, model)
    now = quality.of(model)
    before = as_trained(request.trained) if request.trained else now
    updated = copy.deepcopy(model)
    if not request.chosen:
        return TokenResult(
            updated, (), fidelity_by_tokens(before, now), UnlearningCost.unknown(), 0, 0, (quality.note,)
        )
    rng = np.random.default_rng(request.seed)
    started = time.perf_counter()
    retained = windows_to_hold(quality.train, rng)
    texts = RequestTexts(request.canary_set, request.chosen, request.text, retained)
    layers = module_layers(updated)
    prepared = time.perf_counter()
    curvature = source(layers, lambda: curvature_windows(quality.train, rng))
    preparation = time.perf_counter() - prepared
    problem = TokenProblem(model, tokenizer, texts, request.seed)
    tries = _Tries(updated, layers, problem, curvature, progress)
    done = tries.minimize()
    seconds = time.perf_counter() - started - preparation
    notes: tuple[str, ...] = ()
    after = _rounded_quality(quality, updated, request.dtype)
    limit = request.max_fidelity_drop
    while accuracy_drop(before, after) > limit and tries.count < MOST_TRIES:
        progress.info("The update costs more accuracy than is allowed; making it again, more cautiously.")
        updated.load_state_dict(model.state_dict())
        clock = time.perf_counter()
        done = tries.minimize()
        seconds += time.perf_counter() - clock
        notes = (f"made again with 1/{tries.caution:g} of the damping, to stay within the fidelity limit",)
        after = _rounded_quality(quality, updated, request.dtype)
    if not done.steps:
        raise Inconclusive("no step over all layers makes the secrets more like decoys: nothing was saved")

    def lost() -> float:
        nonlocal after
        after = _rounded_quality(quality, updated, request.dtype)
        return accuracy_drop(before, after)

    notes += scale_back_update(updated, model, accuracy_drop(before, after), lost, limit, "the training text", progress)
    return TokenResult(
        model=updated,
        updates=done.steps,
        fidelity=fidelity_by_tokens(before, after),
        cost=UnlearningCost.unknown().model_copy(
            update={
                "seconds": seconds,
                "gradients": problem.symbols * tries.gradients / WINDOW,
                "curvature_products": tries.solves,
                "preparation_seconds": preparation,
            }
        ),
        affected_windows=sum(len(wording.places) for own in request.chosen for wording in own.wordings),
        retention_windows=len(retained),
        notes=(*notes, quality.note),
    )


def _rounded_quality(quality: TokenQuality, model: Any, dtype: torch.dtype) -> Evaluations:
    """Return the quality of a model whose weights are rounded; they come back as they were."""
    exact = [own.detach().clone() for own in model.parameters()] if dtype != torch.float32 else []
    with torch.no_grad():
        for own in model.parameters() if exact else ():
            own.copy_(own.to(dtype))
        found = quality.of(model)
        for own, kept in zip(model.parameters(), exact, strict=False):
            own.copy_(kept)
    return found


class _Tries:
    """Minimizes the objective, each time with the curvature counting ten times as much as before."""

    def __init__(
        self,
        model: Any,
        layers: ModuleLayers,
        problem: TokenProblem,
        curvature: KroneckerCurvature,
        progress: ProgressReporter,
    ) -> None:
        self._model, self._layers, self._problem = model, layers, problem
        self._curvature, self._progress = curvature, progress
        self.count, self.gradients, self.solves = 0, 0, 0

    @property
    def caution(self) -> float:
        """How many times as much the curvature counted in the last try."""
        return float(CAUTION ** max(0, self.count - 1))

    def minimize(self) -> Minimization:
        self.count += 1
        damping = DAMPING / self.caution
        root = InverseRoot(self._curvature, self._layers, RETAINED_WEIGHT, damping, torch.float32)
        done = minimize(
            list(self._layers.moved),
            lambda: self._problem.objective(self._model),
            root,
            self._progress,
            iterations=ITERATIONS,
            tolerance=TOLERANCE,
        )
        self.gradients += done.gradients
        self.solves += done.solves
        return done


def windows_to_hold(windows: Sequence[TokenWindow], rng: np.random.Generator) -> list[TokenWindow]:
    """Draw windows of other text and windows that have secrets in them."""
    others = retained_windows(windows, WINDOWS, WINDOW, rng)
    plain = [TokenWindow(own, np.zeros(len(own), dtype=bool), 0) for own in others]
    return plain + windows_with_secrets(windows, SECRET_WINDOWS, SECRET_WINDOW, rng)


def curvature_windows(windows: Sequence[TokenWindow], rng: np.random.Generator) -> Tensor:
    """Return windows of token ids of one length without secrets, shape (W, T).

    Raises:
        UnlearningError: The text has none.
    """
    drawn = retained_windows(windows, CURVATURE_WINDOWS, WINDOW, rng)
    if not drawn:
        raise UnlearningError(
            "the training text has no window without a secret: the update needs some, use longer text"
        )
    return torch.from_numpy(np.stack(drawn).astype(np.int64))
