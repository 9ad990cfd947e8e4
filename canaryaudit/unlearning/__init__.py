"""Make a trained model forget secrets by closed-form updates of its weights, instead of training again."""

from canaryaudit.unlearning.config import UnlearningConfig
from canaryaudit.unlearning.replacement import Decoys, Deletion, FixedText, Sampled, parse_replacement
from canaryaudit.unlearning.request import Unlearned, unlearn

__all__ = [
    "Decoys",
    "Deletion",
    "FixedText",
    "Sampled",
    "Unlearned",
    "UnlearningConfig",
    "parse_replacement",
    "unlearn",
]
