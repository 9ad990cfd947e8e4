"""The trained model's curvature: computed by the first request that needs it, stored with the model, and reused."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from canaryaudit.errors import ModelError, UnlearningError
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.pipeline.session import RunSession
from canaryaudit.records import TRAINED_MODEL, UnlearningCost
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.storage.json_records import validated
from canaryaudit.training.data import TrainingData, gather, retention_windows
from canaryaudit.unlearning.curvature.kronecker import WINDOWS, KroneckerCurvature, kronecker_curvature
from canaryaudit.unlearning.curvature.lstm_layers import LSTMLayers
from canaryaudit.unlearning.curvature.trainable_model import TrainableModel

_SEED = 0
"""Seed of windows and labels: the curvature belongs to the model, not to a request."""


class CurvatureFacts(BaseModel):
    """The facts stored with the tensors of a curvature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int = Field(ge=0)
    seconds: float = Field(ge=0)


@dataclass(frozen=True)
class StoredCurvature:
    """A curvature and its cost.

    Attributes:
        curvature: The trained model's curvature.
        facts: The number of windows it was computed from, and the computing time.
        reused: Whether an earlier request computed it.
    """

    curvature: KroneckerCurvature
    facts: CurvatureFacts
    reused: bool

    @property
    def note(self) -> str:
        """The note in the record, the same whichever request computed it; the cost says how long that took."""
        return f"stored curvature: computed once for all requests, from {self.facts.windows:,} windows"

    def charged(self, cost: UnlearningCost) -> UnlearningCost:
        """Return a request's cost with the one-time preparation listed separately."""
        # Each window takes two forward and backward passes.
        paid = {"preparation_seconds": self.facts.seconds, "preparation_gradients": 2.0 * self.facts.windows}
        return cost.model_copy(update=paid)


def stored_curvature(session: RunSession, data: TrainingData) -> StoredCurvature:
    """Return the trained model's curvature: the stored one, or a new one if none is stored for this model.

    It is computed from training windows without secrets, if there are any.

    Args:
        session: The run.
        data: Its text, on the device to compute on.

    Raises:
        ModelError: The stored curvature is damaged.
    """
    record = session.run.model_record()
    model = session.model(TRAINED_MODEL, data.train.device)
    if isinstance(model, Ensemble):
        raise ModelError(f"{session.run.path} holds an ensemble of models: expected the single trained model")

    def windows() -> Tensor:
        rng = np.random.default_rng(_SEED)
        starts = retention_windows(data.secret.cpu().numpy(), record.window, WINDOWS, rng)
        if not len(starts):  # every window contains a secret
            starts = retention_windows(np.zeros(len(data.train), dtype=bool), record.window, WINDOWS, rng)
        return gather(data.train, starts, record.window)

    return curvature_of(session, LSTMLayers(model), record.sha256, windows)


def curvature_of(
    session: RunSession, model: TrainableModel, sha256: str, windows: Callable[[], Tensor]
) -> StoredCurvature:
    """Return a model's curvature: the stored one, or a new one if none is stored for this model.

    Args:
        session: The run.
        model: The model's layers.
        sha256: Its digest.
        windows: Returns the windows to compute a new one from, shape (W, T).

    Raises:
        ModelError: The stored curvature is damaged.
    """
    path = session.run.curvature_path
    file = CheckpointFile(path, key=sha256)
    if contents := file.load():
        tensors, facts = contents
        try:
            curvature = KroneckerCurvature.of(model, tensors)
            made = validated(facts, CurvatureFacts)
        except (UnlearningError, ValueError) as error:
            fault = str(error) if isinstance(error, UnlearningError) else "its metadata is invalid"
            raise ModelError(f"{path}: {fault}; remove it") from error
        session.progress.info(f"Using the curvature stored in {path} (computed once, in {made.seconds:.1f} s).")
        return StoredCurvature(curvature, made, reused=True)
    started = time.perf_counter()
    examples = windows()
    curvature = kronecker_curvature(model, examples, _SEED, session.progress)
    seconds = time.perf_counter() - started
    made = CurvatureFacts(windows=len(examples), seconds=seconds)
    file.save(curvature.tensors(), made.model_dump())
    session.progress.info(
        f"Computed the model's curvature in {seconds:.1f} s and stored it in {path} "
        f"({path.stat().st_size / 1e6:.0f} MB): later requests reuse it."
    )
    return StoredCurvature(curvature, made, reused=False)
