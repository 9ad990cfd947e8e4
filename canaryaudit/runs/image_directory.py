"""The run directory of an audit of images: rows, label canaries and networks."""

from canaryaudit.records import ImagesManifest
from canaryaudit.records.images import ImageMeasurement, ImageModelRecord, ImagesRecord, RelabelingRecord
from canaryaudit.runs import layout
from canaryaudit.runs.rows_directory import RowsDirectory
from canaryaudit.runs.table_repairs import TableRepairs


class ImageRepairs(TableRepairs):
    """The commands that recreate the files of a run on images; the options come from the manifest."""

    def _known_flags(self) -> list[str]:
        facts = getattr(self.manifest, "images", None)
        if facts is None:
            return ["--image", "COLUMN", "--target", "COLUMN"]
        named = ["--image", facts.image, "--target", facts.target]
        return [*named, "--holdout", f"{facts.holdout:g}", "--seed", str(facts.seed)]


class ImageDirectory(RowsDirectory[ImagesManifest, ImageModelRecord, ImageMeasurement, RelabelingRecord, ImagesRecord]):
    """The directory of one audit of images; use ``create`` or ``open``."""

    kind = "images"
    record_file, rows_file, inserted = layout.IMAGES, layout.PIXELS, "labels were flipped"
    repairs = ImageRepairs
    manifest_type = ImagesManifest
    model_type = ImageModelRecord
    measurement_type = ImageMeasurement
    unlearning_type = RelabelingRecord
    record_type = ImagesRecord
