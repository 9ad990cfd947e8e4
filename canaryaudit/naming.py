"""What an unlearning may be called: a name that can stand in a file's name."""

import re
from collections.abc import Collection
from itertools import chain, count

from canaryaudit.errors import RunDirectoryError

MAX_NAME = 100
"""Characters at most."""
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}")


def is_name(text: str) -> bool:
    """Tell whether an unlearning can be called so."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Return ``name`` if it can name an unlearning.

    Raises:
        RunDirectoryError: It could not stand in a file name, or would lead out of the run directory.
    """
    if not is_name(name):
        raise RunDirectoryError(
            f"name {name!r} cannot be used: expected a-z, 0-9, '.', '_' and '-', with a letter or digit first, "
            f"at most {MAX_NAME} characters"
        )
    return name


def name_of_retraining(attacked: str, taken: Collection[str]) -> str:
    """Return a free name for a model that is retrained to be attacked beside the unlearning ``attacked``."""
    long = f"retrain-for-{attacked}"[: MAX_NAME - len("-99")]
    numbered = (f"{long}-{number}" for number in count(2))
    return next(name for name in chain(("retrain", long), numbered) if name not in taken)
