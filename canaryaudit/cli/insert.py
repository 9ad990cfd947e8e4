"""The `insert` command: insert canaries into a corpus, or locate secrets in it."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from canaryaudit.canaries.insertion import InsertionPlan
from canaryaudit.cli import flags
from canaryaudit.cli.console import command_line, print_json, progress_reporter, shell_quote, show
from canaryaudit.cli.image_commands import IMAGES
from canaryaudit.cli.rows_commands import Shown
from canaryaudit.cli.run_kinds import refuse_others
from canaryaudit.cli.table_commands import TABLES
from canaryaudit.cli.tables import plan_view
from canaryaudit.errors import UsageError
from canaryaudit.image_plan import ImageInsertOptions
from canaryaudit.pipeline.insert import export_data, find_run, make_run, plan_run, read_secrets
from canaryaudit.plan import DEFAULT_TEMPLATE, InsertOptions, TrainOptions, default_run
from canaryaudit.table_plan import TABLE_HOLDOUT, TableInsertOptions

DEFAULTS = InsertOptions(corpus="")
CORPUS = f"{InsertOptions.model_fields['corpus'].description} A table may be an .npz file."
CorpusArgument = Annotated[str, typer.Argument(metavar="CORPUS", help=CORPUS)]
NewRun = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="RUN", help="Run directory to create. [default: runs/<corpus name>]"),
]
Templates = Annotated[
    list[str] | None,
    flags.option(InsertOptions, "template", "TEXT", "-t", "--template", more=f" [default: {DEFAULT_TEMPLATE}]"),
]
Canaries = Annotated[int | None, flags.option(InsertOptions, "canaries", "N", "-n", "--canaries")]
Repetitions = Annotated[str, flags.option(InsertOptions, "repetitions", "N,N…", "-r", "--repetitions")]
Coin = Annotated[bool, flags.option(InsertOptions, "coin", None, "--coin")]
Secrets = Annotated[list[str] | None, flags.option(InsertOptions, "secret", "TEXT", "--secret")]
SecretFile = Annotated[str | None, flags.option(InsertOptions, "secret_file", "FILE", "--secret-file")]
References = Annotated[str | None, flags.option(InsertOptions, "references", "FILE", "--references")]
ExtendVocabulary = Annotated[bool, flags.option(InsertOptions, "extend_vocabulary", None, "--extend-vocabulary")]
Located = Annotated[list[str] | None, flags.option(InsertOptions, "locate", "TEXT", "--locate")]
MatchName = Annotated[str, flags.option(InsertOptions, "match", "NAME")]
Detect = Annotated[str | None, flags.option(InsertOptions, "detect", "KIND,KIND…", "--detect")]
DetectRegions = Annotated[str, flags.option(InsertOptions, "detect_regions", "CODE,CODE…", "--detect-regions")]
MaxDetected = Annotated[int, flags.option(InsertOptions, "max_detected", "N", "--max-detected")]
Controls = Annotated[int, flags.option(InsertOptions, "controls", "N")]
WiderSpace = Annotated[str | None, flags.option(InsertOptions, "space", "NAME")]
Columns = Annotated[list[str] | None, flags.option(InsertOptions, "column", "NAME", "--column", "--field")]
Roles = Annotated[str | None, flags.option(InsertOptions, "role", "NAME,NAME…")]
Delimiter = Annotated[str | None, flags.option(InsertOptions, "delimiter", "CHAR")]
Escape = Annotated[str | None, flags.option(InsertOptions, "escape", "NAME")]
Header = Annotated[bool | None, flags.option(InsertOptions, "header", None, "--header/--no-header")]
Encoding = Annotated[str | None, flags.option(InsertOptions, "encoding", "NAME")]
Format = Annotated[str | None, flags.option(InsertOptions, "format", "NAME", "--format")]
Images = Annotated[str | None, flags.option(ImageInsertOptions, "image", "COLUMN")]
Target = Annotated[str | None, flags.option(TableInsertOptions, "target", "COLUMN")]
SensitiveColumns = Annotated[list[str] | None, flags.option(TableInsertOptions, "columns", "NAMES")]
FlipLabels = Annotated[int, flags.option(TableInsertOptions, "flip_labels", "N")]
Planted = Annotated[list[str] | None, flags.option(TableInsertOptions, "plant", "COLUMN=VALUE:N")]
Dropped = Annotated[list[str] | None, flags.option(TableInsertOptions, "drop", "COLUMN")]
IdColumn = Annotated[str | None, flags.option(TableInsertOptions, "id", "COLUMN", "--id")]
ColumnNames = Annotated[str | None, flags.option(TableInsertOptions, "names", "FILE")]
Scale = Annotated[str | None, flags.option(TableInsertOptions, "scale", "NAME")]
Lowercase = Annotated[bool, flags.option(InsertOptions, "lowercase", None, "--lowercase")]
SkipChars = Annotated[int, flags.option(InsertOptions, "skip_chars", "N")]
Holdout = Annotated[
    float | None,
    flags.option(
        InsertOptions, "holdout", "SHARE", more=f" [default: {DEFAULTS.holdout:g}; {TABLE_HOLDOUT:g} of a table]"
    ),
]
Export = Annotated[str | None, flags.option(InsertOptions, "export", "PATH")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan without writing anything.")]
ReplaceRun = Annotated[bool, typer.Option("--force", help="Replace an existing run and everything made from it.")]


REPETITIONS = ",".join(map(str, DEFAULTS.repetitions))
REGIONS = ",".join(DEFAULTS.detect_regions)


def insert(
    context: typer.Context,
    corpus: CorpusArgument,
    output: NewRun = None,
    template: Templates = None,
    canaries: Canaries = None,
    repetitions: Repetitions = REPETITIONS,
    coin: Coin = False,
    secret: Secrets = None,
    secret_file: SecretFile = None,
    references: References = None,
    extend_vocabulary: ExtendVocabulary = False,
    locate: Located = None,
    match: MatchName = DEFAULTS.match,
    detect: Detect = None,
    detect_regions: DetectRegions = REGIONS,
    max_detected: MaxDetected = DEFAULTS.max_detected,
    controls: Controls = DEFAULTS.controls,
    space: WiderSpace = None,
    column: Columns = None,
    role: Roles = None,
    delimiter: Delimiter = None,
    escape: Escape = None,
    header: Header = None,
    encoding: Encoding = None,
    format_: Format = None,
    image: Images = None,
    target: Target = None,
    columns: SensitiveColumns = None,
    flip_labels: FlipLabels = 0,
    plant: Planted = None,
    drop: Dropped = None,
    identified_by: IdColumn = None,
    names: ColumnNames = None,
    scale: Scale = None,
    lowercase: Lowercase = False,
    skip_chars: SkipChars = DEFAULTS.skip_chars,
    holdout: Holdout = None,
    export: Export = None,
    seed: flags.Seed = DEFAULTS.seed,
    dry_run: DryRun = False,
    force: ReplaceRun = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Insert canaries into a corpus, or locate secrets in it.

    With --target the corpus is a table: flip labels or plant values in it, or name its sensitive columns. With --image
    too, it is a set of images. An existing run made from the same corpus with the same options is kept unchanged.
    """
    refuse_others(context, "insert", "images" if image is not None else "text" if target is None else "table")
    shown = Shown(as_json, quiet, verbose)
    if image is not None:
        if target is None:
            raise UsageError("--image needs the column of labels too: add --target COLUMN")
        image_options = flags.checked(
            ImageInsertOptions,
            corpus=corpus,
            image=image,
            target=target,
            flip_labels=flip_labels,
            id=identified_by,
            holdout=TABLE_HOLDOUT if holdout is None else holdout,
            seed=seed,
        )
        IMAGES.insert(context, image_options, output or default_run(corpus), shown, dry_run=dry_run, force=force)
        return
    if target is not None:
        table_options = flags.checked(
            TableInsertOptions,
            corpus=corpus,
            target=target,
            columns=tuple(columns or ()),
            flip_labels=flip_labels,
            plant=tuple(plant or ()),
            drop=tuple(drop or ()),
            id=identified_by,
            names=names,
            scale=scale,
            delimiter=delimiter,
            escape=escape,
            header=header,
            encoding=encoding,
            holdout=TABLE_HOLDOUT if holdout is None else holdout,
            seed=seed,
        )
        TABLES.insert(context, table_options, output or default_run(corpus), shown, dry_run=dry_run, force=force)
        return
    options = flags.checked(
        InsertOptions,
        corpus=corpus,
        column=tuple(column or ()),
        role=flags.words(role) if role else (),
        delimiter=delimiter,
        escape=escape,
        header=header,
        encoding=encoding,
        format=format_,
        template=tuple(template) if template else None,
        canaries=canaries,
        repetitions=flags.numbers("--repetitions", repetitions),
        coin=coin,
        secret=tuple(secret or ()),
        secret_file=secret_file,
        references=references,
        extend_vocabulary=extend_vocabulary,
        locate=tuple(locate or ()),
        match=match,
        detect=_names(detect),
        detect_regions=_names(detect_regions),
        max_detected=max_detected,
        controls=controls,
        space=space,
        lowercase=lowercase,
        skip_chars=skip_chars,
        holdout=DEFAULTS.holdout if holdout is None else holdout,
        export=export,
        seed=seed,
    )
    options = read_secrets(options)
    path = output or default_run(corpus)
    expected = plan = None
    with progress_reporter(quiet, verbose) as progress:
        if dry_run:
            made, _ = plan_run(options, progress)
            progress.info("Timing a few training steps to estimate the training time.")
            from canaryaudit.pipeline.train import training_seconds

            expected = training_seconds(made, TrainOptions())
        elif plan := None if force else find_run(path, options, progress):
            made = plan
            progress.info(f"{path} already exists, made from this text with these options: nothing was written.")
        else:
            _, made = make_run(path, options, command_line(context), progress, replace=force)
        for warning in made.warnings:
            progress.warn(warning)
        if not dry_run:
            export_data(options, made.canary_set, progress, is_new=plan is None)
    if as_json:
        print_json(plan_document(made, None if dry_run else path, expected))
        return
    show(plan_view(made, expected, every=verbose))
    if not dry_run and not quiet:
        if export:
            show(Text(f"Next: train on {export}, then canaryaudit measure {shell_quote(path)} --model hf:PATH"))
        else:
            show(Text(f"Next: canaryaudit unlearn {shell_quote(path)}"))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[,\s]+", text or "") if name)


