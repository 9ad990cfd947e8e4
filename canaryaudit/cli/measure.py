"""The `measure` command: measure the exposure of every secret under a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canaryaudit.cli import flags
from canaryaudit.cli.console import open_pipeline, print_json, progress_reporter, show
from canaryaudit.cli.image_commands import IMAGES
from canaryaudit.cli.rows_commands import Shown
from canaryaudit.cli.run_kinds import refuse_others
from canaryaudit.cli.table_commands import TABLES
from canaryaudit.cli.tables import measurement_view
from canaryaudit.errors import Inconclusive, UsageError
from canaryaudit.plan import MeasureOptions
from canaryaudit.records import TRAINED_MODEL, Measurement, ModelId
from canaryaudit.runs.sealed_run import kind_of_run

if TYPE_CHECKING:
    from canaryaudit.pipeline.pipeline import Pipeline

ModelName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Model to measure: before, after-NAME or all; or hf:PATH, a causal model of transformers, in a folder or "
        "on the hub. A quoted pattern such as 'hf:out/checkpoint-*' measures a series.",
    ),
]
Adapter = Annotated[str, typer.Option(metavar="PATH", help="PEFT adapter (LoRA) to merge into the hf: model.")]
Dtype = Annotated[
    str, typer.Option(metavar="NAME", help="Weights of the hf: model: auto (as stored), float32, bfloat16 or float16.")
]
DeviceMap = Annotated[
    str, typer.Option(metavar="NAME", help="How accelerate spreads the hf: model over devices, such as auto.")
]
Estimators = Annotated[str, flags.option(MeasureOptions, "estimators", "NAME,NAME…")]
Budget = Annotated[int, flags.option(MeasureOptions, "search_budget", "N")]
PrecisionBits = Annotated[float, flags.option(MeasureOptions, "precision_bits", "BITS")]
TimeLimit = Annotated[float, flags.option(MeasureOptions, "time_limit", "SECONDS")]
MaxDraws = Annotated[int, flags.option(MeasureOptions, "max_draws", "N")]
DraftPrecision = Annotated[str, flags.option(MeasureOptions, "precision", "NAME")]
Scores = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Answers of a model behind an API to the texts that `requests` wrote."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with status 4 if the controls fail calibration.")]


_SCHEME = "hf:"
ESTIMATORS = ",".join(flags.MEASURE.estimators)


def measure(
    context: typer.Context,
    run: flags.RunArgument,
    model: ModelName = str(TRAINED_MODEL),
    adapter: Adapter = "",
    dtype: Dtype = "auto",
    device_map: DeviceMap = "",
    scores: Scores = None,
    samples: flags.Samples = flags.MEASURE.num_references,
    estimators: Estimators = ESTIMATORS,
    budget: Budget = flags.MEASURE.search_budget,
    precision_bits: PrecisionBits = flags.MEASURE.precision_bits,
    max_draws: MaxDraws = flags.MEASURE.max_draws,
    time_limit: TimeLimit = flags.MEASURE.time_limit,
    precision: DraftPrecision = flags.MEASURE.precision,
    probes: flags.Probes = flags.MEASURE.probes,
    prompt: flags.Prompts = None,
    strict: Strict = False,
    device: flags.Device = flags.MEASURE.device,
    seed: flags.Seed = flags.MEASURE.seed,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Measure the exposure of secrets, or a table's linear model.

    A model of transformers needs no train stage: --model hf:PATH measures it on the run's canaries. Its weights must
    be safetensors; no code that comes with it is run. It becomes the model that the report is about.

    Exposure is how highly the model ranks a secret among all strings of the same format, in bits. Check the
    controls first: secrets that were never inserted must average 1.44 bits. If they do not, trust no figure.

    "exact" is the rank itself and always right. "importance" is an unbiased estimate with an interval; trust it if
    its effective sample size is large, which the tool checks. "sampled" is right up to about log2 of the number of
    references; above that it is only a lower bound. "skew-normal" is the extrapolation from the literature. It is
    shown for comparison and never used as the headline.

    With several repetition counts, a second table shows how often a secret must occur to be memorized. -v adds the
    cost of guessing and sampling for an attacker.

    Each secret is also measured after other prompts ("probes"): after preceding text, with the prefix truncated,
    reworded or missing, and with part of the secret known. The worst case of each secret is compared with references
    under the same probes. Its p-value accounts for the number of probes.

    Of a linear model on a table, the residual, the loss beside a model fitted from nothing, accuracy and F1, and what
    it tells of flipped labels and planted values are measured. Of a network on images, accuracy and F1, and what it
    tells of flipped labels.

    Long measurements save their progress: rerun the command to resume.
    """
    kind = kind_of_run(run)
    if kind != "text":
        refuse_others(context, "measure", kind)
        shown = Shown(as_json, quiet, verbose)
        (IMAGES if kind == "images" else TABLES).measure(context, run, model, device, shown)
        return
    options = flags.checked(
        MeasureOptions,
        samples=samples,
        estimators=flags.words(estimators),
        budget=budget,
        precision_bits=precision_bits,
        max_draws=max_draws,
        time_limit=time_limit,
        precision=precision,
        probes=probes,
        prompt=tuple(prompt or ()),
        device=device,
        seed=seed,
    )
    with progress_reporter(quiet, verbose) as progress, open_pipeline(run, context, progress) as stages:
        measurements = _measured(stages, model, LoadingFlags(adapter, dtype, device_map, scores), options)
    if as_json:
        print_json([m.model_dump(mode="json") for m in measurements] if model == "all" else measurements[0])
    else:
        show(*(measurement_view(measurement, every=verbose) for measurement in measurements))
    if strict and any(m.calibration and not m.calibration.passed for m in measurements):
        raise Inconclusive("the controls failed calibration: do not rely on this measurement; see its calibration")


@dataclass(frozen=True)
class LoadingFlags:
    """Flags that say how a model outside the run is asked."""

    adapter: str
    dtype: str
    device_map: str
    scores: Path | None

    @property
    def of_transformers(self) -> bool:
        """Whether any belongs to a model of ``transformers``."""
        return bool(self.adapter or self.device_map or self.dtype != "auto")


def _measured(stages: "Pipeline", model: str, given: LoadingFlags, options: MeasureOptions) -> list[Measurement]:
    """Measure the model that was asked for, or all of the run's."""
    if given.scores is not None:
        if given.of_transformers or model != str(TRAINED_MODEL):
            raise UsageError("--scores measures answers: drop --model, --adapter, --dtype and --device-map")
        return [stages.measure_scores(given.scores, options)]
    if model.startswith(_SCHEME):
        from canaryaudit.models.huggingface import ModelSource

        source = ModelSource(model.removeprefix(_SCHEME), given.adapter, given.dtype, given.device_map)
        return [stages.measure_external(source, options)]
    if given.of_transformers:
        raise UsageError("--adapter, --dtype and --device-map belong to a model of transformers: add --model hf:PATH")
    models = stages.session.models() if model == "all" else [ModelId.parse(model)]
    return [stages.measure(name, options) for name in models]
