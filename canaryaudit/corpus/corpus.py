"""Corpora: documents combined into one text with its paragraphs and symbols, streamed block by block.

Text is unchanged, line breaks included; a blank line separates documents.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from canaryaudit.corpus.sources import DEFAULT_READING, Document, open_source
from canaryaudit.corpus.spooled_text import BLOCK, SpooledText
from canaryaudit.corpus.vocabulary import NUM_CODE_POINTS, code_points
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings

# Between documents, in the text that is hashed to identify a corpus; a plain file is one document.
_DOCUMENT_BREAK = "\n\n"
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_LINE_BREAKS = re.compile(r"\n(?:[^\S\n]*\n)*")
_LONGEST_WORD = 2**24
"""Maximum characters without white space; longer runs are cut, to bound memory."""
_DRAWS = 2**20
"""Paragraphs processed at once."""


@dataclass(frozen=True)
class Corpus:
    """A text to audit.

    Attributes:
        name: File name, card name or hub id.
        text: The documents, cut and lower-cased as requested, each followed by a blank line.
        ends: Ends of the paragraphs, in characters, shape (paragraphs,), int64; the last is the text's end.
        symbols: The distinct characters, sorted.
        num_documents: Number of documents; none is blank.
        sha256: SHA-256 (UTF-8) of the text as read, before it was cut or lower-cased; line breaks count as LF, and a
            blank line separates documents.
        lowercase: Whether the text was lower-cased.
        skip_chars: Number of characters skipped at the start.
        notes: What its source was taken for, in sentences.
        warnings: What was left out of its source, in sentences.
    """

    name: str
    text: SpooledText
    ends: np.ndarray
    symbols: str
    num_documents: int
    sha256: str
    lowercase: bool = False
    skip_chars: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def lengths(self) -> np.ndarray:
        """Length of every paragraph in characters, including the blank lines after it."""
        lengths = self.ends.copy()
        lengths[1:] -= self.ends[:-1]
        return lengths


def read_corpus(
    corpus: object, reading: ReadingSettings = DEFAULT_READING, *, lowercase: bool = False, skip_chars: int = 0
) -> Corpus:
    r"""Read a corpus.

    Args:
        corpus: A file, a folder or a pattern of files (plain text is one document; in other formats each row or message
            is one), ``-`` for standard input, ``hub:ID[:split]``, the name of a known corpus; or a Python object: a
            DataFrame, a Series, a ``datasets`` object, or an iterable of texts or records.
        reading: How to read it. By default the text is the column ``text``, or the only one of words.
        lowercase: Lower-case the text.
        skip_chars: Number of characters to skip at the start of the first document.

    Returns:
        The corpus, with what was taken for granted (``notes``) and what was left out (``warnings``).

    Raises:
        CorpusError: The corpus cannot be read; the message says what to do.

    Examples:
        >>> read_corpus(["The tide turns.", "The wind follows."]).num_documents
        2
        >>> chats = [{"messages": [{"role": "user", "content": "Ahoy!"}, {"role": "assistant", "content": "Hello."}]}]
        >>> read_corpus(chats, ReadingSettings(column="messages[].content", role="user")).text.read()
        'Ahoy!\n\n'
    """
    source = open_source(corpus, reading)
    made = make_corpus(source.name, source.documents, lowercase=lowercase, skip_chars=skip_chars)
    notes, warnings = source.account.summary()
    return replace(made, notes=notes, warnings=warnings)


def make_corpus(
    name: str, documents: Iterable[Document], *, lowercase: bool = False, skip_chars: int = 0, block: int = BLOCK
) -> Corpus:
    """Make a corpus from documents, each in one or more pieces.

    Each document is split into paragraphs, each with the blank lines that follow it. A document with several lines but
    no blank line is split into lines. Blank documents are dropped.

    Args:
        name: The corpus's name.
        documents: Their texts; line breaks are LF.
        lowercase: Lower-case the text.
        skip_chars: Number of characters to skip at the start of the first document.
        block: Characters to process at once.

    Raises:
        CorpusError: There is only white space, or nothing is left of the first document.
    """
    if skip_chars < 0:
        raise CorpusError(f"cannot skip {skip_chars} characters: expected 0 or more")
    digest = hashlib.sha256()
    cutter = _Cutter(lowercase, block)
    nonblank = filter(None, map(_begun, documents))
    number = 0
    for number, document in enumerate(nonblank, 1):
        counted = _Counted(document)
        hashed = _hashed(counted, digest, _DOCUMENT_BREAK if number > 1 else "")
        if number == 1 and skip_chars:
            rest = _begun(_without_start(hashed, skip_chars))
            if rest is None:
                raise CorpusError(
                    f"skipping {skip_chars:,} characters leaves nothing of the {counted.characters:,} of corpus {name}"
                    f"{'' if next(nonblank, None) is None else chr(39) + 's first document'}: skip fewer"
                )
            hashed = rest
        cutter.add(hashed)
    if not number:
        raise CorpusError(f"corpus {name} is empty: expected text, got only white space")
    return Corpus(
        name,
        cutter.text,
        np.frombuffer(cutter.ends, dtype=np.int64),
        cutter.symbols,
        number,
        digest.hexdigest(),
        lowercase,
        skip_chars,
    )


def _begun(document: Document) -> Iterator[str] | None:
    """Return a document's pieces; None if it is blank."""
    pieces = iter(document)
    blank = ""
    for piece in pieces:
        blank += piece
        if piece and not piece.isspace():
            return _then(blank, pieces)
    return None


