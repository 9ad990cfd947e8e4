"""manifest.json: where a run directory comes from and what was done in it."""

from pydantic import Field

from canaryaudit.records.base import SCHEMA_VERSION, Many, Record, Stage


class CorpusFacts(Record):
    """What was audited."""

    name: str
    """File name, card name or hub id."""
    sha256: str
    """SHA-256 of the text as read, before anything was cut, lower-cased or inserted (UTF-8)."""
    audited_sha256: str
    """SHA-256 of the run's corpus.txt."""
    characters: int
    """Characters of the run's corpus.txt, canaries included."""
    heldout_characters: int
    heldout_sha256: str
    """SHA-256 of the run's heldout.txt."""
    paragraphs: int
    documents: int
    lowercase: bool
    skip_chars: int
    holdout: float
    seed: int


class StageRun(Record):
    """One run of one stage, for provenance and cost."""

    stage: Stage
    name: str = ""
    """Which of several: the unlearning's or the measured model's name."""
    argv: Many[str]
    """The command line that caused it; secrets given by the user are masked."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    seed: int | None = None
    device: str = ""
    precision: str = ""
    processes: int = Field(default=1, ge=1)
    """Processes of the job, as ``torchrun`` started them."""


class Manifest(Record):
    """manifest.json: where a run directory comes from and what was done in it."""

    schema_version: int = SCHEMA_VERSION
    canaryaudit: str
    """Version of this package."""
    versions: dict[str, str]
    """Versions of Python and of the packages that make the figures."""
    commit: str
    """Git commit of the working directory at insertion, or empty."""
    machine: dict[str, str | int]
    """Processor, cores, memory, accelerator."""
    corpus: CorpusFacts
    stages: Many[StageRun] = ()
    warnings: Many[str]
    """What the insertion warned of, such as places of located secrets that are left as they are; secrets that a user
    gave are masked."""
