"""Packages whose names are imported when they are first asked for: torch takes seconds, and extras may be missing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    namespace: dict[str, Any], modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Args:
        namespace: The package's ``globals()``, in which what was imported is kept.
        modules: Each name's module, relative to the package.
    """
    package = namespace["__name__"]

    def load(name: str) -> object:
        """Import what is asked for."""
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = value = getattr(import_module(f"{package}.{modules[name]}"), name)
        return value

    def names() -> list[str]:
        """Name what is there and what would be imported."""
        return sorted({*namespace, *modules})

    return load, names
