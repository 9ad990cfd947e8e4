"""Verify a run on text: its texts, canaries and models; figures that follow from others are computed again.

No model is loaded: the header of the weights is compared with the architecture, and the bytes are read in blocks.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from canaryaudit.canaries.canary import CanarySet
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import Damaged
from canaryaudit.records import TRAINED_MODEL, Manifest, Measurement, ModelId, ModelRecord, UnlearningRecord
from canaryaudit.runs import layout
from canaryaudit.runs.findings import State, Verification, Verifier, run_verifier
from canaryaudit.runs.repair_commands import Repairs
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.storage.files import is_temporary, sha256_of
from canaryaudit.storage.json_records import read_record
from canaryaudit.storage.model_folder import folders_sha256
from canaryaudit.storage.part_cache import DirectoryCache
from canaryaudit.storage.tensors import weight_shapes

MeasurementCheck = Callable[[Measurement, CanarySet], str]
"""Returns what is wrong with a measurement's figures, or an empty text."""


def verify_run(
    path: Path,
    *,
    check: MeasurementCheck,
    key: bytes | None = None,
    sign: bool = False,
    reseal: bool = False,
    is_locked: bool = False,
) -> Verification:
    """Check every file of a run directory.

    Args:
        path: The run directory.
        check: Recomputes what a measurement's figures follow from.
        key: Of the signature, which must then be valid; None to leave it unchecked.
        sign: Sign the run with the key, if everything else is sound.
        reseal: Record the checksums of records that have none, if everything else is sound.
        is_locked: Whether the caller holds the run's lock.

    Raises:
        RunDirectoryError: It is not a run directory, or another command uses it.
    """
    verifier = _TextVerifier(path, check, None if sign else key, reseal=reseal)
    return run_verifier(verifier, key=key, sign=sign, is_locked=is_locked)


class _TextVerifier(Verifier):
    """Checks a run on text."""

    run: RunDirectory
    repairs: Repairs

    def __init__(self, path: Path, check: MeasurementCheck, key: bytes | None, *, reseal: bool) -> None:
        super().__init__(RunDirectory(path), Repairs, key, reseal=reseal)
        self.check_figures = check
        # The texts' ids are compared with the texts if these are sound.
        self.known |= {*(path / layout.ENCODED).glob("*.safetensors")}
        self.canaries: CanarySet | None = None

    def check_inserted(self, manifest: Manifest) -> None:
        """Check texts and canaries."""
        facts, texts_sound = manifest.corpus, True
        for name, expected in ((layout.CORPUS, facts.audited_sha256), (layout.HELDOUT, facts.heldout_sha256)):
            path, repair = self.path / name, self.repairs.insert(name)
            if not self._is_there(path, repair):
                texts_sound = False
                continue
            fault = "it is not the text that canaries were inserted into"
            sound = sha256_of(path) == expected
            self._note(path, *(("sound", "", "") if sound else ("damaged", fault, repair)))
            texts_sound &= sound
        path, repair = self.path / layout.CANARIES, self.repairs.insert(layout.CANARIES)
        if not self._is_there(path, repair) or not self._is_sealed(path, repair):
            return
        if texts_sound:
            self.canaries = self._read(path, self.run.canary_set, repair)
            self._check_encoded()
        else:  # Compared with the text after that is repaired.
            self._read(path, lambda: read_record(path, CanarySet, repair), repair)

    def _check_encoded(self) -> None:
        for text in (self.run.text(), self.run.heldout()):
            if self.canaries and text.encoded.exists():  # If it is missing, it is made when needed.
                self._read(text.encoded, partial(text.map_ids, run_vocabulary(self.canaries)))

    def shapes(
        self, model: ModelRecord, unlearning: UnlearningRecord | None = None
    ) -> dict[str, tuple[int, ...]] | None:
        """Return the shapes of the weights of the architecture; None if the model lies outside."""
        if model.architecture is None:
            return None
        return weight_shapes(model.architecture, unlearning.members if unlearning else model.members)

    def holds_weights(self, model: ModelRecord) -> bool:
        """Return whether the model was trained here."""
        return model.architecture is not None

    def holds_result(self, record: UnlearningRecord) -> bool:
        """Return whether an unlearning's model lies in the run directory."""
        return record.external is None

    def measurement_fault(self, model: ModelId, measurement: Measurement) -> tuple[State, str]:  # noqa: ARG002
        """Compare a measurement with the canaries, and its figures with each other."""
        if not self.canaries:
            return "sound", ""
        if [canary.id for canary in measurement.canaries] != [canary.id for canary in self.canaries.canaries]:
            return "stale", "it was measured with other canaries"
        fault = self.check_figures(measurement, self.canaries)
        return ("damaged", fault) if fault else ("sound", "")

    def unlearning_fault(self, record: UnlearningRecord) -> tuple[State, str]:
        """Compare an unlearning with the canaries."""
        known = {canary.id for canary in self.canaries.canaries} if self.canaries else set(record.canaries)
        if not known >= set(record.canaries):
            return "stale", "it refers to canaries that the run does not have"
        if record.external and record.method != "retrain":
            place = Path(record.external.source.removeprefix("hf:"))
            if place.is_dir() and folders_sha256([place]) != record.model_sha256:  # elsewhere, it cannot be judged
                return "stale", f"{place} is not the checkpoint that it wrote"
        return "sound", ""

    def check_attack(self, name: str, record: UnlearningRecord) -> None:
        """Compare an attack's retrained model with the present one."""
        relearning = record.relearning
        reference = self.unlearned.get(relearning.retrained_name) if relearning else None
        if relearning and reference and reference.model_sha256 != relearning.retrained_sha256:
            path = self.path / layout.UNLEARNED / name / layout.UNLEARNING
            detail = f"its attack was compared with {relearning.retrained_name!r}, which was recreated"
            self._note(path, "stale", detail, self.repairs.attack(record))

    def check_work(self) -> None:
        """Check checkpoints, the curvature, shards and parts of measurements."""
        curvature = self.run.curvature_path
        paths = [
            self.run.checkpoint_path,
            curvature,
            *sorted((self.path / layout.UNLEARNED).glob(f"*/{layout.CHECKPOINT}")),
        ]
        paths += sorted((self.path / layout.UNLEARNED).glob(f"*/{layout.SHARDS}/*.safetensors"))
        for path in (path for path in paths if path.exists() and not is_temporary(path.name)):
            is_finished = path.parent.name == layout.SHARDS or path == curvature
            state: State = "sound" if is_finished else "unfinished"
            detail = "" if is_finished else "an unfinished training; rerun its command to resume"
            from canaryaudit.storage.checkpoint import CheckpointFile  # Not at the top: it imports torch.

            try:
                contents = CheckpointFile(path, key=self.models.get(TRAINED_MODEL, "")).load()
            except Damaged as error:
                self._note(path, "damaged", error.fault, "", path)
                continue
            if path == curvature and contents is None and TRAINED_MODEL in self.models:
                self._note(path, "stale", "it is the curvature of a replaced model", "", path)
            else:
                self._note(path, state, detail)
        for path in sorted((self.path / layout.PARTS).glob("*/*.safetensors")):
            if DirectoryCache(path.parent).get(path.stem) is None:
                self._note(path, "damaged", "it cannot be read", "", path)
            else:
                self._note(path, "unfinished", "an unfinished measurement; rerun its command to resume")
