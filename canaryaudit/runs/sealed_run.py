"""What every run directory does, whatever it audits: created at once, locked, sealed, and refused where it is not ours.

Every file is written atomically. The manifest is written last, so a directory without one holds no run, and nothing in
it is replaced or removed. Weights are written before their record, so weights without a record are not a model. Files
are readable by their owner only: they hold the secrets, or models that memorized them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, NoReturn, Protocol, Self, TypeVar

from canaryaudit.errors import Damaged, ModelError, RunDirectoryError, command
from canaryaudit.records import (
    TRAINED_MODEL,
    ImagesManifest,
    Manifest,
    ModelId,
    RunKind,
    RunManifest,
    StageRun,
    TableManifest,
)
from canaryaudit.runs import contents, layout, seals
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

_MANIFEST, _WEIGHTS, _MODEL = layout.MANIFEST, layout.WEIGHTS, layout.MODEL
_UNLEARNED, _UNLEARNING = layout.UNLEARNED, layout.UNLEARNING
_SUBJECT: dict[RunKind, str] = {"text": "text", "table": "a table", "images": "images"}


class _Model(Protocol):
    """A trained model's record."""

    @property
    def sha256(self) -> str: ...


class _Measured(Protocol):
    """A measurement of a model."""

    @property
    def model(self) -> ModelId: ...
    @property
    def model_sha256(self) -> str: ...


class _Unlearned(Protocol):
    """An unlearning: a link from one model to the next."""

    @property
    def name(self) -> str: ...
    @property
    def model_sha256(self) -> str: ...
    @property
    def origin(self) -> ModelId: ...
    @property
    def origin_sha256(self) -> str: ...


M = TypeVar("M", bound=RunManifest)
D = TypeVar("D", bound=_Model)
E = TypeVar("E", bound=_Measured)
U = TypeVar("U", bound=_Unlearned)
T = TypeVar("T")


