"""Fixtures that several test modules share."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# Before any import of ``datasets``: tests never wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from canaryaudit.canaries.insertion import InsertionPlan, InsertionRequest, plan_insertion
from canaryaudit.corpus.corpus import Corpus
from canaryaudit.records import CorpusFacts, Manifest
from canaryaudit.runs.run_directory import RunDirectory
from tests.wholetext import corpus_of, heldout_text, training_text


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Compute on one thread: on models so tiny, threads that wait for each other cost many times the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def corpus() -> Corpus:
    """Sixty different paragraphs."""
    names = ("keel", "mast", "rope", "sail", "tide", "wind")
    text = "".join(
        f"the {a} met the {b}, {n} times over.\n\n" for n, a in enumerate(names * 5) for b in names[n % 5 :][:2]
    )
    return corpus_of("boats.txt", [text])


@pytest.fixture
def plan(corpus: Corpus) -> InsertionPlan:
    """Two canaries, four controls."""
    request = InsertionRequest(
        templates=("the code is {digits:6}.",), num_canaries=2, repetitions=(1, 3), num_controls=4, holdout=0.1
    )
    return plan_insertion(corpus, request)


@pytest.fixture
def manifest(plan: InsertionPlan) -> Manifest:
    """The manifest of a run of ``plan``."""
    facts = CorpusFacts(
        name="boats.txt",
        sha256="0" * 64,
        audited_sha256=hashlib.sha256(training_text(plan).encode()).hexdigest(),
        characters=plan.assembly.characters,
        heldout_characters=plan.assembly.heldout_characters,
        heldout_sha256=hashlib.sha256(heldout_text(plan).encode()).hexdigest(),
        paragraphs=plan.num_paragraphs,
        documents=plan.num_documents,
        lowercase=False,
        skip_chars=0,
        holdout=0.1,
        seed=0,
    )
    return Manifest(canaryaudit="0.1.0", versions={}, commit="", machine={}, corpus=facts, warnings=())


@pytest.fixture
def make_run(plan: InsertionPlan, manifest: Manifest) -> Callable[..., RunDirectory]:
    """Write ``plan`` to a run directory."""

    def make(path: Path, *, replace: bool = False) -> RunDirectory:
        return RunDirectory.create(
            path,
            manifest=manifest,
            assembly=plan.assembly,
            canary_set=plan.canary_set,
            replace=replace,
        )

    return make


@pytest.fixture
def run(make_run: Callable[..., RunDirectory], tmp_path: Path) -> RunDirectory:
    """A run directory in which canaries were inserted, and nothing more."""
    return make_run(tmp_path / "run")


@pytest.fixture(autouse=True, scope="session")
def signals_heard() -> None:
    """Hear the signals that a shell lets background jobs ignore, here and in every process that a test starts."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
