"""Base class and types of all records."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast

SCHEMA_VERSION = 1

MAX_MEMBERS = 100
"""Maximum number of models in an ensemble, as for ``--shards``. It bounds the memory that a record can claim."""

T = TypeVar("T")


class _AtFirst(FailFast):
    __hash__ = object.__hash__  # needed to use the type in a union


Many = Annotated[tuple[T, ...], _AtFirst()]
"""A sequence whose validation stops at the first invalid item. An untrusted file may have millions of them, and each
reported error takes hundreds of bytes."""

Stage = Literal["insert", "train", "measure", "unlearn", "attack", "report"]
EstimatorName = Literal["exact", "importance", "sampled", "skew-normal"]
ClosedForm = Literal["first-order", "second-order"]
Baseline = Literal["retrain", "fine-tune", "sisa"]
Method = Literal[ClosedForm, Baseline]
Scope = Literal["final-layer", "all-layers", "both"]
SolverName = Literal["kronecker", "cg", "lissa"]
ProbeFamily = Literal["template", "context", "truncated", "reworded", "bare", "partial"]
ProbeEffort = Literal["none", "default", "thorough"]
ReportFormat = Literal["html", "md", "json", "junit", "model-card"]


class Record(BaseModel):
    """Base of all records: immutable and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")
