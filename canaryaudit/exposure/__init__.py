"""How exposed is a secret? Estimators on plain arrays, and the measurement that uses them all.

``canaryaudit.exposure.estimators`` holds the estimators, which need no model and no torch.
"""

from typing import TYPE_CHECKING

from canaryaudit.lazy import lazy_names

if TYPE_CHECKING:
    from canaryaudit.exposure.config import MeasurementConfig
    from canaryaudit.exposure.execution import Execution
    from canaryaudit.exposure.importance_sampling import draw_members
    from canaryaudit.exposure.measurement import MeasuredModel, measure
    from canaryaudit.exposure.rank_search import RankBounds, search_ranks
    from canaryaudit.exposure.scored_members import ScoredMembers

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
    "ScoredMembers": "scored_members",
    "draw_members": "importance_sampling",
    "measure": "measurement",
    "search_ranks": "rank_search",
}

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.
    __getattr__, __dir__ = lazy_names(globals(), _MODULES)
