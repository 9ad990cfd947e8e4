"""Make a trained model forget secrets by closed-form updates of its weights, instead of training again."""

from importlib import import_module
from typing import TYPE_CHECKING

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

    def __getattr__(name: str) -> object:
        """Import what is asked for: the update of a network brings torch along, that of a linear model does without."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """Name what is there and what would be imported."""
        return sorted({*globals(), *__all__})
