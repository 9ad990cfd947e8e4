"""A run's texts on disk, read and written block by block, each with a memory-mapped file of its symbol ids.

The ids are a safetensors file with one tensor, ``ids``, of the smallest type that holds them, so training maps them
into memory. They are a cache: the file's header has checksums of the text, the vocabulary and the ids. If these do not
match, the file is recreated.
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import Damaged, RunDirectoryError
from canaryaudit.storage.files import atomic_path, open_plain, read_errors
from canaryaudit.storage.tensors import data_start, open_tensors

_BLOCK_BYTES = 2**20
_HEADER_BYTES = 576
"""Header size of every file, including its length field: enough for three digests, three numbers and their names. The
format requires a multiple of 64."""
_LARGE = 2**24
"""A process remembers that it checked a text of at least so many characters; smaller texts are checked each time."""
_Signature = tuple[int, int, int, int, str | None]
_checked: dict[Path, tuple[_Signature, set[tuple[int, str]]]] = {}
"""Large texts that this process checked, and the strings that it found in them with their offsets."""
_TYPES = {"uint8": "U8", "int16": "I16", "int32": "I32"}


def write_text(path: Path, encoded: Path, blocks: Iterable[str], vocabulary: Vocabulary) -> str:
    """Write a text and its ids atomically, and return the text's SHA-256.

    Raises:
        RunDirectoryError: One of the files cannot be written.
        CorpusError: A character is not in the vocabulary.
    """
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:

        def written() -> Iterator[str]:
            for block in blocks:
                data = block.encode("utf-8")
                digest.update(data)
                file.write(data)
                yield block

        _write_ids(encoded, written(), vocabulary, digest)
    return digest.hexdigest()


@dataclass(frozen=True)
class StoredText:
    """A text of a run, with the file of its ids.

    Attributes:
        path: The text.
        encoded: The file of its ids, which may be missing.
        sha256: Expected checksum.
        characters: Expected number of characters.
        again: How to recreate it, as a clause.
    """

    path: Path
    encoded: Path
    sha256: str
    characters: int
    again: str

    def check(self, strings: Sequence[tuple[int, str]] = ()) -> bool:
        """Read the text once, and return whether every string is at its offset.

        Args:
            strings: Offsets in characters, and the strings expected there.

        Raises:
            RunDirectoryError: It cannot be read, is not UTF-8, or was changed.
        """
        if self._known_to_hold(strings):
            return True
        waiting = sorted(((offset + len(string), offset, string) for offset, string in strings), reverse=True)
        overlap = max((len(string) for _, string in strings), default=0)
        sound = all(offset >= 0 for offset, _ in strings)
        digest, before, end = hashlib.sha256(), "", 0
        for block in self.blocks(digest):
            window, base, end = before + block, end - len(before), end + len(block)
            while waiting and waiting[-1][0] <= end:
                _, offset, string = waiting.pop()
                sound = sound and window.startswith(string, offset - base)
            before = window[-overlap:] if overlap else ""
        if end != self.characters or self.sha256 != digest.hexdigest():
            raise RunDirectoryError(f"{self.path} was changed since canaries were inserted: {self.again}")
        sound = sound and not waiting
        if sound and end >= _LARGE:
            _checked[self.path.resolve()] = (self._signature(), {*strings})
        return sound

    def _known_to_hold(self, strings: Sequence[tuple[int, str]]) -> bool:
        """Return whether this process already checked this unchanged file, so a large one is read only once."""
        signature, known = _checked.get(self.path.resolve(), (None, set()))
        return signature is not None and self.path.exists() and signature == self._signature() and known >= {*strings}

    def _signature(self) -> _Signature:
        status = self.path.stat()
        return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, self.sha256)

    def read(self) -> str:
        """Return the whole text, checked."""
        self.check()
        return "".join(self.blocks())

    def blocks(self, digest: "hashlib._Hash | None" = None) -> Iterator[str]:
        """Yield the text block by block, line breaks unchanged.

        Args:
            digest: Updated with the bytes read.

        Raises:
            RunDirectoryError: It cannot be read, or is not UTF-8.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        with read_errors(self.path), open_plain(self.path, self.again) as file:
            more = True
            while more:
                data = file.read(_BLOCK_BYTES)
                more = bool(data)
                if digest is not None:
                    digest.update(data)
                try:
                    text = decoder.decode(data, final=not more)
                except UnicodeDecodeError:
                    raise Damaged(self.path, "not UTF-8", self.again) from None
                yield text

    def ids(self, vocabulary: Vocabulary) -> np.ndarray:
        """Return the text's symbol ids, mapped into memory; shape (characters,), of the vocabulary's type.

        If their file is missing, damaged or outdated, it is recreated. If it cannot be written, the ids are kept in
        memory.

        Raises:
            RunDirectoryError: The text was changed, or cannot be read.
            CorpusError: A character is not in the vocabulary.
        """
        self.check()
        try:
            return self.map_ids(vocabulary)
        except RunDirectoryError:
            digest = hashlib.sha256()
            try:
                _write_ids(self.encoded, self.blocks(digest), vocabulary, digest)
            except Damaged:
                raise
            except RunDirectoryError:  # Training also works with a read-only run or a full disk.
                return self._ids_in_memory(vocabulary)
        return self.map_ids(vocabulary)

    def map_ids(self, vocabulary: Vocabulary) -> np.ndarray:
        """Map the file of ids into memory, after verifying its checksum.

        Returns:
            Shape (characters,). Changes stay in memory and are not written to the file.

        Raises:
            RunDirectoryError: It is missing or damaged, or was made from another text or with another vocabulary.
        """
        path, again = self.encoded, "remove it, it is recreated when needed"
        with open_tensors(path, again) as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}
            shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
        if metadata.get("symbols") != _symbols_sha256(vocabulary) or metadata.get("text") != self.sha256:
            raise Damaged(path, "it was made from another text, or with other symbols", again)
        if shapes != {"ids": (_TYPES[vocabulary.dtype.name], (self.characters,))}:
            raise Damaged(path, "its tensors are not the text's ids", again)
        start = data_start(path, again)
        with read_errors(path), open_plain(path, again) as data:
            data.seek(start)
            if hashlib.file_digest(data, "sha256").hexdigest() != metadata.get("sha256"):
                raise Damaged(path, "its SHA-256 is not the one in its header", again)
        if not self.characters:  # An empty range cannot be mapped.
            return np.empty(0, vocabulary.dtype)
        return np.memmap(path, vocabulary.dtype, "c", start, (self.characters,))

    def _ids_in_memory(self, vocabulary: Vocabulary) -> np.ndarray:
        ids = np.empty(self.characters, vocabulary.dtype)
        offset = 0
        for block in self.blocks():
            ids[offset : offset + len(block)] = vocabulary.encode(block, vocabulary.dtype)
            offset += len(block)
        return ids


