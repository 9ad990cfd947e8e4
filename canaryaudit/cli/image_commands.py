"""What the commands do on a run on images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from canaryaudit.cli.console import (
    command_line,
    print_json,
    progress_reporter,
    shell_quote,
    show,
    show_image_report,
)
from canaryaudit.cli.image_views import image_insertion_document, image_measurement_view
from canaryaudit.errors import Damaged, Inconclusive
from canaryaudit.image_plan import ImageInsertOptions, ImageReportOptions, ImageTrainOptions, ImageUnlearnOptions
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.runs.image_directory import ImageDirectory

if TYPE_CHECKING:
    from canaryaudit.pipeline.images.pipeline import ImagePipeline


@contextmanager
def _opened(
    path: Path, context: typer.Context, output: dict[str, bool], *, reading: bool = False
) -> Iterator["ImagePipeline"]:
    """Open and lock the run directory of images and yield its pipeline, which tells of its progress."""
    with progress_reporter(output["quiet"], output["verbose"]) as progress:
        run = ImageDirectory.open(path)
        with run.lock(reading=reading):
            from canaryaudit.pipeline.images.pipeline import ImagePipeline

            yield ImagePipeline(run, command_line(context), progress)


def insert_images(
    context: typer.Context,
    options: ImageInsertOptions,
    path: Path,
    output: dict[str, bool],
    *,
    dry_run: bool,
    force: bool,
) -> None:
    """Flip labels in a set of images.

    Args:
        context: The command line's.
        options: What to flip.
        path: The run directory.
        output: The switches as_json, quiet and verbose.
        dry_run: Write nothing.
        force: Replace an existing run.
    """
    from canaryaudit.pipeline.images.insertion import find_image_run, image_sentences, make_image_run, plan_images

    with progress_reporter(output["quiet"], output["verbose"]) as progress:
        if dry_run:
            made = plan_images(options, progress)
        elif plan := None if force else find_image_run(path, options, progress):
            made = plan
            progress.info(f"{path} already exists, made from these images with these options: nothing was written.")
        else:
            made = make_image_run(path, options, command_line(context), progress, replace=force)
    if output["as_json"]:
        print_json(image_insertion_document(made.record, made.facts, None if dry_run else path))
        return
    show(*(Text(sentence) for sentence in image_sentences(made)))
    if not dry_run and not output["quiet"]:
        show(Text(f"Next: canaryaudit train {shell_quote(path)}"))


def train_images(
    context: typer.Context, run: Path, options: ImageTrainOptions, output: dict[str, bool], *, force: bool
) -> None:
    """Train a network on a run's images."""
    with _opened(run, context, output) as stages:
        record = stages.train(options, anew=force)
    if output["as_json"]:
        print_json(record)
    elif not output["quiet"]:
        show(Text(f"Next: canaryaudit unlearn {shell_quote(run)}"))


def measure_images(context: typer.Context, run: Path, model: str, device: str, output: dict[str, bool]) -> None:
    """Measure networks of a run."""
    with _opened(run, context, output) as stages:
        models = stages.session.models() if model == "all" else [ModelId.parse(model)]
        measured = [stages.measure(own, device) for own in models]
    if output["as_json"]:
        print_json([own.model_dump(mode="json") for own in measured] if model == "all" else measured[0])
    else:
        show(image_measurement_view(measured))


def unlearn_images(
    context: typer.Context, run: Path, options: ImageUnlearnOptions, output: dict[str, bool], *, force: bool
) -> None:
    """Correct labels of a network of a run."""
    with _opened(run, context, output) as stages:
        record = stages.unlearn(options, anew=force)
        measured = [stages.run.measurement(own) for own in (TRAINED_MODEL, ModelId(record.name))]
    if output["as_json"]:
        print_json(record)
        return
    show(image_measurement_view(measured))
    if not output["quiet"]:
        show(Text(f"Next: canaryaudit report {shell_quote(run)}"))


def report_images(context: typer.Context, run: Path, options: ImageReportOptions, output: dict[str, bool]) -> None:
    """Write the report of a run on images."""
    gated = options.fail_auc is not None
    try:
        with _opened(run, context, output, reading=True) as stages:
            summary, written = stages.report(options)
    except (Damaged, Inconclusive) as error:
        if not gated:
            raise
        from canaryaudit.pipeline.report_place import replace_earlier_report

        message = str(error) if isinstance(error, Inconclusive) else f"the gate cannot pass: {error}"
        replace_earlier_report(run, options.output, options.format, message)  # It may say that the gate passed.
        if isinstance(error, Inconclusive):
            raise
        raise Inconclusive(message) from error
    show_image_report(summary, written, as_json=output["as_json"], quiet=output["quiet"])
