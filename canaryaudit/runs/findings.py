"""Verify a run directory, whatever it audits: every file against the checksum or the source that it must match.

The manifest has the checksums of the inserted files and of every record, and one of itself. A model's record has the
checksum of its weights, which measurements and unlearnings refer to. A signature, where there is a key to check it
with, shows that nobody without the key has made all of these match again. Nothing is written.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from canaryaudit.errors import CanaryAuditError, Damaged, NewerVersion, command
from canaryaudit.formatting import counted
from canaryaudit.records import SCHEMA_VERSION, TRAINED_MODEL, ModelId
from canaryaudit.records.base import Record
from canaryaudit.runs import contents, layout, seals
from canaryaudit.runs.layout import check_name, is_name
from canaryaudit.runs.repair_commands import Repairs
from canaryaudit.runs.sealed_run import SealedRun
from canaryaudit.storage.files import exclusive_lock, is_temporary, plain_fault, read_errors, sha256_of
from canaryaudit.storage.tensors import all_finite, found_shapes

T = TypeVar("T")
State = Literal["sound", "unfinished", "left over", "foreign", "too open", "stale", "missing", "damaged"]
SignatureState = Literal["absent", "not checked", "valid", "invalid"]
PROBLEMS: tuple[State, ...] = ("stale", "missing", "damaged")
"""States that need repair before figures are reliable; the next command handles all others."""

_UPGRADE = "upgrade canaryaudit"


class Finding(Record):
    """The finding about one file."""

    file: str
    """Path within the run directory."""
    state: State
    detail: str = ""
    """What is wrong with it, or what remains to be done."""
    repair: str = ""
    """The command line that repairs or completes it."""


class Verification(Record):
    """Whether a run directory is sound."""

    schema_version: int = SCHEMA_VERSION
    run: str
    sound: bool
    """Whether nothing is stale, missing or damaged."""
    signature: SignatureState
    """``not checked`` without a key; with one, ``absent`` is a fault."""
    findings: tuple[Finding, ...]
    """In the order in which the files are made and must be repaired."""
    repairs: tuple[str, ...]
    """Command lines that repair everything, in order; then verify again."""


class _Noted:
    """A finding with the commands that its repair begins with, to clear the way."""

    def __init__(self, file: str, state: State, detail: str, command: str, removals: tuple[str, ...]) -> None:
        self.file, self.state, self.detail, self.command, self.removals = file, state, detail, command, removals

    def with_repair(self) -> Finding:
        steps = (*self.removals, self.command)
        return Finding(
            file=self.file, state=self.state, detail=self.detail, repair=" && ".join(step for step in steps if step)
        )


class Verifier(ABC):
    """Checks a run directory in the order in which its files are made.

    Args:
        run: The run directory.
        repairs: Makes the commands that recreate its files.
        key: Of the signature, which must then be valid; None to leave it unchecked.
        reseal: Accept records that have no checksum.
    """

    precision: Literal["F32", "F64"] = "F32"
    """Of the weights."""

    def __init__(
        self, run: SealedRun[Any, Any, Any, Any], repairs: type[Repairs], key: bytes | None, *, reseal: bool
    ) -> None:
        self.path, self.run, self.repairs = run.path, run, repairs(run.path)
        self.key, self.accepts_unsealed = key, reseal
        self.unsealed: list[str] = []
        self.findings: list[_Noted] = []
        self.noted: set[Path] = set()
        self.records: dict[str, tuple[str, ...]] = {}
        self.signature: SignatureState = "absent"
        self.known: set[Path] = {self.path / layout.LOCK}
        self.trained: Any = None  # the trained model's record
        self.models: dict[ModelId, str] = {}  # SHA-256 of the models with a readable record

    @property
    def removals(self) -> list[str]:
        """All commands that clear the way, to run before the repairs: one may fail on another's damaged file."""
        return [line for finding in self.findings if finding.state in PROBLEMS for line in finding.removals]

    # --- what depends on what is audited

    @abstractmethod
    def check_inserted(self, manifest: Any) -> None:
        """Check what was inserted."""

    @abstractmethod
    def shapes(self, model: Any, unlearning: Any = None) -> dict[str, tuple[int, ...]] | None:
        """Return the names and shapes of the weights of a model; None if they are not known."""

    def holds_weights(self, model: Any) -> bool:  # noqa: ARG002
        """Return whether the run directory holds the weights of a model, and not only its description."""
        return True

    def holds_result(self, record: Any) -> bool:  # noqa: ARG002
        """Return whether the run directory holds the weights that an unlearning made."""
        return True

    @abstractmethod
    def measurement_fault(self, model: ModelId, measurement: Any) -> tuple[State, str]:
        """Return what is wrong with a measurement's contents; ``sound`` if nothing is."""

    @abstractmethod
    def unlearning_fault(self, record: Any) -> tuple[State, str]:
        """Return what is wrong with an unlearning's contents; ``sound`` if nothing is."""

    @abstractmethod
    def check_attack(self, name: str, record: Any) -> None:
        """Check what an attack on an unlearning was compared with."""

    @abstractmethod
    def check_work(self) -> None:
        """Check what commands keep for others, or left unfinished."""

    def check(self) -> None:
        """Check everything that can be checked."""
        if linked := [(path, fault) for path, fault in contents.faults(self.path) if self._is_folder(path)]:
            for path, fault in linked:
                self._note(path, "damaged", fault, "", path)
            return  # What it leads to is not the run's.
        path, again = self.path / layout.MANIFEST, self.repairs.insert(layout.MANIFEST)
        manifest = self._read(path, lambda: self.run.manifest, again, sound=False)
        if manifest is None:
            return  # The rest cannot be checked.
        if seals.is_sealed(manifest):
            self._note(path, "sound")
        else:
            self._note(path, "damaged", "it was changed: it does not match its own checksum", again)
        self.records = manifest.records
        self.repairs = type(self.repairs)(self.path, manifest)
        self._check_signature(manifest)
        self.check_inserted(manifest)
        self._check_model(manifest)
        self._check_measurement(TRAINED_MODEL)
        for name in self._unlearned_names(manifest):
            self._check_unlearning(name)
        for name, record in self.unlearned.items():
            self._check_origin(name, record)
            self.check_attack(name, record)
        self.check_work()
        self._sweep()

    def _check_signature(self, manifest: Any) -> None:
        path = self.path / layout.SIGNATURE
        if self.key is None:
            self.signature = "not checked" if path.exists() else "absent"
            self.known.add(path)
            return
        again = command("canaryaudit", "verify", self.path, "--sign", "KEY")
        self.signature = "invalid"
        if not path.exists():
            self.signature = "absent"
            self._note(path, "missing", "the run is not signed", again)
        elif signature := self._read(path, self.run.signature, again, sound=False):
            if seals.is_signed_by(manifest, signature, self.key):
                self.signature = "valid"
                self._note(path, "sound")
            else:
                self._note(path, "damaged", "it is not this run's signature under this key", again)

    def _is_sealed(self, path: Path, repair: str) -> bool:
        """Return whether a record that is there is the one that was written, or note it as damaged."""
        name = path.relative_to(self.path).as_posix()
        state = seals.seal_state(self.records, name, sha256_of(path))
        if state == "unsealed" and self.accepts_unsealed:
            self.unsealed.append(name)
        elif state == "unsealed":
            # A sound file is not to be removed: the manifest may have been lost.
            detail = "nothing shows that a command wrote it; if you rely on it, record its checksum"
            self._note(path, "damaged", detail, self.repairs.reseal())
        elif state != "sealed":
            self._note(path, "damaged", "it was changed: it does not match its checksum", repair, path)
        return state == "sealed" or (state == "unsealed" and self.accepts_unsealed)

    def _is_deleted(self, path: Path) -> bool:
        """Return whether a record is missing that was written."""
        name = path.relative_to(self.path).as_posix()
        return not path.exists() and seals.seal_state(self.records, name, seals.ABSENT) == "deleted"

    # --- models

    def _check_model(self, manifest: Any) -> None:
        record_path, weights = self.path / layout.MODEL, self.path / layout.WEIGHTS
        checkpoint = self.path / layout.CHECKPOINT
        made = any(run.stage == "train" for run in manifest.stages)
        if not record_path.exists() and not weights.exists():
            if (made or self._is_deleted(record_path)) and not checkpoint.exists():
                self._note(record_path, "missing", "its model was trained, but is missing", self.repairs.train(None))
            return
        if not record_path.exists():
            if checkpoint.exists():
                self._note(weights, "unfinished", "its record is not written yet", self.repairs.train(None))
            else:
                self._note(record_path, "missing", "there are weights without a record", self.repairs.train(None))
                self._note(weights, "sound", "not compared with its record")
            return
        record = self._read(record_path, self.run.trained_model, self.repairs.train(None), sound=False)
        if record is None or not self._is_sealed(record_path, self.repairs.train(record)):
            self.known.add(weights)
            return
        self._note(record_path, "sound")
        self.models[TRAINED_MODEL], self.trained = record.sha256, record
        if self.holds_weights(record):
            self._check_weights(weights, record.sha256, self.shapes(record), self.repairs.train(record))

    def _check_weights(self, path: Path, sha256: str, shapes: dict[str, tuple[int, ...]] | None, repair: str) -> None:
        if not self._is_there(path, repair):
            return
        actual = self._read(path, partial(found_shapes, path, self.precision), repair, sound=False)
        if actual is None:
            return
        if None in actual.values() or (shapes is not None and actual != shapes):
            self._note(path, "damaged", "its tensors do not match the architecture", repair, path)
        elif sha256_of(path) != sha256:
            self._note(path, "damaged", "its SHA-256 does not match its record", repair, path)
        elif not all_finite(path, self.precision):
            self._note(path, "damaged", "it holds infinite or NaN values", repair, path)
        else:
            self._note(path, "sound")

    # --- measurements

    def _check_measurement(self, model: ModelId) -> None:
        path = self.path / layout.MEASUREMENTS / f"{model}.json"
        if not path.exists():
            if model in self.models and self._is_deleted(path):
                self._note(path, "missing", "it was measured, but is missing", self.repairs.measure(model))
            elif not model.is_trained and model in self.models:
                self._note(path, "unfinished", "not measured yet", self.repairs.measure(model))
            return
        measurement = self._read(path, lambda: self.run.measurement(model), self.repairs.measure(model), sound=False)
        if measurement is None:
            return
        repair = self.repairs.measure(model, measurement)
        if not self._is_sealed(path, repair):
            return
        if measurement.model != model:
            self._note(path, "damaged", "it is the measurement of another model", repair, path)
        elif model in self.models and measurement.model_sha256 != self.models[model]:
            self._note(path, "stale", "the model was replaced after it was measured", repair, path)
        elif (fault := self.measurement_fault(model, measurement))[0] != "sound":
            self._note(path, *fault, repair, path)
        else:
            self._note(path, "sound", "" if model in self.models else "not compared with its model")

    # --- unlearnings

    def _unlearned_names(self, manifest: Any) -> list[str]:
        """Return the names of all unlearnings, in the order in which they ran."""
        self.unlearned: dict[str, Any] = {}
        directory = self.path / layout.UNLEARNED
        order = {stage.name: index for index, stage in enumerate(manifest.stages) if stage.stage == "unlearn"}
        entries = directory.iterdir() if directory.is_dir() else ()
        names = {entry.name for entry in entries if entry.is_dir() and self._call(check_name, entry.name)[0]}
        # Of a deleted unlearning the manifest still has the record's checksum.
        parts = (PurePosixPath(name).parts for name, states in manifest.records.items() if seals.ABSENT not in states)
        names |= {part[1] for part in parts if part[:1] == (layout.UNLEARNED,) and len(part) == 3 and is_name(part[1])}
        return sorted(names, key=lambda name: (order.get(name, -1), name))

    def _check_unlearning(self, name: str) -> None:
        model, directory = ModelId(name), self.path / layout.UNLEARNED / name
        path, weights = directory / layout.UNLEARNING, self.run.weights_path(model)
        before = self._call(self.run.measurement, TRAINED_MODEL)[0]
        repair = self.repairs.unlearn(name, None, before)
        if self._is_deleted(path):
            self._note(path, "missing", "its record was written, but is missing", repair)
            self.known |= {weights, self.path / layout.MEASUREMENTS / f"{model}.json"}
            return
        if not path.exists():
            measured = (self.path / layout.MEASUREMENTS / f"{model}.json").exists()
            if weights.exists() or measured:
                state: State = "missing" if measured else "unfinished"
                self._note(path, state, "its model is incomplete", repair)
                self.known |= {weights, self.path / layout.MEASUREMENTS / f"{model}.json"}
            return
        record = self._read(path, lambda: self.run.unlearning(name), repair, sound=False)
        if record is None:
            self.known |= {weights, self.path / layout.MEASUREMENTS / f"{model}.json"}
            return
        repair = self.repairs.unlearn(name, record, before)
        if not self._is_sealed(path, repair):
            self.known |= {weights, self.path / layout.MEASUREMENTS / f"{model}.json"}
            return
        if record.name != name:
            self._note(path, "damaged", "it is the record of another unlearning", repair, path)
            return
        if (fault := self.unlearning_fault(record))[0] != "sound":
            self._note(path, *fault, repair, path)
            return
        self.unlearned[name] = record
        self.models[model] = record.model_sha256
        if self.holds_result(record):
            shapes = self.shapes(self.trained, record) if self.trained else None
            self._check_weights(weights, record.model_sha256, shapes, repair)
        self._check_measurement(model)

    def _check_origin(self, name: str, record: Any) -> None:
        """Note an unlearning's record as sound, or as made from a model that no longer exists."""
        path = self.path / layout.UNLEARNED / name / layout.UNLEARNING
        repair = self.repairs.unlearn(name, record, self._call(self.run.measurement, TRAINED_MODEL)[0])
        seen, origin = {ModelId(name)}, record.origin
        while origin in self.models and origin.unlearning is not None and origin not in seen:
            seen.add(origin)
            origin = self.unlearned[origin.unlearning].origin
        if origin in seen:
            self._note(path, "damaged", "its origin depends on itself", repair, path)
        elif record.origin in self.models and self.models[record.origin] != record.origin_sha256:
            self._note(path, "stale", f"{record.origin}, which it started from, was recreated", repair, path)
        else:
            self._note(path, "sound", "" if record.origin in self.models else "not compared with its origin")

    def _sweep(self) -> None:
        """Note every file that no other check covers."""
        staging = self.path / layout.STAGING
        if staging.exists():
            self._note(staging, "left over", "from an interrupted insertion", command("rm", "-r", staging))
        for path, fault in contents.faults(self.path):
            if path not in self.noted:
                self._note(path, "damaged", fault, "", path)
        for name, path in contents.entries(self.path):
            if path in self.known or staging in path.parents or contents.is_directory_name(name):
                continue
            if path.is_symlink():
                self._note(path, "foreign", "a link; no command follows it")
            elif path.is_dir():
                self._note(path, "foreign", "a folder of yours; no command reads or changes it")
            elif not contents.is_file_name(name):
                self._note(path, "foreign", "no command wrote it")
            elif is_temporary(path.name):
                self._note(path, "left over", "half-written; the next command removes it")
            elif path.parent == self.path / layout.MEASUREMENTS:
                self._note(path, "stale", "there is no such model", "", path)
            else:
                self._note(path, "foreign", "no command wrote it")
        if names := contents.too_open(self.path):
            detail = f"others on this machine can read or change {counted(len(names), 'file')} that may hold secrets"
            self._note(self.path, "too open", detail, self.repairs.close())

    # --- inside

    def _note(self, path: Path, state: State, detail: str = "", repair: str = "", *removals: Path) -> None:
        self.known.add(path)
        self.noted.add(path)
        file = path.relative_to(self.path).as_posix()
        cleared = tuple(self.repairs.replace(own) for own in removals)
        self.findings.append(_Noted(file, state, detail, repair, cleared))

    def _is_folder(self, path: Path) -> bool:
        return contents.is_directory_name(path.relative_to(self.path).as_posix())

    def _is_there(self, path: Path, repair: str) -> bool:
        if fault := plain_fault(path):
            self._note(path, "damaged", fault, repair, path)
        elif not path.exists():
            self._note(path, "missing", "", repair)
        else:
            return True
        return False

    def _read(self, path: Path, read: Callable[[], T], repair: str = "", *, sound: bool = True) -> T | None:
        """Return the result of ``read``, or note the file as damaged and return None; optionally note it as sound."""
        try:
            value = read()
        except NewerVersion as error:
            self._note(path, "damaged", str(error).removeprefix(f"{path} ").partition(":")[0], _UPGRADE)
        except CanaryAuditError as error:
            fault = error.fault if isinstance(error, Damaged) else str(error).partition(":")[0]
            # A manifest is replaced, not removed: without one there is no run.
            keep = path.name == layout.MANIFEST and not plain_fault(path)
            self._note(path, "damaged", fault, repair, *(() if keep else (path,)))
        else:
            if sound:
                self._note(path, "sound")
            return value
        return None

    @staticmethod
    def _call(function: Callable[..., T], *arguments: object) -> tuple[T | None, str]:
        """Return a function's result, or None and its error message."""
        try:
            return function(*arguments), ""
        except CanaryAuditError as error:
            return None, str(error)


