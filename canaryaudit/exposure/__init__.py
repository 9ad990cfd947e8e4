"""How exposed is a secret? Estimators on plain arrays, and the measurement that uses them all.

The estimators know nothing of models: ``enumerate_ranks``, ``sampled_exposure``, ``importance_exposure``,
``fit_skew_normal`` and ``skew_normal_exposure`` take log-perplexities from anywhere.
"""

from canaryaudit.exposure.calibration import calibrate
from canaryaudit.exposure.exact import RankBounds, enumerate_ranks, search_ranks
from canaryaudit.exposure.extraction import even_chance_log2, log2_sampled
from canaryaudit.exposure.headline import headline
from canaryaudit.exposure.importance import draw_members, importance_exposure
from canaryaudit.exposure.measurement import ALL_ESTIMATORS, MeasurementConfig, measure
from canaryaudit.exposure.memorisation import memorisation_curve, memorisation_curves
from canaryaudit.exposure.sampling import sampled_exposure
from canaryaudit.exposure.skewnormal import fit_skew_normal, log2_skew_normal_cdf, skew_normal_exposure

__all__ = [
    "ALL_ESTIMATORS",
    "MeasurementConfig",
    "RankBounds",
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
    "memorisation_curve",
    "memorisation_curves",
    "sampled_exposure",
    "search_ranks",
    "skew_normal_exposure",
]
