"""Verify a run on rows: its rows, canaries and models; measurements are computed again from what they follow from."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from canaryaudit.errors import CanaryAuditError
from canaryaudit.records import ModelId
from canaryaudit.records.run import RowsManifest
from canaryaudit.runs.findings import PROBLEMS, State, Verification, Verifier, run_verifier
from canaryaudit.runs.rows_directory import RowsDirectory
from canaryaudit.storage.files import sha256_of

Shapes = dict[str, tuple[int, ...]]
AnyRows = RowsDirectory[Any, Any, Any, Any, Any]


@dataclass(frozen=True)
class RowsChecks:
    """How a kind of run on rows is verified.

    Attributes:
        verifier: Checks the files.
        figures: Returns what is wrong with a measurement's figures, or an empty text.
        shapes: Returns the shapes of the weights of a trained model's record, if the verifier does not know them.
    """

    verifier: type["RowsVerifier"]
    figures: Callable[[Any, Any], str]
    shapes: Callable[[Any], Shapes] | None = None


def verify_rows_run(
    path: Path,
    *,
    checks: RowsChecks,
    key: bytes | None = None,
    sign: bool = False,
    reseal: bool = False,
    is_locked: bool = False,
) -> Verification:
    """Check every file of the run directory of rows.

    Args:
        path: The run directory.
        checks: How.
        key: Of the signature, which must then be valid; None to leave it unchecked.
        sign: Sign the run with the key, if everything else is sound.
        reseal: Record the checksums of records that have none, if everything else is sound.
        is_locked: Whether the caller holds the run's lock.

    Raises:
        RunDirectoryError: It is not a run directory, or another command uses it.
    """
    verifier = checks.verifier(path, checks, None if sign else key, reseal=reseal)
    return run_verifier(verifier, key=key, sign=sign, is_locked=is_locked)


class RowsVerifier(Verifier):
    """Checks a run on rows.

    Attributes:
        directory: Its run directory.
        strange: What is wrong with rows whose checksum is another one.
        is_computable: Whether the rows and their record are sound, so figures can be computed again.
    """

    directory: ClassVar[type[AnyRows]]
    strange: ClassVar[str]
    run: AnyRows

    def __init__(self, path: Path, checks: RowsChecks, key: bytes | None, *, reseal: bool) -> None:
        super().__init__(self.directory(path), self.directory.repairs, key, reseal=reseal)
        self.checks = checks
        self.is_computable = False

    def check_inserted(self, manifest: RowsManifest) -> None:
        """Check the rows, and the record of what they are."""
        path, repair = self.path / self.run.rows_file, self.repairs.insert(self.run.rows_file)
        sound = self._is_there(path, repair)
        if sound:
            sound = sha256_of(path) == manifest.facts.rows_sha256
            self._note(path, *(("sound", "", "") if sound else ("damaged", self.strange, repair)))
        path, repair = self.path / self.run.record_file, self.repairs.insert(self.run.record_file)
        if self._is_there(path, repair) and self._is_sealed(path, repair):
            record = self._read(path, self.run.record, repair)
            if record is not None:
                self.note_record(record)
            self.is_computable = sound and record is not None

    @abstractmethod
    def note_record(self, record: Any) -> None:
        """Take what is needed from the sound record of the rows."""

    def measurement_fault(self, model: ModelId, measurement: Any) -> tuple[State, str]:
        """Compute a measurement's figures again."""
        if not self.is_computable or model not in self.models:
            return "sound", ""
        try:
            fault = self.checks.figures(self.run, measurement)
        except CanaryAuditError as error:
            if any(finding.state in PROBLEMS for finding in self.findings):  # what it needs is damaged, and noted
                return "sound", ""
            return "damaged", f"its figures cannot be computed again: {str(error).partition(': verify')[0]}"
        return ("damaged", fault) if fault else ("sound", "")

    def check_attack(self, name: str, record: Any) -> None:
        """Models of rows are not attacked by relearning."""
