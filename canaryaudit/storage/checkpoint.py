"""Training checkpoints: tensors and facts in one safetensors file with a checksum.

The header holds the identity of the training and a SHA-256 of all contents: safetensors itself would not notice a
changed weight.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from canaryaudit.errors import Damaged
from canaryaudit.storage.files import atomic_path
from canaryaudit.storage.tensors import open_tensors


@dataclass(frozen=True)
class CheckpointFile:
    """The file that keeps the state of one training.

    Attributes:
        path: The file.
        key: Identifies the training; the state of another training is not loaded.
    """

    path: Path
    key: str

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a state; if the process is killed at any moment, either the old or the new file remains.

        Args:
            tensors: By name.
            facts: Values that JSON can represent.
        """
        local = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(facts)
        header = {"key": self.key, "facts": text, "sha256": _digest(local, text)}
        with atomic_path(self.path) as temporary:
            # Not save_file: it makes another temporary file, which would remain if the process is killed.
            temporary.write_bytes(save(local, header))

    def load(self) -> tuple[dict[str, Tensor], bytes] | None:
        """Return tensors and facts (untrusted JSON); None if there is no such state.

        Raises:
            Damaged: The file's contents are not what was written.
        """
        if not self.path.exists():
            return None
        with open_tensors(self.path, framework="pt") as file:
            header = file.metadata() or {}
            # Cloned: the tensors map the file, which the next checkpoint replaces.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        if header.get("sha256") != _digest(tensors, header.get("facts", "")):
            raise Damaged(self.path, "its contents do not match its checksum", "remove it")
        if header.get("key") != self.key:
            return None
        return tensors, header.get("facts", "").encode()


def read_facts(path: Path) -> bytes | None:
    """Return the facts, as JSON, of any training's state at ``path``; None if there is no readable one."""
    try:
        with open_tensors(path) as file:
            facts: str | None = (file.metadata() or {}).get("facts")
    except Damaged:
        return None
    return None if facts is None else facts.encode()


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy lacks some types
    return digest.hexdigest()
