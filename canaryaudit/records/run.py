"""manifest.json: the origin of a run directory and the stages that ran in it."""

from abc import abstractmethod
from typing import Literal

from pydantic import Field

from canaryaudit.records.base import SCHEMA_VERSION, Many, Record, Stage


class CorpusFacts(Record):
    """The audited corpus."""

    name: str
    """Name of the file, folder or card, or hub id."""
    reading: Many[str] = ()
    """What the source was taken for, in sentences: dialect, header, and the columns that hold the text."""
    sha256: str
    """SHA-256 of the original text (UTF-8), before cutting, lower-casing and insertion."""
    audited_sha256: str
    """SHA-256 of the run's corpus.txt."""
    characters: int
    """Number of characters in the run's corpus.txt, including canaries."""
    heldout_characters: int
    heldout_sha256: str
    """SHA-256 of the run's heldout.txt."""
    paragraphs: int
    documents: int
    lowercase: bool
    skip_chars: int
    holdout: float
    seed: int


class TableFacts(Record):
    """The audited table."""

    name: str
    """Name of the file or folder."""
    reading: Many[str] = ()
    """What the source was taken for, in sentences."""
    target: str
    """Name of the column of labels."""
    sha256: str
    """SHA-256 of the encoded rows, before canaries are planted."""
    rows_sha256: str
    """SHA-256 of the run's table.safetensors."""
    rows: int
    """Training rows."""
    heldout_rows: int
    columns: int
    """Columns after encoding."""
    holdout: float
    seed: int


class ImagesFacts(Record):
    """The audited images."""

    name: str
    """Name of the file or folder."""
    reading: Many[str] = ()
    """What the source was taken for, in sentences."""
    image: str
    """Name of the column of images."""
    target: str
    """Name of the column of labels."""
    sha256: str
    """SHA-256 of the decoded rows, before labels are flipped."""
    rows_sha256: str
    """SHA-256 of the run's images.safetensors."""
    rows: int
    """Training rows."""
    heldout_rows: int
    holdout: float
    seed: int


class StageRun(Record):
    """One run of one stage, for provenance and cost."""

    stage: Stage
    name: str = ""
    """Name of the unlearning or of the measured model."""
    argv: Many[str]
    """The command line; secrets given by the user are masked."""
    started: str
    """Start time in UTC, ISO 8601."""
    seconds: float
    seed: int | None = None
    device: str = ""
    precision: str = ""
    processes: int = Field(default=1, ge=1)
    """Number of processes that ``torchrun`` started."""


class RunManifest(Record):
    """What the manifests of all kinds of runs have in common."""

    schema_version: int = SCHEMA_VERSION
    canaryaudit: str
    """Version of this package."""
    versions: dict[str, str]
    """Versions of Python and of the packages that affect the figures."""
    commit: str
    """Git commit of the working directory at insertion; may be empty."""
    machine: dict[str, str | int]
    """Processor, cores, memory, accelerator."""
    stages: Many[StageRun] = ()
    warnings: Many[str]
    """Warnings of the insertion, for example about occurrences of located secrets that stay unchanged. Secrets given by
    a user are masked."""
    records: dict[str, Many[str]] = Field(default_factory=dict)
    """SHA-256 of every other record, by path; while one is being replaced, also that of its successor. An empty text
    stands for a missing record."""
    unproven: Many[str] = ()
    """Records whose checksums were recorded anew, after the manifest was lost: nothing shows that a command wrote
    them."""
    checksum: str = ""
    """SHA-256 of the manifest without this field."""


class Manifest(RunManifest):
    """manifest.json: the origin of a run directory and the stages that ran in it."""

    kind: Literal["text"] = "text"
    corpus: CorpusFacts


class RowsManifest(RunManifest):
    """What the manifests of runs on rows have in common: of tables, and of images."""

    @property
    @abstractmethod
    def facts(self) -> TableFacts | ImagesFacts:
        """What is audited."""


class TableManifest(RowsManifest):
    """manifest.json of a run on a table."""

    kind: Literal["table"] = "table"
    table: TableFacts

    @property
    def facts(self) -> TableFacts:
        """The table."""
        return self.table


class ImagesManifest(RowsManifest):
    """manifest.json of a run on images."""

    kind: Literal["images"] = "images"
    images: ImagesFacts

    @property
    def facts(self) -> ImagesFacts:
        """The images."""
        return self.images