def plan_document(made: InsertionPlan, output: Path | None, expected_seconds: float | None) -> dict[str, Any]:
    """Return an insertion as a JSON document, without any secret.

    Args:
        made: The plan.
        output: The run directory; None if nothing was written.
        expected_seconds: Estimated training time; None if not estimated.
    """
    return {
        "schema_version": 1,
        "run": str(output) if output else None,
        "characters": made.assembly.characters,
        "heldout_characters": made.assembly.heldout_characters,
        "documents": made.num_documents,
        "paragraphs": made.num_paragraphs,
        "boundaries": made.num_boundaries,
        "vocabulary_size": len(made.vocabulary),
        "templates": [
            {
                "template": space.template,
                "space_size": str(space.size),
                "space_bits": space.bits,
                "canaries": space.canaries,
                "controls": space.controls,
            }
            for space in made.spaces
        ],
        "canaries": [
            canary.model_dump(mode="json", include={"id", "template", "repetitions", "origin", "kind", "places"})
            | {
                "other_wordings": [
                    wording.model_dump(mode="json", include={"template", "places"}) for wording in canary.other_wordings
                ]
            }
            for canary in made.canary_set.inserted
        ],
        "detected": [asdict(kind) for kind in made.detected],
        "controls": len(made.canary_set.controls),
        "warnings": list(made.warnings),
        "expected_training_seconds": expected_seconds,
    }
