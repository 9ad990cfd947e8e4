"""Options of the commands on tables, with their defaults and the reasons for them."""

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from canaryaudit.errors import UsageError
from canaryaudit.plan import DEFAULT_RUNS, Options, ReadingSettings, SeedNumber
from canaryaudit.records import TRAINED_MODEL, ModelId

FEWEST_FLIPPED = 6
"""Of twice as many candidates with a coin each, not even four are guessed: that can show next to nothing."""
TABLE_HOLDOUT = 0.2
"""Rows, unlike symbols of a text, are few: a twentieth of them would say little about accuracy."""
_PLANT = re.compile(r"(?P<column>[^=]+)=(?P<value>.*):(?P<number>\d+)")
_CONDITION = re.compile(r"(?P<column>.*?[^<>=!\s])\s*(?P<sign><=|>=|!=|==|<|>|=)\s*(?P<value>[^=<>].*|)")


@dataclass(frozen=True)
class Planting:
    """A value to plant in a column.

    Attributes:
        column: The source's column.
        value: A number, as text, or a category.
        number: About how many rows get it.
    """

    column: str
    value: str
    number: int

    @classmethod
    def parse(cls, text: str) -> "Planting":
        """Parse ``COLUMN=VALUE:N``.

        Raises:
            UsageError: It is not of this form, or N is too small.
        """
        match = _PLANT.fullmatch(text)
        if not match or not match["value"]:
            raise UsageError(f"--plant {text!r}: expected COLUMN=VALUE:N, such as city=Atlantis:50")
        number = int(match["number"])
        if number < FEWEST_FLIPPED:
            raise UsageError(f"--plant {text!r}: expected at least {FEWEST_FLIPPED} rows, got {number}")
        return cls(match["column"], match["value"], number)


