"""Insert stage: read the corpus, plan the insertion, and create the run directory with its provenance."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace as with_changes
from pathlib import Path

import canaryaudit
from canaryaudit import environment
from canaryaudit.canaries.canary import CanarySet
from canaryaudit.canaries.insertion import InsertionPlan, InsertionRequest, plan_insertion
from canaryaudit.canaries.masking import mask_arguments
from canaryaudit.canaries.template import list_names_in
from canaryaudit.canaries.word_lists import WordList, named, read_word_lists
from canaryaudit.corpus.corpus import read_corpus
from canaryaudit.corpus.export import export_rows
from canaryaudit.errors import RunDirectoryError, UsageError
from canaryaudit.plan import InsertOptions
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.records import CorpusFacts, Manifest, StageRun
from canaryaudit.runs.run_directory import RunDirectory

SECRETS_VARIABLE = "CANARYAUDIT_SECRETS"
"""Environment variable with secrets to insert, one per line."""


def read_secrets(options: InsertOptions) -> InsertOptions:
    """Return the options with the secrets of their file and of the environment among their secrets.

    Standard input can be read once, so this is done before anything else. Empty lines do not count.

    Raises:
        UsageError: The file cannot be read; the message never quotes it.
    """
    texts = [os.environ.get(SECRETS_VARIABLE, "")]
    if options.secret_file is not None:
        texts.append(_read_secret_file(options))
    found = tuple(line for text in texts for line in text.replace("\r\n", "\n").split("\n") if line)
    if options.secret_file is not None and not found:
        raise UsageError(f"--secret-file {options.secret_file}: expected one secret per line, got none")
    if not found:
        return options
    return options.model_copy(update={"secret": (*options.secret, *found), "secret_file": None})


def _read_secret_file(options: InsertOptions) -> str:
    name = options.secret_file or ""
    if name == "-" and options.corpus == "-":
        raise UsageError("--secret-file -: the corpus is read from standard input already: give one of them as a file")
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"--secret-file {name}: {error.strerror}; give the path of a text file") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--secret-file {name}: expected UTF-8 text, one secret per line; convert the file") from None


def _read_word_lists(options: InsertOptions) -> tuple[dict[str, str], tuple[WordList, ...], list[str]]:
    """Read the files of words that templates name; secrets are added to those that are their references.

    Raises:
        UsageError: A file cannot be read, or no template ranks secrets among the references.
    """
    templates, references = (*options.templates, *options.locate), options.references
    if references is not None and references not in {name for text in templates for name in list_names_in(text)}:
        raise UsageError(
            f"--references {references}: no template has its slot: write {{words:{references}}} in the place of the "
            "secret, or drop --template"
        )
    for number, secret in enumerate(options.secret if references is not None else (), 1):
        if fault := _unlisted(secret, lowercase=options.lowercase):
            raise UsageError(f"--references {references}: secret number {number} {fault}")
    return read_word_lists(templates, options.secret, references)


def _unlisted(secret: str, *, lowercase: bool) -> str:
    """Return why a secret cannot be a line of a list; an empty string if it can."""
    if not secret.strip():
        return "is blank: give one with visible characters"
    if {*secret} & {*"\n\r"}:
        return "holds a line break, but a list has one string on each line: give a secret of one line"
    if any("\ud800" <= character <= "\udfff" for character in secret):
        return "is not valid UTF-8: correct its encoding"
    if lowercase and secret != secret.lower():
        return "has upper-case letters, of which --lowercase leaves none: give it in lower case, or drop --lowercase"
    return ""


def plan_run(
    options: InsertOptions, progress: ProgressReporter | None = None, data: object = None
) -> tuple[InsertionPlan, CorpusFacts]:
    """Read the corpus and plan the insertion; nothing is written, and the texts' SHA-256 are still unknown.

    Args:
        options: What to insert, and where.
        progress: Told what the corpus was taken for; optional.
        data: A Python object to read in place of ``options.corpus``, which then only names it; optional.
    """
    corpus = read_corpus(
        options.corpus if data is None else data, options, lowercase=options.lowercase, skip_chars=options.skip_chars
    )
    names, word_lists, list_notes = _read_word_lists(options)
    notes = (*corpus.notes, *list_notes)
    for note in notes:
        (progress or NullReporter()).info(f"Read {note}.")
    made = plan_insertion(
        corpus,
        InsertionRequest(
            templates=named(options.templates, names),
            num_canaries=options.num_canaries,
            repetitions=options.repetitions,
            coin=options.coin,
            secrets=options.secret,
            extend_vocabulary=options.extend_vocabulary,
            located=named(options.locate, names),
            word_lists=word_lists,
            match=options.match,
            detect=options.kinds,
            detect_regions=options.detect_regions,
            max_detected=options.max_detected,
            num_controls=options.controls,
            wider_space=options.space,
            lowercase=options.lowercase,
            holdout=options.holdout,
            seed=options.seed,
        ),
    )
    made = with_changes(made, warnings=(*corpus.warnings, *made.warnings))
    return made, CorpusFacts(
        name=corpus.name if data is None else options.corpus,
        reading=notes,
        sha256=corpus.sha256,
        audited_sha256="",
        heldout_sha256="",
        characters=made.assembly.characters,
        heldout_characters=made.assembly.heldout_characters,
        paragraphs=made.num_paragraphs,
        documents=made.num_documents,
        lowercase=options.lowercase,
        skip_chars=options.skip_chars,
        holdout=options.holdout,
        seed=options.seed,
    )


def make_run(
    path: Path,
    options: InsertOptions,
    argv: Sequence[str],
    progress: ProgressReporter | None = None,
    *,
    replace: bool = False,
    data: object = None,
) -> tuple[RunDirectory, InsertionPlan]:
    """Plan the insertion and write the run directory.

    Args:
        path: A directory that is missing or empty.
        options: What to insert where.
        argv: The command line, for the manifest.
        progress: Told what the corpus was taken for; optional.
        replace: Delete the run that the directory already holds.
        data: A Python object to read in place of ``options.corpus``, which then only names it; optional.
    """
    RunDirectory(path).check_can_create(replace=replace)
    corpus = Path(options.corpus)
    if replace and corpus.is_file() and corpus.resolve().is_relative_to(path.resolve()):
        raise RunDirectoryError(
            f"the corpus {corpus} is in the run to be replaced: copy it elsewhere, or choose another directory"
        )
    started, clock = environment.utc_now(), time.perf_counter()
    made, facts = plan_run(options, progress, data)
    stage = StageRun(
        stage="insert",
        argv=mask_arguments(argv, made.canary_set),
        started=started,
        seconds=time.perf_counter() - clock,
        seed=options.seed,
    )
    manifest = Manifest(
        canaryaudit=canaryaudit.__version__,
        versions=environment.versions(),
        commit=environment.commit(),
        machine=environment.machine(),
        corpus=facts,
        stages=(stage,),
        warnings=mask_arguments(made.warnings, made.canary_set),
    )
    run = RunDirectory.create(
        path,
        manifest=manifest,
        assembly=made.assembly,
        canary_set=made.canary_set,
        replace=replace,
    )
    return run, made


def export_data(
    options: InsertOptions, canary_set: CanarySet, progress: ProgressReporter, *, is_new: bool = True
) -> None:
    """Write the data set with the canaries in its own shape, if that was asked for.

    Args:
        options: Where from, and where to.
        canary_set: What to insert.
        progress: Told of it.
        is_new: Whether the run was made just now; if it was there, an export that is there is its own.

    Raises:
        CorpusError: The source is no data set of rows, or the target is there.
        UsageError: The run's text was changed besides.
    """
    if options.export is None or (not is_new and Path(options.export).exists()):
        return
    if options.lowercase or options.skip_chars:
        raise UsageError("--export keeps the rows as they are: drop --lowercase and --skip-chars")
    texts = [
        canary.parsed_template.fill(canary.completion)
        for canary in canary_set.inserted
        if canary.origin != "located"
        for _ in range(canary.repetitions)
    ]
    count = export_rows(options.corpus, Path(options.export), texts, options, options.seed)
    progress.info(f"Wrote {count:,} rows to {options.export}, {len(texts):,} of them canaries. It holds the secrets.")


def find_run(path: Path, options: InsertOptions, progress: ProgressReporter | None = None) -> InsertionPlan | None:
    """Return the plan of an existing run, if it was made with these options.

    Args:
        path: The directory.
        options: What to insert, and where.
        progress: Told what the corpus was taken for; optional.

    Returns:
        The plan, recomputed; None if the directory holds no run.

    Raises:
        RunDirectoryError: The run was made from another text or with other options; or the directory cannot hold one.
    """
    RunDirectory(path).check_can_create(replace=True)
    if not RunDirectory.holds_run(path):
        return None
    run = RunDirectory.open(path)
    made, facts = plan_run(options, progress)
    if part := differing_part(run, made, facts):
        raise RunDirectoryError(
            f"{path} already holds a run that differs in its {part}: choose another directory, or replace the run with "
            "--force"
        )
    return made


def differing_part(run: RunDirectory, made: InsertionPlan, facts: CorpusFacts) -> str:
    """Name the part in which a run differs from an insertion, with the run's value; an empty string if there is none.

    Args:
        run: The run.
        made: The insertion, drawn again: that takes a moment and tells all.
        facts: What it says of its corpus.
    """
    there = run.manifest.corpus
    for name in ("sha256", "lowercase", "skip_chars", "holdout", "seed"):
        if getattr(there, name) != getattr(facts, name):
            return f"corpus ({there.name})" if name == "sha256" else f"{name} ({getattr(there, name)})"
    return "" if made.canary_set == run.canary_set() else "canaries or controls"
