"""What a case found, as kept in a JSON file of its own: the page is made from these and from nothing else."""

import lzma
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from canaryaudit.records import Fidelity, Relearning, SkewNormalFit
from canaryaudit.storage.files import atomic_write


class Result(BaseModel):
    """Base of all results: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Clock(Result):
    """What a piece of work took."""

    wall_seconds: float
    processor_seconds: float
    """Of all its threads; less than the wall's where other programs had the core for a while."""

    @property
    def share(self) -> float:
        """Processor seconds in a second by the wall's clock."""
        return self.processor_seconds / max(self.wall_seconds, 1e-9)


class Exposed(Result):
    """One canary under one model."""

    id: str
    template: str
    length: int
    """Characters of the secret."""
    repetitions: int
    chosen: bool
    """Whether it was to be forgotten."""
    space_bits: float
    log_perplexity_bits: float
    greedy_path_bits: float
    """Cost of the secret where each character is read after the model's own likeliest ones, not after the secret's."""
    exposure_bits: float
    low: float
    high: float
    method: str
    """The estimator of the fresh exposure."""
    stale_bits: float | None
    """Of ``greedy_path_bits`` against a skew-normal fit to references taken from the original model, as the method's
    public code has it."""
    stale_forced_bits: float | None
    """The same of ``log_perplexity_bits``."""
    greedy: bool
    """Whether the greedy completion is the secret."""
    completion: str
    """What the model says after the prefix, greedily."""
    worst_bits: float | None = None
    """Exposure under the probe that exposes it most; None where it was asked by its own prefix only."""
    worst_p_value: float | None = None
    """How likely a secret never seen stands out as much over the same probes."""
    worst_family: str = ""
    """That probe's family."""


class Reference(Result):
    """References of one template under the original model."""

    fit: SkewNormalFit
    min_bits: float


class Case(Result):
    """One model, measured."""

    stage: str
    run: str
    name: str
    method: str
    """A method's key in the page's tables."""
    model_sha256: str = ""
    canaries: tuple[str, ...] = ()
    """Ids of those that were to be forgotten."""
    refused: str = ""
    """Why no model was saved; empty where one was."""
    exposed: tuple[Exposed, ...] = ()
    control_bits: tuple[float, ...] = ()
    """Exposures of the measured controls."""
    control_p_values: tuple[float, ...] = ()
    """Of their worst cases."""
    references: dict[str, Reference] = {}
    """By template; of the original model only."""
    train_accuracy: float | None = None
    """Outside the secrets."""
    heldout_loss: float | None = None
    """Bits a character."""
    fidelity: Fidelity | None = None
    seconds: float | None = None
    """Of the training or update alone, as the tool records it, in seconds of one core: times the work's
    share. None where no clock ran."""
    preparation_seconds: float | None = None
    """Paid once, before any request."""
    clock: Clock | None = None
    windows: int | None = None
    """Training windows of 100 characters, each with 100 labels, that the secrets touch."""
    published_windows: int | None = None
    """Windows of 24 characters, each with one label, that the secrets touch."""
    notes: tuple[str, ...] = ()
    relearning: Relearning | None = None
    made: dict[str, str] = {}
    """Commit and time of the measurement."""

    @property
    def chosen(self) -> list[Exposed]:
        """The canaries that were to be forgotten; of the original model, all."""
        return [own for own in self.exposed if own.chosen]


class RunFacts(Result):
    """Where a run's figures come from."""

    stage: str
    run: str
    command: str
    corpus: str
    sha256: str
    characters: int
    heldout_characters: int
    seed: int
    epochs: int
    versions: dict[str, str]
    machine: dict[str, str | int]


class Results(Result):
    """All that the page is made from."""

    schema_version: int = 1
    runs: tuple[RunFacts, ...]
    cases: tuple[Case, ...]

    def of(self, stage: str, run: str | None = None, method: str | None = None) -> list[Case]:
        """Return the cases of a stage, of a run, of a method."""
        return [
            case
            for case in self.cases
            if case.stage == stage and run in (None, case.run) and method in (None, case.method)
        ]


def write(path: Path, result: Result) -> None:
    """Write a result whole or not at all; compressed where the name ends in ``.xz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = result.model_dump_json(indent=1) + "\n"
    atomic_write(path, lzma.compress(text.encode(), preset=9) if path.suffix == ".xz" else text)


def read(path: Path) -> Results:
    """Return all results from the file that ``write`` made of them."""
    return Results.model_validate_json(lzma.decompress(path.read_bytes()))


def collect(directory: Path) -> Results:
    """Return all results that are there."""
    return Results(
        runs=tuple(RunFacts.model_validate_json(path.read_text("utf-8")) for path in _sorted(directory, "facts")),
        cases=tuple(Case.model_validate_json(path.read_text("utf-8")) for path in _sorted(directory, "cases")),
    )


def _sorted(directory: Path, kind: str) -> Iterable[Path]:
    return sorted(directory.glob(f"*/{kind}/*.json" if kind == "cases" else f"*/{kind}.json"))
