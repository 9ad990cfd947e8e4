"""What closed-form updates are compared with: training again, training further, training by shards.

All three use the training loop of ``training`` and the corrected text, in which every occurrence of the
chosen secrets is replaced; they are evaluated, measured and recorded like every other unlearning.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup
from canaryaudit.errors import UnlearningError
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.plan import DEFAULT_SHARDS, ReplacementSettings, Shards
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import Baseline, TrainingRecord, UnlearningCost
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.data import TrainingData, affected_windows, retention_windows
from canaryaudit.training.loop import train
from canaryaudit.unlearning.baselines.sisa import (
    ShardTrainer,
    Workplace,
    affected_shards,
    passes_over_windows,
    shard_bounds,
)
from canaryaudit.unlearning.correction import corrected_data
from canaryaudit.unlearning.distinguishability import compare_with_fresh_draws
from canaryaudit.unlearning.fidelity import (
    Evaluations,
    accuracy_drop,
    check_fidelity,
    evaluations,
    fidelity,
    keep_within_limit,
)
from canaryaudit.unlearning.occurrences import Occurrence, completion_mask, occurrences
from canaryaudit.unlearning.replacement import Deletion, Replacement, parse_replacement
from canaryaudit.unlearning.result import UnlearningResult

FINE_TUNING_RATE = 1.0
"""Highest learning rate of fine-tuning, as a share of the training's: at a third of it, memorized secrets stay where
they are."""
MOST_EPOCHS = 4
"""Passes over the corrected text that fine-tuning takes at most: a sixth of training a small model again."""
TOP_UP_RATE = 1 / 3
"""Highest learning rate, as a share, of the passes that bring a retrained model to the original's accuracy."""
MOST_TOP_UPS = 8
DECOYS_COMPARED = 256
"""Fresh members of each secret's space that its cost is compared with: their mean is then known to a sixteenth of
their standard deviation."""


class BaselineConfig(ReplacementSettings):
    """How to unlearn by training; checked when made."""

    # The seed is of the replacements; the training's own is that of the original model.
    method: Baseline
    shards: Shards = DEFAULT_SHARDS
    """For ``sisa``: parts that the text is trained in."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of evaluations; training has the original's."""


@dataclass(frozen=True)
class Original:
    """The model to unlearn from, and how it was made.

    Attributes:
        model: The trained model; it is left as it is.
        data: The text that it was trained on.
        training: How it was trained.
        record: What that took.
    """

    model: CharLSTM
    data: TrainingData
    training: TrainingConfig
    record: TrainingRecord


def training_of(record: TrainingRecord, device: torch.device) -> TrainingConfig:
    """Return the configuration that made a model, to be run again on ``device``."""
    return TrainingConfig.model_validate(
        {name: getattr(record, name) for name in TrainingConfig.model_fields if hasattr(record, name)}
        | {"epochs": record.planned_epochs, "device": device.type}
    )


