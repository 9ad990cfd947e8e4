"""Measure, remove and prove the removal of secrets that a language model memorized."""

import os

# How long a thread spins for the others before it sleeps. Left alone, GNU's OpenMP spins so long that two programs on
# two cores starve each other: training was measured at 2,000 characters/s beside another, and at 15,000 so; alone it
# loses nothing (54,000), where threads that never spin lose half. Read when torch is first loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from typing import TYPE_CHECKING

from canaryaudit.lazy import lazy_names

if TYPE_CHECKING:
    from canaryaudit.canaries.canary import CanarySet
    from canaryaudit.canaries.template import Template
    from canaryaudit.corpus.corpus import read_corpus
    from canaryaudit.exposure.config import MeasurementConfig
    from canaryaudit.exposure.estimators import (
        Estimate,
        bounded_exposure,
        calibrate,
        choose_headline,
        enumerate_ranks,
        exact_exposure,
        fit_skew_normal,
        importance_exposure,
        memorization_curve,
        sampled_exposure,
        skew_normal_exposure,
    )
    from canaryaudit.exposure.measurement import measure
    from canaryaudit.models.huggingface import HuggingFaceModel
    from canaryaudit.models.language_model import LanguageModel, PrefixState
    from canaryaudit.models.token_model import ModuleModel, TokenModel
    from canaryaudit.pipeline.audit import run_audit
    from canaryaudit.pipeline.monitor import ExposureCallback, training_exposure
    from canaryaudit.plan import Plan, ReadingSettings
    from canaryaudit.unlearning.config import UnlearningConfig
    from canaryaudit.unlearning.request import unlearn

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 -- by subject, not by letter
    "__version__",
    # Secrets: what to look for
    "Template",
    "CanarySet",
    # Models: what a model has to offer
    "LanguageModel",
    "PrefixState",
    "TokenModel",
    "HuggingFaceModel",
    "ModuleModel",
    # Measuring: how exposed a model's secrets are
    "measure",
    "MeasurementConfig",
    "training_exposure",
    "ExposureCallback",
    # Unlearning: a copy of the model without them
    "unlearn",
    "UnlearningConfig",
    # Corpora: any text to audit, also from pandas and `datasets`
    "read_corpus",
    "ReadingSettings",
    # A whole audit, as `canaryaudit run` does it
    "run_audit",
    "Plan",
    # Estimators on plain arrays, without a model and without torch
    "Estimate",
    "sampled_exposure",
    "importance_exposure",
    "enumerate_ranks",
    "exact_exposure",
    "bounded_exposure",
    "fit_skew_normal",
    "skew_normal_exposure",
    "choose_headline",
    "calibrate",
    "memorization_curve",
]

_MODULES = {
    "Template": "canaries.template",
    "CanarySet": "canaries.canary",
    "LanguageModel": "models.language_model",
    "PrefixState": "models.language_model",
    "TokenModel": "models.token_model",
    "HuggingFaceModel": "models.huggingface",
    "ModuleModel": "models.token_model",
    "measure": "exposure.measurement",
    "MeasurementConfig": "exposure.config",
    "training_exposure": "pipeline.monitor",
    "ExposureCallback": "pipeline.monitor",
    "unlearn": "unlearning.request",
    "UnlearningConfig": "unlearning.config",
    "run_audit": "pipeline.audit",
    "Plan": "plan",
    "read_corpus": "corpus.corpus",
    "ReadingSettings": "plan",
}
"""Where the public names are defined; all others are estimators. Imported when first asked for: torch takes seconds."""

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.
    __getattr__, __dir__ = lazy_names(globals(), dict.fromkeys(__all__[1:], "exposure.estimators") | _MODULES)
