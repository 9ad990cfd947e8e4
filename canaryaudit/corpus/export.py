"""Writes a data set back in the shape in which it came, with a row more for each text that is to be inserted.

A new row is a copy of a row of the data, drawn at random, with the text in the chosen field. So all other columns are
filled as they usually are. Rows that were there stay as they were, and all rows are shuffled.
"""

import copy
import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canaryaudit.corpus.arrow_rows import is_saved_dataset, saved_dataset
from canaryaudit.corpus.csv_dialect import Dialect
from canaryaudit.corpus.fields import EACH, ROLE_KEYS, listed, parse_field, text_lengths
from canaryaudit.corpus.fields import Path as FieldPath
from canaryaudit.corpus.listing import format_of
from canaryaudit.corpus.raw_text import COMPRESSIONS, RawText
from canaryaudit.corpus.tables import delimited_table
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings
from canaryaudit.storage.files import atomic_path, atomic_write, write_errors

_TRIES = 1_000
"""Rows that are drawn until one has the field."""
_SAMPLE = 100
"""Rows by which the field of the text is chosen."""
_MARK = "\x00number "
_NUMBER = re.compile(r'"\\u0000number ([^"]*)"')
"""Numbers of copied records while they are Python objects, and in JSON: they stay as they are written."""
_SHAPES = "JSON Lines, CSV, TSV or Parquet, or a folder that datasets saved"


def export_rows(source: str, target: Path, texts: Sequence[str], reading: ReadingSettings, seed: int) -> int:
    """Write a data set with more rows.

    Args:
        source: A file of records, or a folder that ``datasets`` saved.
        target: What to write, in the same shape; it must not exist.
        texts: The text of each new row.
        reading: How to read the source; the last of its columns gets the texts, in an item of the first of its roles.
        seed: Of the rows that are copied and of the order.

    Returns:
        The number of rows written.

    Raises:
        CorpusError: The source has no rows, or none with the field; or the target is there, or of another shape.
    """
    path = Path(source)
    kind = "folder" if is_saved_dataset(path) else str(reading.format or format_of(path))
    writers: Mapping[str, Callable[[Path, Path, _Rows], int]] = {
        "jsonl": _export_lines,
        "csv": _export_cells,
        "tsv": _export_cells,
        "parquet": _export_parquet,
        "folder": _export_folder,
    }
    if not path.exists() or kind not in writers:
        raise CorpusError(f"--export: {source} is no data set of rows: expected {_SHAPES}")
    if kind != "folder" and format_of(target) != kind:
        raise CorpusError(f"--export {target}: expected a name that ends like that of {source}, as it keeps its shape")
    if target.suffix in COMPRESSIONS:
        raise CorpusError(f"--export {target} is written uncompressed: leave {target.suffix} out of its name")
    if target.exists():
        raise CorpusError(f"--export {target} exists: choose another name, or remove it")
    return writers[kind](path, target, _Rows(path.name, texts, reading, np.random.default_rng([seed, 5])))


class _Rows:
    """Makes the new rows and draws the order of all."""

    def __init__(self, name: str, texts: Sequence[str], reading: ReadingSettings, rng: np.random.Generator) -> None:
        self.name, self.texts, self.reading, self._rng = name, texts, reading, rng

    def new(self, count: int, record: Callable[[int], Any], path: FieldPath | None = None) -> list[Any]:
        """Return the new rows, given the number of rows, how to get one of them, and the path of the field if known."""
        if not count:
            raise CorpusError(f"{self.name} is empty: expected rows of text, got none")
        path = path or self._field([record(index) for index in range(min(count, _SAMPLE))])
        made, few = [], None
        for text in self.texts:
            for _ in range(_TRIES):
                changed = copy.deepcopy(record(int(self._rng.integers(count))))
                if self._put(changed, path, text):
                    break
            else:  # Few rows have the field: it is drawn among them.
                few = few or [index for index in range(count) if self._put(copy.deepcopy(record(index)), path, text)]
                if not few:
                    role = f" of role {self.reading.role[0]}" if self.reading.role else ""
                    raise CorpusError(
                        f"{self.name} has no text{role} in the field to insert into: check --column and --role"
                    )
                changed = copy.deepcopy(record(few[int(self._rng.integers(len(few)))]))
                self._put(changed, path, text)
            made.append(changed)
        return made

    def order(self, count: int) -> np.ndarray:
        """Return a random order of so many rows."""
        return self._rng.permutation(count)

    def _field(self, records: Sequence[Any]) -> FieldPath:
        if self.reading.column:
            wanted = self.reading.column[-1]
            if any(isinstance(own, Mapping) and wanted in own for own in records):
                return (wanted,)
            return parse_field(wanted)
        words = list(text_lengths(records))
        if "text" in words:
            return ("text",)
        if len(words) != 1:
            raise CorpusError(
                f"{self.name} has {len(words)} fields of text: choose with --column among {listed(words)}"
            )
        return parse_field(words[0])

    def _put(self, value: Any, path: FieldPath, text: str) -> bool:
        """Put a text in place of the last one that a path leads to; return whether it leads to one."""
        step, rest = path[0], path[1:]
        if step is EACH:
            if not isinstance(value, list):
                return False
            places = [index for index, item in enumerate(value) if self._is_of_role(item)]
            for index in reversed(places):
                if not rest and isinstance(value[index], str):
                    value[index] = text
                    return True
                if rest and self._put(value[index], rest, text):
                    return True
            return False
        if not isinstance(value, dict) or step not in value:
            return False
        if rest:
            return self._put(value[step], rest, text)
        if not isinstance(value[step], str):
            return False
        value[step] = text
        return True

    def _is_of_role(self, item: Any) -> bool:
        if not self.reading.role or not isinstance(item, dict):
            return True
        roles = [item[key] for key in ROLE_KEYS if isinstance(item.get(key), str)]
        return not roles or roles[0] in self.reading.role  # A part of a message has no role of its own.


