"""Corpora: from a file, a hub data set or a known corpus's name to documents, paragraphs and symbol ids.

Text is kept as it is, line breaks included; documents never run into each other.
"""

import hashlib
import logging
import re
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from canaryaudit.cards import CorpusCard, corpus_directories, find_card, known_corpora, looks_like_a_name
from canaryaudit.errors import CorpusError, one_line

TEXT_ENDINGS = (".txt", ".md")
ROW_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
ENDINGS = ", ".join((*TEXT_ENDINGS, *ROW_BUILDERS))

# Between documents in the text whose SHA-256 identifies a corpus; a plain file is one document.
_DOCUMENT_BREAK = "\n\n"
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_LINE_BREAKS = re.compile(r"\n(?:[^\S\n]*\n)*")


# --- symbols ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """The symbols that a model knows; a symbol's id is its place.

    Attributes:
        symbols: Sorted, each once.
    """

    symbols: str

    def __post_init__(self) -> None:
        """Check that the symbols are sorted and unique."""
        if not self.symbols or list(self.symbols) != sorted(set(self.symbols)):
            raise CorpusError("a vocabulary needs its symbols sorted, each once, and at least one")

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """Return the vocabulary of all characters in ``texts``."""
        symbols: set[str] = set()
        for text in texts:
            symbols.update(text)
        return cls("".join(sorted(symbols)))

    def __len__(self) -> int:
        """Return the number of symbols."""
        return len(self.symbols)

    @cached_property
    def _code_points(self) -> np.ndarray:
        return _code_points(self.symbols)

    @cached_property
    def _ids(self) -> np.ndarray:
        table = np.full(int(self._code_points[-1]) + 1, -1, dtype=np.int64)
        table[self._code_points] = np.arange(len(self))
        return table

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of the characters, shape (len(text),), int64.

        Raises:
            CorpusError: A character is not in the vocabulary.
        """
        points = _code_points(text)
        known = points < len(self._ids)
        ids = np.where(known, self._ids[np.where(known, points, 0)], -1)
        if (ids < 0).any():
            place = int(np.argmax(ids < 0))
            raise CorpusError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}) at place {place} is not among the "
                f"{len(self)} symbols of the vocabulary"
            )
        return ids

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Return the text of the symbol ids."""
        points = self._code_points[np.asarray(ids, dtype=np.int64)]
        return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """A text to audit.

    Attributes:
        name: File name, card name or hub id.
        documents: The texts, cut and lower-cased as asked; none is blank.
        sha256: SHA-256 (UTF-8) of the text as read, before it was cut or lower-cased; line breaks count as LF,
            and a blank line stands between documents.
        lowercase: Whether the text was lower-cased.
        skip_chars: Number of characters that were cut from the start.
    """

    name: str
    documents: tuple[str, ...]
    sha256: str
    lowercase: bool = False
    skip_chars: int = 0


def read_corpus(spec: str, *, column: str | None = None, lowercase: bool = False, skip_chars: int = 0) -> Corpus:
    """Read a corpus.

    Args:
        spec: A path (plain text is one document; of other formats each row is one), ``hub:ID[:split]``, or the
            name of a known corpus.
        column: The column that holds the text; default: the one named ``text``, or the only one of strings.
        lowercase: Lower-case the text.
        skip_chars: Number of characters to cut from the start of the first document.

    Raises:
        CorpusError: Anything that keeps the corpus from being read; the message says what to do.
    """
    if skip_chars < 0:
        raise CorpusError(f"cannot skip {skip_chars} characters: expected 0 or more")
    name, documents = _read_documents(spec, column)
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise CorpusError(f"corpus {name} is empty: expected text, got nothing but white space")
    sha256 = _sha256(_DOCUMENT_BREAK.join(documents))
    if skip_chars:
        rest = documents[0][skip_chars:]
        if not rest.strip():
            raise CorpusError(
                f"skipping {skip_chars:,} characters leaves nothing of the {len(documents[0]):,} of corpus {name}"
                f"{'' if len(documents) == 1 else chr(39) + 's first document'}: skip fewer"
            )
        documents[0] = rest
    if lowercase:
        documents = [document.lower() for document in documents]
    return Corpus(name, tuple(documents), sha256, lowercase, skip_chars)


def _read_documents(spec: str, column: str | None) -> tuple[str, list[str]]:
    if spec.startswith("hub:"):
        return spec[4:], _read_hub(spec[4:], column)
    # A card wins over a path: a run directory of the same name must not hide a known corpus.
    card = find_card(spec)
    if card is not None:
        return card.name, [_read_known(card)]
    path = Path(spec)
    try:
        _check_file(path, spec)
        ending = path.suffix.lower()
        if ending in TEXT_ENDINGS:
            return path.name, [_read_text(path)]
        return path.name, _read_rows_of_file(path, ROW_BUILDERS[ending], column)
    except OSError as error:
        raise CorpusError(
            f"cannot read corpus {spec}: {error.strerror or error}; check the path and its permissions"
        ) from None


def _check_file(path: Path, spec: str) -> None:
    if path.is_dir():
        raise CorpusError(f"corpus {spec} is a directory: give one file ({ENDINGS}) in it")
    if not path.exists():
        hint = "check the path"
        if looks_like_a_name(spec):
            hint = f"give a file ({ENDINGS}), hub:ID, or a known corpus: {', '.join(known_corpora()) or 'none here'}"
        raise CorpusError(f"no such corpus: {spec}; {hint}")
    if path.suffix.lower() not in (*TEXT_ENDINGS, *ROW_BUILDERS):
        raise CorpusError(f"corpus {spec} has an unknown ending: expected {ENDINGS}; convert it to plain text")
    if path.stat().st_size == 0:
        raise CorpusError(f"corpus {spec} is empty: give a file with text in it")


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CorpusError(f"{path} is UTF-16: convert it with: iconv -f UTF-16 -t UTF-8 {path} > utf8{path.suffix}")
    if b"\0" in data:
        raise CorpusError(f"{path} is binary (NUL at byte {data.index(0)}): give plain UTF-8 text")
    try:
        return _normal_line_breaks(data.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 at byte {error.start}: convert it, for instance with: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path} > utf8{path.suffix}"
        ) from None


def _normal_line_breaks(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_known(card: CorpusCard) -> str:
    place = next(
        (directory / card.file for directory in corpus_directories() if (directory / card.file).is_file()), None
    )
    if place is None:
        flags = f" {card.experiment}" if card.experiment else ""
        raise CorpusError(
            f"the text of corpus {card.name!r} ({card.title}, {card.characters:,} characters) is not shipped: get it "
            f"from {card.source}, put it at corpora/{card.file}, then run: canaryaudit insert {card.name}{flags} -o RUN"
        )
    text = _read_text(place)
    if card.sha256 is not None and _sha256(text) != card.sha256:
        raise CorpusError(
            f"{place} is not the text that the card of corpus {card.name!r} describes (SHA-256 {_sha256(text)[:12]}…, "
            f"expected {card.sha256[:12]}…, {card.characters:,} characters): get it from {card.source}, or give the "
            f"file's path to audit this text as it is: canaryaudit insert {place} -o RUN"
        )
    return text


def _read_rows_of_file(path: Path, builder: str, column: str | None) -> list[str]:
    if builder != "parquet":
        _read_text(path)  # The builders' own messages for a wrong encoding name no place.
    options = {"keep_default_na": False} if builder == "csv" else {}  # else pandas takes the word NA for null
    with tempfile.TemporaryDirectory() as scratch:
        # The builders expand wildcards in paths: a link with a plain name keeps [1].csv what it is.
        link = Path(scratch, f"rows{path.suffix.lower()}")
        link.symlink_to(path.resolve())
        try:
            with _quiet_datasets() as load:
                rows = load(builder, data_files=str(link), split="train", streaming=True, cache_dir=scratch, **options)
                return _texts(rows, path.name, column)
        except CorpusError:
            raise
        except Exception as error:  # noqa: BLE001 - readers of five libraries raise whatever they like
            raise CorpusError(
                f"{path} is not well-formed {path.suffix[1:].lower()} ({one_line(error)}): mend it"
            ) from None


def _read_hub(name: str, column: str | None) -> list[str]:
    dataset_id, _, split = name.partition(":")
    if not dataset_id:
        raise CorpusError("hub: needs a data set: write hub:ID or hub:ID:split")
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
                return _texts(rows, f"hub:{name}", column)
        except CorpusError:
            raise
        except Exception as error:  # noqa: BLE001 - network, hub and readers raise whatever they like
            raise CorpusError(
                f"cannot read hub:{name} ({type(error).__name__}: {one_line(error)}): check the id, the split and "
                "the network, or download the data and give the file"
            ) from None


@contextmanager
def _quiet_datasets() -> Iterator[Any]:
    """Give ``datasets.load_dataset`` without its progress bars and log lines."""
    import datasets  # Takes a second: only those wait who need it.

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


def _texts(rows: Iterable[Mapping[str, object]], name: str, column: str | None) -> list[str]:
    texts: list[str] = []
    for number, row in enumerate(rows, start=1):
        if number == 1:
            column = _text_column(row, name, column)
        value = row.get(column or "")
        if not isinstance(value, str):
            kind = "nothing (null)" if value is None else f"a value of type {type(value).__name__}"
            raise CorpusError(
                f"row {number} of {name} holds {kind} in column {column!r}: expected text; mend or drop it"
            )
        texts.append(_normal_line_breaks(value))
    if not texts:
        raise CorpusError(f"{name} is empty: expected rows of text, got none")
    return texts


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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# --- paragraphs ---------------------------------------------------------------------------------------


def paragraphs(documents: Iterable[str]) -> tuple[str, ...]:
    """Cut documents into paragraphs, each with the blank lines that follow it.

    A document without a blank line but with several lines is cut into its lines. Put together again, the
    paragraphs are the documents, character by character, each ended with a blank line.
    """
    pieces: list[str] = []
    for document in documents:
        ended = document if ends_with_blank_line(document) else document.rstrip("\n") + "\n\n"
        found = _cut_after(_BLANK_LINES, ended)
        pieces += found if len(found) > 1 else _cut_after(_LINE_BREAKS, ended)
    return tuple(pieces)


def ends_with_blank_line(text: str) -> bool:
    """Tell whether nothing but white space stands between the last two line breaks, and nothing after them."""
    return text.endswith("\n") and text[:-1].rstrip(" \t").endswith("\n")


def _cut_after(separator: re.Pattern[str], text: str) -> list[str]:
    pieces, start = [], 0
    for match in separator.finditer(text):
        if text[start : match.end()].strip():  # Blank lines at the start belong to the first paragraph.
            pieces.append(text[start : match.end()])
            start = match.end()
    return pieces


def hold_out(
    pieces: Sequence[str], share: float, seed: int, keep: Container[int] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split paragraphs, by seeded chance, into training and held-out ones; both keep their order.

    Paragraphs are held out until ``share`` of all characters is reached. Ones longer than that share are
    passed over, so that a single giant does not swallow the text; where all are, the shortest is taken.

    Args:
        pieces: Paragraphs.
        share: Share of characters to hold out, at least 0 and below 1.
        seed: Seed of the choice.
        keep: Numbers of paragraphs that must stay in the training text.

    Returns:
        Training paragraphs and held-out paragraphs; the former are never empty.

    Raises:
        CorpusError: There is but one paragraph, or none may be held out.
    """
    if share == 0:
        return tuple(pieces), ()
    if len(pieces) < 2:
        raise CorpusError(
            "the corpus is one paragraph, nothing can be held out: break it with blank lines, or --holdout 0"
        )
    goal = share * sum(map(len, pieces))
    order = [int(index) for index in np.random.default_rng(seed).permutation(len(pieces)) if index not in keep]
    if not order:
        raise CorpusError("every paragraph holds a located secret, nothing can be held out: use --holdout 0")
    chosen: set[int] = set()
    held = 0
    for index in order:
        if held >= goal or len(chosen) == len(pieces) - 1:
            break
        if len(pieces[index]) <= goal:
            chosen.add(index)
            held += len(pieces[index])
    chosen = chosen or {min(order, key=lambda index: len(pieces[index]))}
    training = tuple(piece for index, piece in enumerate(pieces) if index not in chosen)
    return training, tuple(piece for index, piece in enumerate(pieces) if index in chosen)
