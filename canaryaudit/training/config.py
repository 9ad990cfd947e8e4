"""How to train, and how far a training is: what its checkpoint says beside its tensors."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from canaryaudit.plan import TrainingSettings
from canaryaudit.records import EpochRecord
from canaryaudit.records.base import Many
from canaryaudit.records.training import DEFAULT_WINDOW
from canaryaudit.storage.checkpoint import read_facts
from canaryaudit.storage.json_records import validated

SIZES = {"small": (32, 512, 1), "paper": (64, 512, 2)}
"""Embedding, hidden units and layers; ``paper`` is the model of Warnecke et al. 2023."""
EPOCHS = {"small": 24, "paper": 40}
"""Enough to predict the training text well: about 0.9 and 0.95 of it on a novel of 150,000 characters."""


class TrainingConfig(TrainingSettings):
    """How to train; checked when made."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)
    """Windows of one step, of all processes together."""
    window: int = Field(default=DEFAULT_WINDOW, gt=1)
    """Characters that one window predicts."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Highest of the cycle."""
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"


class TrainingState(BaseModel):
    """What a training's checkpoint says beside its tensors; checked, since it may be a stranger's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainingConfig
    epoch: int = Field(ge=0)
    """Epochs that are over."""
    step_in_epoch: int = Field(ge=0)
    characters: int = Field(ge=0)
    """Predicted so far."""
    seconds: float = Field(ge=0, allow_inf_nan=False)
    reached: bool
    """Whether the target accuracy was."""
    history: Many[EpochRecord]


def read_state(path: Path) -> TrainingState | None:
    """Return the state of whatever training's checkpoint is at ``path``; None if there is none that can be read."""
    facts = read_facts(path)
    try:
        return None if facts is None else validated(facts, TrainingState)
    except ValueError:
        return None
