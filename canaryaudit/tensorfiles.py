"""The header of a safetensors file, read without the tensors, and without trusting any size that it declares.

Format: eight bytes with the header's length (little-endian), the header (JSON: name -> dtype, shape and
the two offsets of its bytes after the header), then the bytes themselves, without gaps.
Source: the format's own description, https://github.com/huggingface/safetensors.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryaudit.errors import Damaged
from canaryaudit.files import read_errors

MAX_HEADER_BYTES = 100_000_000
"""The format's own bound."""

_LENGTH_BYTES = 8
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of one tensor.

    Attributes:
        dtype: As the format names it, such as ``F32``.
        shape: Its sizes.
        start: Where its bytes begin, from the file's start.
        end: Where they end.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, repair: str = "remove it") -> dict[str, TensorEntry]:
    """Return what a safetensors file holds, by name, after checking that its bytes are all there and none is spare.

    Args:
        path: The file.
        repair: What to do if it is damaged, as a clause.

    Raises:
        Damaged: It is no such file: the length, the header, a type, a size or an offset is wrong.
    """
    document, begin, size = _document(path, repair)
    document.pop("__metadata__", None)
    entries: dict[str, TensorEntry] = {}
    for name, entry in document.items():
        found = _entry(entry, begin)
        if found is None:
            raise Damaged(path, f"its header has no type, shape and offsets that agree for {name[:100]!r}", repair)
        entries[name] = found
    end = begin
    for own in sorted(entries.values(), key=lambda own: (own.start, own.end)):
        if own.start != end:
            raise Damaged(path, "its tensors overlap, or leave gaps", repair)
        end = own.end
    if end != size:
        raise Damaged(path, f"it has {size:,} bytes where its header describes {end:,}", repair)
    return entries


def read_metadata(path: Path, repair: str = "remove it") -> dict[str, Any]:
    """Return what a safetensors file's header says besides its tensors, as it stands there.

    Raises:
        Damaged: It is no such file.
    """
    told = _document(path, repair)[0].get("__metadata__")
    return told if isinstance(told, dict) else {}


def _document(path: Path, repair: str) -> tuple[dict[str, Any], int, int]:
    """Return a file's header, where the tensors' bytes begin, and the file's size."""
    if not path.is_file():
        raise Damaged(path, "not a plain file", repair)
    with read_errors(path), path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
            raise Damaged(path, "its header is cut off, or of impossible length", repair)
        data = file.read(length)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged(path, "its header is not JSON", repair) from None
    if not isinstance(document, dict):
        raise Damaged(path, "its header is not a JSON object", repair)
    return document, _LENGTH_BYTES + length, size


def _entry(value: Any, begin: int) -> TensorEntry | None:
    """Return one checked entry; None if it contradicts itself."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        return None
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES or not _counts(shape) or not _counts(offsets):
        return None
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        return None
    return TensorEntry(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _counts(value: Any) -> bool:
    """Tell whether this is a list of a few whole numbers that could be sizes."""
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(number) is int and 0 <= number < 2**63 for number in value)
    )
