"""The `train` command: train the character LSTM on a run's text."""

from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.plan import TrainOptions

Size = Annotated[str, flags.option(TrainOptions, "size", "NAME")]
Epochs = Annotated[int | None, flags.option(TrainOptions, "epochs", "N")]
TargetAccuracy = Annotated[float | None, flags.option(TrainOptions, "target_accuracy", "SHARE")]
Precision = Annotated[str, flags.option(TrainOptions, "precision", "NAME")]
Retrain = Annotated[bool, typer.Option("--force", help="Retrain even if a model exists.")]


DEFAULTS = TrainOptions()


def train(
    context: typer.Context,
    run: flags.RunArgument,
    size: Size = DEFAULTS.size,
    epochs: Epochs = None,
    target_accuracy: TargetAccuracy = None,
    device: flags.Device = DEFAULTS.device,
    precision: Precision = DEFAULTS.precision,
    seed: flags.Seed = DEFAULTS.seed,
    force: Retrain = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Train the character LSTM on a run's text.

    Rerun the command to resume an interrupted training.
    """
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
