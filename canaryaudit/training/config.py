"""Training configuration, and the training state stored with a checkpoint's tensors."""

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
"""Enough to predict about 0.9 (small) and 0.95 (paper) of a novel of 150,000 characters."""


class TrainingConfig(TrainingSettings):
    """A validated training configuration."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)
    """Windows of one step, over all processes."""
    window: int = Field(default=DEFAULT_WINDOW, gt=1)
    """Predicted characters per window."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak of the cycle."""
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"


class TrainingState(BaseModel):
    """The training state stored with a checkpoint's tensors; validated, since files are untrusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainingConfig
    epoch: int = Field(ge=0)
    """Finished epochs."""
    step_in_epoch: int = Field(ge=0)
    characters: int = Field(ge=0)
    """Characters predicted so far."""
    seconds: float = Field(ge=0, allow_inf_nan=False)
    reached: bool
    """Whether the target accuracy was reached."""
    history: Many[EpochRecord]


def read_state(path: Path) -> TrainingState | None:
    """Return the state of any training's checkpoint at ``path``; None if there is no readable one."""
    facts = read_facts(path)
    try:
        return None if facts is None else validated(facts, TrainingState)
    except ValueError:
        return None
