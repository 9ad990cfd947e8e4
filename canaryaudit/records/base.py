"""Base class and types of all records."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from canaryaudit.errors import InvalidName

SCHEMA_VERSION = 1

MAX_MEMBERS = 100
"""Maximum number of models in an ensemble, as for ``--shards``. It bounds the memory that a record can claim."""

T = TypeVar("T")


class _AtFirst(FailFast):
    __hash__ = object.__hash__  # needed to use the type in a union


Many = Annotated[tuple[T, ...], _AtFirst()]
"""A sequence whose validation stops at the first invalid item. An untrusted file may have millions of them, and each
reported error takes hundreds of bytes."""

RunKind = Literal["text", "table", "images"]
"""What a run directory audits: a language model on text, a linear model on a table, or a network on images."""
Stage = Literal["insert", "train", "measure", "unlearn", "attack", "publish", "report"]
EstimatorName = Literal["exact", "importance", "sampled", "skew-normal"]
ClosedForm = Literal["first-order", "second-order"]
Baseline = Literal["retrain", "fine-tune", "sisa"]
Method = Literal[ClosedForm, Baseline]
Scope = Literal["final-layer", "all-layers", "both"]
SolverName = Literal["kronecker", "cg", "lissa"]
ProbeFamily = Literal["template", "context", "truncated", "reworded", "bare", "partial"]
ProbeEffort = Literal["none", "default", "thorough"]
ReportFormat = Literal["html", "md", "json", "junit", "sarif", "model-card"]


class Record(BaseModel):
    """Base of all records: immutable and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")


class FiniteRecord(Record):
    """Base of records whose figures decide verdicts: infinite numbers and NaN are refused."""

    model_config = ConfigDict(allow_inf_nan=False)


_BEFORE, _AFTER = "before", "after-"


@dataclass(frozen=True)
class ModelId:
    """Which of a run's models: the trained one, ``before``, or what an unlearning left of it, ``after-NAME``.

    Attributes:
        unlearning: The name of the unlearning; None for the trained model.
    """

    unlearning: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelId":
        """Return the model that is called so.

        Raises:
            InvalidName: No model can be called so.
        """
        if text == _BEFORE:
            return cls()
        if text.startswith(_AFTER) and text != _AFTER:
            return cls(text.removeprefix(_AFTER))
        raise InvalidName(f"no model is called {text!r}: expected {_BEFORE} or {_AFTER}NAME")

    @property
    def is_trained(self) -> bool:
        """Whether it is the model as it was trained."""
        return self.unlearning is None

    def __str__(self) -> str:
        return _BEFORE if self.unlearning is None else f"{_AFTER}{self.unlearning}"

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> CoreSchema:
        """In a file it is its name."""
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls._validated, core_schema.str_schema()),
            python_schema=core_schema.no_info_plain_validator_function(cls._validated),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )

    @classmethod
    def _validated(cls, value: object) -> "ModelId":
        if isinstance(value, cls):
            return value
        try:
            if isinstance(value, str):
                return cls.parse(value)
        except InvalidName:
            pass
        raise PydanticCustomError("model_id", f"expected {_BEFORE} or {_AFTER}NAME")


TRAINED_MODEL = ModelId()
