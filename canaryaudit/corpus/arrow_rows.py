"""Rows of Parquet files and of ``datasets`` objects, in batches of bounded size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canaryaudit.corpus.tables import Table
from canaryaudit.errors import CorpusError, one_line

if TYPE_CHECKING:
    import pyarrow

_ROWS = 1_000
"""Rows read at once; fewer if they are long or nested, where few bytes of a file may stand for much text."""
_NESTED_ROWS = 64
_BATCH_BYTES = 2**23


def parquet_table(path: Path, name: str) -> Table:
    """Open a Parquet file.

    Columns of strings are read as indices into their distinct values: a file that repeats one long text a million times
    takes the memory of one.

    Raises:
        CorpusError: It is not Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        flat = [field.name for field in schema if _is_string(field.type)]
        file = pyarrow.parquet.ParquetFile(path, read_dictionary=flat)
    except Exception as error:  # noqa: BLE001 - a damaged file makes the reader raise any exception
        raise _not_parquet(path, error) from None
    rows = max(1, file.metadata.num_rows)
    bytes_of = sum(file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))

    def read(used: frozenset[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        nested = any(pyarrow.types.is_nested(schema.types[index]) for index in used)
        size = max(1, min(_NESTED_ROWS if nested else _ROWS, _BATCH_BYTES * rows // max(1, bytes_of)))
        chosen = [schema.names[index] for index in sorted(used)]
        # A name that stands for several columns cannot be asked for.
        columns = chosen if len(set(schema.names)) == len(schema.names) else None
        places = sorted(used) if columns else range(len(schema.names))
        try:
            yield from _rows(file.iter_batches(size, columns=columns), len(schema.names), places)
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise _not_parquet(path, error) from None

    return Table(name, tuple(schema.names), _text_columns(schema), read)


def dataset_table(dataset: Any, name: str) -> Table:
    """Open a ``datasets.Dataset``, in memory or mapped from a folder."""
    rows = dataset.with_format("arrow")
    schema = rows.features.arrow_schema

    def read(used: frozenset[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        chosen = rows.select_columns([schema.names[index] for index in sorted(used)])
        batches = (batch for table in chosen.iter(_NESTED_ROWS) for batch in table.to_batches())
        yield from _rows(batches, len(schema.names), sorted(used))

    return Table(name, tuple(schema.names), _text_columns(schema), read)


def arrow_table(table: "pyarrow.Table", name: str) -> Table:
    """Open an Arrow table."""

    def read(_: frozenset[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        batches = table.to_batches(max_chunksize=_NESTED_ROWS)
        yield from _rows(batches, table.num_columns, range(table.num_columns))

    return Table(name, tuple(table.schema.names), _text_columns(table.schema), read)


def saved_dataset(path: Path) -> Any:
    """Open what ``Dataset.save_to_disk`` wrote.

    Raises:
        CorpusError: It is damaged, or has several splits.
    """
    splits = path / "dataset_dict.json"
    if splits.exists():
        names = sorted(own.name for own in path.iterdir() if (own / "state.json").is_file())
        raise CorpusError(
            f"corpus {path} has the splits {', '.join(names)}: choose one, such as {path / names[0] if names else path}"
        )
    import datasets  # Takes a second, so only when needed.

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # noqa: BLE001 - the readers raise any exception
        raise CorpusError(f"{path} is not a saved data set ({one_line(error)}): save it again") from None


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder is what ``save_to_disk`` writes."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def _is_string(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _text_columns(schema: "pyarrow.Schema") -> tuple[int, ...]:
    """Return the columns of strings and of nested values, which may hold text."""
    import pyarrow

    def texts(kind: Any) -> bool:
        if pyarrow.types.is_dictionary(kind):
            return texts(kind.value_type)
        return _is_string(kind) or pyarrow.types.is_nested(kind) or str(kind) == "string_view"

    return tuple(index for index, kind in enumerate(schema.types) if texts(kind))


def _rows(batches: Any, width: int, places: Sequence[int]) -> Iterator[tuple[int, Sequence[Any]]]:
    number = 0
    for batch in batches:
        columns: list[Any] = [None] * width
        for place, column in zip(places, batch.columns, strict=True):
            columns[place] = column
        for row in range(batch.num_rows):  # One by one: a batch of indices may stand for gigabytes.
            number += 1
            yield number, [None if column is None else column[row].as_py() for column in columns]


def _not_parquet(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path} is not valid parquet ({one_line(error)}): correct the file")
