"""Unlearning of columns, values, labels and rows of linear models, with a certificate: scikit-learn in and out.

The extra brings scikit-learn along: ``pip install 'canaryaudit[tabular]'``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from canaryaudit.errors import UnlearningError

if TYPE_CHECKING:
    from canaryaudit.tabular.certificate import Certificate, gaussian_kappa
    from canaryaudit.tabular.changes import Change, Replacement, Request
    from canaryaudit.tabular.detached import DetachedModel
    from canaryaudit.tabular.prepared import PreparedModel, prepare

__all__ = [
    "Certificate",
    "Change",
    "DetachedModel",
    "PreparedModel",
    "Replacement",
    "Request",
    "gaussian_kappa",
    "prepare",
]

_MODULES = {
    "Certificate": "certificate",
    "Change": "changes",
    "DetachedModel": "detached",
    "PreparedModel": "prepared",
    "Replacement": "changes",
    "Request": "changes",
    "gaussian_kappa": "certificate",
    "prepare": "prepared",
}

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.

    def __getattr__(name: str) -> object:
        """Import what is asked for; scikit-learn may not be installed."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = import_module(f"{__name__}.{_MODULES[name]}")
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "sklearn":
                raise
            raise UnlearningError("tables need scikit-learn: pip install 'canaryaudit[tabular]'") from None
        globals()[name] = value = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        """Name what is there and what would be imported."""
        return sorted({*globals(), *__all__})
