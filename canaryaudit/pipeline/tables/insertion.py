"""Insert stage of a run on a table: read, encode, hold rows out, and plant canaries."""

from collections.abc import Sequence

from canaryaudit.formatting import counted
from canaryaudit.pipeline.rows.insertion import RowsInsertion, RowsPlan
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import TableFacts
from canaryaudit.records.tables import TableRecord
from canaryaudit.runs.table_directory import TableDirectory
from canaryaudit.table_plan import TableInsertOptions
from canaryaudit.tabular.encoding import encode
from canaryaudit.tabular.planting import plant
from canaryaudit.tabular.reading import read_source

TableInsertionPlan = RowsPlan[TableRecord, TableFacts]
_MOST_LISTED = 8


def plan_table(options: TableInsertOptions, progress: ProgressReporter) -> TableInsertionPlan:
    """Read a table and plant canaries; nothing is written."""
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
    return RowsPlan(record, rows, facts)


def listed_classes(classes: Sequence[str]) -> str:
    """Return the classes in words, the first few if there are many."""
    if len(classes) > _MOST_LISTED:
        return f"{', '.join(classes[:_MOST_LISTED])} and {len(classes) - _MOST_LISTED:,} more"
    return f"{', '.join(classes[:-1])} and {classes[-1]}"


def insertion_sentences(made: TableInsertionPlan) -> tuple[str, ...]:
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


TABLE_INSERTION = RowsInsertion(
    TableDirectory,
    plan_table,
    insertion_sentences,
    called="a table",
    package="scikit-learn",
    compared=("target", "holdout", "seed"),
    planted="columns or canaries",
)