@dataclass(frozen=True)
class Condition:
    """A condition on a column of the source.

    Attributes:
        column: The source's column.
        sign: One of < <= > >= = !=.
        value: A number, as text, or a category.
    """

    column: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Parse a condition such as ``age<18``.

        Raises:
            UsageError: It is not of this form.
        """
        match = _CONDITION.fullmatch(text.strip())
        if not match:
            raise UsageError(f"--where {text!r}: expected a column, < <= > >= = or !=, and a value, such as 'age<18'")
        return cls(match["column"].strip(), match["sign"].replace("==", "="), match["value"].strip())


def parse_assignment(text: str) -> tuple[str, str]:
    """Parse ``COLUMN=VALUE``.

    Raises:
        UsageError: It is not of this form.
    """
    column, sign, value = text.partition("=")
    if not column or not sign:
        raise UsageError(f"--replace {text!r}: expected COLUMN=VALUE, such as age=0")
    return column, value


def _two_numbers(value: object) -> object:
    """Return what may be an epsilon and a delta.

    Raises:
        UsageError: It is not two numbers.
    """
    given: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    try:
        epsilon, delta = (float(own) for own in given)
    except (TypeError, ValueError):
        shown = ",".join(map(str, given))
        raise UsageError(f"--certify {shown[:80]}: expected EPSILON,DELTA, such as 0.1,1e-5") from None
    if not (0 < epsilon < math.inf and 0 < delta < 1):
        raise UsageError(f"--certify {epsilon:g},{delta:g}: expected an epsilon above 0 and a delta below 1")
    return epsilon, delta


Guarantee = Annotated[tuple[float, float], BeforeValidator(_two_numbers)]
"""Epsilon and delta."""


def _enough_flipped(number: int) -> int:
    """Return a number of labels to flip.

    Raises:
        UsageError: It is too small.
    """
    if 0 < number < FEWEST_FLIPPED:
        raise UsageError(f"--flip-labels {number}: expected at least {FEWEST_FLIPPED} rows")
    return number


FlippedNumber = Annotated[int, Field(ge=0), AfterValidator(_enough_flipped)]
"""About how many labels to flip; none, or enough that something can show."""


class TableInsertOptions(Options):
    """What to find or plant in a table; the flags of ``canaryaudit insert`` with ``--target``."""

    corpus: str
    """File (.csv, .tsv, .parquet, .npz; csv and tsv also .gz, .zst) or folder of a saved data set."""
    target: str
    """Column of labels of a table, which are classes; the table's rows are audited instead of a text."""
    columns: tuple[str, ...] = ()
    """Sensitive columns of a table, to be removed by `unlearn`: a name, a pattern such as 'name_*', several separated
    by commas, or a file with one per line; repeatable."""
    flip_labels: FlippedNumber = 0
    """Flip the labels of about N rows of a table.

    Of 2N random rows each has a fair coin of its own, which decides whether its label is flipped; the others are
    controls.
    """
    plant: tuple[str, ...] = ()
    """Plant a value in about N rows of a table, COLUMN=VALUE:N, by coins as --flip-labels; repeatable."""
    drop: tuple[str, ...] = ()
    """Column of a table to leave out; repeatable."""
    id: str | None = Field(default=None, min_length=1)
    """Column that identifies the rows of a table. [default: row numbers, from 1]"""
    names: str | None = Field(default=None, min_length=1)
    """File with one column name per line, for a matrix in an .npz file without names."""
    scale: Literal["range", "none"] | None = None
    """Scale numbers to 0 to 1 by the training rows (range), or not (none). [default: range; none for .npz]"""
    delimiter: str | None = None
    """Character between the cells of a delimited file, or comma, semicolon, tab or bar. [default: detected]"""
    escape: Literal["doubled", "backslash"] | None = None
    """How quotation marks are written within quoted cells: doubled or backslash. [default: detected]"""
    header: bool | None = None
    """Whether the first row of a delimited file has the names of the columns. [default: detected]"""
    encoding: str | None = None
    """Encoding of the text. [default: UTF-8]"""
    holdout: float = Field(default=TABLE_HOLDOUT, ge=0, lt=1)
    """Share of the rows to hold out for evaluation."""
    seed: SeedNumber = 0
    """Random seed."""

    @field_validator("plant")
    @classmethod
    def _parsed(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        columns = [Planting.parse(text).column for text in texts]
        if len(set(columns)) != len(columns):
            raise UsageError("--plant: one value for each column")
        return texts

    @property
    def plantings(self) -> tuple[Planting, ...]:
        """The values to plant."""
        return tuple(map(Planting.parse, self.plant))

    @property
    def reading(self) -> ReadingSettings:
        """How to read a delimited file."""
        return ReadingSettings(
            column=(self.target,),
            delimiter=self.delimiter,
            escape=self.escape,
            header=self.header,
            encoding=self.encoding,
        )


class TableTrainOptions(Options):
    """How to train on a table; the flags of ``canaryaudit train`` on a run on a table."""

    loss: Literal["logistic", "squared-hinge"] = "logistic"
    """Linear model of a table: logistic regression (logistic), or a support vector machine (squared-hinge)."""
    c: float = Field(default=1.0, gt=0)
    """C of a linear model, as in scikit-learn: the smaller, the stronger it is regularized."""
    intercept: bool = True
    """Whether a linear model has an intercept; it is regularized, or no certificate would hold."""
    model: Path | None = None
    """Fitted scikit-learn estimator of a table, as a skops file, in place of --loss, --c and --intercept."""
    tolerance: float = Field(default=1e-6, gt=0)
    """Largest norm of the gradient of any linear model of a run.

    With the default, the loss of a row is that of retraining to six digits.
    """


class TableUnlearnOptions(Options):
    """What to unlearn of a table; the flags of ``canaryaudit unlearn`` on a run on a table."""

    name: str | None = None
    """Name of the result. [default: the method]"""
    method: Literal["second-order", "retrain"] = "second-order"
    """Update: second-order, or retrain from nothing."""
    columns: tuple[str, ...] = ()
    """Columns of a table to remove, as `insert --columns`; repeatable."""
    replace: tuple[str, ...] = ()
    """Value to put in a column of a table, COLUMN=VALUE; repeatable."""
    where: tuple[str, ...] = ()
    """Rows in which --replace puts it, such as 'age<18'; repeatable, all must hold. [default: all rows]"""
    relabel: Path | None = None
    """CSV file with the id and the right label of each row to correct."""
    rows: Path | None = None
    """File with the id of each row to delete, one per line."""
    canary: tuple[str, ...] = ()
    """Canary to unlearn; repeatable. [default: all]"""
    save: Path | None = None
    """Skops file for the updated estimator of a table, which takes the run's encoded columns."""
    start: ModelId = Field(default=TRAINED_MODEL, alias="from")
    """Model to update: before, or after-NAME to continue from an earlier request."""
    seed: SeedNumber = 0
    """Random seed."""

    @property
    def resolved_name(self) -> str:
        """The name of the result."""
        return self.name or self.method

    @property
    def asks(self) -> bool:
        """Whether anything was asked for, apart from what was inserted."""
        return bool(self.columns or self.replace or self.relabel or self.rows or self.canary)

    @field_validator("replace")
    @classmethod
    def _assignments(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            parse_assignment(text)
        return texts

    @field_validator("where")
    @classmethod
    def _conditions(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            Condition.parse(text)
        return texts


class TablePublishOptions(Options):
    """How to publish a model of a table; the flags of ``canaryaudit publish``."""

    output: Path
    """Skops file for the estimator with noise, which takes the run's encoded columns."""
    certify: Guarantee
    """Guarantee of all planned releases together, EPSILON,DELTA, such as 0.1,1e-5."""
    releases: int = Field(default=1, ge=1, le=10_000)
    """How many models of the run will be published in all; the first release fixes it.

    The noise grows with its square root.
    """
    model: ModelId | None = None
    """Model to publish: after-NAME. [default: the last result of unlearn]"""


class RowsReportOptions(Options):
    """What to report of a run on rows, whether of a table or images; the flags of ``canaryaudit report``."""

    format: tuple[Literal["html", "md", "json", "junit", "sarif"], ...] = ("html", "md", "json")
    """Formats to write: html, md, json, junit, sarif."""
    output: Path | None = None
    """Output directory. [default: reports/<run name>]"""
    key: str | None = None
    """Key of the run's signature, which must be valid: a file, or env:NAME."""
    step_summary: bool = False
    """Append a summary in Markdown to the file named by GITHUB_STEP_SUMMARY."""

    @property
    @abstractmethod
    def is_gated(self) -> bool:
        """Whether a pipeline is to pass or not."""

    @property
    @abstractmethod
    def gate_flag(self) -> str:
        """The flag of the gate."""

    @property
    def reveals(self) -> bool:
        """Whether names that may be words of the data are shown."""
        return False


class TableReportOptions(RowsReportOptions):
    """What to report of a run on a table."""

    against: tuple[str, ...] = ("retrain", "left-out", "first-order", "second-order", "fine-tune", "sisa")
    """Method to compare a linear model with: retrain, left-out, first-order, second-order, fine-tune, sisa:5,10,20 or
    sisa-deleted:5,10,20; repeatable. [default: all but the last]"""
    certify: Guarantee | None = None
    """Certify the publication of a linear model for EPSILON,DELTA, such as 0.1,1e-5."""
    fail_residual: float | None = Field(default=None, gt=0)
    """Exit with status 3 if an unlearned linear model's residual is above this.

    Status 4 if the records are changed or incomplete, or nothing was unlearned.
    """
    reveal_secrets: bool = False
    """Show given and located secrets; the report says so."""

    @property
    def is_gated(self) -> bool:
        """Whether residuals are judged."""
        return self.fail_residual is not None

    @property
    def gate_flag(self) -> str:
        """The flag of the gate."""
        return "--fail-residual"

    @property
    def reveals(self) -> bool:
        """Whether names that may be words of the data are shown."""
        return self.reveal_secrets


class TablePlan(Options):
    """A whole audit of a table."""

    run: Path = DEFAULT_RUNS / "table"
    insert: TableInsertOptions
    train: TableTrainOptions = TableTrainOptions()
    unlearn: tuple[TableUnlearnOptions, ...] = (TableUnlearnOptions(),)
    report: TableReportOptions = TableReportOptions()
