"""Tokenizers: text to token ids and back, with the bytes that each token stands for.

A text is always tokenized as a whole. The tokens of a prompt and of a secret cannot be put together from separate
tokenizations: GPT-2 writes ``is 0123`` as `is| 01|23`, but `is ` and `0123` as `is| |01|23`, which training never saw.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from canaryaudit.errors import ModelError, UnreadableText

_BATCH = 50_000
"""Texts tokenized at a time, to bound the memory that they take."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Tokens:
    """A text as tokens.

    Attributes:
        ids: Token ids, with those that the tokenizer puts before every text, shape (T,).
        ends: Bytes of the text (UTF-8) up to the end of each token, shape (T,).
    """

    ids: np.ndarray
    ends: np.ndarray


class Tokenizer(Protocol):
    """What measuring needs of a tokenizer."""

    @property
    def pieces(self) -> Sequence[bytes | None]:
        """The bytes of each token, by id; None for special tokens."""

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenize whole texts, with what begins every text and without what ends it."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some tokens; incomplete characters are replaced."""

    def agrees(self, left: Sequence[int], right: Sequence[int], context: Sequence[int]) -> np.ndarray:
        """Return whether each pair of tokens is what the tokenizer makes of its text after a context, shape (N,)."""

    def extends(self, before: Sequence[Sequence[int]], tokens: Sequence[int]) -> np.ndarray:
        """Return whether the text of some tokens and one more is tokenized into just these, shape (N,)."""


class FastTokenizer:
    """A fast tokenizer of ``transformers``.

    A copy of it does the work: whole texts are needed, whatever length it cuts or pads the training's batches to, and
    the likeliest merges, whatever share of them it drops in training.

    Args:
        tokenizer: The tokenizer; it stays as it is.

    Raises:
        ModelError: It is written in Python, so a token's place in a text is not known.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("the tokenizer has no tokenizer.json: convert it to a fast tokenizer and save it")
        from tokenizers import Tokenizer as Backend

        self._tokenizer = tokenizer
        self._facts = json.loads(tokenizer.backend_tokenizer.to_str())
        whole: dict[str, Any] = {"truncation": None, "padding": None}
        if self._facts["model"].get("dropout"):
            whole["model"] = {**self._facts["model"], "dropout": None}
        self._backend = Backend.from_str(json.dumps(self._facts | whole))
        self._pairs: dict[tuple[tuple[int, ...], int, int], bool] = {}

    @cached_property
    def first(self) -> tuple[int, ...]:
        """The special tokens at the beginning of every text, such as Llama's BOS; GPT-2 has none."""
        with_special = self._backend.encode(self._word, add_special_tokens=True).ids
        plain = self._backend.encode(self._word, add_special_tokens=False).ids
        for start in range(len(with_special) - len(plain) + 1):
            if with_special[start : start + len(plain)] == plain:
                return tuple(with_special[:start])
        return ()

    @cached_property
    def _begins_with_blank(self) -> bool:
        """Whether a text gets a blank of its own before it, as SentencePiece does."""
        ids = self._backend.encode(self._word, add_special_tokens=False).ids
        return b"".join(self.pieces[index] or b"" for index in ids) == f" {self._word}".encode()

    @cached_property
    def _word(self) -> str:
        """A text that the tokenizer can write."""
        return next((piece.decode() for piece in self.pieces if piece and piece.isalnum()), "a")

    @cached_property
    def pieces(self) -> Sequence[bytes | None]:
        """The bytes of each token, by id; None for special tokens."""
        facts = self._facts
        special = {own["id"] for own in facts.get("added_tokens", []) if own.get("special")}
        added = {own["id"]: own["content"] for own in facts.get("added_tokens", []) if not own.get("special")}
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        byte_level = "ByteLevel" in json.dumps([facts.get("decoder"), facts.get("pre_tokenizer")])
        found: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
        for text, index in vocabulary.items():
            if index in special:
                continue
            if index in added:
                found[index] = added[index].encode("utf-8")
            elif byte_level:
                found[index] = _from_byte_level(text)
            elif match := _BYTE.fullmatch(text):
                found[index] = bytes([int(match[1], 16)])
            else:
                found[index] = text.replace("\u2581", " ").encode("utf-8")
        return found

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        self._tokenizer.save_pretrained(folder)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenize whole texts, with what begins every text and without what ends it.

        Raises:
            UnreadableText: The tokens do not spell the text: the tokenizer changes it, or has no token for a part.
        """
        found = []
        pieces = self.pieces
        encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        for text, own in zip(texts, encoded, strict=True):
            spelled = [pieces[index] for index in own.ids]
            lengths = [len(piece or b"") for piece in spelled]
            joined, expected = b"".join(piece or b"" for piece in spelled), text.encode("utf-8", "surrogatepass")
            if joined == b" " + expected:  # SentencePiece begins a text with a blank of its own.
                lengths[0] -= 1
            elif joined != expected or None in spelled:
                raise UnreadableText(
                    "the tokenizer does not keep a text as it is (lower case, unknown characters or another "
                    "normalization): exposure needs one that does"
                )
            ids = np.array([*self.first, *own.ids], dtype=np.int64)
            found.append(Tokens(ids, np.cumsum([*(0 for _ in self.first), *lengths])))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some tokens; special ones are shown, and incomplete characters replaced."""
        parts = [self.pieces[index] if index < len(self.pieces) else None for index in ids]
        text: list[bytes] = []
        for index, piece in zip(ids, parts, strict=True):
            text.append(piece if piece is not None else str(self._backend.id_to_token(index) or "").encode("utf-8"))
        return b"".join(text).decode("utf-8", "replace")

    def agrees(self, left: Sequence[int], right: Sequence[int], context: Sequence[int]) -> np.ndarray:
        """Return whether each pair of tokens is what the tokenizer makes of its text after a context, shape (N,)."""
        before = tuple(context)
        keys = [(before, one, other) for one, other in zip(left, right, strict=True)]
        asked = [key for key in dict.fromkeys(keys) if key not in self._pairs]
        found = self.extends([(*before, one) for _, one, _ in asked], [other for _, _, other in asked])
        self._pairs.update(zip(asked, found.tolist(), strict=True))
        return np.array([self._pairs[key] for key in keys], dtype=bool)

    def extends(self, before: Sequence[Sequence[int]], tokens: Sequence[int]) -> np.ndarray:
        """Return whether the text of some tokens and one more is tokenized into just these, shape (N,)."""
        found = np.zeros(len(tokens), dtype=bool)
        pieces = self.pieces
        for first in range(0, len(tokens), _BATCH):
            texts, rows = [], []
            for row in range(first, min(first + _BATCH, len(tokens))):
                text = b"".join(pieces[own] or b"" for own in (*before[row], tokens[row]))
                try:
                    texts.append(text[self._begins_with_blank and text.startswith(b" ") :].decode("utf-8"))
                    rows.append(row)
                except UnicodeDecodeError:
                    continue  # half a character is no text of its own
            for row, own in zip(rows, self._backend.encode_batch(texts, add_special_tokens=False), strict=True):
                found[row] = own.ids == [*before[row], tokens[row]]
        return found


def _from_byte_level(text: str) -> bytes | None:
    table = _byte_level()
    return bytes(table[c] for c in text) if all(c in table for c in text) else text.encode("utf-8")


def _byte_level() -> dict[str, int]:
    """Return the byte for which each character stands in a byte-level vocabulary (Radford et al. 2019)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    table = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in shown]
    return table | {chr(256 + number): byte for number, byte in enumerate(hidden)}
