"""The `unlearn` command: make a copy of the model that has forgotten secrets."""

from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.cli.tables import measurement_view
from canaryaudit.plan import MeasureOptions, UnlearnOptions

MethodName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="second-order or first-order; to compare with: retrain, fine-tune or sisa (training by shards).",
    ),
]
ScopeName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="final-layer, all-layers or both. [default: all-layers, then final-layer where secrets still stand out; "
        "of text and sampled, final-layer]",
    ),
]
SolverChoice = Annotated[
    str,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="Steps over all layers: adam (many, preconditioned); cg, lissa or kronecker (few, Gauss-Newton; the last "
        "by a curvature that is stored).",
    ),
]
Replacing = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="decoys (fresh draws of the secret's own format), sampled (what the model would say instead), text:WORDS "
        "(repeated or cut to the secret's length), or delete (its whole sentence; first-order only).",
    ),
]
Chosen = Annotated[
    list[str] | None, typer.Option("--canary", metavar="ID", help="Which to unlearn; repeatable. [default: all]")
]
Start = Annotated[
    str,
    typer.Option(
        "--from", metavar="MODEL", help="Which model to update: before, or after-NAME to go on from an earlier request."
    ),
]
ResultName = Annotated[str | None, typer.Option(metavar="NAME", help="What to call the result. [default: the method]")]
MaxFidelityDrop = Annotated[
    float, typer.Option(metavar="SHARE", help="Largest drop of accuracy on training text outside the secrets.")
]
RetainWindows = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Windows of other text that hold the model to what it was; 0: none, but text that the model itself says.",
    ),
]
Tau = Annotated[
    float | None, typer.Option(metavar="LENGTH", help="Step of the first-order update. [default: searched]")
]
Shards = Annotated[
    int | None, typer.Option(metavar="N", help="Parts that --method sisa trains by, such as 5, 10 or 20. [default: 5]")
]
UnlearnAnew = Annotated[bool, typer.Option("--force", help="Replace an unlearning of the same name.")]


DEFAULTS = UnlearnOptions()


def unlearn(
    context: typer.Context,
    run: flags.RunArgument,
    method: MethodName = DEFAULTS.method,
    scope: ScopeName = None,
    solver: SolverChoice = DEFAULTS.solver,
    replacement: Replacing = DEFAULTS.replacement,
    canary: Chosen = None,
    start: Start = DEFAULTS.start,
    name: ResultName = None,
    max_fidelity_drop: MaxFidelityDrop = DEFAULTS.max_fidelity_drop,
    retain_windows: RetainWindows = DEFAULTS.retain_windows,
    tau: Tau = None,
    shards: Shards = None,
    samples: flags.Samples = flags.MEASURE.samples,
    probes: flags.Probes = flags.MEASURE.probes,
    prompt: flags.Prompts = None,
    device: flags.Device = DEFAULTS.device,
    seed: flags.Seed = DEFAULTS.seed,
    force: UnlearnAnew = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Make a copy of the model that has forgotten secrets.

    Trains and measures first where that has not been done, and measures the copy afresh. The original model is
    never changed. An update that would cost more accuracy than is allowed is scaled back, or refused with status 4.
    """
    options = flags.checked(
        UnlearnOptions,
        name=name,
        method=method,
        scope=scope,
        solver=solver,
        replacement=replacement,
        canary=tuple(canary or ()),
        start=start,
        retain_windows=retain_windows,
        max_fidelity_drop=max_fidelity_drop,
        tau=tau,
        shards=shards,
        device=device,
        seed=seed,
    )
    measuring = flags.checked(MeasureOptions, samples=samples, probes=probes, prompt=tuple(prompt or ()), device=device)
    with progress_reporter(quiet, verbose) as progress, open_pipeline(run, context, progress) as stages:
        record = stages.unlearn(options, measuring, anew=force)
        measurement = stages.run.measurement(f"after-{record.name}")
    if as_json:
        print_json(record)
        return
    show(measurement_view(measurement, every=verbose))
    if not quiet:
        show(Text(f"Next: canaryaudit report {shell_quote(run)}"))
