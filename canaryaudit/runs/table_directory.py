"""The run directory of an audit of a table: its rows, columns, canaries and linear models."""

import hashlib
from pathlib import Path

import numpy as np

from canaryaudit.errors import Damaged
from canaryaudit.records import TableManifest
from canaryaudit.records.tables import (
    LinearModelRecord,
    ReleasesRecord,
    TableMeasurement,
    TableRecord,
    TableUnlearningRecord,
)
from canaryaudit.runs import layout, seals
from canaryaudit.runs.sealed_run import SealedRun
from canaryaudit.runs.table_repairs import TableRepairs
from canaryaudit.storage.arrays import Arrays, arrays_bytes, read_arrays
from canaryaudit.storage.files import atomic_write, sha256_of
from canaryaudit.storage.json_records import record_json
from canaryaudit.storage.tensors import open_tensors

LOST_RELEASES = "restore it from a copy of the run; without it, start a new run, and count epsilon and delta of both"


class TableDirectory(SealedRun[TableManifest, LinearModelRecord, TableMeasurement, TableUnlearningRecord]):
    """The directory of one audit of a table; use ``create`` or ``open``."""

    kind = "table"
    repairs = TableRepairs
    manifest_type = TableManifest
    model_type = LinearModelRecord
    measurement_type = TableMeasurement
    unlearning_type = TableUnlearningRecord

    @classmethod
    def create(
        cls, path: Path, *, manifest: TableManifest, table: TableRecord, arrays: Arrays, replace: bool = False
    ) -> "TableDirectory":
        """Write a new run; on any failure nothing of it remains, and an older run is unchanged.

        Args:
            path: A directory that is missing, empty, or left unfinished by a killed ``create``.
            manifest: The run's provenance; the SHA-256 of the rows is filled in.
            table: What the columns, rows and canaries are.
            arrays: The rows.
            replace: Delete an existing run with everything made from it.

        Raises:
            RunDirectoryError: The directory holds something else, or a run; or cannot be written.
        """

        def stage(staging: Path) -> TableManifest:
            rows, record = arrays_bytes(arrays), record_json(table)
            atomic_write(staging / layout.ROWS, rows)
            atomic_write(staging / layout.TABLE, record)
            sealed = {layout.TABLE: (hashlib.sha256(record.encode("utf-8")).hexdigest(),)}
            facts = manifest.table.model_copy(update={"rows_sha256": hashlib.sha256(rows).hexdigest()})
            return manifest.model_copy(update={"table": facts, "records": sealed})

        run = cls(path)
        run.write_new(stage, replace=replace)
        return run

    def table(self) -> TableRecord:
        """Return what the columns, rows and canaries are."""
        return self._read(layout.TABLE, TableRecord, self.see_how)

    def rows(self) -> dict[str, np.ndarray]:
        """Return the rows' arrays, checked.

        Raises:
            RunDirectoryError: They are missing, or were changed.
        """
        path = self.path / layout.ROWS
        if not path.exists():
            raise Damaged(path, "it is missing", self.see_how)
        if sha256_of(path) != self.manifest.table.rows_sha256:
            raise Damaged(path, "it was changed since canaries were inserted", self.see_how)
        return read_arrays(path, self.see_how)

    def releases(self) -> ReleasesRecord | None:
        """Return what was published of the run; None if nothing was.

        Raises:
            RunDirectoryError: The record is damaged, or was changed or removed: nothing then says what was published.
        """
        path, records = self.path / layout.RELEASES, self.manifest.records
        actual = sha256_of(path) if path.exists() else seals.ABSENT
        state = seals.seal_state(records, layout.RELEASES, actual)
        if state == "unfinished":
            return None
        if state != "sealed":
            fault = "it is missing" if state == "deleted" else "it was changed"
            raise Damaged(path, f"{fault}, so nothing says how much was published", LOST_RELEASES)
        return self._read(layout.RELEASES, ReleasesRecord, LOST_RELEASES)

    def write_releases(self, record: ReleasesRecord) -> None:
        """Write what was published of the run."""
        self._write(layout.RELEASES, record)

    def write_curvature(self, arrays: Arrays) -> None:
        """Write the stored curvature of the trained model."""
        atomic_write(self.curvature_path, arrays_bytes(arrays, {"model": self.trained_model().sha256}))

    def curvature(self) -> dict[str, np.ndarray] | None:
        """Return the stored curvature; None if there is none of the present model."""
        if not self.curvature_path.exists():
            return None
        with open_tensors(self.curvature_path, "remove it, it is recreated when needed") as file:
            if (file.metadata() or {}).get("model") != self.trained_model().sha256:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}
