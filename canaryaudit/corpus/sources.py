"""Sources of corpora: files, folders, standard input, hub data sets, known corpora and Python objects, streamed.

Only one piece at a time is in memory: a block of a text, or a record. Line breaks are returned as LF.
"""

import hashlib
import itertools
import json
import logging
import shlex
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canaryaudit.corpus.arrow_rows import is_saved_dataset, parquet_table, saved_dataset
from canaryaudit.corpus.cards import CorpusCard, corpus_directories, find_card, known_corpora, looks_like_a_name
from canaryaudit.corpus.fields import TextFields, field_values, listed, parse_field, text_lengths
from canaryaudit.corpus.json_rows import json_lines, json_records
from canaryaudit.corpus.listing import ENDINGS, Listing, format_of, has_ending, is_pattern, list_folder, list_pattern
from canaryaudit.corpus.mail import MailText
from canaryaudit.corpus.objects import object_rows
from canaryaudit.corpus.raw_text import RawText, unreadable
from canaryaudit.corpus.tables import Table, delimited_table
from canaryaudit.errors import CorpusError, one_line
from canaryaudit.formatting import counted, visible
from canaryaudit.plan import CorpusFormat, ReadingSettings

_SAMPLE = 100
"""Records from which the field of the text is chosen."""
_BATCH = 1_000
_MOST_LINES = 5
"""Sentences of one kind about a corpus; the others are counted."""

Document = Iterable[str]
"""A document's text, in pieces."""
DEFAULT_READING = ReadingSettings()


