"""The first stage: a corpus read, an insertion planned, and a run directory made of it, with its provenance."""

import re
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import canaryaudit
from canaryaudit import environment
from canaryaudit.canaries import MASK, Canary, CanarySet, Slot, Template
from canaryaudit.corpus import read_corpus
from canaryaudit.insertion import InsertionPlan, InsertionRequest, plan_insertion
from canaryaudit.masking import folded
from canaryaudit.plan import InsertOptions
from canaryaudit.records import CorpusFacts, Manifest, StageRun
from canaryaudit.rundir import RunDirectory

_HIDDEN = MASK * 3
_SECRET_FLAG = re.compile(r"\A(--secret=).*", re.DOTALL)
_SHORTEST_TELLING = 4
"""A shorter secret stands in many words by chance; where those were masked, they would give it away."""


def plan_run(options: InsertOptions) -> tuple[InsertionPlan, CorpusFacts]:
    """Read the corpus and plan the insertion; nothing is written, and the texts' SHA-256 are not known yet."""
    corpus = read_corpus(
        options.corpus, column=options.column, lowercase=options.lowercase, skip_chars=options.skip_chars
    )
    made = plan_insertion(
        corpus,
        InsertionRequest(
            templates=options.templates,
            num_canaries=options.num_canaries,
            repetitions=options.repetitions,
            secrets=options.secret,
            located=options.locate,
            num_controls=options.controls,
            wider_space=options.space,
            lowercase=options.lowercase,
            holdout=options.holdout,
            seed=options.seed,
        ),
    )
    return made, CorpusFacts(
        name=corpus.name,
        sha256=corpus.sha256,
        audited_sha256="",
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
    path: Path, options: InsertOptions, argv: Sequence[str], *, replace: bool = False
) -> tuple[RunDirectory, InsertionPlan]:
    """Plan the insertion and write the run directory.

    Args:
        path: A directory that is missing or empty.
        options: What to insert where.
        argv: The command line, for the manifest.
        replace: Throw away the run that the directory already holds.
    """
    RunDirectory(path).check_can_create(replace=replace)
    started, clock = environment.utc_now(), time.perf_counter()
    made, facts = plan_run(options)
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


def mask_arguments(argv: Sequence[str], canary_set: CanarySet) -> tuple[str, ...]:
    """Return a command line, or sentences, without the secrets that their owners gave, in whatever word they stand."""
    forms: dict[int, set[str]] = defaultdict(set)
    for canary in canary_set.canaries:
        if canary.masked:
            for form in _telling(canary):
                for written in (form, repr(form)[1:-1]):  # As a warning quotes a template that holds it.
                    forms[len(written)].add(folded(written))
    masked: list[str] = []
    for previous, word in pairwise(("", *argv)):
        shown = _HIDDEN if previous == "--secret" else _SECRET_FLAG.sub(r"\1" + _HIDDEN, word)
        for length in sorted(forms, reverse=True):
            shown = _mask_runs(shown, length, forms[length])
        masked.append(shown)
    return tuple(masked)


def _mask_runs(word: str, length: int, secrets: set[str]) -> str:
    """Replace every run of ``length`` characters that is one of the folded ``secrets``, from left to right."""
    plain, start, out = folded(word), 0, ""
    while start < len(word):
        if plain[start : start + length] in secrets:
            out, start = out + _HIDDEN, start + length
        else:
            out, start = out + word[start], start + 1
    return out


def _telling(canary: Canary) -> list[str]:
    """Return the forms of a secret that tell it; a chosen word, which the template names anyway, does not."""
    template = Template.parse(canary.template)
    if all(part.kind == "choice" for part in template.parts if isinstance(part, Slot)):
        return []
    forms = (canary.completion, template.secret_of(canary.completion))
    return [form for form in forms if len(form) >= _SHORTEST_TELLING]
