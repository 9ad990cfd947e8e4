"""One unlearning request: from the chosen canaries to an updated copy of the model and its record."""

import copy
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.canaries.canary import Canary
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import Inconclusive, UnlearningError
from canaryaudit.models.char_lstm import CharLSTM, LSTMReader
from canaryaudit.models.device import autocast
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.plan import RETAIN_WINDOWS
from canaryaudit.progress import Narrator
from canaryaudit.records import Fidelity, UnlearningCost
from canaryaudit.training.data import TrainingData, gather, retention_windows
from canaryaudit.unlearning.all_layers.gauss_newton import SOLVERS, STEPS, gauss_newton
from canaryaudit.unlearning.all_layers.objective import AllLayersProblem
from canaryaudit.unlearning.all_layers.preconditioned_adam import PreconditionedProblem, take_steps
from canaryaudit.unlearning.config import UnlearningConfig
from canaryaudit.unlearning.correction import Correction
from canaryaudit.unlearning.curvature.kronecker import KRONECKER_STEPS, KroneckerCurvature, KroneckerSolver
from canaryaudit.unlearning.curvature.solvers import Solver
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.distinguishability import beside_decoys, unseen_probability
from canaryaudit.unlearning.fidelity import (
    Evaluations,
    as_trained,
    evaluations,
    fidelity,
    halve,
    keep_within_limit,
    lost_accuracy,
    refuse_over_limit,
    scale_back,
)
from canaryaudit.unlearning.final_layer.newton import MAX_STEPS, minimise
from canaryaudit.unlearning.final_layer.problem import build_problem, exchange_secrets, write_columns
from canaryaudit.unlearning.first_order import delta, line_search
from canaryaudit.unlearning.model_samples import sample_windows
from canaryaudit.unlearning.nonuniform_decoys import PeakedDecoys
from canaryaudit.unlearning.occurrences import Occurrence, completion_mask, occurrences
from canaryaudit.unlearning.replacement import Deletion, Replacement, parse_replacement
from canaryaudit.unlearning.result import Unlearned, _Update

STILL_TOLD, DECOYS_COMPARED = 0.01, 500
"""Where secrets never seen would stand out among so many draws less often than this, the final layer follows."""
_BATCH = 64
"""Windows read at a time: thousands at once would take gigabytes."""


