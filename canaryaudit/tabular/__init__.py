"""Unlearning of columns, values, labels and rows of linear models, with a certificate: scikit-learn in and out.

The extra brings scikit-learn along: ``pip install 'canaryaudit[tabular]'``.
"""

from typing import TYPE_CHECKING

from canaryaudit.errors import UnlearningError
from canaryaudit.lazy import lazy_names

if TYPE_CHECKING:
    from canaryaudit.tabular.certificate import Certificate, gaussian_kappa
    from canaryaudit.tabular.changes import Change, Replacement, Request
    from canaryaudit.tabular.detached import DetachedModel
    from canaryaudit.tabular.preparation import prepare
    from canaryaudit.tabular.prepared import PreparedModel

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
    "prepare": "preparation",
}

if not TYPE_CHECKING:  # The type checker knows the names from above, and reports others.
    _load, __dir__ = lazy_names(globals(), _MODULES)

    def __getattr__(name: str) -> object:
        """Import what is asked for; scikit-learn may not be installed."""
        try:
            return _load(name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "sklearn":
                raise
            raise UnlearningError("tables need scikit-learn: pip install 'canaryaudit[tabular]'") from None
