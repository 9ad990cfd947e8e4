"""Estimators in skops files: nothing is unpickled, and only scikit-learn's own types are accepted."""

import os
import warnings
from pathlib import Path
from typing import Any

from canaryaudit.errors import UnlearningError, UsageError, one_line
from canaryaudit.pipeline.tables.session import ESTIMATORS
from canaryaudit.storage.files import atomic_write

_INSTALL = "skops files need skops: pip install 'canaryaudit[tabular]'"


def load_estimator(path: Path) -> Any:
    """Load a fitted estimator.

    Raises:
        UnlearningError: It is no skops file, or holds something else.
    """
    if not path.is_file():
        raise UnlearningError(f"--model {path}: no such file")
    try:
        from skops.io import get_untrusted_types, load
    except ModuleNotFoundError:
        raise UnlearningError(_INSTALL) from None
    try:
        unknown = get_untrusted_types(file=path)
        if not unknown:
            with warnings.catch_warnings():  # such as of another version of scikit-learn
                warnings.simplefilter("ignore")
                estimator = load(path, trusted=[])
    except Exception as error:  # noqa: BLE001 - a damaged archive makes the reader raise any exception
        raise UnlearningError(
            f"--model {path}: not an estimator in a skops file ({one_line(error)}); write it with skops.io.dump"
        ) from None
    if unknown:
        raise UnlearningError(f"--model {path}: holds a type that is not scikit-learn's own: {unknown[0]}")
    if type(estimator).__name__ not in ESTIMATORS and hasattr(estimator, "n_classes_"):
        raise UnlearningError(f"--model {path}: a {type(estimator).__name__} is no linear model")
    return estimator


def check_destination(path: Path, run: Path, flag: str, *, replace: bool) -> None:
    """Refuse a place for an estimator that is in the run directory or taken, before any work is done.

    Raises:
        UsageError: It is.
        UnlearningError: skops is not installed.
    """
    if path.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"{flag} {path} is in the run directory: choose another place")
    if path.is_dir() or (path.exists() and not replace):
        raise UsageError(f"{flag} {path} is there already: choose another name, or replace it with --force")
    above = next(own for own in path.absolute().parents if own.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UsageError(f"{flag} {path} cannot be written: {above} is no directory that you may write to")
    try:
        import skops.io  # noqa: F401
    except ModuleNotFoundError:
        raise UnlearningError(_INSTALL) from None


def estimator_bytes(estimator: Any) -> bytes:
    """Return an estimator as a skops file."""
    from skops.io import dumps

    data: bytes = dumps(estimator)
    return data


def save_estimator(estimator: Any, path: Path) -> None:
    """Write an estimator, readable by its owner only: its coefficients have no noise.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    atomic_write(path, estimator_bytes(estimator))
