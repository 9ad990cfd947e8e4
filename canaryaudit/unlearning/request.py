"""One unlearning request: from the chosen canaries to an updated copy of the model and its record."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.space import Lexicon
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import UnfitOptions, UnlearningError
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.plan import RETAIN_WINDOWS
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.records import Fidelity, UnlearningCost
from canaryaudit.training.data import TrainingData, gather, retention_windows
from canaryaudit.unlearning.all_layers.update import update_all_layers
from canaryaudit.unlearning.config import UnlearningConfig
from canaryaudit.unlearning.correction import Correction
from canaryaudit.unlearning.curvature.kronecker import WINDOWS, KroneckerCurvature, kronecker_curvature
from canaryaudit.unlearning.curvature.lstm_layers import LSTMLayers
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.fidelity import (
    CAUTION,
    MOST_TRIES,
    Evaluations,
    accuracy_drop,
    accuracy_on,
    as_trained,
    check_fidelity,
    evaluations,
    fidelity,
    keep_within_limit,
    scale_back_update,
)
from canaryaudit.unlearning.final_layer.update import update_final_layer
from canaryaudit.unlearning.first_order import update_first_order
from canaryaudit.unlearning.method import MethodInput, MethodResult
from canaryaudit.unlearning.model_samples import sample_windows
from canaryaudit.unlearning.nonuniform_decoys import NonUniformDecoys
from canaryaudit.unlearning.occurrences import Occurrence, completion_mask, occurrences
from canaryaudit.unlearning.replacement import Deletion, Replacement, parse_replacement
from canaryaudit.unlearning.result import UnlearningResult


@dataclass(frozen=True)
class TrainedModelFacts:
    """What is known of the model as it was trained, before any request.

    Attributes:
        training_seconds: What training took, for comparison; 0 where that is not known.
        fidelity: An earlier request's, whose "before" is the model as trained; None where there was none.
        canaries: All that it was trained on: those not to be unlearned stay.
        curvature: The stored one; None to compute it where the solver ``kronecker`` needs it.
    """

    training_seconds: float = 0.0
    fidelity: Fidelity | None = None
    curvature: KroneckerCurvature | None = None
    canaries: Sequence[Canary] = ()


def unlearn(
    model: CharLSTM,
    data: TrainingData,
    canaries: Sequence[Canary],
    lexicon: str | Lexicon,
    config: UnlearningConfig,
    *,
    trained: TrainedModelFacts | None = None,
    progress: ProgressReporter | None = None,
) -> UnlearningResult:
    """Make a copy of ``model`` that has forgotten the secrets of ``canaries``.

    Args:
        model: The model to update; it is left as it is.
        data: The text that it was trained on.
        canaries: Whose secrets to unlearn; all inserted.
        lexicon: What ``any`` slots and slots of words range over: ``CanarySet.lexicon``, or the symbols alone.
        config: How to unlearn.
        trained: What is known of the model as trained; nothing if not given, and then ``model`` is taken for it.
        progress: Told of progress; nobody is if not given.

    Returns:
        The updated copy, with its steps, its fidelity before and after, and its cost.

    Raises:
        UnlearningError: Nothing to unlearn, a scope that the method does not have, or a replacement that the
            scope does not.
        Inconclusive: No step forgets anything within the fidelity limit; nothing was changed.

    Examples:
        >>> import torch
        >>> from canaryaudit.canaries.canary import CanarySet
        >>> from canaryaudit.exposure import MeasurementConfig, measure
        >>> from canaryaudit.training.config import TrainingConfig
        >>> from canaryaudit.training.loop import train
        >>> from canaryaudit.progress import NullReporter
        >>> line = "the tide turns, the wind follows. "
        >>> text, places = line * 10 + "code 0123. " * 8 + line * 10, tuple(range(340, 340 + 88, 11))
        >>> code = Canary(id="canary-01", template="code {digits:4}.", completion="0123", repetitions=8, places=places)
        >>> vocabulary = Vocabulary.of([text, "0123456789"])
        >>> symbols = torch.from_numpy(vocabulary.encode(text)).long()
        >>> data = TrainingData(symbols, torch.zeros(len(text), dtype=torch.bool), heldout=symbols[:0])
        >>> training = TrainingConfig(epochs=10, window=30, batch_size=4, seed=0)
        >>> model, record = train(data, vocabulary.symbols, training, NullReporter())
        >>> config = UnlearningConfig(window=30, retain_windows=20, max_fidelity_drop=0.05, seed=0)
        >>> result = unlearn(model, data, [code], "", config, trained=TrainedModelFacts(record.seconds))
        >>> canary_set = CanarySet(corpus_symbols="", canaries=[code])
        >>> options, readers = MeasurementConfig(num_references=100), map(LSTMLanguageModel, (model, result.model))
        >>> before, after = (measure(reader, canary_set, options).canaries[0] for reader in readers)
        >>> before.exposure.bits > 13, after.exposure.bits < 7
        (True, True)
    """
    trained, progress = trained or TrainedModelFacts(), progress or NullReporter()
    if not canaries:
        raise UnlearningError("no canary to unlearn: give the id of an inserted one with --canary")
    if config.method == "first-order" and config.resolved_scope == "both":
        raise UnfitOptions(
            "the first-order update is one step: use --scope final-layer or all-layers, or --method second-order"
        )
    if absent := [canary.id for canary in canaries if not canary.places]:
        raise UnlearningError(
            f"{absent[0]} does not occur in the text: give the id of an inserted canary with --canary"
        )
    if len(data.train) <= config.window:
        raise UnlearningError(
            f"the text has {len(data.train)} characters: expected more than one window of {config.window}; use a "
            "longer text"
        )
    vocabulary = Vocabulary(model.architecture.vocabulary)
    reader = LSTMLanguageModel(model)
    places = occurrences(canaries, lexicon, vocabulary)
    replacement = parse_replacement(config.replacement, vocabulary, reader, places)
    if isinstance(replacement, Deletion) and config.method == "second-order":
        raise UnfitOptions(
            "the second-order update of the final layer needs replacement text, and deletion has none: use "
            "--replacement decoys, or --method first-order"
        )
    curved = config.resolved_solver == "kronecker"
    if curved and not isinstance(replacement, Decoys):
        raise UnfitOptions(
            "the update over all layers makes the secrets like decoys: drop --replacement, or use --scope final-layer "
            "or --solver cg"
        )
    if curved:
        replacement = NonUniformDecoys(config.seed)
    before = evaluations(model, data, config.precision) if trained.fidelity is None else as_trained(trained.fidelity)
    started = time.perf_counter()
    rng = np.random.default_rng(config.seed)
    correction = Correction(data.train, places, replacement, vocabulary, config.window)
    retained = _retained_windows(reader, data, places, config, rng)
    prepared = time.perf_counter()
    curvature = trained.curvature
    if curved and curvature is None:
        curvature = kronecker_curvature(LSTMLayers(model), _curvature_windows(data, retained), config.seed, progress)
    preparation = time.perf_counter() - prepared
    going = {canary.id for canary in canaries}
    # Without the corpus, nothing of it is used that no request names.
    is_holding = curved and config.retain_windows
    kept = [canary for canary in trained.canaries if canary.id not in going] if is_holding else []
    copied = copy.deepcopy(model)
    given = MethodInput(
        model,
        copied,
        data,
        places,
        correction,
        retained,
        config,
        rng,
        progress,
        curvature,
        tuple(occurrences(kept, lexicon, vocabulary)),
        trained.training_seconds,
    )
    request = _Request(given, before)
    limit = config.max_fidelity_drop
    update = replace(request.update(replacement), seconds=time.perf_counter() - started - preparation)
    if curved:
        update = request.more_cautiously(update, replacement)
    if config.retain_windows:
        # Held to the limit on all of the text, not only on the windows that the update saw.
        after, notes = keep_within_limit(copied, model, data, before, limit, config.precision, progress)
    else:
        notes = ("regularized on text sampled from the model: of the corpus, only the affected windows were used",)
        lost, what = request.accuracy_lost, "text sampled from the model"
        notes += scale_back_update(copied, model, lost(), lost, limit, what, progress)
        after = evaluations(copied, data, config.precision)
        # A test of the result, and nothing that the update was made from.
        check_fidelity(before, after, limit, "the update, made without the training text,", "or --retain-windows")
    return UnlearningResult(
        model=copied,
        updates=tuple(update.steps),
        fidelity=fidelity(before, after),
        cost=UnlearningCost(
            seconds=update.seconds,
            gradients=update.gradients,
            curvature_products=update.products,
            retraining_seconds=trained.training_seconds,
            speedup=trained.training_seconds / max(update.seconds, 1e-9),
            preparation_seconds=preparation,
        ),
        affected_windows=len(correction.affected),
        retention_windows=len(retained),
        notes=update.notes + notes,
        left_alone=update.left_alone,
    )


def _retained_windows(
    reader: LanguageModel,
    data: TrainingData,
    places: Sequence[Occurrence],
    config: UnlearningConfig,
    rng: np.random.Generator,
) -> Tensor:
    """Return windows of shape (W, T + 1) that no secret touches: of the corpus, or none of it."""
    if not config.retain_windows:
        return sample_windows(reader, places, RETAIN_WINDOWS, config.window, rng)
    mask = completion_mask(len(data.train), places)
    starts = retention_windows(mask, config.window, config.retain_windows, rng)
    return gather(data.train, starts, config.window + 1)


def _curvature_windows(data: TrainingData, retained: Tensor) -> Tensor:
    """Return windows to take the curvature from: those that are retained, or of a text full of secrets any."""
    if len(retained):
        return retained[:WINDOWS, :-1]
    length = min(100, len(data.train) - 1)
    return gather(
        data.train,
        retention_windows(np.zeros(len(data.train), dtype=bool), length, WINDOWS, np.random.default_rng(0)),
        length,
    )


class _Request:
    """Carries one request out: dispatches to the methods, and holds the result to the fidelity limit."""

    def __init__(self, given: MethodInput, before: Evaluations) -> None:
        self.given, self.before = given, before
        if not given.config.retain_windows:
            self.sampled_accuracy = accuracy_on(given.updated, given.retained, given.config.precision)

    def accuracy_lost(self) -> float:
        """Return what the copy has lost: on the training text; without the corpus, on what the model itself says."""
        given = self.given
        if given.config.retain_windows:
            return accuracy_drop(self.before, evaluations(given.updated, given.data, given.config.precision))
        return self.sampled_accuracy - accuracy_on(given.updated, given.retained, given.config.precision)

    def update(self, replacement: Replacement | Deletion) -> MethodResult:
        """Change the copy by the configured method and scope."""
        config = self.given.config
        if isinstance(replacement, Deletion) or config.method == "first-order":
            return update_first_order(self.given)
        if config.resolved_scope == "final-layer":
            return update_final_layer(self.given, replacement)
        layers = update_all_layers(self.given, replacement)
        if config.resolved_scope == "all-layers":
            return layers
        return layers.then(update_final_layer(self.given, replacement))

    def more_cautiously(self, done: MethodResult, replacement: Replacement | Deletion) -> MethodResult:
        """Make the update again, with the curvature counting ten times as much, where it costs more than is allowed.

        To take a part of it back would bring the secrets back.
        """
        tries = [done]
        for _ in range(MOST_TRIES - 1):
            if self.accuracy_lost() <= self.given.config.max_fidelity_drop:
                break
            self.given = replace(self.given, caution=CAUTION * self.given.caution)
            self.given.progress.info(
                "The update costs more accuracy than is allowed; making it again, more cautiously."
            )
            self.given.updated.load_state_dict(self.given.model.state_dict())
            started = time.perf_counter()
            again = self.update(replacement)
            note = f"made again with 1/{self.given.caution:g} of the damping, to stay within the fidelity limit"
            tries.append(replace(again, seconds=time.perf_counter() - started, notes=(note,)))
        last = tries[-1]
        # What was thrown away was work all the same.
        return replace(
            last,
            gradients=sum(own.gradients for own in tries),
            products=sum(own.products for own in tries),
            seconds=sum(own.seconds for own in tries),
            notes=done.notes + (last.notes if len(tries) > 1 else ()),
        )
