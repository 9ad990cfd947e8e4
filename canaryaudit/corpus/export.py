"""Writes a data set back in the shape in which it came, with a row more for each text that is to be inserted.

A new row is a copy of a row of the data, drawn at random, with the text in the chosen field. So all other columns are
filled as they usually are. Rows that were there stay as they were, and all rows are shuffled.
"""

import copy
import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canaryaudit.corpus.arrow_rows import is_saved_dataset, saved_dataset
from canaryaudit.corpus.fields import EACH, ROLE_KEYS, listed, parse_field, text_lengths
from canaryaudit.corpus.fields import Path as FieldPath
from canaryaudit.corpus.listing import format_of
from canaryaudit.corpus.raw_text import RawText
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings
from canaryaudit.storage.files import atomic_path, atomic_write, write_errors

_TRIES = 1_000
"""Rows that are drawn until one has the field."""
_SAMPLE = 100
"""Rows by which the field of the text is chosen."""
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
    if target.exists():
        raise CorpusError(f"--export {target} exists: choose another name, or remove it")
    return writers[kind](path, target, _Rows(path.name, texts, reading, np.random.default_rng([seed, 5])))


class _Rows:
    """Makes the new rows and draws the order of all."""

    def __init__(self, name: str, texts: Sequence[str], reading: ReadingSettings, rng: np.random.Generator) -> None:
        self.name, self.texts, self.reading, self._rng = name, texts, reading, rng

    def new(self, count: int, record: Callable[[int], Any]) -> list[Any]:
        """Return the new rows, given the number of rows and how to get one of them."""
        if not count:
            raise CorpusError(f"{self.name} is empty: expected rows of text, got none")
        path = self._field([record(index) for index in range(min(count, _SAMPLE))])
        made = []
        for text in self.texts:
            for _ in range(_TRIES):
                changed = copy.deepcopy(record(int(self._rng.integers(count))))
                if self._put(changed, path, text):
                    made.append(changed)
                    break
            else:
                role = f" of role {self.reading.role[0]}" if self.reading.role else ""
                raise CorpusError(
                    f"{self.name} has no text{role} in the field to insert into: check --column and --role"
                )
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
        return any(item.get(key) in self.reading.role for key in ROLE_KEYS)


def _export_lines(source: Path, target: Path, rows: _Rows) -> int:
    lines = [line for line in RawText(source, rows.reading.encoding).lines() if line.strip()]
    try:
        new = rows.new(len(lines), lambda index: json.loads(lines[index]))
    except ValueError:
        raise CorpusError(f"{source} is not valid jsonl: correct the line that insert without --export names") from None
    lines += [json.dumps(own, ensure_ascii=False) for own in new]
    atomic_write(target, "".join(f"{lines[index]}\n" for index in rows.order(len(lines))))
    return len(lines)


def _export_cells(source: Path, target: Path, rows: _Rows) -> int:
    lines = list(RawText(source, rows.reading.encoding).lines())
    head = lines[0] if lines else ""
    delimiter = rows.reading.delimiter or max(",;\t|", key=head.count)
    table = list(csv.reader((line + "\n" for line in lines), delimiter=delimiter))
    if rows.reading.header is False:
        names = [str(number) for number in range(1, len(table[0]) + 1)] if table else []
        body, first = table, []
    else:
        names, body, first = (table[0] if table else []), table[1:], table[:1]
    body = [row for row in body if row]
    new = rows.new(len(body), lambda index: dict(zip(names, body[index], strict=False)))
    body += [[own.get(name, "") for name in names] for own in new]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([*first, *(body[index] for index in rows.order(len(body)))])
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
            datasets.Dataset(whole, info=dataset.info.copy()).save_to_disk(target, num_proc=1)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return int(whole.num_rows)


def _with_rows(table: Any, rows: _Rows) -> Any:
    import pyarrow

    new = rows.new(table.num_rows, lambda index: table.slice(index, 1).to_pylist()[0])
    whole = pyarrow.concat_tables([table, pyarrow.Table.from_pylist(new, schema=table.schema)])
    return whole.take(pyarrow.array(rows.order(whole.num_rows)))
