"""What the stages hand on and write down: validated, immutable, documented field by field.

A field's docstring is its documentation; `schema_version` counts up whenever a reader of the old form
would misread the new one. No record holds the secret of a canary whose owner gave it: only
canaries.json does.
"""

from canaryaudit.records.base import (
    SCHEMA_VERSION,
    Baseline,
    ClosedForm,
    EstimatorName,
    Method,
    Record,
    ReportFormat,
    Scope,
    SolverName,
    Stage,
)
from canaryaudit.records.measurement import (
    Calibration,
    CanaryMeasurement,
    Estimate,
    Extraction,
    Headline,
    Measurement,
    MeasurementCost,
    MemorizationCurve,
    MemorizationPoint,
    ReferenceDistribution,
    SamplingOdds,
    SkewNormalFit,
    only_bounds,
)
from canaryaudit.records.relearning import Relearning, RelearningAttack, RelearningCurve, RelearningPoint
from canaryaudit.records.run import CorpusFacts, Manifest, StageRun
from canaryaudit.records.training import Architecture, EpochRecord, Evaluation, ModelRecord, TrainingRecord
from canaryaudit.records.unlearning import Fidelity, UnlearningCost, UnlearningRecord, UpdateStep, main_result

__all__ = [
    "SCHEMA_VERSION",
    "Architecture",
    "Baseline",
    "Calibration",
    "CanaryMeasurement",
    "ClosedForm",
    "CorpusFacts",
    "EpochRecord",
    "Estimate",
    "EstimatorName",
    "Evaluation",
    "Extraction",
    "Fidelity",
    "Headline",
    "Manifest",
    "Measurement",
    "MeasurementCost",
    "MemorizationCurve",
    "MemorizationPoint",
    "Method",
    "ModelRecord",
    "Record",
    "ReferenceDistribution",
    "Relearning",
    "RelearningAttack",
    "RelearningCurve",
    "RelearningPoint",
    "ReportFormat",
    "SamplingOdds",
    "Scope",
    "SkewNormalFit",
    "SolverName",
    "Stage",
    "StageRun",
    "TrainingRecord",
    "UnlearningCost",
    "UnlearningRecord",
    "UpdateStep",
    "main_result",
    "only_bounds",
]
