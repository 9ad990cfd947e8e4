"""Text without the differences that a reader overlooks, and linear search in it.

Folded text has one form of each letter (compatibility decomposition, no case), one hyphen, one single and one double
quotation mark, and one space for each run of white space. Characters without width are dropped.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache

import numpy as np

_BLOCK = 2**20
"""Characters folded at once."""
INVISIBLE = "".join(
    map(
        chr,
        (
            *(0xAD, 0x34F, 0x61C, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
            *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xFE00, 0xFE10), 0xFEFF),
            *(*range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080), *range(0xE0100, 0xE01F0)),
        ),
    )
)
"""Characters without width: joiners, marks of writing direction, selectors of a letter's form, tags."""
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_SINGLE_QUOTES, _DOUBLE_QUOTES = "`´‘’‚‛′ʼ＇", "“”„‟«»″＂"
_FOLDED = {
    **dict.fromkeys(INVISIBLE, ""),
    **dict.fromkeys(_HYPHENS, "-"),
    **dict.fromkeys(_SINGLE_QUOTES, "'"),
    **dict.fromkeys(_DOUBLE_QUOTES, '"'),
}
_ASCII_FORMS = {
    **{chr(0xFEE0 + ord(c)): c for c in map(chr, range(0x21, 0x7F)) if c.isalnum() or c in "@.-+()"},
    **{chr(c): str(unicodedata.digit(chr(c))) for c in range(0x80, 0x1_F000) if chr(c).isdecimal()},
    **dict.fromkeys("\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", "\u00a0"),
    **dict.fromkeys("\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d", "\u2010"),
}
_OTHER_FORM = re.compile(f"[{re.escape(''.join(_ASCII_FORMS))}]")
_WORD_CHARACTER = re.compile(r"[^\W_]")
"""Where a block may begin: no white space, and nothing that belongs to the character before it."""


def with_ascii_forms(text: str) -> str:
    """Return a text of the same length with the digits of all scripts, full-width letters, and spaces in one form."""
    return text if text.isascii() else _OTHER_FORM.sub(lambda found: _ASCII_FORMS[found[0]], text)


@cache
def fold_character(character: str) -> str:
    """Return a single character, folded; an empty string stays one."""
    if character in _FOLDED:
        return _FOLDED[character]
    if character.isspace():
        return " "
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character.casefold()).casefold())


class _Table(dict[int, str]):
    """The folded forms by code point, for ``str.translate``."""

    def __missing__(self, point: int) -> str:
        self[point] = form = fold_character(chr(point))
        return form


class FoldedText:
    """A text, folded, with the places of its characters in the original.

    Args:
        text: The original.

    Attributes:
        text: The folded text.
    """

    def __init__(self, text: str) -> None:
        table = _Table()
        out: list[str] = []
        # Stretches whose length changes: start and end in the folded text, start and end in the original.
        self._bounds: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)]
        start = length = 0
        while start < len(text):
            following = _WORD_CHARACTER.search(text, start + _BLOCK)
            end = following.start() if following else len(text)
            block = self._fold_block(text[start:end], table, length, start)
            out.append(block)
            start, length = end, length + len(block)
        self.text = "".join(out)
        self._array = np.array(self._bounds, dtype=np.int64)  # (stretches, 4)
        del self._bounds

    @cached_property
    def words(self) -> "WordText":
        """Its letters and digits alone."""
        return WordText(self.text)

    def original(self, places: np.ndarray) -> np.ndarray:
        """Return the offsets in the original before folded offsets; -1 within what one character became.

        Args:
            places: Offsets in the folded text, shape (n,).
        """
        return self._mapped(places, 0, 2)

    def place(self, offset: int) -> int:
        """Return the folded offset of an offset in the original; -1 within a run of white space."""
        return int(self._mapped(np.array([offset]), 2, 0)[0])

    def _mapped(self, places: np.ndarray, source: int, target: int) -> np.ndarray:
        last = np.searchsorted(self._array[:, source], places, "right") - 1
        begin, end, other, stop = (self._array[last, column] for column in (source, source + 1, target, target + 1))
        mapped: np.ndarray = np.where(
            places >= end, stop + places - end, np.where(places == begin, other, np.int64(-1))
        )
        return mapped

    def _fold_block(self, block: str, table: _Table, length: int, start: int) -> str:
        signs = set(block)
        longer = "".join(re.escape(c) for c in signs if not c.isspace() and len(fold_character(c)) != 1)
        hidden = "".join(c for c in INVISIBLE if c in signs)
        changing = re.compile(rf"\s[\s{hidden}]+" + (f"|[{longer}]" if longer else ""))
        out: list[str] = []
        done = 0
        for match in changing.finditer(block):
            form = " " if match[0][0].isspace() else fold_character(match[0])
            length += match.start() - done
            out += (block[done : match.start()].translate(table), form)
            done = match.end()
            self._bounds.append((length, length + len(form), start + match.start(), start + done))
            length += len(form)
        out.append(block[done:].translate(table))
        return _in_order("".join(out))