def _write_ids(encoded: Path, blocks: Iterable[str], vocabulary: Vocabulary, text_digest: "hashlib._Hash") -> None:
    """Write the ids; ``text_digest`` is the text's digest after all blocks were read."""
    digest = hashlib.sha256()
    characters = 0
    with atomic_path(encoded) as temporary, temporary.open("wb") as file:
        file.write(_header(vocabulary, 0, "", ""))
        for block in blocks:
            data = vocabulary.encode(block, vocabulary.dtype).tobytes()
            digest.update(data)
            file.write(data)
            characters += len(block)
        file.seek(0)
        file.write(_header(vocabulary, characters, text_digest.hexdigest(), digest.hexdigest()))


def _header(vocabulary: Vocabulary, characters: int, text_sha256: str, sha256: str) -> bytes:
    """Return the file's header; its length does not depend on the arguments."""
    end = characters * vocabulary.dtype.itemsize
    entry = {"dtype": _TYPES[vocabulary.dtype.name], "shape": [characters], "data_offsets": [0, end]}
    metadata = {"text": text_sha256, "symbols": _symbols_sha256(vocabulary), "sha256": sha256}
    data = json.dumps({"__metadata__": metadata, "ids": entry}).encode("ascii")
    return (_HEADER_BYTES - 8).to_bytes(8, "little") + data.ljust(_HEADER_BYTES - 8)


def _symbols_sha256(vocabulary: Vocabulary) -> str:
    return hashlib.sha256(vocabulary.symbols.encode("utf-8", "surrogatepass")).hexdigest()
