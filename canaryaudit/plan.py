"""What a command or a plan file asks for, stage by stage: defaults stand here, with their reasons."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canaryaudit.errors import CanaryAuditError, one_line
from canaryaudit.records import EstimatorName
from canaryaudit.unlearning import Method, Scope

DEFAULT_TEMPLATE = "My telephone number is {digits:10}."
ReportFormat = Literal["html", "md", "json"]


class PlanError(CanaryAuditError):
    """A plan, or an option, is not well formed."""


class Options(BaseModel):
    """Base of all options: immutable, and unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class InsertOptions(Options):
    """What to insert where; as the flags of ``canaryaudit insert``."""

    corpus: str
    """A .txt, .jsonl, .csv or .parquet file, the name of a corpus under corpora/, or hub:ID[:split]."""
    column: str | None = None
    """The column that holds the text, where there are several."""
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    canaries: int | None = None
    """Generated canaries in all; 6 where no secret is given: two for each of the default repetitions."""
    repetitions: tuple[int, ...] = (1, 4, 16)
    """Once, and two steps up: memorisation begins somewhere between."""
    secrets: tuple[str, ...] = ()
    controls: int = 32
    """For each template; their mean exposure is then known to a quarter of a bit."""
    space: Literal["digits", "alnum", "any"] | None = None
    lowercase: bool = False
    skip_chars: int = Field(default=0, ge=0)
    holdout: float = 0.05
    seed: int = Field(default=0, ge=0)


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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)


class UnlearnOptions(Options):
    """How to unlearn; as the flags of ``canaryaudit unlearn``."""

    name: str | None = None
    """None for the method's name."""
    method: Method = "second-order"
    scope: Scope | None = None
    replacement: str = "decoys"
    canary: tuple[str, ...] = ()
    """Ids; empty for every inserted canary."""
    retain_windows: int = Field(default=300, ge=1)
    max_fidelity_drop: float = Field(default=0.003, gt=0, le=1)
    tau: float | None = Field(default=None, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)

    @property
    def resolved_name(self) -> str:
        """The name that the result is kept under."""
        return self.name or self.method


class ReportOptions(Options):
    """What to report; as the flags of ``canaryaudit report``."""

    formats: tuple[ReportFormat, ...] = ("html", "md", "json")
    output: Path | None = None
    """None for reports/<run name>."""
    fail_above: float | None = Field(default=None, ge=0)
    reveal_secrets: bool = False


class Plan(Options):
    """A whole audit; without a file, that of the embedded corpus."""

    run: Path = Path("runs/embedded")
    insert: InsertOptions = InsertOptions(
        corpus="harbour",
        templates=(
            '"My telephone number is {digits:10}," said the pilot.',
            "The strong-room opens to {lower:4}-{digits:4}.",
            '"Write down {digits:3}-{digits:2}-{digits:4}," said the baker.',
        ),
        canaries=9,
    )
    train: TrainOptions = TrainOptions()
    measure: MeasureOptions = MeasureOptions()
    unlearn: tuple[UnlearnOptions, ...] = (UnlearnOptions(),)
    report: ReportOptions = ReportOptions()


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: It cannot be read, is no TOML, or asks for something unknown.
    """
    try:
        return Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no TOML file ({one_line(error)}): mend that place") from error
    except ValidationError as error:
        raise PlanError(f"{path}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Say the first fault of a validation in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "plan"
    known = "; see `canaryaudit run --help`" if first["type"] == "extra_forbidden" else ""
    return f"{place}: {first['msg']}{known}"