def _in_order(text: str) -> str:
    """Return folded text with the combining marks after each letter in canonical order."""
    marks = "".join(re.escape(c) for c in set(text) if unicodedata.combining(c))
    if not marks:
        return text
    return re.sub(f"[{marks}]{{2,}}", lambda run: "".join(sorted(run[0], key=unicodedata.combining)), text)


def fold(text: str) -> str:
    """Return a short text, folded."""
    return FoldedText(text).text


class WordText:
    """A folded text's letters and digits alone, to find words whatever stands between them."""

    def __init__(self, text: str) -> None:
        self._text = text
        parts: list[str] = []
        counts = [0]
        for start in range(0, len(text), _BLOCK):
            points, kept = self._block(start)
            parts.append(points[kept].tobytes().decode("utf-32-le", "surrogatepass"))
            counts.append(counts[-1] + len(kept))
        self._letters, self._counts = "".join(parts), np.array(counts)

    def spans(self, words: str) -> Iterator[tuple[int, int]]:
        """Yield where the letters and digits of ``words`` begin and end in the folded text, in linear time."""
        letters = "".join(c for c in words if c.isalnum())
        if not letters:
            return
        starts = np.fromiter(occurrences(self._letters, letters), dtype=np.int64)
        yield from zip(self._places(starts), [own + 1 for own in self._places(starts + len(letters) - 1)], strict=True)

    def _places(self, offsets: np.ndarray) -> list[int]:
        """Return the folded offsets of ascending offsets in the letters."""
        blocks = np.searchsorted(self._counts, offsets, "right") - 1
        places: list[int] = []
        for block in np.unique(blocks).tolist():
            kept = self._block(block * _BLOCK)[1]
            places += (block * _BLOCK + kept[offsets[blocks == block] - self._counts[block]]).tolist()
        return places

    def _block(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the code points of a block, and the offsets of its letters and digits in it."""
        block = self._text[start : start + _BLOCK]
        points = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        words = np.zeros(int(points.max()) + 1, dtype=bool)
        words[[ord(c) for c in set(block) if c.isalnum()]] = True
        return points, np.flatnonzero(words[points])


def occurrences(text: str, words: str) -> Iterator[int]:
    """Yield the offsets of ``words`` in ``text``, overlapping ones included, in linear time.

    After an occurrence the next is looked for one period of the words later, where only a period's characters are new.
    Where it is not there, the next one is at least half the words' length away.
    """
    period = _period(words)
    offset = text.find(words)
    while offset >= 0:
        yield offset
        end = offset + len(words)
        if text.startswith(words[len(words) - period :], end):
            offset += period
        else:
            offset = text.find(words, offset + period + 1)


@lru_cache(maxsize=256)
def _period(words: str) -> int:
    """Return the least shift by which the words agree with themselves (Knuth, Morris & Pratt 1977)."""
    border = [0]
    for character in words[1:]:
        length = border[-1]
        while length and words[length] != character:
            length = border[length - 1]
        border.append(length + (words[length] == character))
    return len(words) - border[-1]
