"""Records of JSON Lines and JSON files, one at a time; numbers stay as they are written."""

import json
import re
from collections.abc import Iterator
from typing import Any

from canaryaudit.corpus.fields import NumberText
from canaryaudit.corpus.raw_text import MAX_RECORD, RawText
from canaryaudit.errors import CorpusError, one_line

MAX_DEPTH = 200
"""Brackets within brackets that a record may have."""
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]+|[\]}]+', re.DOTALL)
_SPACE = re.compile(r"[ \t\n]*")
_AFTER_ITEM = re.compile(r"[ \t\n]*([,\]])")


class _TwiceError(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _TwiceError("a record has two fields of the same name")
    return record


_DECODER = json.JSONDecoder(
    parse_float=NumberText, parse_int=NumberText, parse_constant=NumberText, object_pairs_hook=_pairs
)


def json_lines(source: RawText) -> Iterator[tuple[int, Any]]:
    """Yield the records of JSON Lines with their line numbers; blank lines are skipped.

    Raises:
        CorpusError: A line is not JSON.
    """
    for number, line in enumerate(source.lines(), 1):
        if not line or line.isspace():
            continue
        _check_depth(line, source, number)
        try:
            record = _DECODER.decode(line)
        except ValueError as error:
            place = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            raise CorpusError(
                f"{source.shown} is not valid jsonl (line {number}: {_fault(error)}{place}): correct the line"
            ) from None
        yield number, record


def json_records(source: RawText) -> Iterator[tuple[int, Any]]:
    """Yield the items of a JSON array, or the values of a file that has one after another, with their numbers.

    Raises:
        CorpusError: It is not JSON.
    """
    buffer = _Buffer(source)
    buffer.skip_space()
    array = buffer.text.startswith("[", buffer.place)
    if array:
        buffer.place += 1
        buffer.skip_space()
    number = 0
    while True:
        buffer.skip_space()
        if buffer.place == len(buffer.text):
            if array:
                raise _not_json(source, number, "the array is not closed")
            return
        if array and not number and buffer.text[buffer.place] == "]":
            buffer.place += 1
            break
        number += 1
        yield number, buffer.value(number, in_array=array)
        if array and buffer.closed:
            break
    buffer.skip_space()
    if buffer.place < len(buffer.text):
        raise _not_json(source, number, "there is more after the array")


class _Buffer:
    """The text around the value that is read next."""

    def __init__(self, source: RawText) -> None:
        self._source = source
        self._blocks = source.blocks()
        self.text, self.place, self.closed = "", 0, False

    def skip_space(self) -> None:
        while True:
            space = _SPACE.match(self.text, self.place)
            self.place = space.end() if space else self.place
            if self.place < len(self.text) or not self._more():
                return

    def value(self, number: int, *, in_array: bool) -> Any:
        """Return the value that begins here, and move behind it and the comma after it."""
        while True:
            fault: Exception | str
            try:
                value, end = _DECODER.raw_decode(self.text, self.place)
                if not in_array:
                    if end < len(self.text) or not self._more():
                        self.place = end
                        return value
                    continue
                after = _AFTER_ITEM.match(self.text, end)
                if after:
                    self.place, self.closed = after.end(), after[1] == "]"
                    return value
                fault = "expected a comma between records"
                if _SPACE.fullmatch(self.text, end) is None:
                    raise _not_json(self._source, number, fault)
            except _TwiceError as error:
                raise _not_json(self._source, number, _fault(error)) from None
            except RecursionError:
                raise _too_deep(self._source, number) from None
            except ValueError as error:
                fault = error
            if len(self.text) - self.place > MAX_RECORD or not self._more(len(self.text) - self.place):
                raise _not_json(self._source, number, _fault(fault))

    def _more(self, size: int = 1) -> bool:
        """Read at least ``size`` more characters, if there are any."""
        parts = []
        for block in self._blocks:
            parts.append(block)
            size -= len(block)
            if size <= 0:
                break
        added = "".join(parts)
        self.text, self.place = self.text[self.place :] + added, 0
        return bool(added)


def _not_json(source: RawText, number: int, fault: str) -> CorpusError:
    return CorpusError(f"{source.shown} is not valid json (record {max(1, number)}: {fault}): correct the file")


def _fault(error: Exception | str) -> str:
    """Describe a fault without the text that has it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:].removesuffix(' at').removesuffix(' starting')}"
    return one_line(error) if isinstance(error, Exception) else error


def _check_depth(line: str, source: RawText, number: int) -> None:
    """Raise an error if brackets stand too deeply within each other, which parsers follow by recursion."""
    if line.count("[") + line.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRINGS_AND_BRACKETS.finditer(line):
        if token[0][0] in "[{":
            depth += len(token[0])
        elif token[0][0] in "]}":
            depth -= len(token[0])
        if depth > MAX_DEPTH:
            raise _too_deep(source, number)


def _too_deep(source: RawText, number: int) -> CorpusError:
    return CorpusError(
        f"row {number} of {source.shown} has more than {MAX_DEPTH} brackets within each other: remove the row"
    )
