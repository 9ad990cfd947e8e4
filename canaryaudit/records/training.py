"""model.json: a model's architecture and training."""

from typing import Self

from pydantic import Field, model_validator

from canaryaudit.errors import ModelError
from canaryaudit.records.base import MAX_MEMBERS, SCHEMA_VERSION, Many, Record

DEFAULT_WINDOW = 100
"""Characters that one window of training predicts."""


class Architecture(Record):
    """Architecture of a character LSTM."""

    vocabulary: str = Field(min_length=1, max_length=0x110000)
    """The symbols, in the order of their ids."""
    embedding: int = Field(gt=0, le=65536)
    hidden: int = Field(gt=0, le=65536)
    layers: int = Field(gt=0, le=64)


class Evaluation(Record):
    """A model's accuracy and loss on a text, with teacher forcing."""

    accuracy: float
    """Share of correctly predicted characters outside the secrets."""
    accuracy_all: float
    """Share of correctly predicted characters, including the secrets."""
    loss_bits: float
    """Mean loss per character, in bits, over all characters."""
    sampled_characters: int | None = None
    """Number of characters sampled, if the text was too long to evaluate completely; None otherwise."""


class EpochRecord(Record):
    """Metrics of one training epoch."""

    epoch: int
    loss_bits: float
    accuracy: float
    """Accuracy on the training text outside the secrets."""
    heldout_loss_bits: float
    seconds: float
    """Training time so far, including that before interruptions."""


class TrainingRecord(Record):
    """Settings and results of the training."""

    size: str
    epochs: int
    batch_size: int
    window: int
    learning_rate: float
    seed: int
    device: str
    """cpu or cuda, as in ``--device``."""
    precision: str
    seconds: float
    characters_per_second: float
    parameters: int
    train: Evaluation
    heldout: Evaluation
    history: Many[EpochRecord]
    baseline_accuracy: float
    """Accuracy of always predicting the most frequent character of the training text."""
    planned_epochs: int
    """Number of epochs of the learning rate schedule."""
    target_accuracy: float | None = None
    reached_target: bool | None = None


class ExternalModel(Record):
    """A model that lies outside the run directory."""

    source: str
    """Where it lies: ``hf:`` and a folder or hub id, or ``scores:`` and the file of its answers."""
    kind: str
    """Its class, such as LlamaForCausalLM; what the answers say of the model, if it is behind an API."""
    parameters: int | None = None
    """How many it has; None if that is not known."""
    adapter: str = ""
    """The adapter that was merged into it; may be empty."""
    dtype: str = ""
    """Type of its weights; may be empty."""
    tokenizer: str = ""
    """Kind and size of its tokenizer; may be empty."""
    starts_with: str = ""
    """The special tokens that its tokenizer puts before every text; may be empty."""
    cost: str
    """What a secret's log-perplexity is, in a sentence."""


class ModelRecord(Record):
    """model.json: the description of model.safetensors, or of a model outside the run directory."""

    schema_version: int = SCHEMA_VERSION
    architecture: Architecture | None = None
    """Of a character LSTM; None for an external model."""
    external: ExternalModel | None = None
    """None for a character LSTM."""
    sha256: str
    """SHA-256 of the weight file; of an external model, of all its files that decide what it predicts."""
    training: TrainingRecord | None = None
    """Absent for a model that was derived from another one."""
    members: int = Field(default=1, ge=1, le=MAX_MEMBERS)
    """Number of models of this architecture whose log-probabilities are averaged."""

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.architecture is None) == (self.external is None):
            raise ValueError("expected either an architecture or an external model")
        return self

    @property
    def lstm(self) -> Architecture:
        """The architecture of a character LSTM.

        Raises:
            ModelError: It is an external model.
        """
        if self.architecture is None:
            source = self.external.source if self.external else ""
            raise ModelError(
                f"this run audits {source}, which canaryaudit did not train: insert again with -o for a run whose "
                "model it trains"
            )
        return self.architecture

    @property
    def window(self) -> int:
        """Predicted characters per window: as in its training, if it was trained."""
        return self.training.window if self.training else DEFAULT_WINDOW
