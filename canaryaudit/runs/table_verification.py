"""Verify a run on a table: its rows, columns and models; a residual is computed again from the rows and requests."""

from collections.abc import Callable
from pathlib import Path

from canaryaudit.errors import CanaryAuditError, Damaged
from canaryaudit.records import TRAINED_MODEL, ModelId, TableManifest
from canaryaudit.records.tables import LinearModelRecord, ReleasesRecord, TableMeasurement, TableUnlearningRecord
from canaryaudit.runs import layout, seals
from canaryaudit.runs.findings import PROBLEMS, State, Verification, Verifier, run_verifier
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.runs.table_repairs import TableRepairs
from canaryaudit.storage.files import sha256_of
from canaryaudit.storage.json_records import read_record

ResidualCheck = Callable[[TableDirectory, TableMeasurement], str]
"""Returns what is wrong with a measurement's figures, or an empty text."""


def verify_table_run(
    path: Path,
    *,
    check: ResidualCheck,
    key: bytes | None = None,
    sign: bool = False,
    reseal: bool = False,
    is_locked: bool = False,
) -> Verification:
    """Check every file of the run directory of a table.

    Args:
        path: The run directory.
        check: Computes a measurement's figures again.
        key: Of the signature, which must then be valid; None to leave it unchecked.
        sign: Sign the run with the key, if everything else is sound.
        reseal: Record the checksums of records that have none, if everything else is sound.
        is_locked: Whether the caller holds the run's lock.

    Raises:
        RunDirectoryError: It is not a run directory, or another command uses it.
    """
    verifier = _TableVerifier(path, check, None if sign else key, reseal=reseal)
    return run_verifier(verifier, key=key, sign=sign, is_locked=is_locked)


class _TableVerifier(Verifier):
    """Checks a run on a table."""

    precision = "F64"
    run: TableDirectory

    def __init__(self, path: Path, check: ResidualCheck, key: bytes | None, *, reseal: bool) -> None:
        super().__init__(TableDirectory(path), TableRepairs, key, reseal=reseal)
        self.check_figures = check
        self.columns: int | None = None
        self.models_in_one = 1
        self.is_computable = False

    def check_inserted(self, manifest: TableManifest) -> None:
        """Check the rows, and the record of columns and canaries."""
        path, repair = self.path / layout.ROWS, self.repairs.insert(layout.ROWS)
        sound = self._is_there(path, repair)
        if sound:
            sound = sha256_of(path) == manifest.table.rows_sha256
            fault = "it is not the table that canaries were inserted into"
            self._note(path, *(("sound", "", "") if sound else ("damaged", fault, repair)))
        path, repair = self.path / layout.TABLE, self.repairs.insert(layout.TABLE)
        if self._is_there(path, repair) and self._is_sealed(path, repair):
            table = self._read(path, self.run.table, repair)
            if table:
                self.columns = len(table.columns)
                self.models_in_one = 1 if len(table.classes) == 2 else len(table.classes)
            self.is_computable = sound and table is not None

    def shapes(
        self,
        model: LinearModelRecord,
        unlearning: TableUnlearningRecord | None = None,  # noqa: ARG002
    ) -> dict[str, tuple[int, ...]] | None:
        """Return the shape of the coefficients, the intercept's last."""
        if self.columns is None:
            return None
        return {"theta": (self.models_in_one * (self.columns + int(model.intercept_penalty is not None)),)}

    def measurement_fault(self, model: ModelId, measurement: TableMeasurement) -> tuple[State, str]:
        """Compute a measurement's residual again."""
        if not self.is_computable or model not in self.models:
            return "sound", ""
        try:
            fault = self.check_figures(self.run, measurement)
        except CanaryAuditError as error:
            if any(finding.state in PROBLEMS for finding in self.findings):  # what it needs is damaged, and noted
                return "sound", ""
            return "damaged", f"its figures cannot be computed again: {str(error).partition(': verify')[0]}"
        return ("damaged", fault) if fault else ("sound", "")

    def unlearning_fault(self, record: TableUnlearningRecord) -> tuple[State, str]:
        """Compare a request with its own tolerance."""
        if self.trained and record.tolerance != self.trained.tolerance:
            return "damaged", "its tolerance is not the model's"
        if record.residual > record.tolerance:
            return "damaged", "its residual is above the tolerance"
        return "sound", ""

    def check_attack(self, name: str, record: TableUnlearningRecord) -> None:
        """Linear models are not attacked by relearning."""

    def check_work(self) -> None:
        """Check the record of what was published, and the stored curvature."""
        self._check_releases()
        path = self.run.curvature_path
        if not path.exists():
            return
        try:
            stored = self.run.curvature() if TRAINED_MODEL in self.models else {}
        except Damaged as error:
            self._note(path, "damaged", error.fault, "", path)
            return
        except CanaryAuditError:
            stored = {}
        if stored is None:
            self._note(path, "stale", "it is the curvature of a replaced model", "", path)
        else:
            self._note(path, "sound")

    def _check_releases(self) -> None:
        """Check what was published; nothing recreates it, so it is never to be removed."""
        path = self.path / layout.RELEASES
        if self._is_deleted(path):
            self._note(path, "missing", "it says what was published, and no command recreates it")
            return
        if not path.exists():
            return
        state = seals.seal_state(self.records, layout.RELEASES, sha256_of(path))
        if state == "changed":
            self._note(path, "damaged", "it was changed: it does not match its checksum, and no command recreates it")
        elif state == "sealed" or self._is_sealed(path, ""):
            try:
                read_record(path, ReleasesRecord, "")
            except CanaryAuditError as error:
                fault = error.fault if isinstance(error, Damaged) else str(error).partition(":")[0]
                self._note(path, "damaged", fault)
            else:
                self._note(path, "sound")
