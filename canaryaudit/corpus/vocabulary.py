"""The symbols of a corpus and their ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from canaryaudit.errors import CorpusError

NUM_CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a model; a symbol's id is its index.

    Attributes:
        symbols: The distinct symbols, sorted.
    """

    symbols: str

    def __post_init__(self) -> None:
        """Check that the symbols are sorted and unique."""
        if not self.symbols or list(self.symbols) != sorted(set(self.symbols)):
            raise CorpusError("invalid vocabulary: expected at least one symbol, sorted, without repetitions")

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """Return the vocabulary of all characters in ``texts``."""
        symbols: set[str] = set()
        for text in texts:
            symbols.update(text)
        return cls("".join(sorted(symbols)))

    def __len__(self) -> int:
        """Return the number of symbols."""
        return len(self.symbols)

    @cached_property
    def _code_points(self) -> np.ndarray:
        return code_points(self.symbols)

    @cached_property
    def _ids(self) -> np.ndarray:
        table = np.full(int(self._code_points[-1]) + 2, -1, dtype=np.int32)  # the last entry for everything beyond
        table[self._code_points] = np.arange(len(self))
        return table

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds every id and that PyTorch supports."""
        return np.dtype(np.uint8 if len(self) <= 2**8 else np.int16 if len(self) <= 2**15 else np.int32)

    def encode(self, text: str, dtype: type | np.dtype = np.int64) -> np.ndarray:
        """Return the ids of the characters, shape (len(text),).

        Raises:
            CorpusError: A character is not in the vocabulary.
        """
        ids = np.take(self._ids, code_points(text), mode="clip")
        if ids.size and ids.min() < 0:
            index = int(np.argmax(ids < 0))
            raise CorpusError(
                f"character {text[index]!r} (U+{ord(text[index]):04X}) at index {index} is not among the "
                f"{len(self)} symbols of the vocabulary"
            )
        return ids.astype(dtype)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Return the text of the symbol ids."""
        points = self._code_points[np.asarray(ids, dtype=np.int64)]
        return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def code_points(text: str) -> np.ndarray:
    """Return the code points of ``text``, shape (len(text),), uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