def run_verifier(
    verifier: Verifier, *, key: bytes | None = None, sign: bool = False, is_locked: bool = False
) -> Verification:
    """Check every file of a run directory, and seal or sign it if that was asked for and it is sound.

    Args:
        verifier: Checks it.
        key: To sign with.
        sign: Sign the run with the key, if everything else is sound.
        is_locked: Whether the caller holds the run's lock.

    Raises:
        RunDirectoryError: It is not a run directory, or another command uses it.
    """
    run, path = verifier.run, verifier.path
    if not run.holds_run(path):
        type(run).open(path)
    # Not ``SealedRun.lock``, which would remove files that must be reported.
    lock = nullcontext() if is_locked else exclusive_lock(path / layout.LOCK, str(path), read_only=run.is_read_only)
    with lock, read_errors(path):
        verifier.check()
        is_sound = not any(finding.state in PROBLEMS for finding in verifier.findings)
        if is_sound and verifier.unsealed:
            run.reseal(verifier.unsealed)
        if is_sound and sign and key:
            run.write_signature(key)
            verifier.signature = "valid"
    removed = " && ".join(dict.fromkeys(verifier.removals))
    commands = [finding.command for finding in verifier.findings if finding.state in PROBLEMS]
    return Verification(
        run=str(path),
        sound=is_sound,
        signature=verifier.signature,
        findings=tuple(finding.with_repair() for finding in verifier.findings),
        repairs=tuple(dict.fromkeys(line for line in (removed, *commands) if line)),
    )
