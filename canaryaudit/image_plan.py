"""Options of the commands on images, with their defaults and the reasons for them; plan files of every kind."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from canaryaudit.errors import UsageError, one_line
from canaryaudit.plan import DEFAULT_RUNS, Options, Plan, SeedNumber, default_run, describe
from canaryaudit.records import TRAINED_MODEL, ModelId
from canaryaudit.records.images import ImageMethod
from canaryaudit.table_plan import TABLE_HOLDOUT, FlippedNumber, RowsReportOptions, TablePlan

EPOCHS = 16
DEFAULT_METHOD: ImageMethod = "dense-layers"


class ImageInsertOptions(Options):
    """What to flip in a set of images; the flags of ``canaryaudit insert`` with ``--image``."""

    corpus: str
    """File (.parquet, .npz) or folder (a saved data set, or a folder of images for each class)."""
    image: str = Field(min_length=1)
    """Column of images of a data set, or array of an .npz file: images are audited instead of a text."""
    target: str = Field(min_length=1)
    """Column of labels."""
    flip_labels: FlippedNumber = 0
    """Flip the labels of about N rows, to another class drawn at random; see TableInsertOptions."""
    id: str | None = Field(default=None, min_length=1)
    """Column that identifies the rows. [default: row numbers, from 1]"""
    holdout: float = Field(default=TABLE_HOLDOUT, ge=0, lt=1)
    """Share of the rows to hold out for evaluation."""
    seed: SeedNumber = 0
    """Random seed."""


class ImageTrainOptions(Options):
    """How to train on images; the flags of ``canaryaudit train`` on a run on images."""

    epochs: int = Field(default=EPOCHS, ge=1)
    """Passes over the images."""
    filters: tuple[int, ...] = ()
    """Filters of each block of two convolutions of a network for images. [default: from the images' size]"""
    dense: int = Field(default=128, ge=2)
    """Width of the dense layer of a network for images."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Largest learning rate of the cycle, of a network for images."""
    batch_size: int = Field(default=128, ge=2)
    """Images of one training step."""
    device: str = "auto"
    """Device: auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products: fp32, bf16, or whichever is faster (auto)."""
    seed: SeedNumber = 0
    """Random seed."""

    @field_validator("filters")
    @classmethod
    def _positive(cls, filters: tuple[int, ...]) -> tuple[int, ...]:
        if any(own < 1 for own in filters):
            raise UsageError(f"--filters {','.join(map(str, filters))}: expected numbers such as 16,32,64")
        return filters


class ImageUnlearnOptions(Options):
    """What to correct; the flags of ``canaryaudit unlearn`` on a run on images."""

    name: str | None = None
    """Name of the result. [default: the method]"""
    method: ImageMethod = DEFAULT_METHOD
    """Update of a network for images."""
    relabel: Path | None = None
    """CSV file with the id and the right label of each row to correct. [default: all flipped labels]"""
    canary: tuple[str, ...] = ()
    """Canary to unlearn; repeatable. [default: all]"""
    start: ModelId = Field(default=TRAINED_MODEL, alias="from")
    """Model to update: before, or after-NAME to continue from an earlier request."""
    device: str = "auto"
    """Device: auto, cpu or cuda."""
    seed: SeedNumber = 0
    """Random seed."""

    @property
    def resolved_name(self) -> str:
        """The name of the result."""
        return self.name or self.method


class ImageReportOptions(RowsReportOptions):
    """What to report of a run on images."""

    fail_auc: float | None = Field(default=None, ge=0.5, le=1)
    """Exit with status 3 if the AUC of flipped labels against controls is above this after unlearning, or below 1 - X.

    Status 4 if the records are changed or incomplete, or nothing was unlearned.
    """

    @property
    def is_gated(self) -> bool:
        """Whether the AUC is judged."""
        return self.fail_auc is not None

    @property
    def gate_flag(self) -> str:
        """The flag of the gate."""
        return "--fail-auc"


class ImagePlan(Options):
    """A whole audit of images."""

    run: Path = DEFAULT_RUNS / "images"
    insert: ImageInsertOptions
    train: ImageTrainOptions = ImageTrainOptions()
    unlearn: tuple[ImageUnlearnOptions, ...] = (ImageUnlearnOptions(),)
    report: ImageReportOptions = ImageReportOptions()


def read_plan(path: Path) -> Plan | TablePlan | ImagePlan:
    """Read a plan file: that of images if its [insert] has an image, and of a table if it has a target only.

    Without ``run``, the run directory is named after the file.

    Raises:
        UsageError: It cannot be read, is not TOML, or has an unknown key or an invalid value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        insert = document.get("insert")
        keys = {*insert} if isinstance(insert, dict) else set()
        kind = ImagePlan if "image" in keys else TablePlan if "target" in keys else Plan
        plan: Plan | TablePlan | ImagePlan = kind.model_validate(document)
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a valid TOML file ({one_line(error)}): correct it") from error
    except ValidationError as error:
        field, fault = describe(error)
        raise UsageError(f"{path}: {field or 'plan'}: {fault}; see canaryaudit run --help") from error
    return plan if "run" in plan.model_fields_set else plan.model_copy(update={"run": default_run(path.name)})
