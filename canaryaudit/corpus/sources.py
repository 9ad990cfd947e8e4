"""Sources of corpora: text files, files of rows, hub data sets and known corpora, streamed piece by piece.

Only one piece at a time is in memory: a block of a text file, or a batch of rows. Line breaks are returned as LF.
"""

import codecs
import hashlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from canaryaudit.corpus.cards import CorpusCard, corpus_directories, find_card, known_corpora, looks_like_a_name
from canaryaudit.errors import CorpusError, one_line

TEXT_ENDINGS = (".txt", ".md")
ROW_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
ENDINGS = ", ".join((*TEXT_ENDINGS, *ROW_BUILDERS))

BLOCK_BYTES = 2**20
"""Bytes of a text file read at once."""
_ROWS = 1_000
"""Rows read at once: reading single rows takes ten times as long."""
_BATCH_BYTES = 2**24
"""Fewer rows are read at once where they are longer than this together."""

Document = Iterable[str]
"""A document's text, in pieces."""


def read_documents(spec: str, column: str | None) -> tuple[str, Iterator[Document]]:
    """Return a corpus's name and its documents, which are read lazily.

    Args:
        spec: A path (plain text is one document; in other formats each row is one), ``hub:ID[:split]``, or the name
            of a known corpus.
        column: The column that holds the text; default: ``text``, or the only column of strings.

    Raises:
        CorpusError: The corpus cannot be read, now or during iteration; the message says what to do.
    """
    if spec.startswith("hub:"):
        return spec[4:], _read_hub(spec[4:], column)
    # A card takes precedence over a path: a run directory of the same name must not hide a known corpus.
    card = find_card(spec)
    if card is not None:
        return card.name, _read_known(card)
    path = Path(spec)
    return path.name, _read_file(path, spec, column)


def _read_file(path: Path, spec: str, column: str | None) -> Iterator[Document]:
    try:
        _check_file(path, spec)
        ending = path.suffix.lower()
        if ending in TEXT_ENDINGS:
            if column is not None:
                raise CorpusError(f"{spec} is plain text, which has no columns: drop --column {column}")
            yield _read_text(path)
        else:
            yield from _read_rows_of_file(path, ROW_BUILDERS[ending], column)
    except OSError as error:
        raise _unreadable(spec, error) from None


def _unreadable(spec: str, error: OSError) -> CorpusError:
    return CorpusError(f"cannot read corpus {spec}: {error.strerror or error}; check the path and its permissions")


def _check_file(path: Path, spec: str) -> None:
    if path.is_dir():
        raise CorpusError(f"corpus {spec} is a directory: give one file in it ({ENDINGS})")
    if not path.exists():
        hint = "check the path"
        if looks_like_a_name(spec):
            hint = f"give a file ({ENDINGS}), hub:ID, or a known corpus: {', '.join(known_corpora()) or 'none here'}"
        raise CorpusError(f"no such corpus: {spec}; {hint}")
    if path.suffix.lower() not in (*TEXT_ENDINGS, *ROW_BUILDERS):
        raise CorpusError(f"corpus {spec} has an unknown extension: expected {ENDINGS}; convert it to plain text")
    if path.stat().st_size == 0:
        raise CorpusError(f"corpus {spec} is empty: give a file that contains text")


