"""Verify a run directory: check every file against the checksum or the source that it must match.

The manifest has the checksums of the texts and of every record, and one of itself; canaries.json must match the texts.
A model's record has the checksum of its weights, which measurements and unlearnings refer to. A signature, where there
is a key to check it with, shows that nobody without the key has made all of these match again. Nothing is written and
no model is loaded: the header of the weights is compared with the architecture, and the bytes are read in blocks.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from canaryaudit.canaries.canary import CanarySet
from canaryaudit.canaries.insertion import run_vocabulary
from canaryaudit.errors import CanaryAuditError, Damaged, NewerVersion, command
from canaryaudit.formatting import counted
from canaryaudit.records import (
    SCHEMA_VERSION,
    TRAINED_MODEL,
    Architecture,
    Manifest,
    Measurement,
    ModelId,
    UnlearningRecord,
)
from canaryaudit.records.base import Record
from canaryaudit.runs import contents, layout, seals
from canaryaudit.runs.layout import check_name, is_name
from canaryaudit.runs.repair_commands import Repairs
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.storage.files import exclusive_lock, is_temporary, plain_fault, read_errors, sha256_of
from canaryaudit.storage.json_records import read_record
from canaryaudit.storage.part_cache import DirectoryCache
from canaryaudit.storage.tensors import all_finite, found_shapes, weight_shapes

T = TypeVar("T")
MeasurementCheck = Callable[[Measurement, CanarySet], str]
"""Returns what is wrong with a measurement's figures, or an empty text."""
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
    if not RunDirectory.holds_run(path):
        RunDirectory.open(path)
    # Not ``RunDirectory.lock``, which would remove files that must be reported.
    read_only = RunDirectory(path).is_read_only
    lock = nullcontext() if is_locked else exclusive_lock(path / layout.LOCK, str(path), read_only=read_only)
    with lock, read_errors(path):
        verifier = _Verifier(path, check, None if sign else key, reseal=reseal)
        verifier.check()
        is_sound = not any(finding.state in PROBLEMS for finding in verifier.findings)
        if is_sound and verifier.unsealed:
            verifier.run.reseal(verifier.unsealed)
        if is_sound and sign and key:
            verifier.run.write_signature(key)
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


class _Noted:
    """A finding with the commands that its repair begins with, to clear the way."""

    def __init__(self, file: str, state: State, detail: str, command: str, removals: tuple[str, ...]) -> None:
        self.file, self.state, self.detail, self.command, self.removals = file, state, detail, command, removals

    def with_repair(self) -> Finding:
        steps = (*self.removals, self.command)
        return Finding(
            file=self.file, state=self.state, detail=self.detail, repair=" && ".join(step for step in steps if step)
        )


