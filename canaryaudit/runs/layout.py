"""The names of the files in a run directory; only ``rundir`` and ``verification`` know them."""

import re
from pathlib import Path

from canaryaudit.errors import RunDirectoryError

MANIFEST, CORPUS, HELDOUT, CANARIES = "manifest.json", "corpus.txt", "heldout.txt", "canaries.json"
WEIGHTS, MODEL, CHECKPOINT = "model.safetensors", "model.json", "checkpoint.safetensors"
MEASUREMENTS, UNLEARNED, UNLEARNING = "measurements", "unlearned", "unlearning.json"
SHARDS, CORRECTED, CURVATURE = "shards", "-corrected", "curvature.safetensors"
LOCK, STAGING, PARTS = ".lock", ".staging", ".parts"
ENCODED = ".encoded"
"""Directory of the texts' ids, each in a file of the text's name."""


MAX_NAME = 100
"""Characters at most."""
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}")


def encoded(run: Path, text: str) -> Path:
    """Return where the ids of the text of that name are."""
    return run / ENCODED / f"{Path(text).stem}.safetensors"


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