@dataclass
class ReadingAccount:
    """What reading found, complete once all documents were read.

    Attributes:
        notes: What the source was taken for, in sentences.
        warnings: What was left out, in sentences.
        attachments: Attachments of messages that were left out.
    """

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    attachments: int = 0

    def summary(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return notes and warnings, no more than a reader reads."""
        left_out = _shortened(self.warnings, "files with something left out")
        if self.attachments:
            left_out += (f"left out {counted(self.attachments, 'attachment')}",)
        return _shortened(self.notes, "files read"), left_out


@dataclass(frozen=True)
class Source:
    """A corpus that is about to be read.

    Attributes:
        name: Its name.
        documents: Its documents, read lazily, once.
        account: What reading found.
    """

    name: str
    documents: Iterator[Document]
    account: ReadingAccount


def open_source(corpus: object, reading: ReadingSettings = DEFAULT_READING) -> Source:
    """Open a corpus.

    Args:
        corpus: A file, a folder or a pattern of files (plain text is one document; in other formats each row or message
            is one), ``-`` for standard input, ``hub:ID[:split]``, the name of a known corpus; or a Python object: a
            DataFrame, a Series, a ``datasets`` object, or an iterable of texts or records.
        reading: How to read it.

    Raises:
        CorpusError: It cannot be read, now or during iteration; the message says what to do.
    """
    account = ReadingAccount()
    if not isinstance(corpus, str | Path):
        name, rows = object_rows(corpus)
        return Source(name, _rows(rows, name, reading, account), account)
    spec = str(corpus)
    if spec == "-":
        return Source("stdin", _read_raw(RawText(None, reading.encoding), reading, account, None), account)
    if spec.startswith("hub:"):
        return Source(spec[4:], _read_hub(spec[4:], reading, account), account)
    # A card takes precedence over a path: a run directory of the same name must not hide a known corpus.
    card = find_card(spec)
    if card is not None:
        return Source(card.name, _read_known(card), account)
    return Source(Path(spec).name or Path(spec).resolve().name, _read_path(Path(spec), spec, reading, account), account)


def _shortened(sentences: list[str], what: str) -> tuple[str, ...]:
    if len(sentences) <= _MOST_LINES:
        return tuple(sentences)
    return (*sentences[: _MOST_LINES - 1], f"and {len(sentences) - _MOST_LINES + 1:,} more {what}")


# --- files --------------------------------------------------------------------------------------------


def _read_path(path: Path, spec: str, reading: ReadingSettings, account: ReadingAccount) -> Iterator[Document]:
    try:
        if is_pattern(spec):
            yield from _read_listing(list_pattern(spec, any_ending=reading.format is not None), reading, account)
        elif path.is_dir() and not is_saved_dataset(path):
            yield from _read_listing(list_folder(path, any_ending=reading.format is not None), reading, account)
        else:
            _check_file(path, spec, reading)
            yield from _read_file(path, reading, account)
    except OSError as error:
        raise unreadable(spec, error) from None


def _read_listing(listing: Listing, reading: ReadingSettings, account: ReadingAccount) -> Iterator[Document]:
    kinds = {reading.format or ("rows" if path.is_dir() else format_of(path) or "text") for path in listing.files}
    if reading.column and kinds <= {"text", "mbox", "eml"}:
        raise CorpusError(f"none of the files has columns: drop --column {reading.column[0]}")
    first, *others = listing.files
    account.notes.append(
        f"{counted(len(listing.files), 'file')}, from {first} to {others[-1]}" if others else str(first)
    )
    if listing.skipped:
        account.warnings.append(listing.skipped)
    for path in listing.files:
        yield from _read_file(path, reading, account, alone=False)


def _check_file(path: Path, spec: str, reading: ReadingSettings) -> None:
    if not path.exists():
        hint = "check the path"
        if looks_like_a_name(spec):
            hint = (
                f"give a file ({ENDINGS}), a folder, hub:ID, or a known corpus: "
                f"{', '.join(known_corpora()) or 'none here'}"
            )
        raise CorpusError(f"no such corpus: {spec}; {hint}")
    if path.is_dir():
        return
    if reading.format is None and format_of(path) is None and has_ending(path):
        RawText(path).check_kind()
        raise CorpusError(
            f"corpus {spec} has an unknown extension: expected {ENDINGS}; if it is plain text, add --format text"
        )
    if path.is_file() and path.stat().st_size == 0:
        raise CorpusError(f"corpus {spec} is empty: give a file that contains text")


def _read_file(
    path: Path, reading: ReadingSettings, account: ReadingAccount, *, alone: bool = True
) -> Iterator[Document]:
    if path.is_dir():
        table = object_rows(saved_dataset(path), path.name)[1]
        yield from _rows(table, path.name, reading, account)
        return
    kind = reading.format or format_of(path)
    if not alone and kind in (None, "text"):
        reading = reading.model_copy(update={"column": (), "role": ()})  # They are for the other files.
    if kind == "parquet":
        yield from _rows(parquet_table(path, path.name), path.name, reading, account)
    else:
        yield from _read_raw(RawText(path, reading.encoding), reading, account, kind)


def _read_raw(
    source: RawText, reading: ReadingSettings, account: ReadingAccount, kind: CorpusFormat | None
) -> Iterator[Document]:
    kind = reading.format or kind
    if kind == "parquet":
        raise CorpusError("Parquet cannot be read from standard input: give a file")
    if kind in ("csv", "tsv"):
        yield from _rows(delimited_table(source, reading, tabs=kind == "tsv"), source.name, reading, account)
    elif kind in ("jsonl", "json"):
        yield from _rows(json_lines(source) if kind == "jsonl" else json_records(source), source.name, reading, account)
    elif kind in ("mbox", "eml"):
        yield from _read_mail(source, account, mailbox=kind == "mbox")
    else:
        if reading.column:
            raise CorpusError(
                f"{source.shown} is plain text, which has no columns: drop --column {reading.column[0]}, or say "
                "that it is a table with --format csv, tsv or jsonl"
            )
        yield source.blocks() if kind else _checked_text(source)


def _checked_text(source: RawText) -> Iterator[str]:
    """Yield a text of unknown format; refuse what must be records."""
    blocks = source.blocks()
    first = next(blocks)
    if first.lstrip()[:1] == "{":
        line = first.lstrip().split("\n", 1)[0]
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            raise CorpusError(f"{source.shown} looks like JSON Lines: add --format jsonl, or --format text")
    yield first
    yield from blocks


def _read_mail(source: RawText, account: ReadingAccount, *, mailbox: bool) -> Iterator[Document]:
    mail = MailText()
    yield from mail.documents(source, mailbox=mailbox)
    if mailbox:
        account.notes.append(
            f"{source.name}: {counted(mail.messages, 'message')}, their headers From to Date before each body"
        )
    account.attachments += mail.attachments


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
        for block in RawText(path).blocks():
            digest.update(block.encode("utf-8"))
        if digest.hexdigest() != card.sha256:
            raise CorpusError(
                f"{path} is not the text that the card of corpus {card.name!r} describes (SHA-256 "
                f"{digest.hexdigest()[:12]}…, expected {card.sha256[:12]}…, {card.characters:,} characters): get it "
                f"from {card.source}, or give the file's path to audit this text as it is: canaryaudit insert {path} "
                "-o RUN"
            )
    yield RawText(path).blocks()


# --- rows ---------------------------------------------------------------------------------------------


def _rows(
    rows: Table | Iterator[tuple[int, Any]],
    name: str,
    reading: ReadingSettings,
    account: ReadingAccount,
    *,
    guessed: bool = False,
) -> Iterator[Document]:
    """Yield the documents of a table, or of records; ``guessed`` says that their values' types were guessed."""
    if isinstance(rows, Table):
        paths = rows.choose(reading.column)
        names: Collection[str] = rows.columns
        taken = ", ".join(filter(None, (rows.taken, _chosen("column", paths, names))))
        numbered = rows.rows(frozenset(int(path[0] or 0) for path in paths.values()))
    else:
        rows = _as_records(rows, name)
        sample = list(itertools.islice(rows, _SAMPLE))
        records = [record for _, record in sample]
        found = dict.fromkeys(own for record in records for own, _ in field_values(record))
        names = found
        paths = {own: _record_path(own, records) for own in reading.column or _choose_field(records, name, found)}
        taken = _chosen("field", paths, found)
        numbered = itertools.chain(sample, rows)
    account.notes.append(f"{name}: {taken}")
    texts = TextFields(name, paths, reading.role, guessed=guessed)
    for number, record in numbered:
        if document := texts.document(number, record):
            yield document
    texts.check(names)
    account.warnings += texts.warnings()


def _chosen(kind: str, chosen: Collection[str], every: Collection[str]) -> str:
    """Say which columns or fields are read, of which."""
    of = f" (of {listed(every)})" if len(every) > 1 else ""
    return f"text from {kind}{'s' if len(chosen) > 1 else ''} {' and '.join(listed([own]) for own in chosen)}{of}"


def _as_records(rows: Iterable[tuple[int, Any]], name: str) -> Iterator[tuple[int, Any]]:
    for number, record in rows:
        if isinstance(record, str):
            yield number, {"text": record}
        elif isinstance(record, Mapping):
            yield number, record
        else:
            raise CorpusError(f"row {number} of {name} is not a record: expected fields with names, or a text")


def _record_path(own: str, records: list[Any]) -> tuple[str | int | None, ...]:
    """Return the path that a field's name means: a name that a record has, dots and all, or else a path."""
    if any(isinstance(record, Mapping) and own in record for record in records):
        return (own,)
    return parse_field(own)


def _choose_field(records: list[Any], name: str, found: Mapping[str, object]) -> tuple[str]:
    """Return the field ``text``, or the only one of text; if there is none of text, the only one."""
    if not records:
        raise CorpusError(f"{name} is empty: expected rows of text, got none")
    if any(isinstance(record, Mapping) and "text" in record for record in records):
        return ("text",)
    lengths = text_lengths(records)
    chosen = list(lengths or found)
    if len(chosen) != 1:
        most = max(lengths, key=lambda own: lengths[own], default=None)
        hint = f", and most text is in --column {shlex.quote(visible(most))}" if most else ""
        raise CorpusError(
            f"{name} has {len(chosen)} fields of text: choose with --column among {listed(chosen)}; several are read "
            f"if --column is repeated{hint}"
        )
    return (chosen[0],)


def _read_hub(name: str, reading: ReadingSettings, account: ReadingAccount) -> Iterator[Document]:
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
                yield from _rows(_batched(rows), f"hub:{name}", reading, account, guessed=True)
        except CorpusError:
            raise
        except Exception as error:  # noqa: BLE001 - the network, the hub and readers raise any exception
            raise CorpusError(
                f"cannot read hub:{name} ({type(error).__name__}: {one_line(error)}): check the id, the split and "
                "the network, or download the data and give its path"
            ) from None


def _batched(rows: Any) -> Iterator[tuple[int, Any]]:
    """Yield records with their numbers, read in batches: reading single rows takes ten times as long."""
    number = 0
    for batch in rows.iter(_BATCH):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield number, dict(zip(batch, values, strict=True))


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
