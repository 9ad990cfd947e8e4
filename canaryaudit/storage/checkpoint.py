"""A training's checkpoint: tensors and facts in one safetensors file that proves itself whole.

The file's header holds what the checkpoint belongs to and a SHA-256 over all of its contents, since
safetensors itself would not notice a changed weight.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from canaryaudit.errors import Damaged
from canaryaudit.storage.tensors import open_tensors


@dataclass(frozen=True)
class CheckpointFile:
    """Where the state of one training is kept.

    Attributes:
        path: The file.
        atomically: Context manager that gives a temporary path and moves it into place.
        key: Says which training the state belongs to; a state of another one is not loaded.
    """

    path: Path
    atomically: Callable[[Path], AbstractContextManager[Path]]
    key: str

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a state; a kill at any instant leaves the old file or the new one.

        Args:
            tensors: By name.
            facts: What JSON can hold.
        """
        local = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(facts)
        header = {"key": self.key, "facts": text, "sha256": _digest(local, text)}
        with self.atomically(self.path) as temporary:
            # Not save_file: it has a temporary file of its own, which a kill would leave for ever.
            temporary.write_bytes(save(local, header))

    def load(self) -> tuple[dict[str, Tensor], bytes] | None:
        """Return tensors and facts, in JSON as a stranger may have written it; None where there is no such state.

        Raises:
            Damaged: The file is not what was written.
        """
        if not self.path.exists():
            return None
        with open_tensors(self.path, framework="pt") as file:
            header = file.metadata() or {}
            # Cloned: the file's own memory is a map of the file, which the next checkpoint replaces.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        if header.get("sha256") != _digest(tensors, header.get("facts", "")):
            raise Damaged(self.path, "its contents are not those that were written", "remove it")
        if header.get("key") != self.key:
            return None
        return tensors, header.get("facts", "").encode()


def read_facts(path: Path) -> bytes | None:
    """Return the facts, in JSON, of whatever training's state is at ``path``; None if there is none to be read."""
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
