"""The run directory of an audit of a table: its rows, columns, canaries and linear models."""

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
from canaryaudit.runs.rows_directory import RowsDirectory
from canaryaudit.runs.rows_repairs import TableRepairs
from canaryaudit.storage.arrays import Arrays, arrays_bytes
from canaryaudit.storage.files import atomic_write, sha256_of
from canaryaudit.storage.tensors import open_tensors

LOST_RELEASES = "restore it from a copy of the run; without it, start a new run, and count epsilon and delta of both"


class TableDirectory(
    RowsDirectory[TableManifest, LinearModelRecord, TableMeasurement, TableUnlearningRecord, TableRecord]
):
    """The directory of one audit of a table; use ``create`` or ``open``."""

    kind = "table"
    record_file, rows_file, inserted = layout.TABLE, layout.ROWS, "canaries were inserted"
    repairs = TableRepairs
    manifest_type = TableManifest
    model_type = LinearModelRecord
    measurement_type = TableMeasurement
    unlearning_type = TableUnlearningRecord
    record_type = TableRecord

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