class _Verifier:
    """Checks a run directory in the order in which its files are made."""

    def __init__(self, path: Path, check: MeasurementCheck, key: bytes | None, *, reseal: bool) -> None:
        self.path, self.run, self.repairs = path, RunDirectory(path), Repairs(path)
        self.check_figures, self.key, self.accepts_unsealed = check, key, reseal
        self.unsealed: list[str] = []
        self.findings: list[_Noted] = []
        self.noted: set[Path] = set()
        self.records: dict[str, tuple[str, ...]] = {}
        self.signature: SignatureState = "absent"
        # The texts' ids are compared with the texts if these are sound.
        self.known: set[Path] = {path / layout.LOCK, *(path / layout.ENCODED).glob("*.safetensors")}
        self.models: dict[ModelId, str] = {}  # SHA-256 of the models with a readable record
        self.architecture: Architecture | None = None
        self.canaries: CanarySet | None = None

    @property
    def removals(self) -> list[str]:
        """All commands that clear the way, to run before the repairs: one may fail on another's damaged file."""
        return [line for finding in self.findings if finding.state in PROBLEMS for line in finding.removals]

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
        self.repairs = Repairs(self.path, manifest)
        self._check_signature(manifest)
        self._check_inserted(manifest)
        self._check_model(manifest)
        self._check_measurement(TRAINED_MODEL)
        for name in self._unlearned_names(manifest):
            self._check_unlearning(name)
        for name, record in self.unlearned.items():
            self._check_origin(name, record)
            self._check_relearning(name, record)
        self._check_work()
        self._sweep()

    def _check_signature(self, manifest: Manifest) -> None:
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

    # --- inserted files

    def _check_inserted(self, manifest: Manifest) -> None:
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

    # --- models

    def _check_model(self, manifest: Manifest) -> None:
        record_path, weights = self.path / layout.MODEL, self.path / layout.WEIGHTS
        made = any(run.stage == "train" for run in manifest.stages)
        if not record_path.exists() and not weights.exists():
            if (made or self._is_deleted(record_path)) and not self.run.checkpoint_path.exists():
                self._note(record_path, "missing", "its model was trained, but is missing", self.repairs.train(None))
            return
        if not record_path.exists():
            if self.run.checkpoint_path.exists():
                self._note(weights, "unfinished", "its record is not written yet", self.repairs.train(None))
            else:
                self._note(record_path, "missing", "there are weights without a record", self.repairs.train(None))
                self._note(weights, "sound", "not compared with its record")
            return
        record = self._read(record_path, self.run.model_record, self.repairs.train(None), sound=False)
        if record is None or not self._is_sealed(record_path, self.repairs.train(record)):
            self.known.add(weights)
            return
        self._note(record_path, "sound")
        self.models[TRAINED_MODEL], self.architecture = record.sha256, record.architecture
        if record.architecture is None:
            return  # Its weights lie outside.
        shapes = weight_shapes(record.architecture, record.members)
        self._check_weights(weights, record.sha256, shapes, self.repairs.train(record))

    def _check_weights(self, path: Path, sha256: str, shapes: dict[str, tuple[int, ...]] | None, repair: str) -> None:
        if not self._is_there(path, repair):
            return
        actual = self._read(path, partial(found_shapes, path), repair, sound=False)
        if actual is None:
            return
        if None in actual.values() or (shapes is not None and actual != shapes):
            self._note(path, "damaged", "its tensors do not match the architecture", repair, path)
        elif sha256_of(path) != sha256:
            self._note(path, "damaged", "its SHA-256 does not match its record", repair, path)
        elif not all_finite(path):
            self._note(path, "damaged", "it holds infinite or NaN values", repair, path)
        else:
            self._note(path, "sound")

    # --- measurements

    def _check_measurement(self, model: ModelId) -> Measurement | None:
        path = self.path / layout.MEASUREMENTS / f"{model}.json"
        if not path.exists():
            if model in self.models and self._is_deleted(path):
                self._note(path, "missing", "it was measured, but is missing", self.repairs.measure(model))
            elif not model.is_trained and model in self.models:
                self._note(path, "unfinished", "not measured yet", self.repairs.measure(model))
            return None
        measurement = self._read(path, lambda: self.run.measurement(model), self.repairs.measure(model), sound=False)
        if measurement is None:
            return None
        repair = self.repairs.measure(model, measurement)
        ids = [canary.id for canary in self.canaries.canaries] if self.canaries else None
        if not self._is_sealed(path, repair):
            return None
        if measurement.model != model:
            self._note(path, "damaged", "it is the measurement of another model", repair, path)
        elif model in self.models and measurement.model_sha256 != self.models[model]:
            self._note(path, "stale", "the model was replaced after it was measured", repair, path)
        elif ids is not None and [canary.id for canary in measurement.canaries] != ids:
            self._note(path, "stale", "it was measured with other canaries", repair, path)
        elif self.canaries and (fault := self.check_figures(measurement, self.canaries)):
            self._note(path, "damaged", fault, repair, path)
        else:
            self._note(path, "sound", "" if model in self.models else "not compared with its model")
        return measurement

    # --- unlearnings

    def _unlearned_names(self, manifest: Manifest) -> list[str]:
        """Return the names of all unlearnings, in the order in which they ran."""
        self.unlearned: dict[str, UnlearningRecord] = {}
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
        known = {canary.id for canary in self.canaries.canaries} if self.canaries else set(record.canaries)
        if record.name != name:
            self._note(path, "damaged", "it is the record of another unlearning", repair, path)
            return
        if not known >= set(record.canaries):
            self._note(path, "stale", "it refers to canaries that the run does not have", repair, path)
            return
        self.unlearned[name] = record
        self.models[model] = record.model_sha256
        shapes = weight_shapes(self.architecture, record.members) if self.architecture else None
        self._check_weights(weights, record.model_sha256, shapes, repair)
        self._check_measurement(model)

    def _check_origin(self, name: str, record: UnlearningRecord) -> None:
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

    def _check_relearning(self, name: str, record: UnlearningRecord) -> None:
        relearning = record.relearning
        reference = self.unlearned.get(relearning.retrained_name) if relearning else None
        if relearning and reference and reference.model_sha256 != relearning.retrained_sha256:
            path = self.path / layout.UNLEARNED / name / layout.UNLEARNING
            detail = f"its attack was compared with {relearning.retrained_name!r}, which was recreated"
            self._note(path, "stale", detail, self.repairs.attack(record))

    # --- unfinished work

    def _check_work(self) -> None:
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