def unlearn_by_training(
    original: Original,
    canaries: Sequence[Canary],
    canary_set: CanarySet,
    config: BaselineConfig,
    workplace: Workplace,
    progress: ProgressReporter,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> UnlearningResult:
    """Make a model that was trained on the corrected text.

    Args:
        original: What to unlearn from.
        canaries: Whose secrets to unlearn; all inserted.
        canary_set: All canaries of the run.
        config: How to unlearn.
        workplace: Where trainings keep what they go on from.
        progress: Told of progress.
        processes: Who trains.

    Raises:
        UnlearningError: Nothing to unlearn, or too many shards.
        Inconclusive: The result would lose more accuracy than is allowed; nothing of it is kept.
    """
    if not canaries:
        raise UnlearningError("no canary to unlearn: give the id of an inserted one with --canary")
    if absent := [canary.id for canary in canaries if not canary.places]:
        raise UnlearningError(
            f"{absent[0]} does not occur in the text: give the id of an inserted canary with --canary"
        )
    vocabulary = Vocabulary(original.model.architecture.vocabulary)
    places = occurrences(canaries, canary_set.lexicon, vocabulary)
    request = _Request(
        original,
        places,
        canary_set.inserted,
        parse_replacement(config.replacement, vocabulary, LSTMLanguageModel(original.model), places),
        config,
        ShardTrainer(vocabulary.symbols, original.training, workplace, progress, processes),
        evaluations(original.model, original.data, config.precision),
        progress,
    )
    match config.method:
        case "retrain":
            return request.retrain()
        case "fine-tune":
            return request.fine_tune()
        case "sisa":
            return request.train_by_shards()


@dataclass(frozen=True)
class _Request:
    """A request and what every baseline needs for it."""

    original: Original
    places: list[Occurrence]
    inserted: Sequence[Canary]
    replacement: Replacement | Deletion
    config: BaselineConfig
    trainer: ShardTrainer
    before: Evaluations
    progress: ProgressReporter

    def retrain(self) -> UnlearningResult:
        """Train from scratch on the corrected text, as the original was, to the same accuracy."""
        config, data = self.config, self._corrected()
        model, record = self.trainer.train(data)
        seconds, gradients, notes = record.seconds, passes_over_windows(record), []
        after = evaluations(model, self.original.data, config.precision)
        top_ups = 0
        while accuracy_drop(self.before, after) > config.max_fidelity_drop and top_ups < MOST_TOP_UPS:
            top_ups += 1
            model, record = self._train_further(model, data, TOP_UP_RATE, top_ups)
            seconds, gradients = seconds + record.seconds, gradients + passes_over_windows(record)
            after = evaluations(model, self.original.data, config.precision)
        if top_ups:
            notes.append(f"{top_ups} extra epochs at a low learning rate, to reach the original accuracy")
        check_fidelity(self.before, after, config.max_fidelity_drop, "the retrained model")
        return self._unlearned(model, after, seconds, gradients, notes)

    def fine_tune(self) -> UnlearningResult:
        """Train the original further on the corrected text until the secrets cost what fresh draws cost.

        One epoch, with a learning rate cycle of its own, after the other: until the chosen secrets are, on
        average, no further below the mean cost of fresh members of their spaces than those members' standard
        deviation, and ``MOST_EPOCHS`` at most.
        """
        config, data, model = self.config, self._corrected(), self.original.model
        seconds = gradients = 0.0
        for epoch in range(1, MOST_EPOCHS + 1):
            model, record = self._train_further(model, data, FINE_TUNING_RATE, epoch)
            started = time.perf_counter()
            score = self.standard_score(model)
            seconds += record.seconds + time.perf_counter() - started
            gradients += passes_over_windows(record)
            self.progress.info(
                f"Fine-tuned for {epoch} of at most {MOST_EPOCHS} epochs: the secrets' log-perplexity is {score:.1f} "
                "standard deviations below random draws."
            )
            if score <= 1:
                break
        limit = "" if score <= 1 else ", the maximum"
        notes = [
            f"stopped after {epoch} epochs{limit}: the secrets' log-perplexity was {score:.1f} standard deviations "
            "below random draws"
        ]
        after, scaling = keep_within_limit(
            model,
            self.original.model,
            self.original.data,
            self.before,
            config.max_fidelity_drop,
            config.precision,
            self.progress,
        )
        return self._unlearned(model, after, seconds, gradients, [*notes, *scaling])

    def train_by_shards(self) -> UnlearningResult:
        """Train every shard's model, then again those whose shard holds a chosen secret; average all of them.

        Source: Bourtoule et al. 2021, *Machine Unlearning*, IEEE S&P (SISA, without slices).
        """
        config, original, data = self.config, self.original, self.original.data
        newline = original.model.architecture.vocabulary.find("\n")
        text, window = data.train.cpu().numpy(), original.training.window
        bounds = shard_bounds(text, newline, self.inserted, config.shards, window)
        parts = [TrainingData(data.train[start:end], data.secret[start:end], data.heldout[:0]) for start, end in bounds]
        first = [self.trainer.train_shard(part, index) for index, part in enumerate(parts)]
        whole = evaluations(Ensemble([shard.model for shard in first]), data, config.precision)
        what, advice = f"the ensemble of {config.shards} shards", "or use fewer --shards"
        # An ensemble that is too weak before the request will not be better after it.
        check_fidelity(self.before, whole, config.max_fidelity_drop, what, advice)
        last = list(first)
        affected = affected_shards(self.places, bounds)
        for index in affected:
            start, end = bounds[index]
            inside = [replace(place, start=place.start - start) for place in self.places if start <= place.start < end]
            rng = np.random.default_rng((config.seed, index))
            corrected = corrected_data(parts[index], inside, self.replacement, self._vocabulary, rng)
            last[index] = self.trainer.train_shard(corrected, index, corrected=True)
        ensemble = Ensemble([shard.model for shard in last])
        after = evaluations(ensemble, data, config.precision)
        check_fidelity(self.before, after, config.max_fidelity_drop, what, advice)
        loss = f" and held-out loss {whole[1].loss_bits:.3f} bits" if len(data.heldout) else ""
        notes = [
            f"{len(affected)} of {config.shards} shards were retrained",
            f"before the request, the ensemble of {config.shards} shards had accuracy {whole[0].accuracy:.4f} on "
            f"training text outside the secrets{loss}",
        ]
        result = self._unlearned(
            ensemble,
            after,
            sum(last[index].seconds for index in affected),
            sum(last[index].gradients for index in affected),
            notes,
        )
        preparation = {
            "preparation_seconds": sum(shard.seconds for shard in first),
            "preparation_gradients": sum(shard.gradients for shard in first),
        }
        return replace(result, cost=result.cost.model_copy(update=preparation))

    def standard_score(self, model: CharLSTM) -> float:
        """Return how far, on average, the secrets' cost lies below that of fresh draws, in standard deviations."""
        rng = np.random.default_rng(self.config.seed)
        found = compare_with_fresh_draws(LSTMLanguageModel(model), self.places, DECOYS_COMPARED, rng)
        return float(np.mean([own.standard_score for own in found]))

    @property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.original.model.architecture.vocabulary)

    def _corrected(self) -> TrainingData:
        rng = np.random.default_rng(self.config.seed)
        return corrected_data(self.original.data, self.places, self.replacement, self._vocabulary, rng)

    def _train_further(
        self, model: CharLSTM, data: TrainingData, rate: float, epoch: int
    ) -> tuple[CharLSTM, TrainingRecord]:
        """Train for one epoch more, with other windows each time; the held-out text is for evaluation alone."""
        training = self.original.training
        changes = {
            "epochs": 1,
            "target_accuracy": None,
            "learning_rate": rate * training.learning_rate,
            "seed": training.seed + epoch,
        }
        bare = TrainingData(data.train, data.secret, data.heldout[:0])
        vocabulary = model.architecture.vocabulary
        config = training.model_copy(update=changes)
        return train(bare, vocabulary, config, self.progress, origin=model, processes=self.trainer.processes)

    def _unlearned(
        self, model: CharLSTM | Ensemble, after: Evaluations, seconds: float, gradients: float, notes: Sequence[str]
    ) -> UnlearningResult:
        original, window = self.original, self.original.training.window
        mask = completion_mask(len(original.data.train), self.places)
        rng = np.random.default_rng(self.config.seed)
        return UnlearningResult(
            model=model,
            updates=(),
            fidelity=fidelity(self.before, after),
            cost=UnlearningCost(
                seconds=seconds,
                gradients=gradients,
                curvature_products=0,
                retraining_seconds=original.record.seconds,
                retraining_gradients=passes_over_windows(original.record),
                speedup=original.record.seconds / max(seconds, 1e-9),
            ),
            affected_windows=len(affected_windows(mask, window)),
            retention_windows=len(retention_windows(mask, window, len(mask), rng)),
            notes=tuple(notes),
        )