def _read_text(path: Path) -> Iterator[str]:
    """Yield a text file's contents block by block."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line_breaks = io.IncrementalNewlineDecoder(None, translate=True)
    offset, begun = 0, False
    try:
        with path.open("rb") as file:
            while True:
                data = file.read(BLOCK_BYTES)
                if offset == 0 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise CorpusError(
                        f"{path} is UTF-16: convert it with: iconv -f UTF-16 -t UTF-8 {path} > utf8{path.suffix}"
                    )
                if b"\0" in data:
                    raise CorpusError(f"{path} is binary (NUL at byte {offset + data.index(0)}): give plain UTF-8 text")
                waiting = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise CorpusError(
                        f"{path} is not UTF-8 at byte {offset - waiting + error.start}: convert it, for instance with: "
                        f"iconv -f WINDOWS-1252 -t UTF-8 {path} > utf8{path.suffix}"
                    ) from None
                if not begun and text:
                    text, begun = text.removeprefix("\ufeff"), True
                yield line_breaks.decode(text, final=not data)
                offset += len(data)
                if not data:
                    return
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _normal_line_breaks(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_known(card: CorpusCard) -> Iterator[Document]:
    path = next(
        (directory / card.file for directory in corpus_directories() if (directory / card.file).is_file()), None
    )
    if path is None:
        flags = f" {card.experiment}" if card.experiment else ""
        raise CorpusError(
            f"the text of corpus {card.name!r} ({card.title}, {card.characters:,} characters) is not included: get it "
            f"from {card.source}, save it as corpora/{card.file}, then run: "
            f"canaryaudit insert {card.name}{flags} -o RUN"
        )
    if card.sha256 is not None:
        digest = hashlib.sha256()
        for block in _read_text(path):
            digest.update(block.encode("utf-8"))
        if digest.hexdigest() != card.sha256:
            raise CorpusError(
                f"{path} is not the text that the card of corpus {card.name!r} describes (SHA-256 "
                f"{digest.hexdigest()[:12]}…, expected {card.sha256[:12]}…, {card.characters:,} characters): get it "
                f"from {card.source}, or give the file's path to audit this text as it is: canaryaudit insert {path} "
                "-o RUN"
            )
    yield _read_text(path)


def _read_rows_of_file(path: Path, builder: str, column: str | None) -> Iterator[Document]:
    if builder == "parquet":
        try:
            yield from _read_parquet(path, column)
        except CorpusError:
            raise
        except Exception as error:  # noqa: BLE001 - Arrow raises any exception
            raise _invalid(path, error) from None
        return
    for _ in _read_text(path):  # The builders' messages for a wrong encoding do not give its position.
        pass
    options = {"keep_default_na": False} if builder == "csv" else {}  # else pandas reads the word NA as null
    with tempfile.TemporaryDirectory() as scratch:
        # The builders expand wildcards in paths: a link with a plain name lets them open a file such as [1].csv.
        link = Path(scratch, f"rows{path.suffix.lower()}")
        link.symlink_to(path.resolve())
        try:
            with _quiet_datasets() as load:
                rows = load(builder, data_files=str(link), split="train", streaming=True, cache_dir=scratch, **options)
                yield from _texts(rows, path.name, column)
        except CorpusError:
            raise
        except Exception as error:  # noqa: BLE001 - the readers of five libraries raise any exception
            raise _invalid(path, error) from None


def _invalid(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path} is not valid {path.suffix[1:].lower()} ({one_line(error)}): correct the file")


def _read_parquet(path: Path, column: str | None) -> Iterator[Document]:
    """Yield the rows of a Parquet file one by one.

    A file of some kilobytes can hold gigabytes: one long text in thousands of rows. Its distinct texts are kept once,
    as in the file, and its pages are read one at a time.
    """
    from pyarrow import parquet, types  # Takes a tenth of a second, so only when needed.

    with path.open("rb") as source:
        schema = parquet.read_schema(source)
        source.seek(0)
        strings = [own.name for own in schema if types.is_string(own.type) or types.is_large_string(own.type)]
        if not schema.names:
            raise CorpusError(f"{path.name} is empty: expected rows of text, got none")
        column = _text_column({name: "" if name in strings else None for name in schema.names}, path.name, column)
        file = parquet.ParquetFile(source, read_dictionary=[column], pre_buffer=False, buffer_size=BLOCK_BYTES)
        number = 0
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            average = group.total_byte_size // max(1, group.num_rows)
            rows = min(_ROWS, max(1, _BATCH_BYTES // max(1, average)))
            for batch in file.iter_batches(rows, row_groups=[index], columns=[column]):
                for value in batch.column(0):
                    number += 1
                    yield _row(value.as_py(), number, path.name, column)
        if not number:
            raise CorpusError(f"{path.name} is empty: expected rows of text, got none")


def _row(value: object, number: int, name: str, column: str | None) -> Document:
    if not isinstance(value, str):
        kind = "nothing (null)" if value is None else f"a value of type {type(value).__name__}"
        raise CorpusError(
            f"row {number} of {name} holds {kind} in column {column!r}: expected text; fix or remove the row"
        )
    return (_normal_line_breaks(value),)


def _read_hub(name: str, column: str | None) -> Iterator[Document]:
    dataset_id, _, split = name.partition(":")
    if not dataset_id:
        raise CorpusError("hub: needs the id of a data set: write hub:ID or hub:ID:split")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with _quiet_datasets() as load:
                rows = load(dataset_id, split=split or None, streaming=True, cache_dir=scratch)
                if isinstance(rows, Mapping):
                    if len(rows) > 1 and "train" not in rows:
                        raise CorpusError(
                            f"hub data set {dataset_id} has the splits {', '.join(rows)}: choose one, "
                            f"hub:{dataset_id}:{next(iter(rows))}"
                        )
                    rows = rows.get("train") or next(iter(rows.values()))
                yield from _texts(rows, f"hub:{name}", column)
        except CorpusError:
            raise
        except Exception as error:  # noqa: BLE001 - the network, the hub and readers raise any exception
            raise CorpusError(
                f"cannot read hub:{name} ({type(error).__name__}: {one_line(error)}): check the id, the split and "
                "the network, or download the data and give its path"
            ) from None


@contextmanager
def _quiet_datasets() -> Iterator[Any]:
    """Yield ``datasets.load_dataset`` with progress bars and logging turned off."""
    import datasets  # Takes a second, so only when needed.

    logs = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [log.level for log in logs]
    bars = datasets.are_progress_bars_disabled()
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    datasets.disable_progress_bars()
    try:
        yield datasets.load_dataset
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _texts(rows: Any, name: str, column: str | None) -> Iterator[Document]:
    number = 0
    for batch in rows.iter(_ROWS):
        if number == 0:
            column = _text_column({key: values[0] for key, values in batch.items()}, name, column)
        for value in batch.get(column or "", [None] * len(next(iter(batch.values())))):
            number += 1
            yield _row(value, number, name, column)
    if not number:
        raise CorpusError(f"{name} is empty: expected rows of text, got none")


def _text_column(row: Mapping[str, object], name: str, column: str | None) -> str:
    columns = ", ".join(row)
    if column is not None:
        if column not in row:
            raise CorpusError(f"{name} has no column {column!r}: choose with --column among {columns}")
        return column
    strings = [key for key, value in row.items() if isinstance(value, str)]
    if "text" in row:
        return "text"
    if len(strings) != 1:
        raise CorpusError(f"{name} has {len(strings)} columns of text: choose with --column among {columns}")
    return strings[0]
