"""How runs on images are compared."""

from canaryaudit.pipeline.images.pipeline import ImagePipeline
from canaryaudit.pipeline.rows.compare import RowsComparing
from canaryaudit.report.images.comparison import IMAGES_VIEW, compare_images, read_images_report
from canaryaudit.runs.image_directory import ImageDirectory

IMAGE_COMPARING = RowsComparing(
    ImageDirectory, ImagePipeline, read_images_report, compare_images, IMAGES_VIEW, needed={}
)