def unlearn(
    model: CharLSTM,
    data: TrainingData,
    canaries: Sequence[Canary],
    corpus_symbols: str,
    config: UnlearningConfig,
    retraining_seconds: float,
    narrator: Narrator,
    *,
    trained: Fidelity | None = None,
    curvature: KroneckerCurvature | None = None,
) -> Unlearned:
    """Make a copy of ``model`` that has forgotten the secrets of ``canaries``.

    Args:
        model: The model to update; it is left as it is.
        data: The text that it was trained on.
        canaries: Whose secrets to unlearn; all inserted.
        corpus_symbols: What an ``any`` slot ranges over.
        config: How to unlearn.
        retraining_seconds: What training took, for comparison.
        narrator: Told of progress.
        trained: An earlier request's fidelity, whose "before" is the model as trained; None where ``model`` is that.
        curvature: The stored one of the trained model, which the solver ``kronecker`` needs.

    Raises:
        UnlearningError: Nothing to unlearn, a scope that the method does not have, or no curvature for the solver.
        Inconclusive: No step forgets anything within the fidelity limit; nothing was changed.
    """
    if not canaries:
        raise UnlearningError("no canary to unlearn: give the id of an inserted one with --canary")
    if config.method == "first-order" and config.resolved_scope == "both":
        raise UnlearningError(
            "the first-order update is one step: use --scope final-layer or all-layers, or --method second-order"
        )
    if config.resolved_solver == "kronecker" and curvature is None:
        raise UnlearningError("the solver kronecker needs a stored curvature: compute it first, or use cg")
    if absent := [canary.id for canary in canaries if not canary.places]:
        raise UnlearningError(
            f"{absent[0]} stands nowhere in the text: give the id of an inserted canary with --canary"
        )
    if len(data.train) <= config.window:
        raise UnlearningError(
            f"the text has {len(data.train)} characters: expected more than a window of {config.window} to unlearn from"
        )
    vocabulary = Vocabulary(model.architecture.vocabulary)
    reader = LSTMReader(model)
    places = occurrences(canaries, corpus_symbols, vocabulary)
    replacement = parse_replacement(config.replacement, vocabulary, reader, places)
    if isinstance(replacement, Deletion) and config.method == "second-order":
        raise UnlearningError(
            "the second-order update of the final layer learns what is to stand in the secret's place, and after "
            "deletion nothing does: use --replacement decoys, or --method first-order"
        )
    if config.resolved_solver == "adam" and isinstance(replacement, Decoys):
        replacement = PeakedDecoys(config.seed)
    before = evaluations(model, data, config.precision) if trained is None else as_trained(trained)
    started = time.perf_counter()
    request = _Request(model, reader, data, places, replacement, config, before, narrator, curvature)
    update = request.first_order() if isinstance(replacement, Deletion) else request.update(replacement)
    update = replace(update, seconds=time.perf_counter() - started)
    if config.followed and not isinstance(replacement, Deletion):
        update = request.followed_up(update, replacement)
    limit = config.max_fidelity_drop
    after = evaluations(request.copy, data, config.precision)
    if config.retain_windows:
        # Held to the limit on all of the text, not only on the windows that the update saw.
        after, notes = keep_within_limit(request.copy, model, data, before, after, limit, config.precision, narrator)
    else:
        notes = ("held to text that the model itself says: none of the corpus but the affected windows was used",)
        lost, what = request.accuracy_lost, "text that the model itself says"
        if scaled := scale_back(request.copy, model, lost(), lost, limit, what, narrator):
            after = evaluations(request.copy, data, config.precision)
            notes += scaled
        # A test of the result, and nothing that the update was made from.
        refuse_over_limit(before, after, limit, "the update, made without the training text,", "or --retain-windows")
    return Unlearned(
        model=request.copy,
        updates=tuple(update.steps),
        fidelity=fidelity(before, after),
        cost=UnlearningCost(
            seconds=update.seconds,
            gradients=update.gradients,
            curvature_products=update.products,
            retraining_seconds=retraining_seconds,
            speedup=retraining_seconds / max(update.seconds, 1e-9),
        ),
        affected_windows=len(request.correction.affected),
        retention_windows=len(request.retained),
        notes=update.notes + notes,
    )


