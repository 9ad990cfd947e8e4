"""model.json: a model's shape, and how it was made."""

from pydantic import Field

from canaryaudit.records.base import MAX_MEMBERS, SCHEMA_VERSION, Many, Record

DEFAULT_WINDOW = 100
"""Characters that one window of training predicts."""


class Architecture(Record):
    """Shape of a character LSTM."""

    vocabulary: str = Field(min_length=1, max_length=0x110000)
    """The symbols, in the order of their ids."""
    embedding: int = Field(gt=0, le=65536)
    hidden: int = Field(gt=0, le=65536)
    layers: int = Field(gt=0, le=64)


class Evaluation(Record):
    """How well a model predicts a text, teacher-forced."""

    accuracy: float
    """Share of characters predicted right, outside the secrets' own characters."""
    accuracy_all: float
    """Share of all characters predicted right."""
    loss_bits: float
    """Mean cost of a character, in bits, over all characters."""
    sampled_characters: int | None = None
    """How many characters the figures come from, where the text is too long to be read whole; None where it was."""


class EpochRecord(Record):
    """One line of the training's history."""

    epoch: int
    loss_bits: float
    accuracy: float
    """On the training text outside the secrets' own characters."""
    heldout_loss_bits: float
    seconds: float
    """Since training began, all resumed parts added up."""


class TrainingRecord(Record):
    """How the model was made, and how good it is."""

    size: str
    epochs: int
    batch_size: int
    window: int
    learning_rate: float
    seed: int
    device: str
    """cpu or cuda, as ``--device`` has it."""
    precision: str
    seconds: float
    characters_per_second: float
    parameters: int
    train: Evaluation
    heldout: Evaluation
    history: Many[EpochRecord]
    planned_epochs: int
    """Epochs that the learning rate's cycle was laid out for."""
    target_accuracy: float | None = None
    reached_target: bool | None = None


class ModelRecord(Record):
    """model.json: the description beside model.safetensors."""

    schema_version: int = SCHEMA_VERSION
    architecture: Architecture
    sha256: str
    """SHA-256 of the weights' file."""
    training: TrainingRecord | None = None
    """Absent for a model that was not trained but derived."""
    members: int = Field(default=1, ge=1, le=MAX_MEMBERS)
    """Models of this shape whose log-probabilities are averaged."""

    @property
    def window(self) -> int:
        """Characters that one window predicts: the training's own, where it was trained."""
        return self.training.window if self.training else DEFAULT_WINDOW
