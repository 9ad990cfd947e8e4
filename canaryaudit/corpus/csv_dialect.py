"""What dialect a delimited file is written in, and whether its first row is a header.

The standard library's ``csv.Sniffer`` always gives some answer. Here, the answer is None where more than one would do:
the user is asked then, because a wrong dialect silently hides text.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from canaryaudit.corpus.raw_text import MAX_RECORD

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_UNCLOSED = 2**16
"""Characters that a quoted cell may have at the end of a sample; beyond, a quote was misread."""
_CONSISTENT = 0.9
_MISQUOTED = "quotation marks stand where none can, or a quoted cell is not closed"

_FIGURES = re.compile(r"[-+(]?[$€£]?\s?\d[\d\s().,:/'’+TZ%€$£-]*")
_TRUTH = frozenset(("true", "false", "yes", "no", "ja", "nein", "wahr", "falsch", "oui", "non", "vrai", "faux", "si"))
_DECIMAL_CUT = re.compile(r"\d$")
_WORD = re.compile(r"[^\W\d]\w*")
_NAMES = frozenset(
    (
        "text",
        "texts",
        "content",
        "body",
        "message",
        "messages",
        "title",
        "subject",
        "id",
        "nr",
        "no",
        "number",
        "name",
        "first_name",
        "last_name",
        "label",
        "date",
        "time",
        "timestamp",
        "created",
        "created_at",
        "email",
        "e-mail",
        "phone",
        "telephone",
        "comment",
        "comments",
        "question",
        "answer",
        "prompt",
        "response",
        "instruction",
        "output",
        "input",
        "user",
        "user_id",
        "description",
        "summary",
        "category",
        "type",
        "status",
        "url",
        "author",
        "notes",
        "note",
        "address",
        "from",
        "to",
        "language",
        "country",
        "city",
        "nachricht",
        "betreff",
        "datum",
        "uhrzeit",
        "kunde",
        "kommentar",
        "beschreibung",
        "titel",
        "inhalt",
        "telefon",
        "frage",
        "antwort",
        "vorname",
        "nachname",
        "nummer",
        "notiz",
        "anschrift",
        "ort",
        "texte",
        "texto",
        "mensaje",
        "fecha",
        "nombre",
        "titre",
        "objet",
        "nom",
    )
)
"""Names that columns have, and data hardly ever."""


@dataclass(frozen=True)
class Dialect:
    r"""How cells are separated and quotation marks in them written.

    Attributes:
        delimiter: The character between cells.
        backslash: Whether quotation marks in cells are written ``\"``; they may also be doubled.
    """

    delimiter: str
    backslash: bool = False

    @property
    def name(self) -> str:
        """The delimiter in words."""
        return DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def rows(self, lines: Iterable[str]) -> Any:
        """Return a reader of the rows of cells; it raises ``csv.Error`` where a quotation mark cannot stand."""
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))
        return csv.reader(lines, delimiter=self.delimiter, escapechar="\\" if self.backslash else None, strict=True)


@dataclass(frozen=True)
class Sniffed:
    """A dialect with the rows that it makes of a sample.

    Attributes:
        dialect: The dialect; None if several fit, or none.
        rows: The sample's rows, without blank ones.
        fault: Why there is no dialect.
    """

    dialect: Dialect | None
    rows: Sequence[list[str]] = ()
    fault: str = ""


def sniff_dialect(
    lines: Sequence[str], delimiters: Sequence[str], escapes: Sequence[bool], *, complete: bool
) -> Sniffed:
    """Find the one dialect in which every row of a sample has as many cells.

    Args:
        lines: The sample's lines, each with its line feed.
        delimiters: Those that may be.
        escapes: Whether quotation marks may be doubled (False), or have a backslash before them (True).
        complete: Whether the sample is the whole file.
    """
    parsed: dict[Dialect, list[list[str]]] = {}
    for delimiter in delimiters:
        for backslash in escapes:
            dialect = Dialect(delimiter, backslash)
            rows = _sample_rows(dialect, lines, complete=complete)
            if rows is not None:
                parsed[dialect] = rows
                break  # Doubled quotation marks come first: a backslash alone may be part of a path.
    if not parsed:
        return Sniffed(None, fault=_MISQUOTED)
    tables = {own: rows for own, rows in parsed.items() if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1}
    if len(tables) > 1:
        tables = {own: rows for own, rows in tables.items() if not (own.delimiter == "," and _cuts_numbers(rows))}
    if len(tables) == 1:
        return Sniffed(*next(iter(tables.items())))
    if tables:
        return Sniffed(None, fault=f"its rows can be cut at every {' or '.join(own.name for own in tables)}")
    single = [own for own, rows in parsed.items() if all(len(row) == 1 for row in rows)]
    unparsed = set(delimiters) - {own.delimiter for own in parsed}
    table = any(own in lines[0] for own in unparsed) or any(_may_be_a_table(rows) for rows in parsed.values())
    if single and (len(delimiters) == 1 or not table):
        return Sniffed(single[0], parsed[single[0]])
    if any(own in lines[0] for own in unparsed):
        return Sniffed(None, fault=_MISQUOTED)
    return Sniffed(None, fault=_ragged(parsed))


def _sample_rows(dialect: Dialect, lines: Sequence[str], *, complete: bool) -> list[list[str]] | None:
    """Return a sample's rows, without an incomplete last one; None if the dialect does not fit."""
    ended = False

    def watched() -> Iterator[str]:
        nonlocal ended
        yield from lines
        ended = True

    rows: list[list[str]] = []
    done = 0
    reader = dialect.rows(watched())
    try:
        for row in reader:
            if row:
                rows.append(row)
            done = reader.line_num
    except csv.Error:
        if complete or not ended or sum(map(len, lines[done:])) > _UNCLOSED:
            return None
    return rows or None


