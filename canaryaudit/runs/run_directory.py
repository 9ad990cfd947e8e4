"""The run directory: the only module that knows its file names.

Every file is written whole or not at all. The manifest comes last, so that a directory without one holds
no run; weights come before their record, so that a model without one is not there.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from canaryaudit.canaries.assembly import Assembly
from canaryaudit.canaries.canary import CanarySet, expected_strings
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import Damaged, ModelError, RunDirectoryError, command
from canaryaudit.records import (
    TRAINED_MODEL,
    Manifest,
    Measurement,
    ModelId,
    ModelRecord,
    StageRun,
    UnlearningRecord,
)
from canaryaudit.runs import layout
from canaryaudit.runs.encoded_text import StoredText, write_text
from canaryaudit.runs.layout import check_name, is_name
from canaryaudit.storage.files import atomic_write, exclusive_lock, is_temporary, remove, sha256_of, write_errors
from canaryaudit.storage.json_records import read_record, record_json
from canaryaudit.storage.part_cache import DirectoryCache

_MANIFEST, _CORPUS, _HELDOUT, _CANARIES = layout.MANIFEST, layout.CORPUS, layout.HELDOUT, layout.CANARIES
_WEIGHTS, _MODEL, _UNLEARNED, _UNLEARNING = layout.WEIGHTS, layout.MODEL, layout.UNLEARNED, layout.UNLEARNING
_INSERTED = (_CORPUS, _HELDOUT, _CANARIES, _MANIFEST)
_DERIVED = (
    *(layout.ENCODED, _MODEL, _WEIGHTS, _UNLEARNED, layout.MEASUREMENTS, layout.CHECKPOINT),
    *(layout.PARTS, layout.CURVATURE),
)
_RESULTS = {_MODEL, _WEIGHTS, _UNLEARNED, layout.MEASUREMENTS, layout.CHECKPOINT}

R = TypeVar("R", bound=BaseModel)


class RunDirectory:
    """One audit's directory; make it with ``create`` or ``open``.

    Models are called ``before`` (as trained) and ``after-NAME`` (as the unlearning NAME left it).

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
        """Write a new run; on any failure nothing of it is left, and an older run stays as it was.

        Args:
            path: A directory that is missing, empty, or left unfinished by a killed ``create``.
            manifest: Where the run comes from; the texts' SHA-256 are filled in.
            assembly: The text to train on, canaries included, and the held-out text.
            canary_set: Canaries and controls.
            replace: Throw away the run that the directory already holds, with everything made from it.

        Raises:
            RunDirectoryError: The directory holds something else, or a run; or cannot be written.
        """
        run = cls(path)
        run.check_can_create(replace=replace)
        with write_errors(path):
            try:
                path.mkdir(parents=True)
                is_new = True
            except FileExistsError:
                is_new = False
        staging = path / layout.STAGING
        with run.lock(), write_errors(path):
            try:
                run.check_can_create(replace=replace)  # Another command may have come first.
                vocabulary = run_vocabulary(canary_set)
                audited, heldout = (
                    write_text(staging / name, layout.encoded(staging, name), blocks, vocabulary)
                    for name, blocks in (
                        (_CORPUS, assembly.training_blocks()),
                        (_HELDOUT, assembly.heldout_blocks()),
                    )
                )
                facts = {"audited_sha256": audited, "heldout_sha256": heldout}
                known = manifest.model_copy(update={"corpus": manifest.corpus.model_copy(update=facts)})
                atomic_write(staging / _CANARIES, record_json(canary_set), 0o600)
                atomic_write(staging / _MANIFEST, record_json(known))
                for name in (_MANIFEST, *_DERIVED):
                    remove(path / name)
                for name in (layout.ENCODED, *_INSERTED):
                    (staging / name).replace(path / name)
            except BaseException:
                if is_new:
                    shutil.rmtree(path, ignore_errors=True)
                raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return run

    def check_can_create(self, *, replace: bool = False) -> None:
        """Raise the error that ``create`` would raise for what the directory holds now.

        Raises:
            RunDirectoryError: The directory holds something else, or a run that is not to be replaced.
        """
        path = self.path
        with write_errors(path):
            if path.exists() and not path.is_dir():
                raise RunDirectoryError(f"{path} is a file: choose another directory for the run")
            names = {entry.name for entry in path.iterdir()} if path.exists() else set()
        foreign = sorted(name for name in names if not _is_ours(name))
        if foreign:
            raise RunDirectoryError(
                f"{path} holds something else ({', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''}): choose an "
                "empty or a new directory for the run"
            )
        if not replace and (_MANIFEST in names or names & _RESULTS):
            if _MANIFEST not in names:
                raise RunDirectoryError(f"{path} holds a run that has lost its {_MANIFEST}: {_start_afresh(path)}")
            raise RunDirectoryError(
                f"{path} already holds a run: choose another directory, or replace the run with --force"
            )

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open an existing run and check its manifest.

        Raises:
            RunDirectoryError: No such directory, no run in it, or its manifest is damaged or newer.
        """
        if not path.exists():
            raise RunDirectoryError(f"no such run directory: {path}; make it: {_insertion(path)}")
        if not path.is_dir() or not (path / _MANIFEST).exists():
            if any((path / name).exists() for name in _RESULTS):
                raise RunDirectoryError(f"{path} has lost its {_MANIFEST}: {_start_afresh(path)}")
            raise RunDirectoryError(
                f"{path} is not a run directory (it has no {_MANIFEST}): make one: canaryaudit insert CORPUS -o RUN"
            )
        run = cls(path)
        _ = run.manifest
        return run

    @staticmethod
    def holds_run(path: Path) -> bool:
        """Tell whether a run was inserted into this directory."""
        return (path / _MANIFEST).exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands out, and clear away what a killed one left half-written; not re-entrant.

        Raises:
            RunDirectoryError: Another command holds the lock; its process id is named.
        """
        with exclusive_lock(self.path / layout.LOCK, str(self.path)):
            for path in self.path.rglob(".*.tmp"):
                if is_temporary(path.name):
                    path.unlink(missing_ok=True)
            yield

    # --- what insert wrote

    @property
    def manifest(self) -> Manifest:
        """manifest.json as it stands now."""
        return self._read(_MANIFEST, Manifest, self._insert_again)

    def add_stage(self, stage: StageRun) -> None:
        """Note in the manifest that a stage was run."""
        manifest = self.manifest
        self._write(_MANIFEST, manifest.model_copy(update={"stages": (*manifest.stages, stage)}))

    def text(self) -> StoredText:
        """Return the audited text, canaries included, as it lies on the disk."""
        facts = self.manifest.corpus
        return self._kept(_CORPUS, facts.audited_sha256, facts.characters)

    def heldout(self) -> StoredText:
        """Return the held-out text; empty if nothing was held out."""
        facts = self.manifest.corpus
        return self._kept(_HELDOUT, facts.heldout_sha256, facts.heldout_characters)

    def canary_set(self) -> CanarySet:
        """Return canaries and controls, checked against their templates and the audited text."""
        canary_set = self._read(_CANARIES, CanarySet, self._insert_again)
        strings = expected_strings(canary_set)
        if not self.text().check(strings or ()) or strings is None:
            raise Damaged(self.path / _CANARIES, f"it does not agree with {_CORPUS}", self._insert_again)
        return canary_set

    # --- models

    def weights_path(self, model: ModelId) -> Path:
        """Return where the weights of a model are."""
        return self._place(model) / _WEIGHTS

    def has_model(self, model: ModelId) -> bool:
        """Tell whether a model was made to its end."""
        return self._record_path(model).is_file() and self.weights_path(model).is_file()

    def write_weights(self, model: ModelId, data: bytes) -> str:
        """Write a model's weights and return their SHA-256; its record, which comes next, makes the model valid."""
        record = self._record_path(model)
        with write_errors(record):
            record.unlink(missing_ok=True)
        atomic_write(self.weights_path(model), data)
        return hashlib.sha256(data).hexdigest()

    def model_record(self, model: ModelId = TRAINED_MODEL) -> ModelRecord:
        """Return a model's description; one made by unlearning has its origin's architecture."""
        record = self._read(_MODEL, ModelRecord, self.see_how)
        if model.unlearning is None:
            return record
        unlearning = self.unlearning(model.unlearning)
        return ModelRecord(architecture=record.architecture, sha256=unlearning.model_sha256, members=unlearning.members)

    def write_model_record(self, record: ModelRecord) -> None:
        """Write the trained model's description, after its weights."""
        self._write(_MODEL, record)

    def verify_weights(self, model: ModelId) -> Path:
        """Return the weights' path, after checking that they are what the model's record describes.

        Raises:
            RunDirectoryError: There is no such model.
            ModelError: The weights are damaged.
        """
        if not self.has_model(model):
            raise RunDirectoryError(f"{self.path} has no model '{model}': {self._make_again(model)}")
        path, expected = self.weights_path(model), self.model_record(model).sha256
        if (actual := sha256_of(path)) != expected:
            raise ModelError(f"{path} is damaged (SHA-256 {actual[:12]}…, expected {expected[:12]}…): {self.see_how}")
        return path

    @property
    def checkpoint_path(self) -> Path:
        """Where a training that is not over keeps its state."""
        return self.path / layout.CHECKPOINT

    @property
    def curvature_path(self) -> Path:
        """Where the trained model's curvature is kept, for one request after another."""
        return self.path / layout.CURVATURE

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint of a training that is over."""
        with write_errors(self.path):
            self.checkpoint_path.unlink(missing_ok=True)

    def work_path(self, name: str, shard: int | None = None, *, corrected: bool = False) -> Path:
        """Return where the training that an unlearning needs keeps its state, or the weights of one shard."""
        place = self.path / _UNLEARNED / check_name(name)
        if shard is None:
            return place / layout.CHECKPOINT
        return place / layout.SHARDS / f"{shard:02}{layout.CORRECTED if corrected else ''}.safetensors"

    def remove_work(self, name: str) -> None:
        """Remove what an unlearning that is over kept to go on from; shards as first trained serve the next request."""
        with write_errors(self.path):
            self.work_path(name).unlink(missing_ok=True)
            for path in self.work_path(name, 0).parent.glob(f"*{layout.CORRECTED}.safetensors"):
                path.unlink(missing_ok=True)

    # --- measurements and unlearnings

    def has_measurement(self, model: ModelId) -> bool:
        """Tell whether a measurement of the model as it is now is there."""
        return (
            self._measurement_path(model).is_file()
            and (self.has_model(model) if model.unlearning is None else self.has_unlearning(model.unlearning))
            and self.measurement(model).model_sha256 == self.model_record(model).sha256
        )

    def measurement(self, model: ModelId) -> Measurement:
        """Return the measurement of a model."""
        name = str(self._measurement_path(model).relative_to(self.path))
        return self._read(name, Measurement, f"run: {command('canaryaudit', 'measure', self.path, '--model', model)}")

    def write_measurement(self, measurement: Measurement) -> None:
        """Write a measurement under its model's name."""
        self._write(str(self._measurement_path(measurement.model).relative_to(self.path)), measurement)

    def measurement_cache(self, identity: str) -> DirectoryCache:
        """Return where the parts of a long measurement are kept until it is done; of another identity, none."""
        return DirectoryCache(self.path / layout.PARTS / hashlib.sha256(identity.encode("utf-8")).hexdigest()[:16])

    def remove_parts(self) -> None:
        """Remove the parts of measurements that are over, or were given up."""
        with write_errors(self.path):
            remove(self.path / layout.PARTS)

    def has_unlearning(self, name: str) -> bool:
        """Tell whether an unlearning of the model as it is now was done to its end, and all that it started from."""
        return self.has_model(TRAINED_MODEL) and bool(self.lineage(name))

    def lineage(self, name: str) -> tuple[UnlearningRecord, ...]:
        """Return the unlearnings that led from the trained model to ``after-NAME``, the latest last.

        Every link is checked by the SHA-256 of the weights that it started from; where one is broken, or a
        model is missing, there is no lineage: the result is empty.
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
        """Return the records of all unlearnings of the model as it is now, by name; ``but`` one of them."""
        names = [name for name in self._unlearning_names() if name != but]
        return tuple(self.unlearning(name) for name in names if self.has_unlearning(name))

    # --- inside

    @property
    def _insert_again(self) -> str:
        return f"delete the directory, then run: {_insertion(self.path)}"

    def _kept(self, name: str, sha256: str, characters: int) -> StoredText:
        return StoredText(self.path / name, layout.encoded(self.path, name), sha256, characters, self._insert_again)

    def _unlearning_names(self) -> list[str]:
        directory = self.path / _UNLEARNED
        if not directory.is_dir():
            return []
        return sorted(entry.name for entry in directory.iterdir() if is_name(entry.name))

    def _place(self, model: ModelId) -> Path:
        return self.path if model.unlearning is None else self.path / _UNLEARNED / check_name(model.unlearning)

    @property
    def see_how(self) -> str:
        """What to do about a file that is lost or damaged, as a clause: the manifest knows with which options."""
        return f"see how to make it again with: {command('canaryaudit', 'verify', self.path)}"

    @property
    def lost_half(self) -> Path | None:
        """The trained model's record or its weights, where the other is there and no training can go on."""
        record, weights = self.path / _MODEL, self.path / _WEIGHTS
        if record.is_file() == weights.is_file() or self.checkpoint_path.exists():
            return None
        return record if weights.is_file() else weights

    def _record_path(self, model: ModelId) -> Path:
        return self._place(model) / (_MODEL if model.is_trained else _UNLEARNING)

    def _make_again(self, model: ModelId) -> str:
        words = ("train", self.path) if model.is_trained else ("unlearn", self.path, "--name", model.unlearning)
        return f"run: {command('canaryaudit', *words)}"

    def _measurement_path(self, model: ModelId) -> Path:
        self._place(model)  # Refuses what is not a model's name.
        return self.path / layout.MEASUREMENTS / f"{model}.json"

    def _write(self, name: str, record: BaseModel) -> None:
        atomic_write(self.path / name, record_json(record))

    def _read(self, name: str, kind: type[R], repair: str) -> R:
        return read_record(self.path / name, kind, repair)


def _insertion(path: Path) -> str:
    return command("canaryaudit", "insert", "CORPUS", "-o", path)


def _start_afresh(path: Path) -> str:
    return f"put it back from a copy, or start afresh with: {_insertion(path)} --force"


def _is_ours(name: str) -> bool:
    return name in (*_INSERTED, *_DERIVED, layout.LOCK, layout.STAGING) or is_temporary(name)
