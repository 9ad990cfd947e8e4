"""What all records share."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast

SCHEMA_VERSION = 1

MAX_MEMBERS = 100
"""Models that may predict together: as many as ``--shards`` allows. A record that names more would only take memory."""

T = TypeVar("T")


class _AtFirst(FailFast):
    __hash__ = object.__hash__  # without one, no union could hold the type


Many = Annotated[tuple[T, ...], _AtFirst()]
"""A sequence that is refused at its first wrong item: a stranger's file may have millions, and every one that is noted
takes hundreds of bytes."""

Stage = Literal["insert", "train", "measure", "unlearn", "attack", "report"]
EstimatorName = Literal["exact", "importance", "sampled", "skew-normal"]
ClosedForm = Literal["first-order", "second-order"]
Baseline = Literal["retrain", "fine-tune", "sisa"]
Method = Literal[ClosedForm, Baseline]
Scope = Literal["final-layer", "all-layers", "both"]
SolverName = Literal["kronecker", "cg", "lissa"]
ReportFormat = Literal["html", "md", "json", "junit", "model-card"]


class Record(BaseModel):
    """Base of all records: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")
