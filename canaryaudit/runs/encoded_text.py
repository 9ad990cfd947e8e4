"""A run's texts on disk, read and written block by block, each with its symbols' ids beside it in a mapped file.

The ids are a safetensors file with one tensor, ``ids``, of the smallest type that holds them: what is trained on
is then mapped into memory, and never read as a whole. They are a cache: the file's header names the text, the
vocabulary and the bytes that it was made of, and where these do not agree it is made again.
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
from canaryaudit.storage.files import atomic_path, read_errors
from canaryaudit.storage.tensors import data_start, open_tensors

_BLOCK_BYTES = 2**20
_HEADER_BYTES = 576
"""Of every file, its length included: more than three digests of 64 digits, three numbers and their names take, and
a multiple of 64, as the format asks for."""
_LARGE = 2**24
"""Characters of a text of which a process remembers that it was checked: smaller ones are checked each time."""
_Signature = tuple[int, int, int, int, str | None]
_checked: dict[Path, tuple[_Signature, set[tuple[int, str]]]] = {}
"""Large texts found sound by this process, and what stood in them at which places."""
_TYPES = {"uint8": "U8", "int16": "I16", "int32": "I32"}


def write_text(path: Path, encoded: Path, blocks: Iterable[str], vocabulary: Vocabulary) -> str:
    """Write a text and its ids, each whole or not at all, and return the text's SHA-256.

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
        encoded: Where its ids are, if they are there.
        sha256: What it must be.
        characters: How many it must have.
        again: How to make it again, as a clause.
    """

    path: Path
    encoded: Path
    sha256: str
    characters: int
    again: str

    def check(self, strings: Sequence[tuple[int, str]] = ()) -> bool:
        """Read the text once, and return whether every string stands at its place.

        Args:
            strings: Places in characters, and what should stand there.

        Raises:
            RunDirectoryError: It cannot be read, is not UTF-8, or is not what it must be.
        """
        if self._known_to_hold(strings):
            return True
        waiting = sorted(((place + len(own), place, own) for place, own in strings), reverse=True)
        overlap = max((len(own) for _, own in strings), default=0)
        sound = all(place >= 0 for place, _ in strings)
        digest, before, end = hashlib.sha256(), "", 0
        for block in self.blocks(digest):
            window, base, end = before + block, end - len(before), end + len(block)
            while waiting and waiting[-1][0] <= end:
                _, place, own = waiting.pop()
                sound = sound and window.startswith(own, place - base)
            before = window[-overlap:] if overlap else ""
        if end != self.characters or self.sha256 != digest.hexdigest():
            raise RunDirectoryError(f"{self.path} was changed since canaries were inserted: {self.again}")
        sound = sound and not waiting
        if sound and end >= _LARGE:
            _checked[self.path.resolve()] = (self._signature(), {*strings})
        return sound

    def _known_to_hold(self, strings: Sequence[tuple[int, str]]) -> bool:
        """Tell whether this very file was found sound in this process: a large one is not read again and again."""
        signature, known = _checked.get(self.path.resolve(), (None, set()))
        return signature is not None and self.path.is_file() and signature == self._signature() and known >= {*strings}

    def _signature(self) -> _Signature:
        found = self.path.stat()
        return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, self.sha256)

    def read(self) -> str:
        """Return the whole text, checked."""
        self.check()
        return "".join(self.blocks())

    def blocks(self, digest: "hashlib._Hash | None" = None) -> Iterator[str]:
        """Yield the text block by block, line breaks as they are.

        Args:
            digest: Updated with what is read.

        Raises:
            RunDirectoryError: It cannot be read, or is not UTF-8.
        """
        if self.path.exists() and not self.path.is_file():
            raise Damaged(self.path, "not a plain file", self.again)
        decoder = codecs.getincrementaldecoder("utf-8")()
        with read_errors(self.path), self.path.open("rb") as file:
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

        Where their file is missing, damaged or made of something else it is made again; where that cannot be
        written, the ids are held in memory.

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
            except RunDirectoryError:  # A read-only run, or a full disk, can be trained on all the same.
                return self._ids_in_memory(vocabulary)
        return self.map_ids(vocabulary)

    def map_ids(self, vocabulary: Vocabulary) -> np.ndarray:
        """Map the file of ids into memory, after checking that it is what was written.

        Returns:
            Shape (characters,). Changes stay in memory, and do not reach the file.

        Raises:
            RunDirectoryError: It is missing or damaged, or made of another text or with another vocabulary.
        """
        path, again = self.encoded, "remove it, it is made again where it is needed"
        with open_tensors(path, again) as file:
            told = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: (own.get_dtype(), tuple(own.get_shape())) for name, own in slices.items()}
        if told.get("symbols") != _symbols_sha256(vocabulary) or told.get("text") != self.sha256:
            raise Damaged(path, "it was made of another text, or with other symbols", again)
        if found != {"ids": (_TYPES[vocabulary.dtype.name], (self.characters,))}:
            raise Damaged(path, "its tensors are not the text's ids", again)
        start = data_start(path, again)
        with read_errors(path), path.open("rb") as data:
            data.seek(start)
            if hashlib.file_digest(data, "sha256").hexdigest() != told.get("sha256"):
                raise Damaged(path, "its SHA-256 is not the one in its header", again)
        if not self.characters:  # Nothing cannot be mapped.
            return np.empty(0, vocabulary.dtype)
        return np.memmap(path, vocabulary.dtype, "c", start, (self.characters,))

    def _ids_in_memory(self, vocabulary: Vocabulary) -> np.ndarray:
        ids = np.empty(self.characters, vocabulary.dtype)
        place = 0
        for block in self.blocks():
            ids[place : place + len(block)] = vocabulary.encode(block, vocabulary.dtype)
            place += len(block)
        return ids


def _write_ids(encoded: Path, blocks: Iterable[str], vocabulary: Vocabulary, text_digest: "hashlib._Hash") -> None:
    """Write the ids; ``text_digest`` is the text's once all blocks were read."""
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
    """Return the beginning of the file: its length does not depend on what is not known at first."""
    end = characters * vocabulary.dtype.itemsize
    entry = {"dtype": _TYPES[vocabulary.dtype.name], "shape": [characters], "data_offsets": [0, end]}
    told = {"text": text_sha256, "symbols": _symbols_sha256(vocabulary), "sha256": sha256}
    data = json.dumps({"__metadata__": told, "ids": entry}).encode("ascii")
    return (_HEADER_BYTES - 8).to_bytes(8, "little") + data.ljust(_HEADER_BYTES - 8)


def _symbols_sha256(vocabulary: Vocabulary) -> str:
    return hashlib.sha256(vocabulary.symbols.encode("utf-8", "surrogatepass")).hexdigest()
