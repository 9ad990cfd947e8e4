"""The digest of a model's folder as ``transformers`` keeps it, without loading the model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from canaryaudit.storage.files import sha256_of

ADAPTER_CONFIG = "adapter_config.json"
_DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json", ADAPTER_CONFIG)


def folders_sha256(folders: Sequence[Path]) -> str:
    """Return the SHA-256 of all that decides what a model says: names and contents of its files."""
    whole = hashlib.sha256()
    for folder in dict.fromkeys(folders):
        for path in sorted([*folder.glob("*.safetensors"), *(folder / name for name in _DECIDING)]):
            if path.is_file():
                whole.update(f"{path.name} {sha256_of(path)}\n".encode())
    return whole.hexdigest()
