"""The run directory of an audit of images: rows, label canaries and networks."""

import hashlib
from pathlib import Path

import numpy as np

from canaryaudit.errors import Damaged
from canaryaudit.records import ImagesManifest
from canaryaudit.records.images import ImageMeasurement, ImageModelRecord, ImagesRecord, RelabelingRecord
from canaryaudit.runs import layout
from canaryaudit.runs.sealed_run import SealedRun
from canaryaudit.runs.table_repairs import TableRepairs
from canaryaudit.storage.arrays import Arrays, arrays_bytes, read_arrays
from canaryaudit.storage.files import atomic_write, sha256_of
from canaryaudit.storage.json_records import record_json


class ImageRepairs(TableRepairs):
    """The commands that recreate the files of a run on images; the options come from the manifest."""

    def _known_flags(self) -> list[str]:
        facts = getattr(self.manifest, "images", None)
        if facts is None:
            return ["--image", "COLUMN", "--target", "COLUMN"]
        named = ["--image", facts.image, "--target", facts.target]
        return [*named, "--holdout", f"{facts.holdout:g}", "--seed", str(facts.seed)]


class ImageDirectory(SealedRun[ImagesManifest, ImageModelRecord, ImageMeasurement, RelabelingRecord]):
    """The directory of one audit of images; use ``create`` or ``open``."""

    kind = "images"
    repairs = ImageRepairs
    manifest_type = ImagesManifest
    model_type = ImageModelRecord
    measurement_type = ImageMeasurement
    unlearning_type = RelabelingRecord

    @classmethod
    def create(
        cls, path: Path, *, manifest: ImagesManifest, record: ImagesRecord, arrays: Arrays, replace: bool = False
    ) -> "ImageDirectory":
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

        def stage(staging: Path) -> ImagesManifest:
            rows, text = arrays_bytes(arrays), record_json(record)
            atomic_write(staging / layout.PIXELS, rows)
            atomic_write(staging / layout.IMAGES, text)
            sealed = {layout.IMAGES: (hashlib.sha256(text.encode("utf-8")).hexdigest(),)}
            facts = manifest.images.model_copy(update={"rows_sha256": hashlib.sha256(rows).hexdigest()})
            return manifest.model_copy(update={"images": facts, "records": sealed})

        run = cls(path)
        run.write_new(stage, replace=replace)
        return run

    def images(self) -> ImagesRecord:
        """Return what the rows and canaries are."""
        return self._read(layout.IMAGES, ImagesRecord, self.see_how)

    def rows(self) -> dict[str, np.ndarray]:
        """Return the rows' arrays, checked.

        Raises:
            RunDirectoryError: They are missing, or were changed.
        """
        path = self.path / layout.PIXELS
        if not path.exists():
            raise Damaged(path, "it is missing", self.see_how)
        if sha256_of(path) != self.manifest.images.rows_sha256:
            raise Damaged(path, "it was changed since labels were flipped", self.see_how)
        return read_arrays(path, self.see_how)
