"""The file names of a run directory; only the modules of ``runs`` use them."""

import re
from pathlib import Path

from canaryaudit.errors import InvalidName
from canaryaudit.records import RunKind

MANIFEST, CORPUS, HELDOUT, CANARIES = "manifest.json", "corpus.txt", "heldout.txt", "canaries.json"
WEIGHTS, MODEL, CHECKPOINT = "model.safetensors", "model.json", "checkpoint.safetensors"
MEASUREMENTS, UNLEARNED, UNLEARNING = "measurements", "unlearned", "unlearning.json"
SIGNATURE = "signature.json"
SHARDS, CORRECTED, CURVATURE = "shards", "-corrected", "curvature.safetensors"
LOCK, STAGING, PARTS = ".lock", ".staging", ".parts"
ENCODED = ".encoded"
"""Directory of the texts' ids, one file per text."""
TABLE, ROWS, RELEASES = "table.json", "table.safetensors", "releases.json"
IMAGES, PIXELS = "images.json", "images.safetensors"
INSERTED: dict[RunKind, tuple[str, ...]] = {
    "text": (CORPUS, HELDOUT, CANARIES),
    "table": (TABLE, ROWS),
    "images": (IMAGES, PIXELS),
}
"""The files of an insertion, besides the manifest."""
ALL_INSERTED = (*INSERTED["text"], *INSERTED["table"], *INSERTED["images"])
MOVED: dict[RunKind, tuple[str, ...]] = {**INSERTED, "text": (ENCODED, *INSERTED["text"])}
"""What an insertion stages besides the manifest."""
DERIVED = (ENCODED, MODEL, WEIGHTS, UNLEARNED, MEASUREMENTS, CHECKPOINT, PARTS, CURVATURE, SIGNATURE, RELEASES)
"""What is made from an insertion."""
REPLACED = "replaced.json"
"""In the staging directory, the manifest of the run that is being replaced."""

MAX_NAME = 100
"""Maximum characters of an unlearning's name."""
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}")


def encoded(run: Path, text: str) -> Path:
    """Return the path of a text's ids."""
    return run / ENCODED / f"{Path(text).stem}.safetensors"


def is_name(text: str) -> bool:
    """Return whether ``text`` is a valid name of an unlearning."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Return ``name`` if it is a valid name of an unlearning.

    Raises:
        InvalidName: It is not a valid file name, or leads out of the run directory.
    """
    if not is_name(name):
        raise InvalidName(
            f"invalid name {name!r}: expected a-z, 0-9, '.', '_' and '-', starting with a letter or digit, at most "
            f"{MAX_NAME} characters; choose another --name"
        )
    return name
