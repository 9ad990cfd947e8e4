"""Corrected labels of networks on images: a torch module in, a torch module out."""

from typing import TYPE_CHECKING

from canaryaudit.lazy import lazy_names

if TYPE_CHECKING:
    from canaryaudit.images.modules import RelabelConfig, relabel
    from canaryaudit.images.relabeling import Relabeled

__all__ = ["RelabelConfig", "Relabeled", "relabel"]

_MODULES = {"RelabelConfig": "modules", "Relabeled": "relabeling", "relabel": "modules"}

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.
    __getattr__, __dir__ = lazy_names(globals(), _MODULES)
