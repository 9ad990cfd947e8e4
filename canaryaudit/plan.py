"""Options of every command and of plan files, stage by stage, with their defaults and the reasons for them."""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from canaryaudit.errors import UsageError
from canaryaudit.formatting import plain_fault
from canaryaudit.records import (
    TRAINED_MODEL,
    EstimatorName,
    Method,
    ModelId,
    ProbeEffort,
    ReportFormat,
    Scope,
    SolverName,
)
from canaryaudit.records.base import MAX_MEMBERS

DEFAULT_TEMPLATE = "My telephone number is {digits:10}."
DEFAULT_RUNS = Path("runs")
RETAIN_WINDOWS = 1000
"""Default number of windows of other text that regularize an update: 100,000 characters for up to 20,000 weights that
change. With 300 windows, accuracy on a novel fell three times as much for secrets made of letters."""
DEFAULT_SHARDS = 5
SEARCH_BUDGET = 50_000
"""Prefixes that one search for exact ranks may expand: about two seconds of the 3.3 M-parameter model on two cores, and
400 MB of states."""

MOST_STEPS = 10_000
"""Maximum steps of a relearning attack; all its batches are drawn in advance."""

ALL_KINDS = ("email", "phone", "iban", "card", "ssn", "key")
DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "fp32", "bf16"]
SeedNumber = Annotated[int, Field(ge=0, lt=2**63)]
"""What every generator takes."""
CorpusFormat = Literal["text", "csv", "tsv", "json", "jsonl", "parquet", "mbox", "eml"]
_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|"}
Shards = Annotated[int, Field(ge=2, le=MAX_MEMBERS)]
T = TypeVar("T", bound=BaseModel)


