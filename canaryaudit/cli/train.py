"""The `train` command: train the character LSTM on a run's text."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.cli.image_commands import IMAGES
from canaryaudit.cli.rows_commands import Shown
from canaryaudit.cli.run_kinds import refuse_others
from canaryaudit.cli.table_commands import TABLES
from canaryaudit.image_plan import ImageTrainOptions
from canaryaudit.plan import TrainOptions
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.table_plan import TableTrainOptions

Size = Annotated[str, flags.option(TrainOptions, "size", "NAME")]
Epochs = Annotated[int | None, flags.option(TrainOptions, "epochs", "N")]
TargetAccuracy = Annotated[float | None, flags.option(TrainOptions, "target_accuracy", "SHARE")]
Precision = Annotated[str, flags.option(TrainOptions, "precision", "NAME")]
Loss = Annotated[str, flags.option(TableTrainOptions, "loss", "NAME")]
C = Annotated[float, flags.option(TableTrainOptions, "c", "C", "--c")]
Intercept = Annotated[bool, flags.option(TableTrainOptions, "intercept", None, "--intercept/--no-intercept")]
Given = Annotated[Path | None, flags.option(TableTrainOptions, "model", "FILE", "--model")]
Tolerance = Annotated[float, flags.option(TableTrainOptions, "tolerance", "X")]
Filters = Annotated[str | None, flags.option(ImageTrainOptions, "filters", "N,N…")]
Dense = Annotated[int, flags.option(ImageTrainOptions, "dense", "N")]
LearningRate = Annotated[float, flags.option(ImageTrainOptions, "learning_rate", "X")]
BatchSize = Annotated[int, flags.option(ImageTrainOptions, "batch_size", "N")]
Retrain = Annotated[bool, typer.Option("--force", help="Retrain even if a model exists.")]


DEFAULTS = TrainOptions()
TABLE_DEFAULTS = TableTrainOptions()
IMAGE_DEFAULTS = ImageTrainOptions()


def train(
    context: typer.Context,
    run: flags.RunArgument,
    size: Size = DEFAULTS.size,
    epochs: Epochs = None,
    target_accuracy: TargetAccuracy = None,
    device: flags.Device = DEFAULTS.device,
    precision: Precision = DEFAULTS.precision,
    seed: flags.Seed = DEFAULTS.seed,
    loss: Loss = TABLE_DEFAULTS.loss,
    c: C = TABLE_DEFAULTS.c,
    intercept: Intercept = TABLE_DEFAULTS.intercept,
    model: Given = None,
    tolerance: Tolerance = TABLE_DEFAULTS.tolerance,
    filters: Filters = None,
    dense: Dense = IMAGE_DEFAULTS.dense,
    learning_rate: LearningRate = IMAGE_DEFAULTS.learning_rate,
    batch_size: BatchSize = IMAGE_DEFAULTS.batch_size,
    force: Retrain = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Train the LSTM, or a model on a table or on images.

    Rerun the command to resume an interrupted training.
    """
    kind = kind_of_run(run)
    refuse_others(context, "train", kind)
    shown = Shown(as_json, quiet, verbose)
    if kind == "images":
        image_options = flags.checked(
            ImageTrainOptions,
            **({} if epochs is None else {"epochs": epochs}),
            filters=flags.numbers("--filters", filters) if filters else (),
            dense=dense,
            learning_rate=learning_rate,
            batch_size=batch_size,
            device=device,
            precision=precision,
            seed=seed,
        )
        IMAGES.train(context, run, image_options, shown, force=force)
        return
    if kind == "table":
        table_options = flags.checked(
            TableTrainOptions, loss=loss, c=c, intercept=intercept, model=model, tolerance=tolerance
        )
        TABLES.train(context, run, table_options, shown, force=force)
        return
    options = flags.checked(
        TrainOptions,
        size=size,
        epochs=epochs,
        target_accuracy=target_accuracy,
        device=device,
        precision=precision,
        seed=seed,
    )
    with progress_reporter(quiet, verbose) as progress, open_pipeline(run, context, progress) as stages:
        record = stages.train(options, anew=force)
    if as_json:
        print_json(record)
    elif not quiet:
        show(Text(f"Next: canaryaudit unlearn {shell_quote(run)}"))
