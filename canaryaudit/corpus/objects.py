"""Rows of Python objects: pandas and Arrow tables, ``datasets`` objects, and iterables of texts or records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from canaryaudit.corpus.arrow_rows import arrow_table, dataset_table
from canaryaudit.corpus.fields import is_missing
from canaryaudit.corpus.tables import Table
from canaryaudit.errors import CorpusError

_SAMPLE = 100


def object_rows(data: object, name: str = "") -> tuple[str, Table | Iterator[tuple[int, Any]]]:
    """Return a name for ``data``, and its rows: a table, or records with their numbers from 1.

    Args:
        data: A DataFrame, a Series, an Arrow table or what can be exported as one, a ``datasets`` object, or an
            iterable of texts or of mappings.
        name: What to call it; default: its kind.

    Raises:
        CorpusError: It is none of these, or has several splits.
    """
    kind = type(data).__name__
    package = type(data).__module__.partition(".")[0]
    name = name or kind
    if package == "pandas" and kind == "DataFrame":
        return name, _frame_table(data, name)
    if package == "pandas" and kind == "Series":
        return name, _series_table(data, name)
    if package == "datasets" and isinstance(data, Mapping):
        split = next(iter(data), "train")
        raise CorpusError(f"a {kind} has the splits {', '.join(map(str, data))}: give one, such as data[{split!r}]")
    if package == "datasets" and hasattr(data, "with_format") and hasattr(data, "select_columns") and len_of(data):
        return name, dataset_table(data, name)
    if hasattr(data, "__arrow_c_stream__"):
        import pyarrow

        return name, arrow_table(pyarrow.table(data), name)
    if isinstance(data, Iterable) and not isinstance(data, bytes | Mapping):
        return name, enumerate(data, 1)
    raise CorpusError(
        f"cannot read a corpus from a {kind}: expected a path, a DataFrame, a data set, or an iterable of texts"
    )


def len_of(data: Any) -> int:
    """Return the number of rows; 0 if they are streamed."""
    try:
        return len(data)
    except TypeError:
        return 0


def _frame_table(frame: Any, name: str) -> Table:
    columns = tuple(map(str, frame.columns))
    texts = tuple(
        index
        for index in range(len(columns))
        if any(isinstance(own, str | list | dict) for own in frame.iloc[:_SAMPLE, index])
    )

    def read(used: frozenset[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        places = sorted(used)
        for number, values in enumerate(zip(*(frame.iloc[:, index] for index in places), strict=True), 1):
            cells: list[Any] = [None] * len(columns)
            for index, value in zip(places, values, strict=True):
                cells[index] = _value(value)
            yield number, cells

    return Table(name, columns, texts, read)


def _series_table(series: Any, name: str) -> Table:
    def read(_: frozenset[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        for number, value in enumerate(series, 1):
            yield number, (_value(value),)

    return Table(name, ("text" if series.name is None else str(series.name),), (0,), read)


def _value(value: Any) -> Any:
    if isinstance(value, str | list | tuple | Mapping):
        return value
    if is_missing(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value  # numpy's arrays and scalars