class _Request:
    """A copy of the model, and the windows to change it by."""

    def __init__(
        self,
        model: CharLSTM,
        reader: LanguageModel,
        data: TrainingData,
        places: list[Occurrence],
        replacement: Replacement | Deletion,
        config: UnlearningConfig,
        before: Evaluations,
        narrator: Narrator,
        curvature: KroneckerCurvature | None,
    ) -> None:
        self.curvature, self.before = curvature, before
        self.model, self.data, self.places, self.config, self.narrator = model, data, places, config, narrator
        self.copy = copy.deepcopy(model)
        self.rng = np.random.default_rng(config.seed)
        vocabulary = reader.vocabulary
        self.correction = Correction(data.train, places, replacement, vocabulary, config.window)
        # Windows of shape (W, T + 1) that no secret touches: of the corpus, or none of it.
        if config.retain_windows:
            mask = completion_mask(len(data.train), places)
            starts = retention_windows(mask, config.window, config.retain_windows, self.rng)
            self.retained = gather(data.train, starts, config.window + 1)
        else:
            self.retained = sample_windows(reader, places, RETAIN_WINDOWS, config.window, self.rng)
            self.sampled_accuracy = self._accuracy(self.retained)

    def accuracy_lost(self) -> float:
        """Return what the copy has lost: on the training text; without the corpus, on what the model itself says."""
        if self.config.retain_windows:
            return lost_accuracy(self.before, evaluations(self.copy, self.data, self.config.precision))
        return self.sampled_accuracy - self._accuracy(self.retained)

    def update(self, replacement: Replacement) -> _Update:
        """Change the copy by the configured method."""
        return self.second_order(replacement) if self.config.method == "second-order" else self.first_order()

    def second_order(self, replacement: Replacement) -> _Update:
        """Move all layers, or the final one, or one after the other."""
        scope = self.config.resolved_scope
        if scope == "final-layer":
            return self._final_layer(replacement)
        layers = self._all_layers(replacement)
        if scope == "all-layers":
            return layers
        return layers.then(self._final_layer(replacement))

    def followed_up(self, done: _Update, replacement: Replacement) -> _Update:
        """Let the final layer's minimum forget the rest where the steps cost too much, or the secrets still stand out.

        In the first case half of the steps is taken back. In the second the steps alone stay where the final layer has
        nothing to add, or costs too much.
        """
        limit, kept = self.config.max_fidelity_drop, copy.deepcopy(self.copy.state_dict())
        if half := self.accuracy_lost() > limit:
            halve(self.copy, self.model)
            why = "half of all layers' steps were taken back to keep within the fidelity limit"
        else:
            started = time.perf_counter()
            found = beside_decoys(LSTMReader(self.copy), self.places, DECOYS_COMPARED, self.rng)
            done = replace(done, seconds=done.seconds + time.perf_counter() - started)
            if unseen_probability(found) >= STILL_TOLD:
                return done
            why = "after all layers' steps the secrets were still told from fresh draws"
        self.narrator.say(f"{why[0].upper()}{why[1:]}: the final layer's update follows.")
        tried, started = _Update([], 0.0, 0), time.perf_counter()
        try:
            tried = self._final_layer(replacement)
        except Inconclusive:
            if half:
                raise
        tried = replace(tried, seconds=time.perf_counter() - started)
        if tried.steps and (half or self.accuracy_lost() <= limit):
            return done.then(replace(tried, notes=(*tried.notes, f"{why}; the final layer's followed")))
        self.copy.load_state_dict(kept)
        # What came to nothing was work all the same.
        return done.then(replace(tried, steps=[], notes=(f"{why}, and the final layer could not make it better",)))

    def _all_layers(self, replacement: Replacement) -> _Update:
        """Take preconditioned steps over all layers, or Gauss-Newton steps."""
        common = (self.model, self.data.train, self.places, replacement, self.retained)
        if self.config.solver == "adam":
            rows = PreconditionedProblem(*common, precision=self.config.precision, rng=self.rng)
            self.copy.train()  # cuDNN differentiates an LSTM in no other mode
            taken = take_steps(self.copy, rows, self.narrator)
            self.copy.train(self.model.training)
            return _Update(list(taken.steps), taken.symbols / self.config.window, 0)
        problem = AllLayersProblem(*common, window=self.config.window, rng=self.rng)
        self.copy.train()  # cuDNN differentiates an LSTM in no other mode
        solver: Solver
        if self.config.solver == "kronecker" and self.curvature:
            solver, steps = KroneckerSolver(self.curvature, problem.retained_weight), KRONECKER_STEPS
        else:
            solver, steps = SOLVERS[self.config.solver](), STEPS
        done = gauss_newton(self.copy, problem, solver, self.config.max_fidelity_drop, self.narrator, steps)
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

    def first_order(self) -> _Update:
        """Take one step along -Delta, of the given length or of the best within the fidelity limit."""
        config = self.config
        original = self.correction.original_windows()
        corrected = self.correction.corrected_windows(self.rng)
        kept = self.retained
        final = config.resolved_scope == "final-layer"
        parameters = list((self.copy.output if final else self.copy).parameters())
        self.copy.train()  # cuDNN differentiates an LSTM in no other mode; there is no dropout that it would switch on
        direction = delta(self._summed_loss, corrected, original, parameters)
        self.copy.train(self.model.training)
        accuracy = self._accuracy(kept)
        tau, step = line_search(
            parameters,
            direction,
            corrected_loss=lambda: sum(
                (float(self._summed_loss(own)) for windows in corrected for own in torch.split(windows, _BATCH)), 0.0
            ),
            fidelity_drop=lambda: accuracy - self._accuracy(kept),
            limit=config.max_fidelity_drop,
            taus=None if config.tau is None else (config.tau,),
            narrator=self.narrator,
        )
        if tau == 0:
            other = "--replacement decoys" if config.replacement == Deletion.name else "--method second-order"
            raise Inconclusive(
                "no first-order step serves the corrected text within the fidelity limit "
                f"({config.max_fidelity_drop}): nothing was saved; use {other}"
            )
        return _Update([step], 2.0 * len(self.correction.affected), 0, (f"tau {tau:.3g}",))

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