def _export_lines(source: Path, target: Path, rows: _Rows) -> int:
    lines = [line for line in RawText(source, rows.reading.encoding).lines() if line.strip()]
    read = json.JSONDecoder(parse_float=_as_written, parse_int=_as_written, parse_constant=_as_written).decode
    try:
        new = rows.new(len(lines), lambda index: read(lines[index]))
    except ValueError:
        raise CorpusError(f"{source} is not valid jsonl: correct the line that insert without --export names") from None
    lines += [_written(own) for own in new]
    atomic_write(target, "".join(f"{lines[index]}\n" for index in rows.order(len(lines))))
    return len(lines)


def _written(record: Any) -> str:
    """Return a record as JSON, with numbers as they were written."""
    line = json.dumps(record, ensure_ascii=False)
    if not line.isprintable():
        line = json.dumps(record)  # Halves of characters have no UTF-8.
    return _NUMBER.sub(r"\1", line)


def _as_written(number: str) -> str:
    return _MARK + number


def _export_cells(source: Path, target: Path, rows: _Rows) -> int:
    reading = rows.reading
    file = RawText(source, reading.encoding)
    table = delimited_table(file, reading, tabs=format_of(source) == "tsv")
    body = [list(cells) for _, cells in table.rows(frozenset(range(len(table.columns))))]
    *_, path = table.choose(reading.column).values()
    new = rows.new(len(body), lambda index: dict(enumerate(body[index])), path)
    body += [list(own.values()) for own in new]
    text = io.StringIO(newline="")
    dialect = table.dialect or Dialect(",")
    escape: dict[str, Any] = {"escapechar": "\\", "doublequote": False} if dialect.backslash else {}
    writer = csv.writer(text, delimiter=dialect.delimiter, lineterminator="\n", **escape)
    head = [table.columns] if table.header else []
    writer.writerows([*head, *(body[index] for index in rows.order(len(body)))])
    atomic_write(target, text.getvalue())
    return len(body)


def _export_parquet(source: Path, target: Path, rows: _Rows) -> int:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(source)
    except (pyarrow.ArrowException, OSError, ValueError):
        raise CorpusError(f"{source} is not a Parquet file that can be read: write it again") from None
    whole = _with_rows(table, rows)
    with atomic_path(target) as temporary:
        pyarrow.parquet.write_table(whole, temporary)
    return int(whole.num_rows)


def _export_folder(source: Path, target: Path, rows: _Rows) -> int:
    import datasets

    dataset = saved_dataset(source)
    if isinstance(dataset, Mapping):
        raise CorpusError(f"--export: {source} has several splits: give the folder of one")
    whole = _with_rows(dataset.with_format("arrow")[:], rows)
    with write_errors(target):
        try:
            datasets.Dataset(whole, info=dataset.info.copy()).save_to_disk(
                target
            )  # With num_proc it would start a process.
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return int(whole.num_rows)


def _with_rows(table: Any, rows: _Rows) -> Any:
    import pyarrow

    new = rows.new(table.num_rows, lambda index: table.slice(index, 1).to_pylist()[0])
    whole = pyarrow.concat_tables([table, pyarrow.Table.from_pylist(new, schema=table.schema)])
    views = {"string_view": pyarrow.large_string(), "binary_view": pyarrow.large_binary()}  # These cannot be reordered.
    plain = pyarrow.schema([own.with_type(views.get(str(own.type), own.type)) for own in table.schema])
    return whole.cast(plain).take(pyarrow.array(rows.order(whole.num_rows))).cast(table.schema)
