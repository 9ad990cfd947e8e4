"""How to measure exposure."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.rank_search import DEFAULT_BUDGET
from canaryaudit.records import EstimatorName, ProbeEffort

MIN_REFERENCES = 50
"""Random completions that must be left when those of inserted canaries are taken out."""


ALL_ESTIMATORS: tuple[EstimatorName, ...] = ("exact", "importance", "sampled", "skew-normal")


class MeasurementConfig(BaseModel):
    """How to measure; checked when made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_references: int = Field(default=10_000, ge=100, le=100_000_000)
    """Uniform draws of each template's space: seconds of work, and 9 bits of exposure with a tight interval."""
    estimators: tuple[EstimatorName, ...] = ALL_ESTIMATORS
    enumerate_up_to: int = Field(default=1_000_000, ge=0)
    """Spaces of at most this size are scored whole; larger ones are searched."""
    search_budget: int = Field(default=DEFAULT_BUDGET, ge=1)
    draws_per_temperature: int = Field(default=2_000, ge=2)
    """Importance draws from each proposal in the first round: enough for a tenth of a bit in most cases."""
    precision_bits: float = Field(default=0.1, gt=0)
    """Half-width of the importance interval below which no more is drawn."""
    max_draws: int = Field(default=100_000, ge=1)
    """Importance draws of each template after which no more is drawn."""
    probes: ProbeEffort = "none"
    """In how many ways besides the template's own prefix to ask."""
    prompts: tuple[str, ...] = ()
    """The user's own prompts."""
    seed: int = Field(default=0, ge=0)

    @field_validator("estimators")
    @classmethod
    def _has_a_headline(cls, estimators: tuple[EstimatorName, ...]) -> tuple[EstimatorName, ...]:
        if set(estimators) <= {"skew-normal"}:
            raise MeasurementError("the skew-normal fit gives no headline: add exact, importance or sampled")
        return estimators
