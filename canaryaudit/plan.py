"""Options of every command and of plan files, stage by stage, with their defaults and the reasons for them."""

import re
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from canaryaudit.errors import UsageError, one_line
from canaryaudit.records import EstimatorName, Method, ProbeEffort, ReportFormat, Scope, SolverName

DEFAULT_TEMPLATE = "My telephone number is {digits:10}."
DEFAULT_RUNS = Path("runs")
RETAIN_WINDOWS = 1000
"""Default number of windows of other text that regularize an update: 100,000 characters for up to 20,000 weights that
change. With 300 windows, accuracy on a novel fell three times as much for secrets made of letters."""

MOST_STEPS = 10_000
"""Maximum steps of a relearning attack; all its batches are drawn in advance."""

_WORDS = {
    "Input should be": "expected",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    "a valid tuple": "a list",
    "a valid ": "a ",
}
"""Plain words for Pydantic's."""


class Options(BaseModel):
    """Base of all options: immutable, named after their flags; unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class InsertOptions(Options):
    """What to insert, and where; the flags of ``canaryaudit insert``."""

    corpus: str
    """A .txt, .jsonl, .csv or .parquet file, the name of a corpus under corpora/, or hub:ID[:split]."""
    column: str | None = None
    """The column that holds the text, if there are several."""
    template: tuple[str, ...] | None = None
    """None for the default template, if something is inserted."""
    canaries: int | None = Field(default=None, ge=0)
    """Total number of generated canaries. The default is 6, two per default repetition count, or 0 if secrets are given
    or located."""
    repetitions: tuple[int, ...] = (1, 4, 16)
    """Memorization usually begins within this range."""
    secret: tuple[str, ...] = ()
    locate: tuple[str, ...] = ()
    """Templates of secrets that already occur in the corpus; they are audited in place."""
    controls: int = Field(default=32, ge=0, le=10_000)
    """Per template; 32 controls determine their mean exposure to a quarter of a bit."""
    space: Literal["digits", "alnum", "any"] | None = None
    lowercase: bool = False
    skip_chars: int = Field(default=0, ge=0)
    holdout: float = 0.05
    seed: int = Field(default=0, ge=0)

    @property
    def num_canaries(self) -> int:
        """How many secrets to generate."""
        return self.canaries if self.canaries is not None else (0 if self.secret or self.locate else 6)

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates of what is to be inserted."""
        inserting = self.num_canaries or self.secret or not self.locate
        return self.template if self.template is not None else (DEFAULT_TEMPLATE,) if inserting else ()


class TrainOptions(Options):
    """How to train; the flags of ``canaryaudit train``."""

    size: Literal["small", "paper"] = "small"
    epochs: int | None = Field(default=None, gt=0)
    """None for the default of the size: 24 for small, 40 for paper."""
    target_accuracy: float | None = Field(default=None, gt=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = Field(default=0, ge=0)


class MeasureOptions(Options):
    """How to measure; the flags of ``canaryaudit measure``."""

    samples: int = Field(default=10_000, ge=100, le=100_000_000)
    estimators: tuple[EstimatorName, ...] = ("exact", "importance", "sampled", "skew-normal")
    budget: int = Field(default=50_000, ge=1)
    """Maximum number of prefixes that the exact rank search expands for one template."""
    precision_bits: float = Field(default=0.1, gt=0)
    """Target half-width of the importance interval: finer than any decision needs."""
    max_draws: int = Field(default=100_000, ge=1, le=10_000_000)
    """Maximum importance draws per template: about 20 seconds for the 3.3 M-parameter model on two cores."""
    probes: ProbeEffort = "default"
    """How many other prompts to ask with: ``default`` costs about as much as the rest of the measurement."""
    prompt: tuple[str, ...] = ()
    """The user's own prompts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the first pass over large reference samples; everything else is float32."""
    seed: int = Field(default=0, ge=0)


class UnlearnOptions(Options):
    """How to unlearn; the flags of ``canaryaudit unlearn``."""

    name: str | None = None
    """None for the method's name."""
    method: Method = "second-order"
    scope: Scope | None = None
    solver: SolverName = "kronecker"
    """For all layers: L-BFGS from the stored curvature, or a few Gauss-Newton steps."""
    replacement: str = "decoys"
    canary: tuple[str, ...] = ()
    """Ids; empty for every inserted canary."""
    start: str = Field(default="before", alias="from")
    """The model to update: ``before``, or ``after-NAME`` to continue from an earlier request."""
    retain_windows: int = Field(default=RETAIN_WINDOWS, ge=0)
    """0 to use no text of the corpus: the update is regularized on text sampled from the model."""
    max_fidelity_drop: float = Field(default=0.003, gt=0, le=1)
    tau: float | None = Field(default=None, gt=0)
    shards: int | None = Field(default=None, ge=2, le=100)
    """For method sisa; None for its default, 5."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)

    @property
    def resolved_name(self) -> str:
        """The name of the result."""
        return self.name or self.method


class AttackOptions(Options):
    """How to attack an unlearned model; the flags of ``canaryaudit attack``."""

    name: str | None = None
    """The unlearning to attack; None for the last one that is not a baseline."""
    canary: tuple[str, ...] = ()
    """Ids; empty for the canary most exposed before unlearning."""
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Up to a few passes over the text that an attacker may have; most of the recovery happens in the first few."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Adam's learning rate; the usual choice of an attacker who does not know the model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)

    @field_validator("steps")
    @classmethod
    def _positive(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not steps or not 1 <= min(steps) <= max(steps) <= MOST_STEPS:
            raise UsageError(f"--steps: expected numbers from 1 to {MOST_STEPS:,}, such as 1,2,4,8,16,32,64")
        return tuple(sorted(set(steps)))


class ReportOptions(Options):
    """What to report; the flags of ``canaryaudit report``."""

    format: tuple[ReportFormat, ...] = ("html", "md", "json")
    output: Path | None = None
    """None for reports/<run name>."""
    fail_above: float | None = Field(default=None, ge=0)
    fail_worse: Path | None = None
    """An earlier report.json."""
    reveal_secrets: bool = False


class Plan(Options):
    """A whole audit; the default is the audit of the embedded corpus."""

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
    return DEFAULT_RUNS / (re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.") or "audit")


def read_plan(path: Path) -> Plan:
    """Read a plan file; without ``run``, the run directory is named after the file.

    Raises:
        UsageError: It cannot be read, is not TOML, or has an unknown key or an invalid value.
    """
    try:
        plan = Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a valid TOML file ({one_line(error)}): correct it") from error
    except ValidationError as error:
        field, fault = describe(error)
        raise UsageError(f"{path}: {field or 'plan'}: {fault}; see canaryaudit run --help") from error
    return plan if "run" in plan.model_fields_set else plan.model_copy(update={"run": default_run(path.name)})


def describe(error: ValidationError) -> tuple[str, str]:
    """Return the field and the description of the first validation error, never with a secret's text."""
    first = error.errors(include_url=False)[0]
    fault = first["msg"]
    for pydantic_words, plain_words in _WORDS.items():
        fault = fault.replace(pydantic_words, plain_words)
    if first["type"] == "extra_forbidden":
        fault = "unknown key"
    elif first["type"] == "literal_error" or first["type"].startswith(("greater_than", "less_than")):
        fault += f", got {first['input']!r}"
    return ".".join(map(str, first["loc"])), fault
