"""Verify a run on a table: its rows, columns and models, what was published, and the stored curvature."""

from pathlib import Path

from canaryaudit.errors import CanaryAuditError, Damaged
from canaryaudit.records import TRAINED_MODEL
from canaryaudit.records.tables import LinearModelRecord, ReleasesRecord, TableRecord, TableUnlearningRecord
from canaryaudit.runs import layout, seals
from canaryaudit.runs.findings import State
from canaryaudit.runs.rows_verification import RowsChecks, RowsVerifier, Shapes
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.storage.files import sha256_of
from canaryaudit.storage.json_records import read_record


class TableVerifier(RowsVerifier):
    """Checks a run on a table."""

    directory = TableDirectory
    strange = "it is not the table that canaries were inserted into"
    precision = "F64"
    run: TableDirectory

    def __init__(self, path: Path, checks: RowsChecks, key: bytes | None, *, reseal: bool) -> None:
        super().__init__(path, checks, key, reseal=reseal)
        self.columns: int | None = None
        self.models_in_one = 1

    def note_record(self, record: TableRecord) -> None:
        """Note how many coefficients a model has."""
        self.columns = len(record.columns)
        self.models_in_one = 1 if len(record.classes) == 2 else len(record.classes)

    def shapes(
        self,
        model: LinearModelRecord,
        unlearning: TableUnlearningRecord | None = None,  # noqa: ARG002
    ) -> Shapes | None:
        """Return the shape of the coefficients, the intercept's last."""
        if self.columns is None:
            return None
        return {"theta": (self.models_in_one * (self.columns + int(model.intercept_penalty is not None)),)}

    def unlearning_fault(self, record: TableUnlearningRecord) -> tuple[State, str]:
        """Compare a request with its own tolerance."""
        if self.trained and record.tolerance != self.trained.tolerance:
            return "damaged", "its tolerance is not the model's"
        if record.residual > record.tolerance:
            return "damaged", "its residual is above the tolerance"
        return "sound", ""

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
