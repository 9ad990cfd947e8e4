"""The `unlearn` command: remove secrets from a copy of the model."""

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
        help="Update: second-order or first-order. Baselines: retrain, fine-tune or sisa (sharded training).",
    ),
]
ScopeName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Layers to update: final-layer, all-layers or both. [default: all-layers, then final-layer if secrets are "
        "still distinguishable; final-layer for text and sampled]",
    ),
]
SolverChoice = Annotated[
    str,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="Solver for all layers: adam (many preconditioned steps); cg, lissa or kronecker (few Gauss-Newton steps; "
        "kronecker stores its curvature).",
    ),
]
Replacing = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="Replacement: decoys (random strings of the same format), sampled (from the model), text:WORDS (repeated "
        "or cut to length), or delete (the whole sentence; first-order only).",
    ),
]
Chosen = Annotated[
    list[str] | None, typer.Option("--canary", metavar="ID", help="Canary to unlearn; repeatable. [default: all]")
]
Start = Annotated[
    str,
    typer.Option(
        "--from", metavar="MODEL", help="Model to update: before, or after-NAME to continue from an earlier request."
    ),
]
ResultName = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the result. [default: the method]")]
MaxFidelityDrop = Annotated[
    float, typer.Option(metavar="SHARE", help="Largest allowed accuracy drop on training text outside the secrets.")
]
RetainWindows = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Windows of other text that regularize the update; 0: text sampled from the model instead.",
    ),
]
Tau = Annotated[
    float | None, typer.Option(metavar="LENGTH", help="Step size of the first-order update. [default: searched]")
]
Shards = Annotated[
    int | None, typer.Option(metavar="N", help="Number of shards for --method sisa, such as 5, 10 or 20. [default: 5]")
]
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing unlearning of the same name.")]


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
    force: Replace = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Remove secrets from a copy of the model.

    Missing training and measurements run first, and the updated copy is measured. The original model never changes.
    An update that exceeds the allowed accuracy drop is scaled back, or refused with status 4.
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
