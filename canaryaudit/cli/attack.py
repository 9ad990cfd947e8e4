"""The `attack` command: train an unlearned model further and measure whether its secrets come back."""

from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.cli.tables import relearning_view
from canaryaudit.plan import AttackOptions, MeasureOptions

AttackedName = Annotated[str | None, flags.option(AttackOptions, "name", "NAME")]
AttackedCanaries = Annotated[list[str] | None, flags.option(AttackOptions, "canary", "ID", "--canary")]
AttackSteps = Annotated[str, flags.option(AttackOptions, "steps", "N,N…")]
AttackRate = Annotated[float, flags.option(AttackOptions, "learning_rate", "RATE")]


DEFAULTS = AttackOptions()
STEPS = ",".join(map(str, DEFAULTS.steps))


def attack(
    context: typer.Context,
    run: flags.RunArgument,
    name: AttackedName = None,
    canary: AttackedCanaries = None,
    steps: AttackSteps = STEPS,
    learning_rate: AttackRate = DEFAULTS.learning_rate,
    samples: flags.Samples = flags.MEASURE.num_references,
    probes: flags.Probes = flags.MEASURE.probes,
    prompt: flags.Prompts = None,
    device: flags.Device = DEFAULTS.device,
    seed: flags.Seed = DEFAULTS.seed,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Attack an unlearned model by training it further.

    Two attacks run: one trains on other text only, the other adds one window of the secret's text to every batch.
    Each is compared with the same attack on a model retrained without the secret. If there is no such model, it is
    trained first.

    The result of unlearning from a model of transformers is attacked in the same way, in memory. The checkpoint that
    it is compared with is yours: add it with unlearn --method retrain --model hf:PATH.
    """
    options = flags.checked(
        AttackOptions,
        name=name,
        canary=tuple(canary or ()),
        steps=flags.numbers("--steps", steps),
        learning_rate=learning_rate,
        device=device,
        seed=seed,
    )
    measuring = flags.checked(MeasureOptions, samples=samples, probes=probes, prompt=tuple(prompt or ()), device=device)
    with progress_reporter(quiet, verbose) as progress, open_pipeline(run, context, progress) as stages:
        record = stages.attack(options, measuring)
    if as_json:
        print_json(record)
        return
    show(relearning_view(record))
    if not quiet:
        show(Text(f"Next: canaryaudit report {shell_quote(run)}"))
