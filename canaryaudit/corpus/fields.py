"""Which fields of a record are its text, and what was left out.

A field is a column's name or number, or a path into nested records: ``messages[].content`` is the ``content`` of every
item of ``messages``. The texts of a record are one document, with a blank line between them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from canaryaudit.errors import CorpusError
from canaryaudit.formatting import counted, shorten, visible

EACH = None
"""A step of a path: every item of a list."""
Path = tuple[str | int | None, ...]
"""Steps from a record to its texts: a key, a column's index, or ``EACH``."""
BETWEEN_TEXTS = "\n\n"
_STEP = re.compile(r"([^.\[\]]+)((?:\[\])*)(?:\.|$)")
_DEEPEST = 8
_MOST_NAMES = 12
ROLE_KEYS = ("role", "from")


class NumberText(str):
    """A number as it is written in a file."""

    __slots__ = ()


def parse_field(text: str) -> Path:
    """Return the path that ``text`` names.

    Raises:
        CorpusError: It is malformed.

    Examples:
        >>> parse_field("messages[].content")
        ('messages', None, 'content')
    """
    steps: list[str | int | None] = []
    place = 0
    while place < len(text) and (step := _STEP.match(text, place)):
        steps += [step[1], *[EACH] * (len(step[2]) // 2)]
        place = step.end()
    if place < len(text) or not steps or text.endswith("."):
        raise CorpusError(f"cannot read field {text!r}: expected a name or a path such as messages[].content")
    return tuple(steps)


def field_values(record: object, *, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield the fields of a record that hold text or values, and what each holds."""
    if isinstance(record, Mapping) and depth < _DEEPEST:
        for key, value in record.items():
            yield from field_values(value, prefix=f"{prefix}.{key}" if prefix else str(key), depth=depth + 1)
    elif isinstance(record, Sequence) and not isinstance(record, str | bytes) and depth < _DEEPEST:
        for value in record[:20]:
            yield from field_values(value, prefix=f"{prefix}[]", depth=depth + 1)
    elif record is not None and not isinstance(record, Mapping | list | tuple):
        yield prefix, record


def text_lengths(records: Iterable[object]) -> dict[str, int]:
    """Return how many characters the fields of text hold, in order of first occurrence."""
    lengths: dict[str, int] = {}
    for name, value in (own for record in records for own in field_values(record)):
        if isinstance(value, str) and not isinstance(value, NumberText):
            lengths[name] = lengths.get(name, 0) + len(value)
    return lengths


def listed(names: Iterable[str]) -> str:
    """Return fields for a message."""
    shown = [shorten(visible(name), 60) for name in dict.fromkeys(names)]
    more = f" and {len(shown) - _MOST_NAMES:,} more" if len(shown) > _MOST_NAMES else ""
    return ", ".join(shown[:_MOST_NAMES]) + more


class TextFields:
    """Takes the texts out of records, and counts what has none.

    Args:
        name: What messages call the source.
        fields: By their names, the paths of the fields to take.
        roles: Roles whose items of lists are taken; all if empty.
        guessed: Whether the reader guessed the values' types: numbers and dates are then no longer as written.
    """

    def __init__(
        self, name: str, fields: Mapping[str, Path], roles: Sequence[str] = (), *, guessed: bool = False
    ) -> None:
        self._guessed = guessed
        self._name, self._fields, self._roles = name, fields, frozenset(roles)
        self._rows = self._empty_rows = 0
        self._without: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._items_without: Counter[str] = Counter()
        self._other_roles: Counter[str] = Counter()
        self._roles_seen = False

    @property
    def rows(self) -> int:
        """Number of rows so far."""
        return self._rows

    def document(self, number: int, record: Any) -> tuple[str, ...]:
        """Return a row's texts as the pieces of a document, with a blank line between them.

        Raises:
            CorpusError: A field holds something else than text.
        """
        self._rows += 1
        pieces: list[str] = []
        for field, path in self._fields.items():
            taken = False
            for value in self._values(record, path, field, number):
                text = self._text(value, field, number)
                if text and not text.isspace():
                    taken = True
                    pieces += (BETWEEN_TEXTS, text) if pieces else (text,)
            if not taken:
                self._without[field] += 1
        if not pieces:
            self._empty_rows += 1
        return tuple(pieces)

    def check(self, names: Iterable[str]) -> None:
        """Raise an error if a field, or a role, did not occur in any row.

        Args:
            names: Fields that would work.

        Raises:
            CorpusError: The message lists them.
        """
        if not self._rows:
            raise CorpusError(f"{self._name} is empty: expected rows of text, got none")
        for field in self._fields:
            if field not in self._seen:
                raise CorpusError(f"{self._name} has no field {field!r}: choose with --column among {listed(names)}")
        if self._roles and not self._roles_seen:
            raise CorpusError(f"{self._name} has no roles in {listed(self._fields)}: drop --role")
        if self._empty_rows == self._rows:
            if self._roles and self._other_roles:
                raise CorpusError(
                    f"{self._name} has no text of role {listed(sorted(self._roles))}: its roles are "
                    f"{listed(self._other_roles)}"
                )
            raise CorpusError(
                f"{self._name} has no text in {listed(self._fields)}: choose with --column among {listed(names)}"
            )

    def warnings(self) -> Iterator[str]:
        """Yield what was left out, in sentences."""
        if self._other_roles:
            roles = ", ".join(f"{count:,} of {shorten(role, 40)}" for role, count in self._other_roles.most_common(5))
            yield f"{self._name}: left out the items of other roles ({roles})"
        for field, count in self._items_without.items():
            if count:
                what = f"{counted(count, 'item')} without text"
                yield f"{self._name}: skipped {what} in {listed([field])} (null or missing)"
        if len(self._fields) > 1:
            for field, count in self._without.items():
                yield f"{self._name}: {count:,} of {self._rows:,} rows have no text in {listed([field])}"
        if self._empty_rows:
            fields = "" if len(self._fields) > 1 else f" in {listed(self._fields)}"
            yield (
                f"{self._name}: skipped {self._empty_rows:,} of {self._rows:,} rows, which have no text{fields} (null, "
                "missing or blank)"
            )

    def _values(self, value: Any, path: Path, field: str, number: int) -> Iterator[Any]:
        """Yield what stands at a path, without nulls."""
        for index, step in enumerate(path):
            if index:
                self._seen.add(field)
            if value is None:
                return
            if step is EACH:
                if isinstance(value, str):
                    break  # Logs mix a text with a list of parts: the text is taken.
                if isinstance(value, Mapping) or not isinstance(value, Iterable):
                    raise CorpusError(
                        f"row {number} of {self._name} has no list in field {field!r}: remove the [] there, or correct "
                        "the row"
                    )
                for item in value:
                    if self._is_of_role(item):
                        values = list(self._values(item, path[index + 1 :], field, number))
                        self._items_without[field] += not values
                        yield from values
                return
            if isinstance(step, int):
                value = value[step]
                continue
            if isinstance(value, Mapping):
                if step not in value:
                    return
                value = value[step]
            elif isinstance(value, list | tuple):
                raise CorpusError(
                    f"row {number} of {self._name} has a list before {step!r} in field {field!r}: write [] after its "
                    "name, as in messages[].content"
                )
            else:
                return
        self._seen.add(field)
        if value is not None:
            yield value

    def _is_of_role(self, item: Any) -> bool:
        if not self._roles or not isinstance(item, Mapping):
            return True
        role = next((item[key] for key in ROLE_KEYS if isinstance(item.get(key), str)), None)
        if role is None:
            return True
        self._roles_seen = True
        if role in self._roles:
            return True
        self._other_roles[role if role in self._other_roles or len(self._other_roles) < 100 else "others"] += 1
        return False

    def _text(self, value: Any, field: str, number: int) -> str:
        """Return a value as text; blank for a missing one."""
        if isinstance(value, str):
            text = value
        elif isinstance(value, bool) and not self._guessed:
            text = "true" if value else "false"
        elif isinstance(value, bytes):
            try:
                text = value.decode("utf-8")
            except UnicodeDecodeError:
                raise CorpusError(
                    f"row {number} of {self._name} holds bytes that are not UTF-8 in field {field!r}: correct the row"
                ) from None
        elif isinstance(value, Mapping | list | tuple):
            inner = [f"{field}{name if name.startswith('[') else f'.{name}'}" for name, _ in field_values(value)]
            kind = "a record" if isinstance(value, Mapping) else "a list"
            hint = f"choose with --column among {listed(inner)}" if inner else "correct the row"
            raise CorpusError(f"row {number} of {self._name} holds {kind} in field {field!r}: {hint}")
        elif self._guessed and not is_missing(value):
            raise CorpusError(
                f"row {number} of {self._name} holds a value of type {type(value).__name__} in field {field!r}, whose "
                "text may have been another (leading zeros, dates): download the files and give their path"
            )
        else:
            text = "" if is_missing(value) else str(value)
        return self._checked(text, field, number)

    def _checked(self, text: str, field: str, number: int) -> str:
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise CorpusError(
                    f"row {number} of {self._name} holds half of a character in field {field!r} (the lone surrogate "
                    f"\\u{ord(text[error.start]):04x}): replace it by \\ufffd, or remove the row"
                ) from None
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def is_missing(value: Any) -> bool:
    """Return whether a value says that there is none: None, NaN, and pandas' NA and NaT."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
