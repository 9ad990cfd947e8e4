"""Text from files and standard input: decompressed, decoded and checked, block by block."""

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from canaryaudit.errors import CorpusError, one_line

BLOCK_BYTES = 2**20
"""Bytes of a text file read at once."""
MAX_RECORD = 2**26
"""Maximum characters of one line or record: everything else is streamed."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"\xfd7zXZ": ".xz",
}
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an office document: unpack it, or save the sheet as CSV or the document as text",
    b"PAR1": "Parquet: add --format parquet",
    b"%PDF": "a PDF: extract its text first, for instance with pdftotext",
    b"\xd0\xcf\x11\xe0": "an old office document: save the sheet as CSV or the document as text",
}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_ENDS_EARLY = "compressed data end too early"


@dataclass(frozen=True)
class RawText:
    """A file or standard input.

    Attributes:
        path: The file; None for standard input.
        encoding: Its encoding; None for UTF-8, with or without a byte order mark.
    """

    path: Path | None
    encoding: str | None = None

    @property
    def shown(self) -> str:
        """What messages call it."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def name(self) -> str:
        """Its short name."""
        return "standard input" if self.path is None else self.path.name

    def check_kind(self) -> None:
        """Raise an error that says what to do if it begins like a well-known format that holds no plain text.

        Raises:
            CorpusError: It does, or cannot be read.
        """
        with self._opened() as file:
            self._check_kind(_read_fully(file, 16))

    def blocks(self) -> Iterator[str]:
        """Yield the text block by block, with LF as line break and without a byte order mark.

        Raises:
            CorpusError: It cannot be read, is compressed badly, is binary, or has another encoding.
        """
        decoder = codecs.getincrementaldecoder(text_encoding(self.encoding))()
        line_breaks = io.IncrementalNewlineDecoder(None, translate=True)
        offset, begun = 0, False
        with self._opened() as file:
            while True:
                data = file.read(BLOCK_BYTES) if offset else _read_fully(file, max(4, BLOCK_BYTES))
                self._check(data, offset)
                waiting = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeError as error:
                    start = error.start if isinstance(error, UnicodeDecodeError) else 0
                    raise CorpusError(self._wrong_encoding(offset - waiting + start)) from None
                if self.encoding and "\0" in text:
                    raise CorpusError(f"{self.shown} holds NUL characters if read as {self.encoding}: check --encoding")
                if not begun and text:
                    text, begun = text.removeprefix("\ufeff"), True
                yield line_breaks.decode(text, final=not data)
                offset += len(data)
                if not data:
                    return

    def lines(self) -> Iterator[str]:
        r"""Yield the lines, without the line feed; only LF, CR and CRLF end a line.

        Raises:
            CorpusError: As ``blocks``; or a line is longer than a record may be.
        """
        begun: list[str] = []
        size = 0
        for block in self.blocks():
            first, *others = block.split("\n")
            begun.append(first)
            size += len(first)
            if others:
                yield "".join(begun)
                yield from others[:-1]
                begun, size = [others[-1]], len(others[-1])
            if size > MAX_RECORD:
                raise CorpusError(f"{self.shown} has a line of more than {MAX_RECORD:,} characters: break it up")
        if last := "".join(begun):
            yield last

    def raw_lines(self) -> Iterator[bytes]:
        """Yield the lines as bytes, each with its line break.

        Raises:
            CorpusError: It cannot be read, or a line is longer than a record may be.
        """
        with self._opened() as file:
            while line := file.readline(MAX_RECORD + 1):
                if len(line) > MAX_RECORD:
                    raise CorpusError(f"{self.shown} has a line of more than {MAX_RECORD:,} bytes: break it up")
                yield line

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        ending = self.path.suffix.lower() if self.path else ""
        try:
            if self.path is None:
                if sys.stdin.isatty():
                    raise CorpusError("standard input is a terminal: pipe a text into the command, or give a file")
                yield sys.stdin.buffer
                return
            with self.path.open("rb") as file:
                magic = file.peek(8) if isinstance(file, io.BufferedReader) else b""
                ending = next((own for mark, own in _MAGIC.items() if magic.startswith(mark)), ending)
                with _decompressed(file, ending) as stream:
                    yield stream
        except (zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
            raise self._badly_compressed(ending, error) from None
        except OSError as error:
            if error.errno is None and ending in COMPRESSIONS:
                raise self._badly_compressed(ending, error) from None
            raise unreadable(self.shown, error) from None

    def _badly_compressed(self, ending: str, error: Exception) -> CorpusError:
        return CorpusError(
            f"{self.shown} is not valid {COMPRESSIONS.get(ending, 'data')} ({one_line(error)}): get the file again"
        )

    def _check(self, data: bytes, offset: int) -> None:
        if self.encoding is not None:
            return
        if offset == 0:
            mark = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
            if mark:
                raise CorpusError(f"{self.shown} is {mark}: add --encoding {mark.lower()}")
            packed = next((own for start, own in _MAGIC.items() if data.startswith(start)), None)
            if packed and self.path is None:
                raise CorpusError(f"standard input is compressed ({COMPRESSIONS[packed]}): decompress it first")
            self._check_kind(data)
        if b"\0" in data:
            place, head = data.index(0), data[:4096]
            for encoding, unit in (("utf-32", 4), ("utf-16", 2)):
                if offset == 0 and len(head) >= 2 * unit and len(head) % unit == 0:
                    half = unit // 2  # of common characters, the high half is empty
                    for suffix, high in (("le", range(half, unit)), ("be", range(half))):
                        if not any(any(head[start::unit]) for start in high):
                            raise CorpusError(
                                f"{self.shown} looks like {encoding.upper()} without a byte order mark: add --encoding "
                                f"{encoding}-{suffix}"
                            )
            raise CorpusError(f"{self.shown} is binary (NUL at byte {offset + place}): give plain UTF-8 text")

    def _check_kind(self, data: bytes) -> None:
        for start, hint in _FOREIGN.items():
            if data.startswith(start):
                raise CorpusError(f"{self.shown} is {hint}")

    def _wrong_encoding(self, place: int) -> str:
        if self.encoding is not None:
            return f"{self.shown} is not {self.encoding} at byte {place}: give its encoding with --encoding"
        return (
            f"{self.shown} is not UTF-8 at byte {place}: give its encoding, for instance --encoding windows-1252 for a "
            "file from Windows in a Western language"
        )


def text_encoding(name: str | None) -> str:
    """Return the name of a text encoding.

    Raises:
        CorpusError: There is none of this name.
    """
    try:
        codec = codecs.lookup(name or "utf-8")
        "".encode(codec.name)  # refuses codecs between bytes and bytes
        codecs.getincrementaldecoder(codec.name)
    except (LookupError, ValueError):
        raise CorpusError(
            f"unknown encoding {name!r}: expected one that Python knows, such as utf-16 or windows-1252"
        ) from None
    return codec.name


def unreadable(spec: str, error: OSError) -> CorpusError:
    """Return the error for a corpus that the system does not let us read."""
    return CorpusError(f"cannot read corpus {spec}: {error.strerror or error}; check the path and its permissions")


def _read_fully(file: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


@contextmanager
def _decompressed(file: IO[bytes], ending: str) -> Iterator[Any]:
    if ending == ".gz":
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream
    elif ending == ".bz2":
        with bz2.BZ2File(file) as stream:
            yield stream
    elif ending == ".xz":
        with lzma.LZMAFile(file) as stream:
            yield stream
    elif ending == ".zst":
        import pyarrow  # Takes a moment, so only when needed.

        with pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd") as stream:
            yield io.BufferedReader(stream)
    else:
        yield file
