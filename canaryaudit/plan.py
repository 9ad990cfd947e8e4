"""What a command or a plan file asks for, stage by stage: defaults stand here, with their reasons."""

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
"""Windows of other text that an update is held to by default: 100,000 characters, beside up to 20,000 weights that
move. With 300 the accuracy on a novel fell three times as much where secrets are made of letters."""

MOST_STEPS = 10_000
"""Steps of a relearning attack; all its batches are drawn beforehand."""

_WORDS = {
    "Input should be": "expected",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    "a valid tuple": "a list",
    "a valid ": "a ",
}
"""Pydantic's words in plain ones."""


class Options(BaseModel):
    """Base of all options: immutable, unknown ones are errors, and each bears its flag's name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class InsertOptions(Options):
    """What to insert where; as the flags of ``canaryaudit insert``."""

    corpus: str
    """A .txt, .jsonl, .csv or .parquet file, the name of a corpus under corpora/, or hub:ID[:split]."""
    column: str | None = None
    """The column that holds the text, where there are several."""
    template: tuple[str, ...] | None = None
    """None for the default template, where something is to be inserted."""
    canaries: int | None = Field(default=None, ge=0)
    """Generated canaries in all; 6 where no secret is given or located: two for each of the default repetitions."""
    repetitions: tuple[int, ...] = (1, 4, 16)
    """Once, and two steps up: memorization begins somewhere between."""
    secret: tuple[str, ...] = ()
    locate: tuple[str, ...] = ()
    """Templates of secrets that stand in the corpus; they are audited where they stand."""
    controls: int = Field(default=32, ge=0, le=10_000)
    """For each template; their mean exposure is then known to a quarter of a bit."""
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
    """How to train; as the flags of ``canaryaudit train``."""

    size: Literal["small", "paper"] = "small"
    epochs: int | None = Field(default=None, gt=0)
    """None for the size's own: 24 for small, 40 for paper."""
    target_accuracy: float | None = Field(default=None, gt=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = Field(default=0, ge=0)


class MeasureOptions(Options):
    """How to measure; as the flags of ``canaryaudit measure``."""

    samples: int = Field(default=10_000, ge=100, le=100_000_000)
    estimators: tuple[EstimatorName, ...] = ("exact", "importance", "sampled", "skew-normal")
    budget: int = Field(default=50_000, ge=1)
    """Prefixes that the search for one template's exact ranks may expand."""
    precision_bits: float = Field(default=0.1, gt=0)
    """Half-width of the importance interval that is enough: finer than any decision needs."""
    max_draws: int = Field(default=100_000, ge=1, le=10_000_000)
    """Importance draws of one template; some 20 seconds of the 3.3 M-parameter model on two cores."""
    probes: ProbeEffort = "default"
    """In how many ways to ask: ``default`` costs about as much as all else in the measurement."""
    prompt: tuple[str, ...] = ()
    """Prompts of the user's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the first look at large reference samples; all else is float32."""
    seed: int = Field(default=0, ge=0)


class UnlearnOptions(Options):
    """How to unlearn; as the flags of ``canaryaudit unlearn``."""

    name: str | None = None
    """None for the method's name."""
    method: Method = "second-order"
    scope: Scope | None = None
    solver: SolverName = "adam"
    """Of steps over all layers: many preconditioned ones forget more for their time than a few Gauss-Newton steps."""
    replacement: str = "decoys"
    canary: tuple[str, ...] = ()
    """Ids; empty for every inserted canary."""
    start: str = Field(default="before", alias="from")
    """The model to update: ``before``, or ``after-NAME`` for one request after another."""
    retain_windows: int = Field(default=RETAIN_WINDOWS, ge=0)
    """0 for none of the corpus: the model is held to text that it says itself."""
    max_fidelity_drop: float = Field(default=0.003, gt=0, le=1)
    tau: float | None = Field(default=None, gt=0)
    shards: int | None = Field(default=None, ge=2, le=100)
    """Of the method sisa; None for its own, 5."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)

    @property
    def resolved_name(self) -> str:
        """The name that the result is kept under."""
        return self.name or self.method


class AttackOptions(Options):
    """How to attack what was unlearned; as the flags of ``canaryaudit attack``."""

    name: str | None = None
    """Which unlearning; None for the last that is more than a baseline."""
    canary: tuple[str, ...] = ()
    """Ids; empty for the one that was the most exposed before."""
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Up to a few passes over what an attacker may have of a text; most of a secret's way back is the first few."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of Adam: what someone who knows nothing of the model takes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)

    @field_validator("steps")
    @classmethod
    def _positive(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if not steps or not 1 <= min(steps) <= max(steps) <= MOST_STEPS:
            raise UsageError(f"--steps: expected numbers from 1 to {MOST_STEPS:,}, such as 1,2,4,8,16,32,64")
        return tuple(sorted(set(steps)))


class ReportOptions(Options):
    """What to report; as the flags of ``canaryaudit report``."""

    format: tuple[ReportFormat, ...] = ("html", "md", "json")
    output: Path | None = None
    """None for reports/<run name>."""
    fail_above: float | None = Field(default=None, ge=0)
    fail_worse: Path | None = None
    """An earlier report.json."""
    reveal_secrets: bool = False


class Plan(Options):
    """A whole audit; without a file, that of the embedded corpus."""

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
    """None by default: an attack needs a retrained model beside it, which takes as long as training did."""
    report: ReportOptions = ReportOptions()


def default_run(corpus: str) -> Path:
    """Return the run directory for a corpus where none was named: ``runs/notes`` for ``texts/notes.txt``."""
    name = corpus.removeprefix("hub:").split(":")[0] if corpus.startswith("hub:") else corpus
    return DEFAULT_RUNS / (re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.") or "audit")


def read_plan(path: Path) -> Plan:
    """Read a plan file; without ``run``, its run directory bears the plan's own name.

    Raises:
        UsageError: It cannot be read, is no TOML, or asks for something unknown.
    """
    try:
        plan = Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML file ({one_line(error)}): mend that place") from error
    except ValidationError as error:
        place, fault = describe(error)
        raise UsageError(f"{path}: {place or 'plan'}: {fault}; see canaryaudit run --help") from error
    return plan if "run" in plan.model_fields_set else plan.model_copy(update={"run": default_run(path.name)})


def describe(error: ValidationError) -> tuple[str, str]:
    """Return where a validation's first fault is, and what it is; a secret's text is never told."""
    first = error.errors(include_url=False)[0]
    fault = first["msg"]
    for theirs, ours in _WORDS.items():
        fault = fault.replace(theirs, ours)
    if first["type"] == "extra_forbidden":
        fault = "there is no such key"
    elif first["type"] == "literal_error" or first["type"].startswith(("greater_than", "less_than")):
        fault += f", got {first['input']!r}"
    return ".".join(map(str, first["loc"])), fault
