"""One unlearning request: from the chosen canaries to an updated copy of the model and its record."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from canaryaudit.canaries import Canary
from canaryaudit.corpus import Vocabulary
from canaryaudit.errors import Inconclusive, UnlearningError
from canaryaudit.model import CharLSTM
from canaryaudit.narration import Narrator
from canaryaudit.plan import RETAIN_WINDOWS
from canaryaudit.records import Evaluation, Fidelity, Method, Scope, SolverName, UnlearningCost, UpdateStep
from canaryaudit.training import TrainingData, autocast, evaluate
from canaryaudit.unlearning.all_layers import AllLayersProblem
from canaryaudit.unlearning.final_layer import build_problem, exchange_secrets, write_columns
from canaryaudit.unlearning.first_order import delta, line_search
from canaryaudit.unlearning.gauss_newton import SOLVERS, gauss_newton
from canaryaudit.unlearning.replacement import Replacement, parse_replacement
from canaryaudit.unlearning.second_order import MAX_STEPS, minimise
from canaryaudit.unlearning.windows import Occurrence, affected_windows, gather, occurrences, retention_windows

_BATCH = 64
"""Windows read at a time: thousands at once would take gigabytes."""


class UnlearningConfig(BaseModel):
    """How to unlearn; checked when made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "second-order"
    scope: Scope | None = None
    """None for the method's own: the final layer for second order, all layers for first order."""
    solver: SolverName = "cg"
    """Of second-order steps over all layers."""
    replacement: str = "decoys"
    retain_windows: int = Field(default=RETAIN_WINDOWS, ge=1)
    """Windows of other text that hold the model to what it was."""
    max_fidelity_drop: float = Field(default=0.003, gt=0, le=1)
    """Largest drop of accuracy on the training text outside the secrets, as a share."""
    tau: float | None = Field(default=None, gt=0)
    """Step length of the first-order update; None for a line search under the fidelity limit."""
    window: int = Field(default=100, gt=1)
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def resolved_scope(self) -> Scope:
        """The scope, the method's own where none was given."""
        return self.scope or ("final-layer" if self.method == "second-order" else "all-layers")

    @property
    def resolved_solver(self) -> SolverName | None:
        """The solver of steps over all layers; None where there are none."""
        return self.solver if self.method == "second-order" and self.resolved_scope != "final-layer" else None


@dataclass(frozen=True)
class Unlearned:
    """An updated copy of a model, and what is to be said of it.

    Attributes:
        model: The copy.
        updates: The steps, with their health.
        fidelity: Quality before and after.
        cost: The ledger.
        affected_windows: Size of Z.
        retention_windows: Windows of other text used.
        notes: What the reader of a report should know.
    """

    model: CharLSTM
    updates: tuple[UpdateStep, ...]
    fidelity: Fidelity
    cost: UnlearningCost
    affected_windows: int
    retention_windows: int
    notes: tuple[str, ...]


