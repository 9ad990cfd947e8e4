"""The trained model's curvature: computed at the first request that needs it, kept beside the model, and used again."""

import time
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from canaryaudit.errors import ModelError, UnlearningError
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.pipeline.session import RunSession
from canaryaudit.records import TRAINED_MODEL, UnlearningCost
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.storage.json_records import validated
from canaryaudit.training.data import TrainingData, gather, retention_windows
from canaryaudit.unlearning.curvature.kronecker import WINDOWS, KroneckerCurvature, kronecker_curvature

_SEED = 0
"""Of windows and labels: the curvature belongs to the model, and is no part of a request's draws."""


class CurvatureFacts(BaseModel):
    """What the file of a curvature says beside its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int = Field(ge=0)
    seconds: float = Field(ge=0)


@dataclass(frozen=True)
class StoredCurvature:
    """A curvature, and what it cost.

    Attributes:
        curvature: The trained model's.
        facts: What it was computed from, and what that took, once.
        reused: Whether an earlier request had it computed.
    """

    curvature: KroneckerCurvature
    facts: CurvatureFacts
    reused: bool

    @property
    def note(self) -> str:
        """What the record says of it."""
        when = "by an earlier request, and used again" if self.reused else "for this request, and kept for later ones"
        return f"stored curvature: computed from {self.facts.windows:,} windows in {self.facts.seconds:.1f} s {when}"

    def charged(self, cost: UnlearningCost) -> UnlearningCost:
        """Return a request's ledger with what was paid once, told apart."""
        # Every window is read and differentiated twice.
        paid = {"preparation_seconds": self.facts.seconds, "preparation_gradients": 2.0 * self.facts.windows}
        return cost.model_copy(update=paid)


def stored_curvature(session: RunSession, data: TrainingData) -> StoredCurvature:
    """Return the trained model's curvature: the stored one, or where there is none of this very model, a new one.

    It is taken from windows of the training text that no inserted secret touches, where there are any.

    Args:
        session: The run.
        data: Its text, on the device to compute on.

    Raises:
        ModelError: What is stored is damaged.
    """
    record, path = session.run.model_record(), session.run.curvature_path
    model = session.model(TRAINED_MODEL, data.train.device)
    if isinstance(model, Ensemble):
        raise ModelError(f"{session.run.path} holds several models that predict together: expected the one trained")
    file = CheckpointFile(path, key=record.sha256)
    if found := file.load():
        tensors, facts = found
        try:
            curvature = KroneckerCurvature.of(model, tensors)
            made = validated(facts, CurvatureFacts)
        except (UnlearningError, ValueError) as error:
            fault = str(error) if isinstance(error, UnlearningError) else "its facts are not those of a curvature"
            raise ModelError(f"{path}: {fault}; remove it") from error
        session.progress.info(f"Using the curvature stored in {path} (computed once, in {made.seconds:.1f} s).")
        return StoredCurvature(curvature, made, reused=True)
    rng = np.random.default_rng(_SEED)
    starts = retention_windows(data.secret.cpu().numpy(), record.window, WINDOWS, rng)
    if not len(starts):  # a text full of secrets
        starts = retention_windows(np.zeros(len(data.train), dtype=bool), record.window, WINDOWS, rng)
    started = time.perf_counter()
    curvature = kronecker_curvature(model, gather(data.train, starts, record.window), _SEED, session.progress)
    seconds = time.perf_counter() - started
    made = CurvatureFacts(windows=len(starts), seconds=seconds)
    file.save(curvature.tensors(), made.model_dump())
    session.progress.info(
        f"Computed the model's curvature in {seconds:.1f} s and stored it in {path} "
        f"({path.stat().st_size / 1e6:.0f} MB): later requests use it again."
    )
    return StoredCurvature(curvature, made, reused=False)
