"""The `unlearn` command: remove secrets from a copy of the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, shell_quote, show
from canaryaudit.cli.image_commands import IMAGES
from canaryaudit.cli.rows_commands import Shown
from canaryaudit.cli.run_kinds import refuse_others
from canaryaudit.cli.table_commands import TABLES
from canaryaudit.cli.tables import measurement_view
from canaryaudit.errors import UsageError
from canaryaudit.image_plan import DEFAULT_METHOD, ImageUnlearnOptions
from canaryaudit.plan import MeasureOptions, UnlearnOptions
from canaryaudit.records import ModelId
from canaryaudit.runs.sealed_run import kind_of_run
from canaryaudit.table_plan import TableUnlearnOptions

if TYPE_CHECKING:
    from canaryaudit.pipeline.unlearn_external import CheckpointRequest

IMAGE_METHODS = (
    f" Of a network on images: {DEFAULT_METHOD} (default), blocks, output-layer, second-order-dense, and all of these "
    "but sisa."
)
MethodName = Annotated[str, flags.option(UnlearnOptions, "method", "NAME", more=IMAGE_METHODS)]
ScopeName = Annotated[str | None, flags.option(UnlearnOptions, "scope", "NAME")]
SolverChoice = Annotated[str, flags.option(UnlearnOptions, "solver", "NAME")]
Replacing = Annotated[str, flags.option(UnlearnOptions, "replacement", "WHAT")]
Chosen = Annotated[list[str] | None, flags.option(UnlearnOptions, "canary", "ID", "--canary")]
Start = Annotated[str, flags.option(UnlearnOptions, "start", "MODEL", "--from")]
ResultName = Annotated[str | None, flags.option(UnlearnOptions, "name", "NAME")]
MaxFidelityDrop = Annotated[float, flags.option(UnlearnOptions, "max_fidelity_drop", "SHARE")]
RetainWindows = Annotated[int, flags.option(UnlearnOptions, "retain_windows", "N")]
Tau = Annotated[float | None, flags.option(UnlearnOptions, "tau", "LENGTH")]
Shards = Annotated[int | None, flags.option(UnlearnOptions, "shards", "N")]
CheckpointModel = Annotated[
    str | None,
    typer.Option("--model", metavar="hf:PATH", help="Model of transformers to update. [default: the measured one]"),
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for the updated checkpoint of hf:PATH.")
]
Adapter = Annotated[
    str, typer.Option(metavar="FOLDER", help="PEFT adapter to merge into the hf: model before it is updated.")
]
Columns = Annotated[list[str] | None, flags.option(TableUnlearnOptions, "columns", "NAMES")]
NewValues = Annotated[list[str] | None, flags.option(TableUnlearnOptions, "replace", "COLUMN=VALUE")]
Where = Annotated[list[str] | None, flags.option(TableUnlearnOptions, "where", "CONDITION")]
Relabel = Annotated[Path | None, flags.option(TableUnlearnOptions, "relabel", "FILE")]
Save = Annotated[Path | None, flags.option(TableUnlearnOptions, "save", "FILE")]
RowFile = Annotated[Path | None, flags.option(TableUnlearnOptions, "rows", "FILE")]
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing unlearning of the same name.")]


DEFAULTS = UnlearnOptions()
_SCHEME = "hf:"


def unlearn(
    context: typer.Context,
    run: flags.RunArgument,
    method: MethodName = DEFAULTS.method,
    scope: ScopeName = None,
    solver: SolverChoice = DEFAULTS.solver,
    replacement: Replacing = DEFAULTS.replacement,
    canary: Chosen = None,
    start: Start = str(DEFAULTS.start),
    name: ResultName = None,
    max_fidelity_drop: MaxFidelityDrop = DEFAULTS.max_fidelity_drop,
    retain_windows: RetainWindows = DEFAULTS.retain_windows,
    tau: Tau = None,
    shards: Shards = None,
    model: CheckpointModel = None,
    output: Output = None,
    adapter: Adapter = "",
    samples: flags.Samples = flags.MEASURE.num_references,
    probes: flags.Probes = flags.MEASURE.probes,
    prompt: flags.Prompts = None,
    device: flags.Device = DEFAULTS.device,
    seed: flags.Seed = DEFAULTS.seed,
    columns: Columns = None,
    replace: NewValues = None,
    where: Where = None,
    relabel: Relabel = None,
    rows: RowFile = None,
    save: Save = None,
    force: Replace = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Remove secrets from a model, or parts of a table.

    Missing training and measurements run first, and the updated copy is measured. The original model never changes.
    An update that exceeds the allowed accuracy drop is scaled back, or refused with status 4.

    A model of transformers is updated with --model hf:PATH -o FOLDER: a new checkpoint is written, tokenizer included.
    A checkpoint that you retrained without the canaries is added as a baseline by --method retrain --model hf:PATH.

    From the linear model of a table, columns, values, labels and rows are removed in one request, and requests chain
    with --from. Without flags, what `insert` named and planted is removed. Where a fit from nothing is less work than
    an update, it is done instead.

    In a network on images, labels are corrected: all that were flipped, or those of --relabel FILE.
    """
    kind = kind_of_run(run)
    refuse_others(context, "unlearn", kind)
    shown = Shown(as_json, quiet, verbose)
    if kind == "images":
        given = context.get_parameter_source("method")
        image_options = flags.checked(
            ImageUnlearnOptions,
            name=name,
            method=method if given and given.name == "COMMANDLINE" else DEFAULT_METHOD,
            relabel=relabel,
            canary=tuple(canary or ()),
            **{"from": start},
            device=device,
            seed=seed,
        )
        IMAGES.unlearn(context, run, image_options, shown, force=force)
        return
    if kind == "table":
        table_options = flags.checked(
            TableUnlearnOptions,
            name=name,
            method=method,
            columns=tuple(columns or ()),
            replace=tuple(replace or ()),
            where=tuple(where or ()),
            relabel=relabel,
            rows=rows,
            save=save,
            canary=tuple(canary or ()),
            **{"from": start},
            seed=seed,
        )
        TABLES.unlearn(context, run, table_options, shown, force=force)
        return
    if adapter and model is None:
        raise UsageError("--adapter belongs to a model of transformers: add --model hf:PATH")
    options = flags.checked(
        UnlearnOptions,
        name=name,
        method=method,
        scope=scope,
        solver=solver,
        replacement=replacement,
        canary=tuple(canary or ()),
        **{"from": start},
        retain_windows=retain_windows,
        max_fidelity_drop=max_fidelity_drop,
        tau=tau,
        shards=shards,
        device=device,
        seed=seed,
    )
    measuring = flags.checked(MeasureOptions, samples=samples, probes=probes, prompt=tuple(prompt or ()), device=device)
    with progress_reporter(quiet, verbose) as progress, open_pipeline(run, context, progress) as stages:
        if model is None and output is None and not stages.run.external_model():
            record = stages.unlearn(options, measuring, anew=force)
        else:
            record = stages.unlearn_checkpoint(options, _request(model, adapter, output), measuring, anew=force)
        measurement = stages.run.measurement(ModelId(record.name))
    if as_json:
        print_json(record)
        return
    show(measurement_view(measurement, every=verbose))
    if not quiet:
        show(Text(f"Next: canaryaudit report {shell_quote(run)}"))


def _request(model: str | None, adapter: str, output: Path | None) -> "CheckpointRequest":
    from canaryaudit.models.huggingface import ModelSource
    from canaryaudit.pipeline.unlearn_external import CheckpointRequest

    if model is None:
        return CheckpointRequest(output=output)
    if not model.startswith(_SCHEME) or any(sign in model for sign in "*?["):
        raise UsageError(f"--model {model}: expected hf: and the folder or hub id of one model of transformers")
    return CheckpointRequest(ModelSource(model.removeprefix(_SCHEME), adapter), output)
