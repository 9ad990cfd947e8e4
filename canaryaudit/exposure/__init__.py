"""How exposed is a secret? Estimators on plain arrays, and the measurement that uses them all.

``canaryaudit.exposure.estimators`` holds the estimators, which need no model and no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canaryaudit.exposure.config import MeasurementConfig
    from canaryaudit.exposure.execution import Execution
    from canaryaudit.exposure.importance_sampling import draw_members
    from canaryaudit.exposure.measurement import MeasuredModel, measure
    from canaryaudit.exposure.rank_search import RankBounds, search_ranks
    from canaryaudit.exposure.targets import ScoredMembers

__all__ = [
    "Execution",
    "MeasuredModel",
    "MeasurementConfig",
    "RankBounds",
    "ScoredMembers",
    "draw_members",
    "measure",
    "search_ranks",
]

_MODULES = {
    "Execution": "execution",
    "MeasuredModel": "measurement",
    "MeasurementConfig": "config",
    "RankBounds": "rank_search",
    "ScoredMembers": "targets",
    "draw_members": "importance_sampling",
    "measure": "measurement",
    "search_ranks": "rank_search",
}

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.

    def __getattr__(name: str) -> object:
        """Import what is asked for: the measurement brings torch along, the estimators do without."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """Name what is there and what would be imported."""
        return sorted({*globals(), *__all__})
