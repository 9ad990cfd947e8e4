"""Insert stage of a run on a table: read, encode, hold rows out, plant canaries, and create the run directory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import canaryaudit
from canaryaudit import environment
from canaryaudit.errors import RunDirectoryError, UsageError
from canaryaudit.formatting import counted
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import StageRun, TableFacts, TableManifest
from canaryaudit.records.tables import TableRecord
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TableInsertOptions
from canaryaudit.tabular.encoding import TableRows, encode
from canaryaudit.tabular.planting import plant
from canaryaudit.tabular.reading import read_source

_MOST_LISTED = 8


@dataclass(frozen=True, eq=False)
class TablePlan:
    """An insertion into a table.

    Attributes:
        record: Columns and canaries.
        rows: The rows, with canaries.
        facts: Of the manifest.
    """

    record: TableRecord
    rows: TableRows
    facts: TableFacts


def plan_table(options: TableInsertOptions, progress: ProgressReporter) -> TablePlan:
    """Read a table and plant canaries; nothing is written."""
    if Path(options.corpus).name == options.corpus == "-":
        raise UsageError("a table cannot be read from standard input: give a file")
    source = read_source(options)
    for note in source.notes:
        progress.info(f"Read {note}.")
    record, rows = encode(source, options)
    before = rows.sha256()
    record, rows = plant(record, rows, options)
    facts = TableFacts(
        name=source.name,
        reading=source.notes,
        target=options.target,
        sha256=before,
        rows_sha256="",
        rows=len(rows.training),
        heldout_rows=int(rows.heldout.sum()),
        columns=len(record.columns),
        holdout=options.holdout,
        seed=options.seed,
    )
    return TablePlan(record, rows, facts)


def make_table_run(
    path: Path, options: TableInsertOptions, argv: Sequence[str], progress: ProgressReporter, *, replace: bool = False
) -> TablePlan:
    """Plan the insertion and write the run directory.

    Args:
        path: A directory that is missing or empty.
        options: What to find or plant.
        argv: The command line, for the manifest.
        progress: Told what the table was taken for.
        replace: Delete the run that the directory already holds.

    Raises:
        RunDirectoryError: The directory holds something else, or a run.
        CorpusError: The table cannot be used.
    """
    TableDirectory(path).check_can_create(replace=replace)
    source = Path(options.corpus)
    if replace and source.exists() and source.resolve().is_relative_to(path.resolve()):
        raise RunDirectoryError(
            f"the table {source} is in the run to be replaced: copy it elsewhere, or choose another directory"
        )
    started, clock = environment.utc_now(), time.perf_counter()
    made = plan_table(options, progress)
    stage = StageRun(
        stage="insert",
        argv=tuple(argv),
        started=started,
        seconds=time.perf_counter() - clock,
        seed=options.seed,
    )
    manifest = TableManifest(
        canaryaudit=canaryaudit.__version__,
        versions=environment.versions("scikit-learn"),
        commit=environment.commit(),
        machine=environment.machine(),
        table=made.facts,
        stages=(stage,),
        warnings=(),
    )
    TableDirectory.create(path, manifest=manifest, record=made.record, arrays=made.rows.arrays(), replace=replace)
    return made


def find_table_run(path: Path, options: TableInsertOptions, progress: ProgressReporter) -> TablePlan | None:
    """Return the plan of an existing run, if it was made with these options; None if the directory holds no run.

    Raises:
        RunDirectoryError: The run was made from another table or with other options; or the directory cannot hold one.
    """
    TableDirectory(path).check_can_create(replace=True)
    if not TableDirectory.holds_run(path):
        return None
    run = TableDirectory.open(path)
    made = plan_table(options, progress)
    there, part = run.manifest.facts, ""
    for name in ("target", "holdout", "seed", "sha256"):
        if not part and getattr(there, name) != getattr(made.facts, name):
            part = f"table ({there.name})" if name == "sha256" else f"{name} ({getattr(there, name)})"
    if not part and run.record() != made.record:
        part = "columns or canaries"
    if part:
        raise RunDirectoryError(
            f"{path} already holds a run that differs in its {part}: choose another directory, or replace the run with "
            "--force"
        )
    return made


def listed_classes(classes: Sequence[str]) -> str:
    """Return the classes in words, the first few if there are many."""
    if len(classes) > _MOST_LISTED:
        return f"{', '.join(classes[:_MOST_LISTED])} and {len(classes) - _MOST_LISTED:,} more"
    return f"{', '.join(classes[:-1])} and {classes[-1]}"


def insertion_sentences(made: TablePlan) -> tuple[str, ...]:
    """Return what was inserted, in sentences."""
    facts, record = made.facts, made.record
    sentences = [
        f"{facts.rows:,} training rows and {facts.heldout_rows:,} held out, {facts.columns:,} columns, target "
        f"{facts.target!r} with the classes {listed_classes(record.classes)}."
    ]
    if record.sensitive:
        sentences.append(f"{counted(len(record.sensitive), 'sensitive column')} to be removed.")
    for kind, noun in (("label", "flipped label"), ("value", "planted value")):
        own = [canary for canary in record.canaries if canary.kind == kind]
        planted = sum(canary.planted for canary in own)
        if own:
            sentences.append(f"{counted(planted, noun)}; {counted(len(own) - planted, 'control')} kept as they are.")
    return tuple(sentences)
