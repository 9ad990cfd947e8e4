"""What the commands do on a run on images."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from canaryaudit.cli.image_views import image_insertion_document, image_measurement_view
from canaryaudit.cli.rows_commands import RowsCommands
from canaryaudit.runs.image_directory import ImageDirectory

if TYPE_CHECKING:
    from canaryaudit.pipeline.images.pipeline import ImagePipeline
    from canaryaudit.pipeline.rows.compare import RowsComparing
    from canaryaudit.pipeline.rows.insertion import RowsInsertion


def _pipeline() -> type["ImagePipeline"]:
    from canaryaudit.pipeline.images.pipeline import ImagePipeline

    return ImagePipeline


def _insertion() -> "RowsInsertion":
    from canaryaudit.pipeline.images.insertion import IMAGE_INSERTION

    return IMAGE_INSERTION


def _comparing() -> "RowsComparing":
    from canaryaudit.pipeline.images.compare import IMAGE_COMPARING

    return IMAGE_COMPARING


def _views() -> tuple[Callable[[Any], RenderableType], Callable[[Any], RenderableType]]:
    from canaryaudit.report.images.terminal import render_images_result, render_images_terminal

    return render_images_terminal, render_images_result


IMAGES = RowsCommands(
    ImageDirectory,
    _pipeline,
    _insertion,
    image_insertion_document,
    image_measurement_view,
    _views,
    _comparing,
    after_insert="train",
)
