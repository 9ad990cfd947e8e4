"""Templates: text with slots, such as ``my number is {digits:3}-{digits:4}!``.

The text before the first slot is the *prefix*, which an attacker types. The text from the start of the first slot to
the end of the last is the *completion*, whose log-perplexity is measured. The rest is the *suffix*.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

from canaryaudit.canaries.space import NO_ENDING, SLOT_KINDS, Lexicon, Slot, Space, symbols_of_set
from canaryaudit.errors import TemplateError

MAX_TEMPLATE = 10_000
"""Maximum characters of a template, longer than any sentence."""

_SLOT = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HELP = (
    "write {digits:N} or {digits:N-M}, {lower:N}, {upper:N}, {alnum:N}, {hex:N}, {any:N}, {[A-Z_]:N}, {choice:a|b}, "
    "{word} or {words:FILE}"
)


def _parse_slot(body: str, template: str) -> Slot:
    is_set = body.startswith("[") and "]:" in body
    kind, colon, argument = body.rpartition(":") if is_set else body.partition(":")
    body = repr(body)[1:-1]  # shown in one line
    if is_set and kind.endswith("]"):
        symbols_of_set(kind)
    elif kind == "word" and not colon:
        return Slot(kind)
    elif kind not in SLOT_KINDS or not colon or kind == "word" or (kind == "words" and not argument):
        raise TemplateError(f"unknown slot {{{body}}} in template {template!r}: {_HELP}")
    if kind == "words":
        return Slot(kind, list_name=argument)
    if kind == "choice":
        words = tuple(dict.fromkeys(argument.split("|")))
        if len(words) < 2 or "" in words:
            raise TemplateError(f"slot {{{body}}} needs at least two words: write {{choice:red|green}}")
        # In sorted order, a prefix of other words directly precedes one of them.
        for word, following in pairwise(sorted(words)):
            if following.startswith(word):
                raise TemplateError(
                    f"slot {{{body}}}: {word!r} is a prefix of another choice; append the same character to each"
                )
        return Slot(kind, words=words)
    # Counting completions takes memory that is quadratic in the length.
    lengths = re.fullmatch(r"0*([1-9][0-9]{0,2})(?:-0*([1-9][0-9]{0,2}))?", argument)
    if not lengths or int(lengths[2] or lengths[1]) < int(lengths[1]):
        raise TemplateError(
            f"slot {{{body}}} in template {template!r}: expected a length of 1 to 999, such as 6 or 6-12, "
            f"got {argument!r}"
        )
    least, most = int(lengths[1]), int(lengths[2] or 0)
    return Slot(kind, least, most=most if most > least else 0)


def list_names_in(text: str) -> list[str]:
    """Return what stands after ``words:`` in each such slot of a template's text, which may be no valid template."""
    arguments = (match[1] or "" for match in _SLOT.finditer(text))
    return [argument.removeprefix("words:") for argument in arguments if argument.startswith("words:")]


def with_list_names(text: str, names: Mapping[str, str]) -> str:
    """Return a template's text with other names of word lists, by the names in it."""

    def named(match: re.Match[str]) -> str:
        kind, _, name = (match[1] or "").partition(":")
        return f"{{words:{names[name]}}}" if kind == "words" and name in names else match[0]

    return _SLOT.sub(named, text)


def quoted(literal: str) -> str:
    """Return literal text as a template writes it, with its braces doubled."""
    return literal.replace("{", "{{").replace("}", "}}")


