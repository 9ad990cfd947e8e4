"""Make a trained model forget secrets by closed-form updates of its weights, instead of training again."""

from canaryaudit.unlearning.config import UnlearningConfig
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.replacement import Deletion, FixedText, Sampled, parse_replacement
from canaryaudit.unlearning.request import TrainedModelFacts, unlearn
from canaryaudit.unlearning.result import UnlearningResult

__all__ = [
    "Decoys",
    "Deletion",
    "FixedText",
    "Sampled",
    "TrainedModelFacts",
    "UnlearningConfig",
    "UnlearningResult",
    "parse_replacement",
    "unlearn",
]
