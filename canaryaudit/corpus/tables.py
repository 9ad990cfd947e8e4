"""Tables of rows: their columns, and the choice of those that hold the text."""

import csv
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from canaryaudit.corpus.csv_dialect import DELIMITERS, Dialect, is_text_column, sniff_dialect, sniff_header
from canaryaudit.corpus.fields import Path, listed, parse_field
from canaryaudit.corpus.raw_text import RawText
from canaryaudit.errors import CorpusError, one_line
from canaryaudit.formatting import visible
from canaryaudit.plan import ReadingSettings

_SAMPLE = 2**18
"""Characters of a delimited file that its dialect is told from."""
_MOST_QUOTED = 6
"""Columns that a message repeats as flags, to be copied."""


@dataclass(frozen=True)
class Table:
    """A source of rows that all have the same columns.

    Attributes:
        name: What messages call it.
        columns: Their names, or numbers from 1 if they have none.
        text_columns: Indices of the columns that hold words.
        rows: Returns the rows with their numbers, from 1, given the indices of the columns that are used.
        taken: What it was taken for, for the user.
        dialect: How it is written, if it is a delimited file.
        header: Whether its first row names the columns.
    """

    name: str
    columns: tuple[str, ...]
    text_columns: tuple[int, ...]
    rows: Callable[[frozenset[int]], Iterator[tuple[int, Sequence[Any]]]]
    taken: str = ""
    dialect: Dialect | None = None
    header: bool = False

    def choose(self, wanted: Sequence[str]) -> dict[str, Path]:
        """Return the paths of the columns that hold the text, by the names that messages give them.

        Args:
            wanted: Names, numbers from 1, or paths into nested columns. If empty: ``text``, or the only column, or the
                only one that holds words.

        Raises:
            CorpusError: There is no such column, or several; the message lists them.
        """
        if wanted:
            return {own: self._find(own) for own in wanted}
        if "text" in self.columns:
            return {"text": self._find("text")}
        chosen = (0,) if len(self.columns) == 1 else self.text_columns
        if len(chosen) != 1:
            names = [self.columns[index] for index in chosen]
            every = " ".join(f"--column {shlex.quote(visible(name))}" for name in names)
            hint = f", all of them with {every}" if 1 < len(names) <= _MOST_QUOTED else ""
            raise CorpusError(
                f"{self.name} has {len(chosen)} columns of text: choose with --column among "
                f"{listed(names) or listed(self.columns)}; several are read if --column is repeated{hint}"
            )
        return {self.columns[chosen[0]]: (chosen[0],)}

    def _find(self, wanted: str) -> Path:
        same = [index for index, name in enumerate(self.columns) if name == wanted]
        if len(same) > 1:
            numbers = " and ".join(str(index + 1) for index in same)
            raise CorpusError(
                f"{self.name} has {len(same)} columns called {wanted!r}: choose by number with --column, {numbers}"
            )
        if same:
            return (same[0],)
        if wanted.isdecimal() and 1 <= int(wanted) <= len(self.columns):
            return (int(wanted) - 1,)
        head, *rest = parse_field(wanted)
        if rest and head in self.columns:
            return (self.columns.index(str(head)), *rest)
        raise CorpusError(f"{self.name} has no column {wanted!r}: choose with --column among {listed(self.columns)}")


def delimited_table(source: RawText, reading: ReadingSettings, *, tabs: bool) -> Table:
    """Open a delimited file.

    Args:
        source: The file.
        reading: What the user says of it.
        tabs: Whether its ending says that tabs separate the cells.

    Raises:
        CorpusError: Its dialect, or whether it has a header, is not certain; the message names the flags that say so.
    """
    lines = (line + "\n" for line in source.lines())
    sample: list[str] = []
    size = 0
    for line in lines:
        sample.append(line)
        size += len(line)
        if size >= _SAMPLE:
            break
    declared = sample[0].strip().casefold() if sample else ""
    delimiters = tuple(DELIMITERS)
    if reading.delimiter is not None:
        delimiters = (reading.delimiter,)
    elif tabs:
        delimiters = ("\t",)
    if declared.startswith("sep=") and len(declared) == len("sep=") + 1:  # as spreadsheet programs write it
        delimiters = (reading.delimiter or declared[-1],)
        sample, skipped = sample[1:], 1
    else:
        skipped = 0
    if not "".join(sample).strip():
        raise CorpusError(f"{source.shown} is empty: expected rows of text, got none")
    escapes = (False, True) if reading.escape is None else (reading.escape == "backslash",)
    sniffed = sniff_dialect(sample, delimiters, escapes, complete=size < _SAMPLE)
    if sniffed.dialect is None:
        raise CorpusError(
            f"{source.shown} is not valid csv ({sniffed.fault}): correct it, or say how it is written with --delimiter "
            "and --escape, or read it as plain text with --format text"
        )
    dialect, rows = sniffed.dialect, sniffed.rows
    header = _has_header(source, reading, rows)
    columns = tuple(rows[0]) if header else tuple(str(number) for number in range(1, len(rows[0]) + 1))
    body = rows[1:] if header else rows
    texts = tuple(index for index in range(len(columns)) if is_text_column(row[index] for row in body))

    def cells(_: frozenset[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        def every() -> Iterator[str]:
            yield from sample
            yield from lines

        return _rows(source, dialect, every(), (len(columns), int(header), skipped))

    cut = f"cut at every {dialect.name}" if len(columns) > 1 else "one column"
    escape = ', \\" for quotation marks' if dialect.backslash else ""
    taken = f"{cut}{escape}, {'first row is the header' if header else 'no header'}"
    return Table(source.name, columns, texts, cells, taken, dialect, header)


def _has_header(source: RawText, reading: ReadingSettings, rows: Sequence[list[str]]) -> bool:
    if reading.header is not None:
        return reading.header
    if any(own in rows[0] and not own.isdecimal() for own in reading.column):
        return True
    header = sniff_header(rows)
    if header is None:
        raise CorpusError(
            f"cannot tell whether the first row of {source.shown} is a header: say so with --header or --no-header"
        )
    return header


def _rows(
    source: RawText, dialect: Dialect, lines: Iterator[str], shape: tuple[int, int, int]
) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the rows after the header with their numbers.

    Args:
        source: The file.
        dialect: How it is written.
        lines: Its lines.
        shape: Numbers of columns, of header rows, and of lines before them.
    """
    width, headers, skipped = shape
    reader = dialect.rows(lines)
    number = -headers
    try:
        for row in reader:
            if not row:
                continue
            number += 1
            if number < 1:
                continue
            if len(row) != width:
                fault = f"row {number} has {len(row)} cells, others {width}"
                raise _not_csv(source, fault, reader.line_num + skipped)
            yield number, row
    except csv.Error as error:
        fault = f"row {number + 1}: {one_line(error)}"
        raise _not_csv(source, fault, reader.line_num + skipped) from None


def _not_csv(source: RawText, fault: str, line: int) -> CorpusError:
    return CorpusError(
        f"{source.shown} is not valid csv ({fault}, at line {line}): correct it, or say how it is written with "
        "--delimiter and --escape"
    )