@dataclass(frozen=True)
class Template:
    """A parsed template: literal text and slots.

    Attributes:
        text: As the user wrote it.
        parts: Literals (``str``) and ``Slot``, in order; at least one slot.

    Examples:
        >>> template = Template.parse("my code is {digits:4}.")
        >>> template.prefix, template.suffix, template.fill("0123")
        ('my code is ', '.', 'my code is 0123.')
        >>> template.space("").size
        10000
    """

    text: str
    parts: tuple[str | Slot, ...]

    @classmethod
    @lru_cache(maxsize=1024)  # thousands of canaries may share one template, and each parses it
    def parse(cls, text: str) -> "Template":
        """Parse ``text``; ``{{`` and ``}}`` are literal braces.

        Raises:
            TemplateError: No slot, an unknown slot, a length below 1, a single brace, or a text that is too long.
        """
        if len(text) > MAX_TEMPLATE:
            raise TemplateError(
                f"a template has {len(text):,} characters: expected at most {MAX_TEMPLATE:,}; shorten it"
            )
        parts: list[str | Slot] = []

        def literal(piece: str) -> None:
            if piece and parts and isinstance(parts[-1], str):
                parts[-1] += piece
            elif piece:
                parts.append(piece)

        position = 0
        for match in _SLOT.finditer(text):
            literal(text[position : match.start()])
            position = match.end()
            if match[0] in ("{{", "}}"):
                literal(match[0][0])
            elif match[1] is None:
                raise TemplateError(f"single {match[0]!r} in template {text!r}: double it for a literal brace")
            else:
                parts.append(_parse_slot(match[1], text))
        literal(text[position:])
        if not any(isinstance(part, Slot) for part in parts):
            raise TemplateError(f"template {text!r} has no slot: {_HELP}")
        if isinstance(parts[-1], Slot) and parts[-1].most:
            raise TemplateError(f"template {text!r}: {NO_ENDING}")
        return cls(text, tuple(parts))

    @cached_property
    def prefix(self) -> str:
        """The fixed text before the first slot."""
        return self.parts[0] if isinstance(self.parts[0], str) else ""

    @cached_property
    def ending(self) -> str:
        """The character that ends a last slot of varying length: part of the completion, as its length is."""
        last, after = (self.parts[-2], self.parts[-1]) if len(self.parts) > 1 else ("", "")
        open_ended = isinstance(last, Slot) and (last.most or last.listed)
        return after[0] if isinstance(after, str) and open_ended else ""

    @cached_property
    def suffix(self) -> str:
        """The fixed text after the last slot, without what ends it."""
        return self.parts[-1].removeprefix(self.ending) if isinstance(self.parts[-1], str) else ""

    @cached_property
    def body(self) -> tuple[str | Slot, ...]:
        """The slots and the fixed text between them: the parts of a completion."""
        parts = self.parts[1:] if self.prefix else self.parts
        return (*(parts[:-1] if isinstance(parts[-1], str) else parts), *((self.ending,) if self.ending else ()))

    @property
    def fixed_text(self) -> str:
        """The template's literal text, without the slots."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def lowercased(self) -> "Template":
        """Return the template with its fixed text in lower case, and only lower-case letters in ``alnum`` slots."""
        text, position = "", 0
        for match in _SLOT.finditer(self.text):
            text += self.text[position : match.start()].lower() + match[0].replace("{alnum:", "{[a-z0-9]:", 1)
            position = match.end()
        return Template.parse(text + self.text[position:].lower())

    def reworded(self, literals: Sequence[str]) -> "Template":
        """Return the template with other literals, one for each of its own, in order."""
        fixed = iter(literals)
        parts = [next(fixed) if isinstance(part, str) else part for part in self.parts]
        if parts == list(self.parts):
            return self
        return Template.parse("".join(part.source if isinstance(part, Slot) else quoted(part) for part in parts))

    def widened(self, kind: str) -> "Template":
        """Return the template with ``kind``'s alphabet in every slot, for a wider space."""
        for part in self.body:
            if isinstance(part, Slot) and (part.kind == "choice" or part.listed):
                raise TemplateError(f"template {self.text!r}: a choice of words has no wider space; drop --space")
        parts = tuple(replace(part, kind=kind) if isinstance(part, Slot) else part for part in self.parts)
        return Template(self.text, parts)

    def space(self, lexicon: str | Lexicon) -> Space:
        """Return R, the set of the template's completions.

        Args:
            lexicon: What ``any`` slots and slots of words range over; the symbols alone where there are no lists.

        Raises:
            TemplateError: The space would be too large, or is not prefix-free; or a word list is missing.
        """
        if isinstance(lexicon, Lexicon) and any(isinstance(part, Slot) and part.listed for part in self.body):
            return _listed_space(self.body, lexicon)
        return Space.of_body(self.body, lexicon)

    def completion_of(self, secret: str, lexicon: str | Lexicon) -> str:
        """Return the completion that contains ``secret``, given with or without the fixed text between slots.

        Raises:
            TemplateError: The secret does not fill the slots.
        """
        space = self.space(lexicon)
        for completion in (secret, secret + self.ending):
            if completion in space:
                return completion
        groups = [self._group(index) for index, part in enumerate(self.body) if isinstance(part, Slot)]
        match = re.compile("".join(groups), re.DOTALL).fullmatch(secret)
        fillings = iter(match.groups() if match else ())
        completion = "".join(part if isinstance(part, str) else next(fillings, "") for part in self.body)
        if completion not in space:
            listed = any(isinstance(part, Slot) and part.listed for part in self.body)
            way = (
                "a word of its list for each slot"
                if listed
                else "one character of the slot's alphabet for each position"
            )
            raise TemplateError(
                f"a secret of {len(secret)} characters does not fit the slots of template {self.text!r}: give {way}"
            )
        return completion

    def reveals(self, completion: str) -> bool:
        """Return whether the slots' fillings tell something without the text around them.

        Choices, and one word of a list, may stand in any text.
        """
        slots = [part for part in self.body if isinstance(part, Slot) and part.kind != "choice"]
        if any(not slot.listed for slot in slots) or len(slots) > 1:
            return True
        return bool(slots) and not self.secret_of(completion).isalpha()

    def secret_of(self, completion: str) -> str:
        """Return the characters of ``completion`` that fill the slots."""
        return "".join(self.fillings(completion))

    def filled(self, completion: str) -> list[bool]:
        """Return, for each character of ``completion``, whether it fills a slot."""
        marks = [False] * len(completion)
        match = self._pattern.fullmatch(completion)
        for number in range(1, self._pattern.groups + 1) if match else ():
            start, end = match.span(number) if match else (0, 0)
            marks[start:end] = [True] * (end - start)
        return marks

    def fillings(self, completion: str) -> tuple[str, ...]:
        """Return what fills each slot in ``completion``."""
        match = self._pattern.fullmatch(completion)
        return match.groups() if match else (completion,)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Matches completions, with a group for each slot; at most one way, since the space is prefix-free."""
        groups = (
            re.escape(part) if isinstance(part, str) else self._group(index) for index, part in enumerate(self.body)
        )
        return re.compile("".join(groups), re.DOTALL)

    def _group(self, index: int) -> str:
        """Return a pattern with a group for what fills the slot that is a part of the body."""
        slot = self.body[index]
        if isinstance(slot, str):
            return re.escape(slot)
        if slot.words:
            return f"({'|'.join(map(re.escape, slot.words))})"
        if slot.listed:  # what ends it is in none of its words, unless it is the last slot
            literal = self.body[index + 1] if any(isinstance(part, Slot) for part in self.body[index + 1 :]) else ""
            return f"([^{re.escape(literal[0])}]+)" if isinstance(literal, str) and literal else "(.+)"
        following = self.body[index + 1] if slot.most else ""
        symbols = f"[{re.escape(slot.fixed_alphabet)}]" if slot.fixed_alphabet and slot.most else "."
        ending = f"(?!{re.escape(following[0])})" if isinstance(following, str) and following and symbols == "." else ""
        return f"((?:{ending}{symbols}){{{slot.length},{slot.longest}}})"

    def fill(self, completion: str) -> str:
        """Return the canary's whole text."""
        return self.prefix + completion + self.suffix


@lru_cache(maxsize=4)
def _listed_space(body: tuple[str | Slot, ...], lexicon: Lexicon) -> Space:
    """Return the space of slots with word lists: each canary asks for it, and it may take a second to build."""
    return Space.of_body(body, lexicon)
