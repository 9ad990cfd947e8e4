"""The run directory of an audit of text: its texts, canaries and models."""

import hashlib
from pathlib import Path

from canaryaudit.canaries.assembly import Assembly
from canaryaudit.canaries.canary import CanarySet, expected_strings
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import Damaged
from canaryaudit.records import (
    TRAINED_MODEL,
    ExternalModel,
    Manifest,
    Measurement,
    ModelId,
    ModelRecord,
    UnlearningRecord,
)
from canaryaudit.runs import contents, layout
from canaryaudit.runs.encoded_text import StoredText, write_text
from canaryaudit.runs.layout import check_name
from canaryaudit.runs.sealed_run import SealedRun
from canaryaudit.storage.files import atomic_write, write_errors
from canaryaudit.storage.json_records import record_json
from canaryaudit.storage.part_cache import DirectoryCache

_CORPUS, _HELDOUT, _CANARIES = layout.CORPUS, layout.HELDOUT, layout.CANARIES


class RunDirectory(SealedRun[Manifest, ModelRecord, Measurement, UnlearningRecord]):
    """The directory of one audit of text; use ``create`` or ``open``."""

    kind = "text"
    manifest_type = Manifest
    model_type = ModelRecord
    measurement_type = Measurement
    unlearning_type = UnlearningRecord

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        manifest: Manifest,
        assembly: Assembly,
        canary_set: CanarySet,
        replace: bool = False,
    ) -> "RunDirectory":
        """Write a new run; on any failure nothing of it remains, and an older run is unchanged.

        Args:
            path: A directory that is missing, empty, or left unfinished by a killed ``create``.
            manifest: The run's provenance; the texts' SHA-256 are filled in.
            assembly: The training text, including canaries, and the held-out text.
            canary_set: Canaries and controls.
            replace: Delete an existing run with everything made from it.

        Raises:
            RunDirectoryError: The directory holds something else, or a run; or cannot be written.
        """

        def stage(staging: Path) -> Manifest:
            vocabulary = run_vocabulary(canary_set)
            audited, heldout = (
                write_text(staging / name, layout.encoded(staging, name), blocks, vocabulary)
                for name, blocks in ((_CORPUS, assembly.training_blocks()), (_HELDOUT, assembly.heldout_blocks()))
            )
            facts = {"audited_sha256": audited, "heldout_sha256": heldout}
            canaries = record_json(canary_set)
            atomic_write(staging / _CANARIES, canaries)
            sealed = {_CANARIES: (hashlib.sha256(canaries.encode("utf-8")).hexdigest(),)}
            return manifest.model_copy(update={"corpus": manifest.corpus.model_copy(update=facts), "records": sealed})

        run = cls(path)
        run.write_new(stage, replace=replace)
        return run

    # --- inserted files

    def text(self) -> StoredText:
        """Return the training text on disk, including canaries."""
        facts = self.manifest.corpus
        return self._kept(_CORPUS, facts.audited_sha256, facts.characters)

    def heldout(self) -> StoredText:
        """Return the held-out text; empty if nothing was held out."""
        facts = self.manifest.corpus
        return self._kept(_HELDOUT, facts.heldout_sha256, facts.heldout_characters)

    def canary_set(self) -> CanarySet:
        """Return canaries and controls, checked against their templates and the audited text."""
        canary_set = self._read(_CANARIES, CanarySet, self.see_how)
        strings = expected_strings(canary_set)
        if not self.text().check(strings or ()) or strings is None:
            raise Damaged(self.path / _CANARIES, f"it does not match {_CORPUS}", self.see_how)
        return canary_set

    # --- models

    def model_record(self, model: ModelId = TRAINED_MODEL) -> ModelRecord:
        """Return a model's description; an unlearned model has its origin's architecture."""
        record = self.trained_model()
        if model.unlearning is None:
            return record
        unlearning = self.unlearning(model.unlearning)
        if unlearning.external:
            return ModelRecord(external=unlearning.external, sha256=unlearning.model_sha256)
        return ModelRecord(architecture=record.architecture, sha256=unlearning.model_sha256, members=unlearning.members)

    def has_model(self, model: ModelId) -> bool:
        """Return whether a model is complete."""
        return super().has_model(model) or self.external_model(model) is not None

    def external_model(self, model: ModelId = TRAINED_MODEL) -> ExternalModel | None:
        """Return the description of a model if it lies outside; None if the run has its weights, or has no such."""
        if not self._record_path(model).is_file():
            return None
        return (self.trained_model() if model.unlearning is None else self.unlearning(model.unlearning)).external

    def verify_weights(self, model: ModelId) -> Path:
        """Return the weights' path, after checking them against the model's record.

        Raises:
            RunDirectoryError: There is no such model.
            ModelError: The weights are damaged, or lie outside.
        """
        if self.has_model(model):
            _ = self.model_record(model).lstm
        return super().verify_weights(model)

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoint of an unfinished training."""
        return self.path / layout.CHECKPOINT

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint of a finished training."""
        with write_errors(self.path):
            self.checkpoint_path.unlink(missing_ok=True)

    def work_path(self, name: str, shard: int | None = None, *, corrected: bool = False) -> Path:
        """Return the path of the checkpoint of an unlearning's training, or of the weights of one shard."""
        directory = self.path / layout.UNLEARNED / check_name(name)
        if shard is None:
            return directory / layout.CHECKPOINT
        return directory / layout.SHARDS / f"{shard:02}{layout.CORRECTED if corrected else ''}.safetensors"

    def remove_parts(self) -> None:
        """Remove the parts of finished or abandoned measurements."""
        with write_errors(self.path):
            contents.remove(self.path, layout.PARTS)

    def remove_work(self, name: str) -> None:
        """Remove the intermediate files of a finished unlearning; original shards are kept for the next request."""
        with write_errors(self.path):
            self.work_path(name).unlink(missing_ok=True)
            for path in self.work_path(name, 0).parent.glob(f"*{layout.CORRECTED}.safetensors"):
                path.unlink(missing_ok=True)

    # --- measurements and unlearnings

    def measurement_cache(self, identity: str) -> DirectoryCache:
        """Return the cache of a long measurement's parts; each identity has a separate cache."""
        return DirectoryCache(self.path / layout.PARTS / hashlib.sha256(identity.encode("utf-8")).hexdigest()[:16])

    # --- inside

    def _kept(self, name: str, sha256: str, characters: int) -> StoredText:
        return StoredText(self.path / name, layout.encoded(self.path, name), sha256, characters, self.see_how)

    @property
    def lost_half(self) -> Path | None:
        """The trained model's missing record or weights, if only one exists and no training can resume."""
        record, weights = self.path / layout.MODEL, self.path / layout.WEIGHTS
        if record.is_file() == weights.is_file() or self.checkpoint_path.exists() or self.has_model(TRAINED_MODEL):
            return None
        return record if weights.is_file() else weights