class Options(BaseModel):
    """Base of all options: immutable, named after their flags; unknown options are errors.

    The first paragraph of a field's docstring is the help of its flag; a second one says why the default is what it is.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )

    def configure(self, kind: type[T], **more: object) -> T:
        """Return a configuration that takes over what it has in common with these options.

        Args:
            kind: The configuration's class.
            more: The values of its other fields, or of those that the options leave open.
        """
        shared = type(self).model_fields.keys() & kind.model_fields.keys()
        return kind(**{name: getattr(self, name) for name in shared} | more)


class ReadingSettings(Options):
    """How to read a corpus, where its files do not say it themselves.

    Examples:
        >>> ReadingSettings(column="messages[].content", role=("user",)).column
        ('messages[].content',)
    """

    column: tuple[str, ...] = ()
    """Column or field that holds the text: a name, a number from 1, or a path such as messages[].content; repeatable.
    The texts of a row are one document."""
    role: tuple[str, ...] = ()
    """Roles whose messages are read, separated by commas. [default: all]"""
    delimiter: str | None = None
    """Character between the cells of a delimited file, or comma, semicolon, tab or bar. [default: detected]"""
    escape: Literal["doubled", "backslash"] | None = None
    """How quotation marks are written within quoted cells: doubled or backslash. [default: detected]"""
    header: bool | None = None
    """Whether the first row of a delimited file has the names of the columns. [default: detected]"""
    encoding: str | None = None
    """Encoding of the text. [default: UTF-8]"""
    format: CorpusFormat | None = None
    """Format: text, csv, tsv, json, jsonl, parquet, mbox or eml. [default: by the file's ending]"""

    @field_validator("column", "role", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        if delimiter is None:
            return None
        delimiter = _DELIMITERS.get(delimiter.casefold(), delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n\\':
            raise UsageError(f"--delimiter {delimiter!r}: expected one character, or comma, semicolon, tab or bar")
        return delimiter


class InsertOptions(ReadingSettings):
    """What to insert, and where; the flags of ``canaryaudit insert``."""

    corpus: str
    """File (.txt, .md, .log, .csv, .tsv, .jsonl, .json, .parquet, .mbox, .eml; also .gz, .zst), folder, pattern such as
    'logs/*.log', - for standard input, corpus name under corpora/, or hub:ID[:split]."""
    template: tuple[str, ...] | None = None
    """Template with slots {digits:N} or {digits:N-M} {lower:N} {upper:N} {alnum:N} {hex:N} {any:N} {[A-Z0-9_]:N}
    {choice:a|b} {words:FILE} {word}; repeatable. FILE has one word on each line; {word} is a word of the corpus."""
    canaries: int | None = Field(default=None, ge=0)
    """Total number of secrets to generate. [default: 6, or 0 with secrets, --locate or --detect]

    Six are two per default repetition count.
    """
    repetitions: tuple[int, ...] = (1, 4, 16)
    """Repetition counts, dealt out to the canaries in turn.

    Memorization usually begins within the default's range.
    """
    coin: bool = False
    """Insert each generated canary or keep it out by a fair coin of its own; bounds the training's epsilon.

    200 canaries or more give a useful bound; all must occur equally often: -n 200 -r 1.
    """
    secret: tuple[str, ...] = ()
    """Secret to insert; repeatable; masked in every output.

    Other users of the machine can read a command line: prefer a file or the environment for real secrets.
    """
    secret_file: str | None = None
    """File with one secret per line, or - for standard input; so are those in the environment variable
    CANARYAUDIT_SECRETS."""
    references: str | None = None
    """File with strings like the secrets, one on each line: each secret is ranked among them, where no format says
    which others there are. The same as -t '{words:FILE}', with the secrets added to the list."""
    extend_vocabulary: bool = False
    """Add symbols of --secret and of word lists that the corpus lacks to the vocabulary, those of --secret to {any:N}
    slots too."""
    locate: tuple[str, ...] = ()
    """Template of secrets that already occur in the corpus, to audit in place; repeatable; masked in every output."""
    match: Literal["loose", "exact"] = "loose"
    """How to compare the words of --locate: loose (any case, white space, hyphens, quotation marks, Unicode form) or
    exact."""
    detect: tuple[str, ...] = ()
    """Find personal data and credentials to audit in place: email, phone, iban, card, ssn, key, or all; masked in every
    output."""
    detect_regions: tuple[str, ...] = ("US",)
    """Countries whose national telephone numbers --detect knows."""
    max_detected: int = Field(default=20, ge=1, le=10_000)
    """Most values found by --detect to audit, the most repeated first.

    Each has a template of its own, and takes as long to measure as a template.
    """
    controls: int = Field(default=32, ge=0, le=10_000)
    """Control secrets per template: drawn, but never inserted.

    32 determine their mean exposure to a quarter of a bit.
    """
    space: Literal["digits", "alnum", "any"] | None = None
    """Measure in a wider space (digits, alnum or any) to reproduce a paper."""
    lowercase: bool = False
    """Convert the corpus and templates to lower case."""
    skip_chars: int = Field(default=0, ge=0)
    """Characters to skip at the start of the corpus."""
    holdout: float = 0.05
    """Share of the text to hold out for evaluation."""
    export: str | None = None
    """Also write the data set with the canaries in its own shape, for a trainer of yours: JSON Lines, CSV, Parquet, or
    a datasets folder.

    Each occurrence of a canary is a row of its own, a copy of another row with the canary in the last --column, in an
    item of the first --role. All rows are shuffled.
    """
    seed: SeedNumber = 0
    """Random seed."""

    @property
    def num_canaries(self) -> int:
        """How many secrets to generate."""
        return self.canaries if self.canaries is not None else (0 if self.secret or self.locate or self.detect else 6)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What to detect, with ``all`` spelled out."""
        return ALL_KINDS if "all" in self.detect else self.detect

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates of what is to be inserted."""
        if self.template is not None:
            return self.template
        inserting = self.num_canaries or self.secret or not (self.locate or self.detect)
        # A reference may hold any character but the line break after it.
        default = DEFAULT_TEMPLATE if self.references is None else f"{{words:{self.references}}}\n"
        return (default,) if inserting else ()

    @field_validator("references")
    @classmethod
    def _no_braces(cls, path: str | None) -> str | None:
        if path is not None and {*path} & {*"{}"}:
            raise UsageError(f"--references {path}: a template cannot name a file with braces; rename it")
        return path


class TrainingSettings(Options):
    """What the options of training and the configuration made of them share."""

    size: Literal["small", "paper"] = "small"
    """Model size: small (1 x 512 LSTM units) or paper (2 x 512)."""
    target_accuracy: float | None = Field(default=None, gt=0, lt=1)
    """Stop once this share of training characters is predicted.

    Characters of secrets do not count; an epoch is always finished.
    """
    seed: SeedNumber = 0
    """Random seed."""


class TrainOptions(TrainingSettings):
    """How to train; the flags of ``canaryaudit train``."""

    epochs: int | None = Field(default=None, gt=0)
    """Passes over the text. [default: 24 for small, 40 for paper]"""
    device: DeviceName = "auto"
    """Device: auto, cpu or cuda."""
    precision: PrecisionName = "auto"
    """Training precision: auto, fp32 or bf16."""


class MeasurementSettings(Options):
    """What the options of measuring and the configuration made of them share."""

    num_references: int = Field(default=10_000, ge=100, le=100_000_000, alias="samples")
    """References to draw from each template's space.

    The default takes seconds, and gives 9 bits of exposure with a tight interval.
    """
    estimators: tuple[EstimatorName, ...] = get_args(EstimatorName)
    """Estimators to run: exact, importance, sampled, skew-normal."""
    search_budget: int = Field(default=SEARCH_BUDGET, ge=1, alias="budget")
    """Maximum number of prefixes that the exact rank search expands."""
    precision_bits: float = Field(default=0.1, gt=0)
    """Draw until importance intervals are at most this wide on either side.

    The default is finer than any decision needs.
    """
    max_draws: int = Field(default=100_000, ge=1, le=10_000_000)
    """Maximum number of importance draws per template.

    The default takes about 20 seconds for the 3.3 M-parameter model on two cores.
    """
    time_limit: float = Field(default=90, ge=0, allow_inf_nan=False)
    """Seconds to measure a model in, on two cores; 0 for no limit. It fixes an amount of work by the model's size, so
    that figures do not depend on the machine, and lowers only options left at their defaults.

    With the default, a measurement ends within two minutes on two cores, starting up included.
    """
    prompts: tuple[str, ...] = Field(default=(), alias="prompt")
    """Also ask after this text; repeatable."""
    seed: SeedNumber = 0
    """Random seed."""


class MeasureOptions(MeasurementSettings):
    """How to measure; the flags of ``canaryaudit measure``."""

    probes: ProbeEffort = "default"
    """How many other prompts to ask with: none, default or thorough.

    The default costs about as much as the rest of the measurement.
    """
    device: DeviceName = "auto"
    """Device: auto, cpu or cuda."""
    precision: PrecisionName = "auto"
    """Precision of the first pass over large samples: auto, fp32 or bf16.

    Everything else is float32.
    """


class RequestOptions(Options):
    """What to ask a model behind an API; the flags of ``canaryaudit requests``."""

    num_references: int = Field(default=1_000, ge=50, le=1_000_000, alias="samples")
    """Random strings per template, to compare with.

    Exposure is measured up to about log2 of their number: 10 bits by 1,000 of them, 13 by 10,000.
    """
    seed: SeedNumber = 0
    """Random seed."""


def check_replacement(replacement: str) -> str:
    """Return a replacement as it is.

    Raises:
        UsageError: It is unknown.
    """
    if replacement not in ("decoys", "sampled", "delete") and not replacement.startswith("text:"):
        raise UsageError(
            f"unknown replacement {replacement!r}: expected decoys, sampled, delete or text:WORDS, such as "
            "'text:not here '"
        )
    return replacement


class ReplacementSettings(Options):
    """What every unlearning has, and the options made for it."""

    replacement: str = "decoys"
    """Replacement: decoys (random strings of the same format), sampled (from the model), text:WORDS (repeated or cut to
    length), or delete (the whole sentence; first-order only)."""
    max_fidelity_drop: float = Field(default=0.003, gt=0, le=1)
    """Largest allowed accuracy drop on training text outside the secrets."""
    seed: SeedNumber = 0
    """Random seed."""

    # Refused at once, not after training.
    _known = field_validator("replacement")(check_replacement)


class ClosedFormSettings(ReplacementSettings):
    """What the options of unlearning and the configuration of a closed-form update share."""

    scope: Scope | None = None
    """Layers to update: final-layer, all-layers or both. [default: all-layers; final-layer for text and sampled]"""
    solver: SolverName = "kronecker"
    """Solver for all layers: kronecker (L-BFGS from the stored curvature); cg or lissa (few Gauss-Newton steps).

    The stored curvature is paid for once. In equal time, L-BFGS from it removes more than Gauss-Newton steps, after
    every prompt, and keeps more of the accuracy.
    """
    retain_windows: int = Field(default=RETAIN_WINDOWS, ge=0)
    """Windows of other text that regularize the update; 0: text sampled from the model instead."""
    tau: float | None = Field(default=None, gt=0)
    """Step size of the first-order update. [default: searched]"""


class UnlearnOptions(ClosedFormSettings):
    """How to unlearn; the flags of ``canaryaudit unlearn``."""

    name: str | None = None
    """Name of the result. [default: the method]"""
    method: Method = "second-order"
    """Update: second-order or first-order. Baselines: retrain, fine-tune or sisa (sharded training)."""
    canary: tuple[str, ...] = ()
    """Canary to unlearn; repeatable. [default: all]"""
    start: ModelId = Field(default=TRAINED_MODEL, alias="from")
    """Model to update: before, or after-NAME to continue from an earlier request."""
    shards: Shards | None = None
    """Number of shards for --method sisa, such as 5, 10 or 20. [default: 5]"""
    device: DeviceName = "auto"
    """Device: auto, cpu or cuda."""

    @property
    def resolved_name(self) -> str:
        """The name of the result."""
        return self.name or self.method


class RelearningSettings(Options):
    """What the options of attacking and the configuration made of them share."""

    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Training steps after which exposure is measured.

    Up to a few passes over the text that an attacker may have; most of the recovery happens in the first few.
    """
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """The attacker's Adam learning rate.

    The default is the usual choice of an attacker who does not know the model.
    """
    seed: SeedNumber = 0
    """Random seed."""

    @field_validator("steps")
    @classmethod
    def _positive(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not steps or not 1 <= min(steps) <= max(steps) <= MOST_STEPS:
            raise UsageError(f"--steps: expected numbers from 1 to {MOST_STEPS:,}, such as 1,2,4,8,16,32,64")
        return tuple(sorted(set(steps)))


class AttackOptions(RelearningSettings):
    """How to attack an unlearned model; the flags of ``canaryaudit attack``."""

    name: str | None = None
    """Unlearning to attack. [default: the last one that is not a baseline]"""
    canary: tuple[str, ...] = ()
    """Canary to attack; repeatable. [default: the one most exposed before unlearning]"""
    device: DeviceName = "auto"
    """Device: auto, cpu or cuda."""


class ReportOptions(Options):
    """What to report; the flags of ``canaryaudit report``."""

    format: tuple[ReportFormat, ...] = ("html", "md", "json")
    """Formats to write: html, md, json, junit, sarif, model-card."""
    output: Path | None = None
    """Output directory. [default: reports/<run name>]"""
    fail_above: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Exit with status 3 if an inserted canary's exposure is above this, or its verdict is exposed.

    Status 4 if the records are changed or incomplete, or the controls failed.
    """
    fail_worse: Path | None = None
    """Exit with status 3 if any result is worse than in this earlier report.json."""
    reveal_secrets: bool = False
    """Show given and located secrets; the report says so."""
    key: str | None = None
    """Key of the run's signature, which must be valid: a file, or env:NAME."""
    trend: bool = False
    """Order several runs by the time of their measurement, oldest first, and draw their course."""
    step_summary: bool = False
    """Append a summary in Markdown to the file named by GITHUB_STEP_SUMMARY."""


class Plan(Options):
    """A whole audit; the default is the audit of the embedded corpus.

    Examples:
        >>> plan = Plan(insert=InsertOptions(corpus="notes.txt", repetitions=(1, 8)), train=TrainOptions(epochs=30))
        >>> plan.train.size, plan.measure.num_references
        ('small', 10000)
    """

    run: Path = DEFAULT_RUNS / "embedded"
    insert: InsertOptions = InsertOptions(
        corpus="harbour",
        template=(
            '"My telephone number is {digits:10}," said the pilot.',
            "The strong-room opens to {digits:4}-{digits:4}.",
            '"Write down {digits:3}-{digits:2}-{digits:4}," said the baker.',
        ),
        canaries=9,
    )
    train: TrainOptions = TrainOptions()
    measure: MeasureOptions = MeasureOptions()
    unlearn: tuple[UnlearnOptions, ...] = (UnlearnOptions(),)
    attack: tuple[AttackOptions, ...] = ()
    """Empty by default: an attack needs a retrained model for comparison, which takes as long as training."""
    report: ReportOptions = ReportOptions()


def default_run(corpus: str) -> Path:
    """Return the default run directory of a corpus: ``runs/notes`` for ``texts/notes.txt``."""
    name = corpus.removeprefix("hub:").split(":")[0] if corpus.startswith("hub:") else corpus
    if name == "-":
        return DEFAULT_RUNS / "stdin"
    return DEFAULT_RUNS / (re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.") or "audit")


def describe(error: ValidationError) -> tuple[str, str]:
    """Return the field and the description of the first validation error, never with a secret's text."""
    first = error.errors(include_url=False)[0]
    fault = plain_fault(first["msg"])
    if first["type"] == "literal_error" or first["type"].startswith(("greater_than", "less_than")):
        fault += f", got {first['input']!r}"
    return ".".join(map(str, first["loc"])), fault
