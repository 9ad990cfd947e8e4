"""The run directory of an audit of images: rows, label canaries and networks."""

from canaryaudit.records import ImagesManifest
from canaryaudit.records.images import ImageMeasurement, ImageModelRecord, ImagesRecord, RelabelingRecord
from canaryaudit.runs import layout
from canaryaudit.runs.rows_directory import RowsDirectory
from canaryaudit.runs.rows_repairs import ImageRepairs


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
