"""What all records share."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1

Stage = Literal["insert", "train", "measure", "unlearn", "report"]
EstimatorName = Literal["exact", "importance", "sampled", "skew-normal"]
Method = Literal["first-order", "second-order"]
Scope = Literal["final-layer", "all-layers"]
ReportFormat = Literal["html", "md", "json", "junit", "model-card"]


class Record(BaseModel):
    """Base of all records: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants")
