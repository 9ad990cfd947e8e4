"""How exposed is a secret? Estimators on plain arrays, and the measurement that uses them all.

The estimators know nothing of models: ``enumerate_ranks``, ``sampled_exposure``, ``importance_exposure``,
``fit_skew_normal`` and ``skew_normal_exposure`` take log-perplexities from anywhere.
"""

from canaryaudit.exposure.config import ALL_ESTIMATORS, MeasurementConfig
from canaryaudit.exposure.estimators.calibration import calibrate
from canaryaudit.exposure.estimators.exact import enumerate_ranks
from canaryaudit.exposure.estimators.headline import headline
from canaryaudit.exposure.estimators.importance import importance_exposure
from canaryaudit.exposure.estimators.memorization import memorization_curve, memorization_curves
from canaryaudit.exposure.estimators.sampled import Rescored, sampled_exposure
from canaryaudit.exposure.estimators.skew_normal import fit_skew_normal, log2_skew_normal_cdf, skew_normal_exposure
from canaryaudit.exposure.extraction import even_chance_log2, log2_sampled
from canaryaudit.exposure.importance_sampling import draw_members
from canaryaudit.exposure.measurement import measure
from canaryaudit.exposure.rank_search import RankBounds, search_ranks
from canaryaudit.exposure.references import DRAFT_FROM

__all__ = [
    "ALL_ESTIMATORS",
    "DRAFT_FROM",
    "MeasurementConfig",
    "RankBounds",
    "Rescored",
    "calibrate",
    "draw_members",
    "enumerate_ranks",
    "even_chance_log2",
    "fit_skew_normal",
    "headline",
    "importance_exposure",
    "log2_sampled",
    "log2_skew_normal_cdf",
    "measure",
    "memorization_curve",
    "memorization_curves",
    "sampled_exposure",
    "search_ranks",
    "skew_normal_exposure",
]