class SealedRun(Generic[M, D, E, U]):
    """The directory of one audit, whatever it is of; its manifest says which kind.

    Models are called ``before`` (as trained) and ``after-NAME`` (the result of the unlearning NAME).

    Attributes:
        path: The directory.
    """

    kind: ClassVar[RunKind]
    repairs: ClassVar[type[Repairs]] = Repairs
    manifest_type: type[M]
    model_type: type[D]
    measurement_type: type[E]
    unlearning_type: type[U]

    def __init__(self, path: Path) -> None:
        self.path = path

    # --- creating

    def write_new(self, stage: Callable[[Path], M], *, replace: bool = False) -> None:
        """Write a new run; on any failure nothing of it remains, and an older run is unchanged.

        Args:
            stage: Writes the inserted files into a staging directory and returns the manifest.
            replace: Delete an existing run with everything made from it.

        Raises:
            RunDirectoryError: The directory holds something else, or a run; or cannot be written.
        """
        path = self.path
        self.check_can_create(replace=replace)
        with write_errors(path):
            is_new = not path.exists()
            make_directory(path)
            with suppress(PermissionError):  # Somebody else's directory; its files are private all the same.
                path.chmod(path.stat().st_mode & 0o7700)
        staging = path / layout.STAGING
        with self._locked(), write_errors(path):
            is_staged = False
            try:
                self.check_can_create(replace=replace)  # Another command may have been first.
                contents.remove(path, layout.STAGING)
                manifest = seals.resealed(None, stage(staging))
                atomic_write(staging / _MANIFEST, record_json(manifest))
                self.check_can_create(replace=replace)  # The user may have put a file there.
                is_staged = True
                self._put_in_place(staging)
            except BaseException:
                if not is_staged:  # Afterwards the next insertion goes on.
                    contents.remove(path, *(() if is_new else (layout.STAGING,)))
                    if is_new and not any(path.iterdir()):
                        path.rmdir()
                raise

    def _put_in_place(self, staging: Path) -> None:
        """Replace the run by the staged one; a kill at any moment leaves what shows that it was under way."""
        if (self.path / _MANIFEST).exists():
            (self.path / _MANIFEST).replace(staging / layout.REPLACED)
        others = {*layout.ALL_INSERTED} - {*layout.INSERTED[self.kind]}
        contents.remove(self.path, *layout.DERIVED, *others)
        for name in (*layout.MOVED[self.kind], _MANIFEST):
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
        if not kind_of_manifest(path / _MANIFEST):
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
                    if staged := kind_of_manifest(staging / _MANIFEST):
                        known |= {name for name in layout.MOVED[staged] if not (staging / name).exists()}
                        if kind_of_manifest(staging / layout.REPLACED):
                            known |= {*layout.DERIVED, *layout.ALL_INSERTED}
                others += [name for name, _ in contents.entries(path) if "/" not in name and name not in known]
        return sorted({*others})

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run and check its manifest.

        Raises:
            RunDirectoryError: No such directory, no run in it, a run of another kind, or its manifest is damaged or
                newer.
        """
        if not path.exists():
            raise RunDirectoryError(f"no such run directory: {path}; create it: {_insertion(path)}")
        if not path.is_dir() or not (path / _MANIFEST).exists():
            if any((path / name).is_file() for name in (layout.CANARIES, layout.TABLE, layout.IMAGES)):
                raise RunDirectoryError(f"{path} has lost its {_MANIFEST}: {cls.repairs(path).insert(_MANIFEST)}")
            raise RunDirectoryError(
                f"{path} is not a run directory (it has no {_MANIFEST}): create one: canaryaudit insert CORPUS -o RUN"
            )
        kind = kind_of_manifest(path / _MANIFEST)
        if kind and kind != cls.kind:
            raise RunDirectoryError(
                f"{path} is a run on {_SUBJECT[kind]}, and this takes a run on {_SUBJECT[cls.kind]}: choose another run"
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

    # --- the manifest

    @property
    def manifest(self) -> M:
        """The current manifest.json."""
        return self._read(_MANIFEST, self.manifest_type, self.see_how)

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

    # --- models

    def weights_path(self, model: ModelId) -> Path:
        """Return the path of a model's weights."""
        return self._place(model) / _WEIGHTS

    def has_model(self, model: ModelId) -> bool:
        """Return whether a model is complete."""
        return self._record_path(model).is_file() and self.weights_path(model).is_file()

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

    @property
    def curvature_path(self) -> Path:
        """The stored curvature of the trained model, shared by all requests."""
        return self.path / layout.CURVATURE

    def trained_model(self) -> D:
        """Return the trained model's description."""
        return self._read(_MODEL, self.model_type, self.see_how)

    def model_sha256(self, model: ModelId) -> str:
        """Return the SHA-256 of a model's weights, as its record has it."""
        return (
            self.trained_model().sha256 if model.unlearning is None else self.unlearning(model.unlearning).model_sha256
        )

    def write_model_record(self, record: D) -> None:
        """Write the trained model's description, after its weights."""
        self._write(_MODEL, record)

    def verify_weights(self, model: ModelId) -> Path:
        """Return the weights' path, after checking them against the model's record.

        Raises:
            RunDirectoryError: There is no such model.
            ModelError: The weights are damaged.
        """
        if not self.has_model(model):
            raise RunDirectoryError(f"{self.path} has no model '{model}': {self._make_again(model)}")
        path, expected = self.weights_path(model), self.model_sha256(model)
        if (actual := sha256_of(path)) != expected:
            raise ModelError(f"{path} is damaged (SHA-256 {actual[:12]}…, expected {expected[:12]}…): {self.see_how}")
        return path

    # --- measurements and unlearnings

    def has_measurement(self, model: ModelId) -> bool:
        """Return whether there is a measurement of the current model."""
        return (
            self._measurement_path(model).is_file()
            and (self.has_model(model) if model.unlearning is None else self.has_unlearning(model.unlearning))
            and self.measurement(model).model_sha256 == self.model_sha256(model)
        )

    def measurement(self, model: ModelId) -> E:
        """Return the measurement of a model."""
        name = str(self._measurement_path(model).relative_to(self.path))
        return self._read(name, self.measurement_type, self.see_how)

    def write_measurement(self, measurement: E) -> None:
        """Write a measurement under its model's name."""
        self._write(str(self._measurement_path(measurement.model).relative_to(self.path)), measurement)

    def has_unlearning(self, name: str) -> bool:
        """Return whether an unlearning of the current model is complete, with all that it started from."""
        return self.has_model(TRAINED_MODEL) and bool(self.lineage(name))

    def lineage(self, name: str) -> tuple[U, ...]:
        """Return the unlearnings that led from the trained model to ``after-NAME``, the latest last.

        Every link is checked by the SHA-256 of the weights that it started from. The result is empty if a link is
        broken or a model is missing.
        """
        links: list[U] = []
        model = ModelId(name)
        while model.unlearning is not None:
            if not self.has_model(model) or model.unlearning in {link.name for link in links}:
                return ()
            links.append(self.unlearning(model.unlearning))
            model = links[-1].origin
            if links[-1].origin_sha256 != self.model_sha256(model):
                return ()
        return tuple(reversed(links))

    def unlearning(self, name: str) -> U:
        """Return the record of an unlearning."""
        path = f"{_UNLEARNED}/{check_name(name)}/{_UNLEARNING}"
        return self._read(path, self.unlearning_type, self.see_how)

    def write_unlearning(self, record: U) -> None:
        """Write the record of an unlearning, after its weights."""
        self._write(f"{_UNLEARNED}/{check_name(record.name)}/{_UNLEARNING}", record)

    def unlearnings(self, but: str = "") -> tuple[U, ...]:
        """Return the records of all unlearnings of the current model, by name, except ``but``."""
        names = [name for name in self._unlearning_names() if name != but]
        return tuple(self.unlearning(name) for name in names if self.has_unlearning(name))

    def unlearnings_in_order(self) -> list[U]:
        """Return the unlearnings in the order in which they ran."""
        order = {stage.name: index for index, stage in enumerate(self.manifest.stages) if stage.stage == "unlearn"}
        return sorted(self.unlearnings(), key=lambda record: order.get(record.name, -1))

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

    def _record_path(self, model: ModelId) -> Path:
        return self._place(model) / (_MODEL if model.is_trained else _UNLEARNING)

    def _make_again(self, model: ModelId) -> str:
        words = ("train", self.path) if model.is_trained else ("unlearn", self.path, "--name", model.unlearning)
        return f"run: {command('canaryaudit', *words)}"

    def _measurement_path(self, model: ModelId) -> Path:
        self._place(model)  # Raises an error for an invalid model name.
        return self.path / layout.MEASUREMENTS / f"{model}.json"

    def _write(self, name: str, record: Any) -> None:
        """Write a record, with its checksum in the manifest before and after: a kill at any instant breaks no seal."""
        text = record_json(record)
        self._write_manifest(seals.replacing(self.manifest, name, _sha256(text)))
        atomic_write(self.path / name, text)
        self._write_manifest(seals.replaced(self.manifest, name, _sha256(text)))

    def _write_manifest(self, manifest: M) -> None:
        atomic_write(self.path / _MANIFEST, record_json(seals.resealed(self.manifest, manifest)))

    def _read(self, name: str, kind: type[T], repair: str) -> T:
        record_type: Any = kind
        record: T = read_record(self.path / name, record_type, repair)
        return record


def kind_of_manifest(path: Path) -> RunKind | None:
    """Return which kind of run a manifest is of; None if it is none of this version."""
    kinds: tuple[tuple[RunKind, type[RunManifest]], ...] = (
        ("text", Manifest),
        ("table", TableManifest),
        ("images", ImagesManifest),
    )
    for kind, manifest_type in kinds:
        try:
            read_record(path, manifest_type, "")
        except RunDirectoryError:
            continue
        return kind
    return None


def kind_of_run(path: Path) -> RunKind:
    """Return which kind of run a directory holds; ``text`` where it holds none, as the caller will find out."""
    # A manifest may be lost or damaged; the other files then tell.
    lost: RunKind = "images" if (path / layout.IMAGES).exists() else "text"
    return kind_of_manifest(path / _MANIFEST) or ("table" if (path / layout.TABLE).exists() else lost)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _insertion(path: Path) -> str:
    return command("canaryaudit", "insert", "CORPUS", "-o", path)
