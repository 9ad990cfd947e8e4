"""Make a trained model forget secrets by closed-form updates of its weights, instead of training again."""

from typing import TYPE_CHECKING

from canaryaudit.lazy import lazy_names

if TYPE_CHECKING:
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

_MODULES = {
    "Decoys": "decoys",
    "Deletion": "replacement",
    "FixedText": "replacement",
    "Sampled": "replacement",
    "TrainedModelFacts": "request",
    "UnlearningConfig": "config",
    "UnlearningResult": "result",
    "parse_replacement": "replacement",
    "unlearn": "request",
}

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.
    __getattr__, __dir__ = lazy_names(globals(), _MODULES)
