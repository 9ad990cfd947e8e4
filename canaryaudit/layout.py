"""The names of the files in a run directory; only ``rundir`` and ``verification`` know them."""

from pathlib import Path

MANIFEST, CORPUS, HELDOUT, CANARIES = "manifest.json", "corpus.txt", "heldout.txt", "canaries.json"
WEIGHTS, MODEL, CHECKPOINT = "model.safetensors", "model.json", "checkpoint.safetensors"
MEASUREMENTS, UNLEARNED, UNLEARNING = "measurements", "unlearned", "unlearning.json"
SHARDS, CORRECTED, CURVATURE = "shards", "-corrected", "curvature.safetensors"
LOCK, STAGING, PARTS = ".lock", ".staging", ".parts"
ENCODED = ".encoded"
"""Directory of the texts' ids, each in a file of the text's name."""


def encoded(run: Path, text: str) -> Path:
    """Return where the ids of the text of that name are."""
    return run / ENCODED / f"{Path(text).stem}.safetensors"
