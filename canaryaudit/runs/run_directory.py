"""The run directory: reading and writing its files.

Every file is written atomically. The manifest is written last, so a directory without one holds no run, and nothing in
it is replaced or removed. Weights are written before their record, so weights without a record are not a model. Files
are readable by their owner only: they hold the secrets, or models that memorized them.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel

from canaryaudit.canaries.assembly import Assembly
from canaryaudit.canaries.canary import CanarySet, expected_strings
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import Damaged, ModelError, RunDirectoryError, command
from canaryaudit.records import (
    TRAINED_MODEL,
    ExternalModel,
    Manifest,
    Measurement,
    ModelId,
    ModelRecord,
    StageRun,
    UnlearningRecord,
)
from canaryaudit.runs import contents, layout, seals
from canaryaudit.runs.encoded_text import StoredText, write_text
from canaryaudit.runs.layout import check_name, is_name
from canaryaudit.runs.repair_commands import Repairs, free_name
from canaryaudit.storage.files import (
    atomic_write,
    exclusive_lock,
    is_lock,
    make_directory,
    read_errors,
    sha256_of,
    write_errors,
)
from canaryaudit.storage.json_records import read_record, record_json
from canaryaudit.storage.part_cache import DirectoryCache

_MANIFEST, _CORPUS, _HELDOUT, _CANARIES = layout.MANIFEST, layout.CORPUS, layout.HELDOUT, layout.CANARIES
_WEIGHTS, _MODEL, _UNLEARNED, _UNLEARNING = layout.WEIGHTS, layout.MODEL, layout.UNLEARNED, layout.UNLEARNING

_INSERTION = ("canaryaudit", "insert", "CORPUS", "-o")
R = TypeVar("R", bound=BaseModel)


class RunDirectory:
    """The directory of one audit; use ``create`` or ``open``.

    Models are called ``before`` (as trained) and ``after-NAME`` (the result of the unlearning NAME).

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
        run = cls(path)
        run.check_can_create(replace=replace)
        with write_errors(path):
            is_new = not path.exists()
            make_directory(path)
            with suppress(PermissionError):  # Somebody else's directory; its files are private all the same.
                path.chmod(path.stat().st_mode & 0o7700)
        staging = path / layout.STAGING
        with run._locked(), write_errors(path):
            is_staged = False
            try:
                run.check_can_create(replace=replace)  # Another command may have been first.
                contents.remove(path, layout.STAGING)
                vocabulary = run_vocabulary(canary_set)
                audited, heldout = (
                    write_text(staging / name, layout.encoded(staging, name), blocks, vocabulary)
                    for name, blocks in (
                        (_CORPUS, assembly.training_blocks()),
                        (_HELDOUT, assembly.heldout_blocks()),
                    )
                )
                facts = {"audited_sha256": audited, "heldout_sha256": heldout}
                canaries = record_json(canary_set)
                known = manifest.model_copy(
                    update={
                        "corpus": manifest.corpus.model_copy(update=facts),
                        "records": {_CANARIES: (_sha256(canaries),)},
                    }
                )
                atomic_write(staging / _CANARIES, canaries)
                atomic_write(staging / _MANIFEST, record_json(seals.resealed(None, known)))
                run.check_can_create(replace=replace)  # The user may have put a file there.
                is_staged = True
                run._put_in_place(staging)
            except BaseException:
                if not is_staged:  # Afterwards the next insertion goes on.
                    contents.remove(path, *(() if is_new else (layout.STAGING,)))
                    if is_new and not any(path.iterdir()):
                        path.rmdir()
                raise
        return run

    def _put_in_place(self, staging: Path) -> None:
        """Replace the run by the staged one; a kill at any moment leaves what shows that it was under way."""
        if (self.path / _MANIFEST).exists():
            (self.path / _MANIFEST).replace(staging / layout.REPLACED)
        contents.remove(self.path, *layout.DERIVED)
        for name in (layout.ENCODED, *layout.INSERTED, _MANIFEST):
            (staging / name).replace(self.path / name)
        contents.remove(self.path, layout.STAGING)

    def check_can_create(self, *, replace: bool = False) -> None:
        """Raise the error that ``create`` would raise for the directory's current contents.

        Raises:
            RunDirectoryError: The directory holds something else, or a run that must not be replaced.
        """
        path = self.path
        with write_errors(path):
            if path.exists() and not path.is_dir():
                raise RunDirectoryError(f"{path} is a file: choose another directory for the run")
            names = {entry.name for entry in path.iterdir()} if path.exists() else set()
        holds_run = _MANIFEST in names
        if others := self._others(holds_run):
            raise RunDirectoryError(
                f"{path} holds other files ({contents.listed(others)}): choose an empty or a new directory for the run"
            )
        if not holds_run:
            return
        if not self._is_manifest(path / _MANIFEST):
            raise RunDirectoryError(
                f"{path / _MANIFEST} is not the manifest of a run of this version: choose another directory, or "
                f"{self.see_how}"
            )
        if not replace:
            raise RunDirectoryError(
                f"{path} already holds a run: choose another directory, or replace the run with --force"
            )

    def _others(self, holds_run: bool) -> list[str]:
        """Return the entries that a new run may not replace: all but a run's own, or an unfinished insertion's."""
        path, staging = self.path, self.path / layout.STAGING
        if not path.exists():
            return []
        with read_errors(path):
            others = contents.others(path)
            if not holds_run:
                known = {layout.LOCK} if is_lock(path / layout.LOCK) else set()
                if known:  # An insertion locks before it stages.
                    known.add(layout.STAGING)
                    if self._is_manifest(staging / _MANIFEST):
                        moved = (layout.ENCODED, *layout.INSERTED)
                        known |= {name for name in moved if not (staging / name).exists()}
                        if self._is_manifest(staging / layout.REPLACED):
                            known |= {*layout.DERIVED}
                others += [name for name, _ in contents.entries(path) if "/" not in name and name not in known]
        return sorted({*others})

    @staticmethod
    def _is_manifest(path: Path) -> bool:
        try:
            read_record(path, Manifest, "")
        except RunDirectoryError:
            return False
        return True

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open an existing run and check its manifest.

        Raises:
            RunDirectoryError: No such directory, no run in it, or its manifest is damaged or newer.
        """
        if not path.exists():
            raise RunDirectoryError(f"no such run directory: {path}; create it: {command(*_INSERTION, path)}")
        if not path.is_dir() or not (path / _MANIFEST).exists():
            if (path / _CANARIES).is_file():
                raise RunDirectoryError(f"{path} has lost its {_MANIFEST}: {Repairs(path).insert(_MANIFEST)}")
            raise RunDirectoryError(
                f"{path} is not a run directory (it has no {_MANIFEST}): create one: canaryaudit insert CORPUS -o RUN"
            )
        run = cls(path)
        _ = run.manifest
        return run

    @staticmethod
    def holds_run(path: Path) -> bool:
        """Return whether this directory holds a run."""
        return (path / _MANIFEST).exists()

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written to the directory."""
        return not os.access(self.path, os.W_OK | os.X_OK)

    @contextmanager
    def lock(self, *, reading: bool = False) -> Iterator[None]:
        """Exclude other commands, refuse links, and remove half-written files of a killed one; not re-entrant.

        Args:
            reading: A directory that is read-only will do; nothing is then written.

        Raises:
            RunDirectoryError: Another command holds the lock; the message gives its process id. Or the directory is
                read-only, or has a link or a pipe in a file's place.
        """
        if self.is_read_only and not reading:
            self.refuse_to_write()
        with self._locked(read_only=self.is_read_only):
            with read_errors(self.path):
                for path, fault in contents.faults(self.path):
                    raise Damaged(path, fault, self.see_how)
            if not self.is_read_only:
                with write_errors(self.path):
                    contents.remove_temporary(self.path)
            yield

    def refuse_to_write(self) -> NoReturn:
        """Raise the error for a read-only directory."""
        copy = free_name(self.path, "copy")
        raise RunDirectoryError(
            f"{self.path} is read-only: make it writable, or work on a copy: {command('cp', '-r', self.path, copy)}"
        )

    @contextmanager
    def _locked(self, *, read_only: bool = False) -> Iterator[None]:
        with exclusive_lock(self.path / layout.LOCK, str(self.path), read_only=read_only):
            yield

    # --- inserted files

    @property
    def manifest(self) -> Manifest:
        """The current manifest.json."""
        return self._read(_MANIFEST, Manifest, self.see_how)

    def add_stage(self, stage: StageRun) -> None:
        """Record in the manifest that a stage was run."""
        manifest = self.manifest
        self._write_manifest(manifest.model_copy(update={"stages": (*manifest.stages, stage)}))

    def write_signature(self, key: bytes) -> None:
        """Sign the run as it is; the caller has verified it."""
        atomic_write(self.path / layout.SIGNATURE, record_json(seals.sign(self.manifest, key)))

    def reseal(self, names: Sequence[str]) -> None:
        """Record the checksums of records as they are, and that nothing shows who wrote them; they were verified."""
        records = {name: (sha256_of(self.path / name),) for name in names}
        manifest = self.manifest
        unproven = tuple(sorted({*manifest.unproven, *names}))
        self._write_manifest(
            manifest.model_copy(update={"records": {**manifest.records, **records}, "unproven": unproven})
        )

    def signature(self) -> seals.Signature:
        """Return the run's signature."""
        return self._read(layout.SIGNATURE, seals.Signature, "sign the run again: canaryaudit verify RUN --sign KEY")

    def text(self) -> StoredText:
        """Return the training text on disk, including canaries."""
        facts = self.manifest.corpus
        encoded = layout.encoded(self.path, _CORPUS)
        return StoredText(self.path / _CORPUS, encoded, facts.audited_sha256, facts.characters, self.see_how)

    def heldout(self) -> StoredText:
        """Return the held-out text; empty if nothing was held out."""
        facts = self.manifest.corpus
        encoded = layout.encoded(self.path, _HELDOUT)
        return StoredText(self.path / _HELDOUT, encoded, facts.heldout_sha256, facts.heldout_characters, self.see_how)

    def canary_set(self) -> CanarySet:
        """Return canaries and controls, checked against their templates and the audited text."""
        canary_set = self._read(_CANARIES, CanarySet, self.see_how)
        strings = expected_strings(canary_set)
        if not self.text().check(strings or ()) or strings is None:
            raise Damaged(self.path / _CANARIES, f"it does not match {_CORPUS}", self.see_how)
        return canary_set

    # --- models

    def weights_path(self, model: ModelId) -> Path:
        """Return the path of a model's weights."""
        return self._place(model) / _WEIGHTS

    def has_model(self, model: ModelId) -> bool:
        """Return whether a model is complete."""
        is_outside = model.is_trained and self.external_model() is not None
        return is_outside or (self._record_path(model).is_file() and self.weights_path(model).is_file())

    def external_model(self) -> ExternalModel | None:
        """Return the description of the audited model if it lies outside; None if it is trained here, or not yet."""
        return self.model_record().external if (self.path / _MODEL).is_file() else None

    def write_weights(self, model: ModelId, data: bytes) -> str:
        """Write a model's weights and return their SHA-256; the model is valid once its record is written."""
        record = self._record_path(model)
        name = str(record.relative_to(self.path))
        if record.exists():
            self._write_manifest(seals.replacing(self.manifest, name, seals.ABSENT))
        with write_errors(record):
            record.unlink(missing_ok=True)
        atomic_write(self.weights_path(model), data)
        return hashlib.sha256(data).hexdigest()

    def model_record(self, model: ModelId = TRAINED_MODEL) -> ModelRecord:
        """Return a model's description; an unlearned model has its origin's architecture."""
        record = self._read(_MODEL, ModelRecord, self.see_how)
        if model.unlearning is None:
            return record
        unlearning = self.unlearning(model.unlearning)
        return ModelRecord(architecture=record.architecture, sha256=unlearning.model_sha256, members=unlearning.members)

    def write_model_record(self, record: ModelRecord) -> None:
        """Write the audited model's description, after its weights if it has any here."""
        self._write(_MODEL, record)

    def verify_weights(self, model: ModelId) -> Path:
        """Return the weights' path, after checking them against the model's record.

        Raises:
            RunDirectoryError: There is no such model.
            ModelError: The weights are damaged.
        """
        if not self.has_model(model):
            raise RunDirectoryError(f"{self.path} has no model '{model}': {self._make_again(model)}")
        _ = self.model_record(model).lstm
        path, expected = self.weights_path(model), self.model_record(model).sha256
        if (actual := sha256_of(path)) != expected:
            raise ModelError(f"{path} is damaged (SHA-256 {actual[:12]}…, expected {expected[:12]}…): {self.see_how}")
        return path

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoint of an unfinished training."""
        return self.path / layout.CHECKPOINT

    @property
    def curvature_path(self) -> Path:
        """The stored curvature of the trained model, shared by all requests."""
        return self.path / layout.CURVATURE

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint of a finished training."""
        with write_errors(self.path):
            self.checkpoint_path.unlink(missing_ok=True)

    def work_path(self, name: str, shard: int | None = None, *, corrected: bool = False) -> Path:
        """Return the path of the checkpoint of an unlearning's training, or of the weights of one shard."""
        directory = self.path / _UNLEARNED / check_name(name)
        if shard is None:
            return directory / layout.CHECKPOINT
        return directory / layout.SHARDS / f"{shard:02}{layout.CORRECTED if corrected else ''}.safetensors"

    def remove_work(self, name: str) -> None:
        """Remove the intermediate files of a finished unlearning; original shards are kept for the next request."""
        with write_errors(self.path):
            self.work_path(name).unlink(missing_ok=True)
            for path in self.work_path(name, 0).parent.glob(f"*{layout.CORRECTED}.safetensors"):
                path.unlink(missing_ok=True)

    # --- measurements and unlearnings

    def has_measurement(self, model: ModelId) -> bool:
        """Return whether there is a measurement of the current model."""
        return (
            self._measurement_path(model).is_file()
            and (self.has_model(model) if model.unlearning is None else self.has_unlearning(model.unlearning))
            and self.measurement(model).model_sha256 == self.model_record(model).sha256
        )

    def measurement(self, model: ModelId) -> Measurement:
        """Return the measurement of a model."""
        name = str(self._measurement_path(model).relative_to(self.path))
        return self._read(name, Measurement, self.see_how)

    def write_measurement(self, measurement: Measurement) -> None:
        """Write a measurement under its model's name."""
        self._write(str(self._measurement_path(measurement.model).relative_to(self.path)), measurement)

    def measurement_cache(self, identity: str) -> DirectoryCache:
        """Return the cache of a long measurement's parts; each identity has a separate cache."""
        return DirectoryCache(self.path / layout.PARTS / hashlib.sha256(identity.encode("utf-8")).hexdigest()[:16])

    def remove_parts(self) -> None:
        """Remove the parts of finished or abandoned measurements."""
        with write_errors(self.path):
            contents.remove(self.path, layout.PARTS)

    def has_unlearning(self, name: str) -> bool:
        """Return whether an unlearning of the current model is complete, with all that it started from."""
        return self.has_model(TRAINED_MODEL) and bool(self.lineage(name))

    def lineage(self, name: str) -> tuple[UnlearningRecord, ...]:
        """Return the unlearnings that led from the trained model to ``after-NAME``, the latest last.

        Every link is checked by the weights that it started from. Empty if a link is broken or a model is missing.
        """
        links: list[UnlearningRecord] = []
        model = ModelId(name)
        while model.unlearning is not None:
            if not self.has_model(model) or model.unlearning in {link.name for link in links}:
                return ()
            links.append(self.unlearning(model.unlearning))
            model = links[-1].origin
            if links[-1].origin_sha256 != self.model_record(model).sha256:
                return ()
        return tuple(reversed(links))

    def unlearning(self, name: str) -> UnlearningRecord:
        """Return the record of an unlearning."""
        path = f"{_UNLEARNED}/{check_name(name)}/{_UNLEARNING}"
        return self._read(path, UnlearningRecord, self.see_how)

    def write_unlearning(self, record: UnlearningRecord) -> None:
        """Write the record of an unlearning, after its weights."""
        self._write(f"{_UNLEARNED}/{check_name(record.name)}/{_UNLEARNING}", record)

    def unlearnings(self, but: str = "") -> tuple[UnlearningRecord, ...]:
        """Return the records of all unlearnings of the current model, by name, except ``but``."""
        names = [name for name in self._unlearning_names() if name != but]
        return tuple(self.unlearning(name) for name in names if self.has_unlearning(name))

    # --- inside

    def _unlearning_names(self) -> list[str]:
        directory = self.path / _UNLEARNED
        if not directory.is_dir():
            return []
        return sorted(entry.name for entry in directory.iterdir() if is_name(entry.name))

    def _place(self, model: ModelId) -> Path:
        return self.path if model.unlearning is None else self.path / _UNLEARNED / check_name(model.unlearning)

    @property
    def see_how(self) -> str:
        """What to do about a lost or damaged file, as a clause; the manifest has the original options."""
        return f"see the repair command with: {command('canaryaudit', 'verify', self.path)}"

    @property
    def lost_half(self) -> Path | None:
        """The trained model's missing record or weights, if only one exists and no training can resume."""
        record, weights = self.path / _MODEL, self.path / _WEIGHTS
        if record.is_file() == weights.is_file() or self.checkpoint_path.exists() or self.has_model(TRAINED_MODEL):
            return None
        return record if weights.is_file() else weights

    def _record_path(self, model: ModelId) -> Path:
        return self._place(model) / (_MODEL if model.is_trained else _UNLEARNING)

    def _make_again(self, model: ModelId) -> str:
        words = ("train", self.path) if model.is_trained else ("unlearn", self.path, "--name", model.unlearning)
        return f"run: {command('canaryaudit', *words)}"

    def _measurement_path(self, model: ModelId) -> Path:
        self._place(model)  # Raises an error for an invalid model name.
        return self.path / layout.MEASUREMENTS / f"{model}.json"

    def _write(self, name: str, record: BaseModel) -> None:
        """Write a record, with its checksum in the manifest before and after: a kill at any instant breaks no seal."""
        text = record_json(record)
        self._write_manifest(seals.replacing(self.manifest, name, _sha256(text)))
        atomic_write(self.path / name, text)
        self._write_manifest(seals.replaced(self.manifest, name, _sha256(text)))

    def _write_manifest(self, manifest: Manifest) -> None:
        atomic_write(self.path / _MANIFEST, record_json(seals.resealed(self.manifest, manifest)))

    def _read(self, name: str, kind: type[R], repair: str) -> R:
        return read_record(self.path / name, kind, repair)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
