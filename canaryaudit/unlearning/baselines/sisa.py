"""Training by shards: where the text is cut, and one model for each part, trained once and kept.

Source: Bourtoule et al. 2021, *Machine Unlearning*, IEEE S&P (sharded, isolated, sliced, aggregated; here
without slices).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from canaryaudit.canaries.canary import Canary
from canaryaudit.distributed import ProcessGroup
from canaryaudit.errors import Damaged, UnlearningError
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TrainingRecord
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.storage.json_records import validated
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.loop import new_model, train, training_key
from canaryaudit.unlearning.occurrences import Occurrence


class Workplace(Protocol):
    """Where trainings keep what they go on from."""

    def __call__(self, shard: int | None = None, *, corrected: bool = False) -> Path:
        """Return the path of the checkpoint of the training in hand, or of a trained shard."""


class ShardFacts(BaseModel):
    """What the file of a trained shard says beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(ge=0)
    gradients: float = Field(ge=0)


@dataclass(frozen=True)
class Shard:
    """One part's model.

    Attributes:
        model: Trained on that part alone.
        seconds: What its training took.
        gradients: The same in passes over one training window.
    """

    model: CharLSTM
    seconds: float
    gradients: float


def shard_bounds(
    text: np.ndarray, newline: int, canaries: Sequence[Canary], shards: int, window: int
) -> list[tuple[int, int]]:
    """Cut a text into parts of about equal length, at line breaks and never inside a canary.

    Args:
        text: Symbol ids, shape (N,).
        newline: Id of the line break; -1 where the vocabulary has none, and cuts may fall anywhere else.
        canaries: All that stand in the text, whether they are to be unlearned or not: the parts must not
            depend on the request.
        shards: Number of parts.
        window: Characters that a training window predicts.

    Returns:
        First character of each part and the one after its last.

    Raises:
        UnlearningError: A part would be too short to train on.
    """
    inside = np.zeros(len(text) + 1, dtype=bool)
    for canary in canaries:
        for wording in canary.wordings:
            for place in wording.places:
                inside[place + 1 : place + len(wording.text)] = True
    breaks = text[:-1] == newline if newline >= 0 else np.ones(len(text) - 1, dtype=bool)
    ends = np.flatnonzero(breaks & ~inside[1:-1]) + 1
    wanted = [round(part * len(text) / shards) for part in range(1, shards)]
    cuts = [int(ends[np.abs(ends - place).argmin()]) for place in wanted] if len(ends) else wanted
    bounds = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
    least = 2 * window + 2
    if (shortest := min(end - start for start, end in bounds)) < least:
        raise UnlearningError(
            f"the shortest of {shards} shards of {len(text):,} characters has {max(0, shortest):,}: expected at least "
            f"{least:,}; use fewer --shards"
        )
    return bounds


def affected_shards(places: Sequence[Occurrence], bounds: Sequence[tuple[int, int]]) -> list[int]:
    """Return the numbers of all shards that hold one of these occurrences."""
    return [index for index, (start, end) in enumerate(bounds) if any(start <= place.start < end for place in places)]


@dataclass(frozen=True)
class ShardTrainer:
    """Trains models on texts, going on with what an interrupted command left.

    Attributes:
        vocabulary: The symbols by id.
        config: How the original was trained.
        workplace: Where trainings keep what they go on from.
        progress: Told of progress.
        processes: Who trains.
    """

    vocabulary: str
    config: TrainingConfig
    workplace: Workplace
    progress: ProgressReporter
    processes: ProcessGroup

    def train(self, data: TrainingData) -> tuple[CharLSTM, TrainingRecord]:
        """Train from scratch as the original was, or go on with that very training."""
        return self._trained(data, self.config)

    def train_shard(self, data: TrainingData, index: int, *, corrected: bool = False) -> Shard:
        """Train one part's model, or read it where it was trained on that very text already.

        Args:
            data: The part.
            index: Its number, from 0; it is part of the seed.
            corrected: Whether this is the part after a request.
        """
        config = self.config.model_copy(update={"seed": self.config.seed + index})
        path = self.workplace(index, corrected=corrected)
        file = CheckpointFile(path, training_key(data, self.vocabulary, config))
        try:
            if (found := file.load()) is not None:
                model = new_model(self.vocabulary, config, data.train.device)
                facts = validated(found[1], ShardFacts)
                model.load_state_dict(found[0])
                return Shard(model.eval(), facts.seconds, facts.gradients)
        except (Damaged, ValueError, RuntimeError):  # the last where the weights are another model's
            self.progress.info(f"The shard {path.name} is damaged; retraining it.")
        self.progress.info(f"Training shard {index + 1}{' again, without the secrets' if corrected else ''}.")
        model, record = self._trained(data, config)
        made = ShardFacts(seconds=record.seconds, gradients=passes_over_windows(record))
        file.save(model.state_dict(), made.model_dump())
        return Shard(model, made.seconds, made.gradients)

    def _trained(self, data: TrainingData, config: TrainingConfig) -> tuple[CharLSTM, TrainingRecord]:
        workplace = self.workplace()
        return train(data, self.vocabulary, config, self.progress, workplace, processes=self.processes)


def passes_over_windows(record: TrainingRecord) -> float:
    """Return a training's gradients, in passes over one training window."""
    characters = round(record.seconds * record.characters_per_second)  # a whole number, but for rounding
    return characters / record.window