def _cuts_numbers(rows: Sequence[list[str]]) -> bool:
    """Return whether a comma is a decimal one in every row but a header."""
    return all(
        any(_DECIMAL_CUT.search(left) and right[:1].isdigit() for left, right in itertools.pairwise(row))
        for row in rows[1:] or rows
    )


def _may_be_a_table(rows: Sequence[list[str]]) -> bool:
    """Return whether the first row has several cells, or most others have equally many."""
    if len(rows[0]) > 1:
        return True
    widths = Counter(len(row) for row in rows[1:])
    width, count = max(widths.items(), key=lambda item: (item[0] > 1, item[1]), default=(1, 0))
    return width > 1 and count > 1 and count >= _CONSISTENT * (len(rows) - 1)


def _ragged(parsed: dict[Dialect, list[list[str]]]) -> str:
    """Describe the row that does not fit the dialect which fits best."""

    def fit(item: tuple[Dialect, list[list[str]]]) -> tuple[bool, float]:
        width = len(item[1][0])
        return width > 1, sum(len(row) == width for row in item[1]) / len(item[1])

    dialect, rows = max(parsed.items(), key=fit)
    width = len(rows[0])
    number, row = next(((n, row) for n, row in enumerate(rows) if len(row) != width), (0, rows[0]))
    return f"its row {number + 1} has {len(row)} cells and its first row {width}, cut at every {dialect.name}"


def sniff_header(rows: Sequence[list[str]]) -> bool | None:
    """Return whether the first row holds the columns' names; None if that is not certain.

    A column of figures, dates or truth values is the surest sign: a name above it is a header, another such value is
    none, and a value above words is neither. Otherwise well-known names, and single words above sentences, are a
    header; a sentence is none.
    """
    if not rows:
        return None
    first, others = rows[0], rows[1:]
    signs = set()
    for index, cell in enumerate(first):
        values = [row[index] for row in others if index < len(row) and row[index].strip()]
        if values and all(_is_value(value) for value in values):
            signs.add(bool(cell.strip()) and not _is_value(cell))
        elif values and _is_value(cell) and not any(_is_value(value) for value in values):
            return None
    if len(signs) == 1:
        return signs.pop()
    if signs:
        return None
    if not all(_is_short(cell) for cell in first):
        return False
    if any(cell.strip().casefold().replace(" ", "_") in _NAMES for cell in first):
        return True
    words = all(_WORD.fullmatch(cell.strip()) for cell in first)
    sentences = any(
        len(others) > 1 and sum(" " in row[index].strip() for row in others) >= _CONSISTENT * len(others)
        for index in range(len(first))
    )
    return True if words and sentences else None


def _is_value(cell: str) -> bool:
    """Return whether a cell holds a figure, a date, a time, a telephone number or a truth value."""
    cell = cell.strip()
    return cell.casefold() in _TRUTH or _FIGURES.fullmatch(cell) is not None


def is_text_column(values: Iterable[str]) -> bool:
    """Return whether a column holds words, not only figures, dates or truth values."""
    return any(value.strip() and not _is_value(value) for value in values)


def _is_short(cell: str) -> bool:
    """Return whether a cell can be a name: a few words on one line, and no sentence."""
    sentence = cell.rstrip().endswith((".", "!")) or len(cell.split()) > 7
    return len(cell) <= 60 and "\n" not in cell and not sentence
