"""Estimators of exposure on plain arrays: log-perplexities from any model in, ``Estimate`` out. No torch.

Log-perplexities are in bits, -log2 p. Arrays are lists, numpy arrays, pandas columns or torch tensors. One secret gives
one ``Estimate``, several give a list of them.
"""

from canaryaudit.exposure.estimators.calibration import calibrate
from canaryaudit.exposure.estimators.exact import bounded_exposure, enumerate_ranks, exact_exposure
from canaryaudit.exposure.estimators.headline import choose_headline
from canaryaudit.exposure.estimators.importance import importance_exposure
from canaryaudit.exposure.estimators.memorization import memorization_curve
from canaryaudit.exposure.estimators.sampled import Rescored, sampled_exposure
from canaryaudit.exposure.estimators.skew_normal import fit_skew_normal, log2_skew_normal_cdf, skew_normal_exposure
from canaryaudit.records import Estimate

__all__ = [
    "Estimate",
    "Rescored",
    "bounded_exposure",
    "calibrate",
    "choose_headline",
    "enumerate_ranks",
    "exact_exposure",
    "fit_skew_normal",
    "importance_exposure",
    "log2_skew_normal_cdf",
    "memorization_curve",
    "sampled_exposure",
    "skew_normal_exposure",
]