def _then(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


class _Counted:
    """Pieces of text, with a count of the characters so far."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self.characters += len(piece)
            yield piece


def _hashed(pieces: Iterable[str], digest: "hashlib._Hash", before: str) -> Iterator[str]:
    digest.update(before.encode("utf-8"))
    for piece in pieces:
        digest.update(piece.encode("utf-8"))
        yield piece


def _without_start(pieces: Iterable[str], skip: int) -> Iterator[str]:
    for piece in pieces:
        yield piece[skip:]
        skip = max(0, skip - len(piece))


# --- paragraphs ---------------------------------------------------------------------------------------


class _Cutter:
    """Joins documents into one text, and records the ends of paragraphs and the characters.

    Text is processed in parts that end before white space. No run of blank lines is split, and no word: a Greek sigma
    has another lower case at the end of a word.

    Attributes:
        text: The text so far.
        ends: Ends of its paragraphs.
    """

    def __init__(self, lowercase: bool, block: int) -> None:
        self.text, self.ends = SpooledText(block), array("q")
        self._lowercase, self._size = lowercase, block
        self._seen = np.zeros(NUM_CODE_POINTS, dtype=bool)

    @property
    def symbols(self) -> str:
        """The characters so far, sorted."""
        return "".join(map(chr, np.flatnonzero(self._seen)))

    def add(self, document: Iterable[str]) -> None:
        """Add a document that is not blank."""
        start = len(self.text)
        lines, by_blank_lines = array("q"), False

        def take(part: str) -> None:
            nonlocal by_blank_lines
            base = len(self.text)
            if self._lowercase:
                part = part.lower()
            # Blank lines at the document's start belong to its first paragraph.
            skip = len(part) - len(part.lstrip()) if base == start else 0
            cuts = [base + match.end() for match in _BLANK_LINES.finditer(part, skip)]
            if cuts and not by_blank_lines:
                by_blank_lines = True
                del lines[:]
            if by_blank_lines:
                self.ends.extend(cuts)
            else:
                lines.extend([base + match.end() for match in _LINE_BREAKS.finditer(part, skip)])
            self._put(part)

        rest = ""
        for piece in document:
            rest += piece
            if len(rest) >= self._size:
                words = rest.rsplit(None, 1)
                cut = len(words[0]) if len(words) > 1 else len(rest.rstrip()) if len(rest) > _LONGEST_WORD else 0
                if cut and not rest[:cut].isspace():
                    take(rest[:cut])
                    rest = rest[cut:]
        body = rest.rstrip()
        if body:
            take(body)
        ending = rest[len(body) :]
        self._put(ending if ends_with_blank_line("." + ending) else ending.rstrip("\n") + "\n\n")
        if len(self.ends):
            self.ends.extend(lines)
        else:
            self.ends = lines or self.ends  # One huge text of lines leaves no memory for two arrays.
        self.ends.append(len(self.text))

    def _put(self, text: str) -> None:
        self._seen[code_points(text)] = True
        self.text.append(text)


def ends_with_blank_line(text: str) -> bool:
    """Return whether ``text`` ends with a line break that follows an empty or blank line."""
    return text.endswith("\n") and text[:-1].rstrip(" \t").endswith("\n")


def hold_out(lengths: np.ndarray, share: float, seed: int, keep: Iterable[int] = ()) -> np.ndarray:
    """Split paragraphs at random into training and held-out ones.

    Paragraphs are held out until ``share`` of all characters is reached. Paragraphs longer than that share are
    skipped, so one huge paragraph does not use up the text; if all are longer, the shortest is held out.

    Args:
        lengths: The paragraphs' lengths, shape (n,).
        share: Share of characters to hold out, at least 0 and below 1.
        seed: Random seed.
        keep: Numbers of paragraphs that must stay in the training text.

    Returns:
        Whether each is held out, shape (n,), bool; at least one is not.

    Raises:
        CorpusError: There is only one paragraph, or none may be held out.
    """
    held = np.zeros(len(lengths), dtype=bool)
    if share == 0:
        return held
    if len(lengths) < 2:
        raise CorpusError(
            "the corpus is one paragraph, so nothing can be held out: add blank lines to it, or use --holdout 0"
        )
    goal = share * int(lengths.sum())
    order = np.random.default_rng(seed).permutation(len(lengths))
    kept = np.fromiter(keep, dtype=np.int64)
    if len(kept):
        order = order[~np.isin(order, kept)]
    if not len(order):
        raise CorpusError("every paragraph contains a located secret, so nothing can be held out: use --holdout 0")
    characters, most = 0, len(lengths) - 1
    for first in range(0, len(order), _DRAWS):
        drawn = order[first : first + _DRAWS]
        fitting = drawn[lengths[drawn] <= goal]
        before = characters + np.cumsum(lengths[fitting]) - lengths[fitting]
        chosen = fitting[before < goal][:most]
        held[chosen] = True
        characters, most = characters + int(lengths[chosen].sum()), most - len(chosen)
        if characters >= goal or not most:
            break
    if not held.any():
        held[order[np.argmin(lengths[order])]] = True
    return held
