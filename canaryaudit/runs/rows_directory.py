"""The run directory of an audit of rows, whether of a table or of images: what every kind of rows does alike."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from canaryaudit.errors import Damaged
from canaryaudit.records.run import RowsManifest
from canaryaudit.runs.sealed_run import D, E, SealedRun, U
from canaryaudit.storage.arrays import Arrays, arrays_bytes, read_arrays
from canaryaudit.storage.files import atomic_write, sha256_of
from canaryaudit.storage.json_records import record_json

M = TypeVar("M", bound=RowsManifest)
R = TypeVar("R")


class RowsDirectory(SealedRun[M, D, E, U], Generic[M, D, E, U, R]):
    """The directory of one audit of rows; use ``create`` or ``open``.

    Attributes:
        record_file: What the rows and canaries are.
        rows_file: The rows.
        inserted: What an insertion did to them, for a message.
    """

    record_file: ClassVar[str]
    rows_file: ClassVar[str]
    inserted: ClassVar[str]
    record_type: type[R]

    @classmethod
    def create(cls, path: Path, *, manifest: M, record: R, arrays: Arrays, replace: bool = False) -> Self:
        """Write a new run; on any failure nothing of it remains, and an older run is unchanged.

        Args:
            path: A directory that is missing, empty, or left unfinished by a killed ``create``.
            manifest: The run's provenance; the SHA-256 of the rows is filled in.
            record: What the rows and canaries are.
            arrays: The rows.
            replace: Delete an existing run with everything made from it.

        Raises:
            RunDirectoryError: The directory holds something else, or a run; or cannot be written.
        """

        def stage(staging: Path) -> M:
            known: Any = record
            rows, text = arrays_bytes(arrays), record_json(known)
            atomic_write(staging / cls.rows_file, rows)
            atomic_write(staging / cls.record_file, text)
            sealed = {cls.record_file: (hashlib.sha256(text.encode("utf-8")).hexdigest(),)}
            facts = manifest.facts.model_copy(update={"rows_sha256": hashlib.sha256(rows).hexdigest()})
            return manifest.model_copy(update={cls.kind: facts, "records": sealed})

        run = cls(path)
        run.write_new(stage, replace=replace)
        return run

    def record(self) -> R:
        """Return what the rows and canaries are."""
        return self._read(self.record_file, self.record_type, self.see_how)

    def rows(self) -> dict[str, np.ndarray]:
        """Return the rows' arrays, checked.

        Raises:
            RunDirectoryError: They are missing, or were changed.
        """
        path = self.path / self.rows_file
        if not path.exists():
            raise Damaged(path, "it is missing", self.see_how)
        if sha256_of(path) != self.manifest.facts.rows_sha256:
            raise Damaged(path, f"it was changed since {self.inserted}", self.see_how)
        return read_arrays(path, self.see_how)
