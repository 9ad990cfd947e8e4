"""The `attack` command: train an unlearned model further and see what comes back."""

from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.cli.tables import relearning_view
from canaryaudit.plan import AttackOptions, MeasureOptions

AttackedName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Which unlearning. [default: the last that is no baseline]"),
]
AttackedCanaries = Annotated[
    list[str] | None,
    typer.Option("--canary", metavar="ID", help="Whom to attack; repeatable. [default: the most exposed before]"),
]
AttackSteps = Annotated[
    str, typer.Option("--steps", metavar="N,N…", help="Steps of training after which exposure is taken.")
]
AttackRate = Annotated[float, typer.Option("--learning-rate", metavar="RATE", help="The attacker's, of Adam.")]


DEFAULTS = AttackOptions()
STEPS = ",".join(map(str, DEFAULTS.steps))


def attack(
    context: typer.Context,
    run: flags.RunArgument,
    name: AttackedName = None,
    canary: AttackedCanaries = None,
    steps: AttackSteps = STEPS,
    learning_rate: AttackRate = DEFAULTS.learning_rate,
    samples: flags.Samples = flags.MEASURE.samples,
    probes: flags.Probes = flags.MEASURE.probes,
    prompt: flags.Prompts = None,
    device: flags.Device = DEFAULTS.device,
    seed: flags.Seed = DEFAULTS.seed,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Attack what was unlearned by training it further.

    Once on other text only, and once with one window of the secret's own text in every batch; each beside the same
    on a model retrained without the secret, which is trained first where there is none.
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
