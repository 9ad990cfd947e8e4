"""A text of any size, spooled to a temporary file, read in blocks and searched."""

import bisect
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from canaryaudit.errors import RunDirectoryError

BLOCK = 2**20
"""Characters of a block: a few megabytes at a time, with little overhead per block."""
_IN_MEMORY = 2**24
"""Bytes of a text that stays in memory."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: multiplied by it, bytes spread into the high bits (Knuth, TAOCP 3, section 6.4)."""
_HASH_BITS = 20


class SpooledText:
    """An append-only text that is read in blocks; its file is deleted with the object.

    Small texts stay in memory. The file is in the directory for temporary files: ``$TMPDIR``, or else /tmp.

    Args:
        block: Characters of a block.
    """

    def __init__(self, block: int = BLOCK) -> None:
        self._block = block
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with the object
        weakref.finalize(self, self._file.close)
        self._pieces: list[str] = []
        self._waiting = 0
        self._starts = [0]  # of every block, and the end of the last: in characters
        self._offsets = [0]  # the same, in bytes

    def __len__(self) -> int:
        """Return the number of characters."""
        return self._starts[-1] + self._waiting

    def append(self, text: str) -> None:
        """Append text.

        Raises:
            RunDirectoryError: The disk is full.
        """
        self._pieces.append(text)
        self._waiting += len(text)
        if self._waiting >= self._block:
            self._flush()

    def blocks(self) -> Iterator[str]:
        """Yield the text, block by block."""
        self._flush()
        for number in range(len(self._starts) - 1):
            yield self._bytes_of(number).decode("utf-8")

    def read(self) -> str:
        """Return the whole text as one string; only for texts that fit in memory."""
        return "".join(self.blocks())

    def slice(self, start: int, end: int) -> str:
        """Return the characters ``[start, end)``; both must lie within the text."""
        self._flush()
        first = bisect.bisect_right(self._starts, start) - 1
        out, number = "", first
        while number < len(self._starts) - 1 and self._starts[number] < end:
            out += self._bytes_of(number).decode("utf-8")
            number += 1
        return out[start - self._starts[first] : end - self._starts[first]]

    def holding(self, strings: Iterable[str]) -> set[str]:
        """Return the ``strings`` that occur in the text, in one pass for any number of them.

        In UTF-8, a string occurs in a text exactly where its bytes do. Every run of eight bytes of the text is hashed
        and looked up among the last eight bytes of the strings. The whole string is compared only on a match. Shorter
        strings are looked up by all their bytes.
        """
        by_ending: dict[int, dict[int, list[bytes]]] = defaultdict(lambda: defaultdict(list))
        for string in {*strings} - {""}:
            data = string.encode("utf-8")
            width = min(8, len(data))
            by_ending[width][int.from_bytes(data[-width:], "little")].append(data)
        if not by_ending:
            return set()
        tables = {width: _lookup_table(endings) for width, endings in by_ending.items()}
        groups = (group for endings in by_ending.values() for group in endings.values())
        overlap = max(len(string) for group in groups for string in group) - 1
        present: set[bytes] = set()
        self._flush()
        before = b""
        for number in range(len(self._starts) - 1):
            data = before + self._bytes_of(number)
            for width, endings in by_ending.items():
                present |= _present(data, width, endings, tables[width])
            before = data[-overlap:] if overlap else b""
        return {string.decode("utf-8") for string in present}

    def _flush(self) -> None:
        if not self._waiting:
            return
        data = "".join(self._pieces).encode("utf-8")
        try:
            self._file.seek(self._offsets[-1])
            self._file.write(data)
        except OSError as error:
            raise RunDirectoryError(
                f"cannot store the text in {tempfile.gettempdir()}: {error.strerror or error}; free some space there, "
                "or set TMPDIR to a directory with more space"
            ) from error
        self._starts.append(self._starts[-1] + self._waiting)
        self._offsets.append(self._offsets[-1] + len(data))
        self._pieces, self._waiting = [], 0

    def _bytes_of(self, number: int) -> bytes:
        self._file.seek(self._offsets[number])
        return self._file.read(self._offsets[number + 1] - self._offsets[number])


def _hashed(windows: np.ndarray) -> np.ndarray:
    return (windows * _MIX) >> np.uint64(64 - _HASH_BITS)


def _lookup_table(endings: Iterable[int]) -> np.ndarray:
    table = np.zeros(2**_HASH_BITS, dtype=bool)
    table[_hashed(np.array(list(endings), dtype=np.uint64))] = True
    return table


def _present(data: bytes, width: int, endings: dict[int, list[bytes]], table: np.ndarray) -> set[bytes]:
    """Return the strings that occur in ``data``, grouped by their last ``width`` bytes in ``endings``."""
    present: set[bytes] = set()
    padded = data + bytes(16)
    mask = np.uint64(2 ** (8 * width) - 1)
    exact = np.array(list(endings), dtype=np.uint64)
    for shift in range(8):  # each view has every eighth run of eight bytes
        windows = np.frombuffer(padded, dtype="<u8", count=(len(data) + 8 - shift) // 8, offset=shift) & mask
        candidates = np.flatnonzero(table[_hashed(windows)])
        for index in candidates[np.isin(windows[candidates], exact)].tolist():
            stop = 8 * index + shift + width
            for string in endings[int(windows[index])]:
                if string not in present and stop <= len(data) and data.endswith(string, 0, stop):
                    present.add(string)
    return present
