"""The `train` command: train the character LSTM on a run's text."""

from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.plan import TrainOptions

Size = Annotated[str, typer.Option(metavar="NAME", help="Model size: small (1 x 512 LSTM units) or paper (2 x 512).")]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", help="Passes over the text. [default: 24 for small, 40 for paper]")
]
TargetAccuracy = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Stop once this share of training characters is predicted.")
]
Precision = Annotated[str, typer.Option(metavar="NAME", help="Training precision: auto, fp32 or bf16.")]
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