def unlearn(
    model: CharLSTM,
    data: TrainingData,
    canaries: Sequence[Canary],
    corpus_symbols: str,
    config: UnlearningConfig,
    retraining_seconds: float,
    narrator: Narrator,
) -> Unlearned:
    """Make a copy of ``model`` that has forgotten the secrets of ``canaries``.

    Args:
        model: The trained model; it is left as it is.
        data: The text that it was trained on.
        canaries: Whose secrets to unlearn; all inserted.
        corpus_symbols: What an ``any`` slot ranges over.
        config: How to unlearn.
        retraining_seconds: What training took, for comparison.
        narrator: Told of progress.

    Raises:
        UnlearningError: Nothing to unlearn, or a scope that the method does not have.
        Inconclusive: No step forgets anything within the fidelity limit; nothing was changed.
    """
    if not canaries:
        raise UnlearningError("no canary to unlearn: give the id of an inserted one with --canary")
    if config.method == "first-order" and config.resolved_scope == "both":
        raise UnlearningError(
            "the first-order update is one step: use --scope final-layer or all-layers, or --method second-order"
        )
    if absent := [canary.id for canary in canaries if not canary.places]:
        raise UnlearningError(
            f"{absent[0]} stands nowhere in the text: give the id of an inserted canary with --canary"
        )
    if len(data.train) <= config.window:
        raise UnlearningError(
            f"the text has {len(data.train)} characters: expected more than a window of {config.window} to unlearn from"
        )
    vocabulary = Vocabulary(model.architecture.vocabulary)
    replacement = parse_replacement(config.replacement, vocabulary)
    before = _evaluations(model, data, config.precision)
    started = time.perf_counter()
    request = _Request(model, data, occurrences(canaries, corpus_symbols, vocabulary), config, narrator)
    update = request.second_order(replacement) if config.method == "second-order" else request.first_order(replacement)
    seconds = time.perf_counter() - started
    after = _evaluations(request.copy, data, config.precision)
    notes = list(update.notes)
    # Held to the limit on all of the text, not only on the windows that the update saw.
    share = 1.0
    while before[0].accuracy - after[0].accuracy > config.max_fidelity_drop:
        share /= 2
        if share < 0.2:
            lost = before[0].accuracy - after[0].accuracy
            raise Inconclusive(
                f"the update costs {lost:.4f} of accuracy on the training text even when scaled back to a quarter, "
                f"over the limit of {config.max_fidelity_drop}: nothing was saved; raise --max-fidelity-drop or "
                "--retain-windows"
            )
        request.scale_back()
        after = _evaluations(request.copy, data, config.precision)
    if share < 1:
        notes.append(f"scaled back to {share:g} of the full step, to keep within the fidelity limit")
        narrator.say(f"The update was scaled back to {share:g} of its length, to keep within the fidelity limit.")
    return Unlearned(
        model=request.copy,
        updates=tuple(update.steps),
        fidelity=_fidelity(before, after),
        cost=UnlearningCost(
            seconds=seconds,
            gradients=update.gradients,
            curvature_products=update.products,
            retraining_seconds=retraining_seconds,
            speedup=retraining_seconds / max(seconds, 1e-9),
        ),
        affected_windows=len(request.affected),
        retention_windows=len(request.retained),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Update:
    """What a method did to the request's copy."""

    steps: list[UpdateStep]
    gradients: float
    products: int
    notes: tuple[str, ...] = ()


class _Request:
    """A copy of the model, and the windows to change it by."""

    def __init__(
        self,
        model: CharLSTM,
        data: TrainingData,
        places: list[Occurrence],
        config: UnlearningConfig,
        narrator: Narrator,
    ) -> None:
        self.model, self.data, self.places, self.config, self.narrator = model, data, places, config, narrator
        self.copy = copy.deepcopy(model)
        self.rng = np.random.default_rng(config.seed)
        mask = np.zeros(len(data.train), dtype=bool)
        for place in places:
            mask[place.start : place.start + len(place.secret)] = True
        self.affected = affected_windows(mask, config.window)
        self.retained = retention_windows(mask, config.window, config.retain_windows, self.rng)

    def second_order(self, replacement: Replacement) -> _Update:
        """Move all layers, or the final one, or one after the other."""
        scope = self.config.resolved_scope
        if scope == "final-layer":
            return self._final_layer(replacement)
        layers = self._all_layers(replacement)
        if scope == "all-layers":
            return layers
        final = self._final_layer(replacement)
        return _Update(
            layers.steps + final.steps,
            layers.gradients + final.gradients,
            layers.products + final.products,
            layers.notes + final.notes,
        )

    def _all_layers(self, replacement: Replacement) -> _Update:
        """Take Gauss-Newton steps over all layers."""
        problem = AllLayersProblem(
            self.model,
            self.data.train,
            self.places,
            replacement,
            self.retained,
            window=self.config.window,
            rng=self.rng,
        )
        self.copy.train()  # cuDNN differentiates an LSTM in no other mode
        done = gauss_newton(
            self.copy, problem, SOLVERS[self.config.solver](), self.config.max_fidelity_drop, self.narrator
        )
        self.copy.train(self.model.training)
        if not any(step.step_norm for step in done.steps):
            states = ", ".join(dict.fromkeys(step.note for step in done.steps if step.note)) or "no descent"
            raise Inconclusive(
                f"no second-order step over all layers serves the corrected text within the fidelity limit ({states}): "
                "nothing was saved; use --scope final-layer, or --solver cg"
            )
        return _Update(list(done.steps), done.gradients / self.config.window, done.products)

    def _final_layer(self, replacement: Replacement) -> _Update:
        """Minimise the final layer's corrected-data objective, from the layers below as they are now."""
        problem, active, readings = build_problem(
            self.copy,
            self.data.train,
            self.places,
            replacement,
            self.retained,
            window=self.config.window,
            precision=self.config.precision,
            rng=self.rng,
        )
        first = minimise(problem, self.narrator)
        rounds = [(problem, first)]
        exchanged = exchange_secrets(
            self.copy,
            problem,
            active,
            first.columns,
            readings,
            replacement,
            precision=self.config.precision,
            rng=self.rng,
        )
        if exchanged is not problem:
            rounds.append((exchanged, minimise(exchanged, self.narrator, start=first.columns)))
        steps = [step for _, minimum in rounds for step in minimum.steps]
        if not any(step.step_norm for step in steps):
            raise Inconclusive(
                "no second-order step serves the corrected text: nothing was saved; this model knows no more of the "
                "secrets than the replacement says, or use --method first-order"
            )
        write_columns(self.copy, active, rounds[-1][1].columns)
        notes = []
        if not all(minimum.converged for _, minimum in rounds):
            notes.append(f"the minimisation stopped at its limit of {MAX_STEPS} steps before it had converged")
        read = sum(len(own.weights) * len(minimum.steps) for own, minimum in rounds)
        products = sum(minimum.products for _, minimum in rounds)
        return _Update(steps, read / self.config.window, products, tuple(notes))

    def first_order(self, replacement: Replacement) -> _Update:
        """Take one step along -Delta, of the given length or of the best within the fidelity limit."""
        config = self.config
        original = gather(self.data.train, self.affected, config.window + 1)
        corrected = gather(self._corrected_text(replacement), self.affected, config.window + 1)
        kept = gather(self.data.train, self.retained, config.window + 1)
        final = config.resolved_scope == "final-layer"
        parameters = list((self.copy.output if final else self.copy).parameters())
        self.copy.train()  # cuDNN differentiates an LSTM in no other mode; there is no dropout that it would switch on
        direction = delta(self._summed_loss, corrected, original, parameters)
        self.copy.train(self.model.training)
        accuracy = self._accuracy(kept)
        tau, step = line_search(
            parameters,
            direction,
            corrected_loss=lambda: sum((float(self._summed_loss(own)) for own in torch.split(corrected, _BATCH)), 0.0),
            fidelity_drop=lambda: accuracy - self._accuracy(kept),
            limit=config.max_fidelity_drop,
            taus=None if config.tau is None else (config.tau,),
            narrator=self.narrator,
        )
        if tau == 0:
            raise Inconclusive(
                "no first-order step serves the corrected text within the fidelity limit "
                f"({config.max_fidelity_drop}): nothing was saved; use --method second-order"
            )
        return _Update([step], 2.0 * len(self.affected), 0, (f"tau {tau:.3g}",))

    @torch.no_grad()
    def scale_back(self) -> None:
        """Halve the way that the copy is from the original."""
        for mine, origin in zip(self.copy.parameters(), self.model.parameters(), strict=True):
            mine.copy_((mine + origin) / 2)

    def _corrected_text(self, replacement: Replacement) -> Tensor:
        """Return the text with a replacement, drawn for each occurrence, in every secret's place."""
        text = self.data.train.clone()
        for place in self.places:
            fitting: list[Tensor] = []
            while not fitting:  # a choice of words may draw one of another length, which has no room here
                drawn = replacement.correct(place.space, place.secret, 1, self.rng)
                fitting = [item.symbols[0] for item in drawn if item.symbols.shape[1] == len(place.secret)]
            text[place.start : place.start + len(place.secret)] = fitting[0].to(text.device)
        return text

    def _summed_loss(self, windows: Tensor) -> Tensor:
        with autocast(windows.device, self.config.precision):
            logits = self.copy(windows[:, :-1])
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction="sum")

    @torch.no_grad()
    def _accuracy(self, windows: Tensor) -> float:
        hits = 0
        for batch in torch.split(windows, _BATCH):
            if len(batch):  # a text full of secrets has no other windows; its accuracy is then taken as unchanged
                with autocast(batch.device, self.config.precision):
                    hits += int((self.copy(batch[:, :-1]).argmax(2) == batch[:, 1:]).sum())
        return hits / max(1, windows[:, 1:].numel())


def _evaluations(model: CharLSTM, data: TrainingData, precision: str) -> tuple[Evaluation, Evaluation]:
    """Return the model's quality on the training text and on the held-out text."""
    return evaluate(model, data.train, data.secret, precision), evaluate(model, data.heldout, None, precision)


def _fidelity(before: tuple[Evaluation, Evaluation], after: tuple[Evaluation, Evaluation]) -> Fidelity:
    return Fidelity(
        train_accuracy_before=before[0].accuracy,
        train_accuracy_after=after[0].accuracy,
        train_accuracy_all_before=before[0].accuracy_all,
        train_accuracy_all_after=after[0].accuracy_all,
        train_loss_before=before[0].loss_bits,
        train_loss_after=after[0].loss_bits,
        heldout_accuracy_before=before[1].accuracy,
        heldout_accuracy_after=after[1].accuracy,
        heldout_loss_before=before[1].loss_bits,
        heldout_loss_after=after[1].loss_bits,
    )
