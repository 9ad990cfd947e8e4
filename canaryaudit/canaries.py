"""Templates, the space R of their fillings, and the canaries drawn from it.

A template is text with slots, ``my number is {digits:3}-{digits:4}!``. What stands before its first
slot is the *prefix* that an attacker types; from the first slot's start to the last slot's end is the
*completion*, whose log-perplexity is measured; the rest is the *suffix*.
"""

import math
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast

from canaryaudit.errors import TemplateError

ALPHABETS = {
    "digits": string.digits,
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "alnum": string.ascii_lowercase + string.digits,
    "hex": string.digits + "abcdef",
}
SLOT_KINDS = (*ALPHABETS, "any", "choice")
WIDER_SPACES = ("digits", "alnum", "any")
MASK = "•"
MAX_TEMPLATE = 10_000
"""Characters of a template: no sentence is so long."""
MAX_COMPLETION, MAX_EDGES = 5_000, 2_000_000
"""Places of a completion, and the symbols that may stand at each, summed up: memory grows with the places' square."""

_SLOT = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HELP = "write {digits:N}, {lower:N}, {upper:N}, {alnum:N}, {hex:N}, {any:N} or {choice:a|b}"


@dataclass(frozen=True)
class Slot:
    """One place to fill: ``length`` symbols of an alphabet, or one of several words."""

    kind: str
    length: int = 1
    words: tuple[str, ...] = ()

    def alphabet(self, corpus_symbols: str) -> str:
        """Return the symbols that may stand at each place of the slot (not for ``choice``)."""
        return corpus_symbols if self.kind == "any" else ALPHABETS[self.kind]


def _parse_slot(body: str, template: str) -> Slot:
    kind, colon, argument, body = *body.partition(":"), repr(body)[1:-1]  # shown in one line
    if kind not in SLOT_KINDS or not colon:
        raise TemplateError(f"unknown slot {{{body}}} in template {template!r}: {_HELP}")
    if kind == "choice":
        words = tuple(dict.fromkeys(argument.split("|")))
        if len(words) < 2 or "" in words:
            raise TemplateError(f"slot {{{body}}} needs at least two words: write {{choice:red|green}}")
        # Sorted, a word that begins another stands right before one that it begins.
        for word, following in pairwise(sorted(words)):
            if following.startswith(word):
                raise TemplateError(
                    f"slot {{{body}}}: {word!r} is the beginning of another choice; add a closing character to each"
                )
        return Slot(kind, words=words)
    # Counting fillings takes memory that grows with the square of the length.
    if not re.fullmatch(r"0*[1-9][0-9]{0,2}", argument):
        raise TemplateError(
            f"slot {{{body}}} in template {template!r}: expected a length of 1 to 999, got {argument!r}"
        )
    return Slot(kind, int(argument))


@dataclass(frozen=True)
class Template:
    """A parsed template: literal text and slots in turn.

    Attributes:
        text: As the user wrote it.
        parts: Literals (``str``) and ``Slot``, in order; at least one slot.
    """

    text: str
    parts: tuple[str | Slot, ...]

    @classmethod
    @lru_cache(maxsize=1024)  # there may be thousands of canaries of one template, and each is asked for its own
    def parse(cls, text: str) -> "Template":
        """Parse ``text``; ``{{`` and ``}}`` stand for braces.

        Raises:
            TemplateError: No slot, an unknown slot, a length below 1, a lone brace, or more text than a template has.
        """
        if len(text) > MAX_TEMPLATE:
            raise TemplateError(
                f"a template of {len(text):,} characters: expected at most {MAX_TEMPLATE:,}; shorten it"
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
                raise TemplateError(f"lone {match[0]!r} in template {text!r}: double it for the character itself")
            else:
                parts.append(_parse_slot(match[1], text))
        literal(text[position:])
        if not any(isinstance(part, Slot) for part in parts):
            raise TemplateError(f"template {text!r} has no slot: {_HELP}")
        return cls(text, tuple(parts))

    @cached_property
    def prefix(self) -> str:
        """The fixed text before the first slot."""
        return self.parts[0] if isinstance(self.parts[0], str) else ""

    @cached_property
    def suffix(self) -> str:
        """The fixed text after the last slot."""
        return self.parts[-1] if isinstance(self.parts[-1], str) else ""

    @cached_property
    def body(self) -> tuple[str | Slot, ...]:
        """The slots and the fixed text between them: what a completion is made of."""
        start = 1 if self.prefix else 0
        return self.parts[start : len(self.parts) - (1 if self.suffix else 0)]

    @property
    def fixed_text(self) -> str:
        """All of the template's own characters, without the slots."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def lowercased(self) -> "Template":
        """Return the template with its fixed text in lower case; slots stay."""
        text, position = "", 0
        for match in _SLOT.finditer(self.text):
            text += self.text[position : match.start()].lower() + match[0]
            position = match.end()
        return Template.parse(text + self.text[position:].lower())

    def widened(self, kind: str) -> "Template":
        """Return the template with every slot's alphabet replaced by that of ``kind``, for a wider space."""
        for part in self.body:
            if isinstance(part, Slot) and part.kind == "choice":
                raise TemplateError(f"template {self.text!r}: a choice of words has no wider space; drop --space")
        parts = tuple(Slot(kind, part.length) if isinstance(part, Slot) else part for part in self.parts)
        return Template(self.text, parts)

    def space(self, corpus_symbols: str) -> "Space":
        """Return R, the set of the template's completions; ``any`` slots range over ``corpus_symbols``."""
        return Space.of_body(self.body, corpus_symbols)

    def completion_of(self, secret: str, corpus_symbols: str) -> str:
        """Return the completion whose slots hold ``secret``, given with or without the fixed text between them.

        Raises:
            TemplateError: The secret does not fill the slots.
        """
        space = self.space(corpus_symbols)
        if secret in space:
            return secret
        completion, rest = "", secret
        for part in self.body:
            if isinstance(part, str):
                completion += part
                continue
            word = next((w for w in part.words if rest.startswith(w)), rest[: part.length])
            completion, rest = completion + word, rest[len(word) :]
        if rest or completion not in space:
            raise TemplateError(
                f"a secret of {len(secret)} characters does not fit the slots of template {self.text!r}: "
                "give one character of the slot's alphabet for each place"
            )
        return completion

    def secret_of(self, completion: str) -> str:
        """Return the characters of ``completion`` that fill the slots."""
        return "".join(c for c, filled in zip(completion, self.filled(completion), strict=True) if filled)

    def filled(self, completion: str) -> list[bool]:
        """Return, for each character of ``completion``, whether it stands in a slot."""
        marks: list[bool] = []
        for part in self.body:
            if isinstance(part, str):
                marks += [False] * len(part)
            else:
                rest = completion[len(marks) :]
                marks += [True] * len(next((w for w in part.words if rest.startswith(w)), " " * part.length))
        return marks

    def fill(self, completion: str) -> str:
        """Return the canary's whole text."""
        return self.prefix + completion + self.suffix


class Space:
    """R: the finite, prefix-free set of a template's completions, as an automaton over characters.

    Node 0 is the start, the last node accepts. Choices of words become small tries, so that completions
    may differ in length. Counts are exact integers, whatever the size.

    Attributes:
        edges: For each node, the next node by character.
        counts: For each node, the number of completions below it.
    """

    def __init__(self, edges: Sequence[dict[str, int]]) -> None:
        self.edges = tuple(edges)
        counts = [1] * len(edges)
        for node in reversed(range(len(edges) - 1)):
            counts[node] = sum(counts[target] for target in edges[node].values())
        self.counts = tuple(counts)

    @classmethod
    def of_body(cls, body: Sequence[str | Slot], corpus_symbols: str) -> "Space":
        """Build the automaton of literals and slots in turn, unless it would take gigabytes."""
        _check_size(body, corpus_symbols)
        edges: list[dict[str, int]] = [{}]

        def step(symbols: str) -> None:
            edges[-1] = dict.fromkeys(symbols, len(edges))
            edges.append({})

        for part in body:
            if isinstance(part, str):
                for character in part:
                    step(character)
            elif part.kind == "choice":
                _append_trie(edges, part.words)
            else:
                for _ in range(part.length):
                    step(part.alphabet(corpus_symbols))
        return cls(edges)

    @property
    def accept(self) -> int:
        """The node at which a completion is whole."""
        return len(self.edges) - 1

    @property
    def size(self) -> int:
        """Number of completions, exact."""
        return self.counts[0]

    @property
    def bits(self) -> float:
        """log2 of the size."""
        return math.log2(self.size)

    @cached_property
    def max_length(self) -> int:
        """Number of characters of the longest completion."""
        depth = [0] * len(self.edges)
        for node, targets in enumerate(self.edges):
            for target in targets.values():
                depth[target] = max(depth[target], depth[node] + 1)
        return depth[-1]

    @property
    def symbols(self) -> set[str]:
        """Every character that occurs in a completion."""
        return {character for targets in self.edges for character in targets}

    def walk(self, text: str) -> list[int] | None:
        """Return the nodes passed while reading ``text`` from the start, or None if it leaves the space."""
        nodes = [0]
        for character in text:
            target = self.edges[nodes[-1]].get(character)
            if target is None:
                return None
            nodes.append(target)
        return nodes

    def __contains__(self, completion: str) -> bool:
        """Tell whether ``completion`` is a member of R."""
        nodes = self.walk(completion)
        return nodes is not None and nodes[-1] == self.accept

    def __iter__(self) -> Iterator[str]:
        """Yield every member, in the automaton's order; meant for small spaces."""
        stack = [(0, "")]
        while stack:
            node, text = stack.pop()
            if node == self.accept:
                yield text
            stack.extend((target, text + c) for c, target in reversed(self.edges[node].items()))

    def sample(self, rng: np.random.Generator) -> str:
        """Draw one member, uniformly."""
        node, text = 0, ""
        while node != self.accept:
            characters = list(self.edges[node])
            shares = np.array([self.counts[self.edges[node][c]] / self.counts[node] for c in characters])
            character = characters[rng.choice(len(characters), p=shares / shares.sum())]
            node, text = self.edges[node][character], text + character
        return text


def _check_size(body: Sequence[str | Slot], corpus_symbols: str) -> None:
    places = edges = 0
    for part in body:
        if isinstance(part, Slot) and part.kind != "choice":
            places, edges = places + part.length, edges + part.length * len(part.alphabet(corpus_symbols))
        else:
            long = len(part) if isinstance(part, str) else sum(map(len, part.words))
            places, edges = places + long, edges + long
    if places > MAX_COMPLETION or edges > MAX_EDGES:
        raise TemplateError(f"the slots have {places:,} places and {edges:,} symbols there: use fewer or shorter slots")


def _append_trie(edges: list[dict[str, int]], words: Sequence[str]) -> None:
    """Append the trie of prefix-free ``words`` to the automaton; all of them end in one new last node."""
    start = len(edges) - 1
    nodes = {"": start}
    for word in words:
        for end in range(1, len(word)):
            if word[:end] not in nodes:
                nodes[word[:end]] = len(edges)
                edges.append({})
    # Inner nodes were numbered word by word; parents come before their children, as counts need.
    last = len(edges)
    edges.append({})
    for word in words:
        for end in range(1, len(word) + 1):
            target = last if end == len(word) else nodes[word[:end]]
            edges[nodes[word[: end - 1]]][word[end - 1]] = target


class Canary(BaseModel):
    """A template filled with a secret.

    A control is drawn like the others and never inserted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Stable name, ``canary-01`` or ``control-01``; never derived from the secret."""
    template: str
    """The template as the user wrote it."""
    completion: str
    """From the first slot's start to the last slot's end: the secret with the fixed text between the slots."""
    repetitions: int
    """How often it stands in the corpus; 0 for a control."""
    control: bool = False
    origin: Literal["generated", "given", "located"] = "generated"
    """Drawn, given by the user, or found in the corpus; all but a drawn one are masked in every output."""
    places: Annotated[tuple[int, ...], FailFast()] = ()
    """Character offsets in the run's corpus.txt at which the canary's text begins."""

    @property
    def masked(self) -> bool:
        """Whether outputs must hide the secret unless told otherwise."""
        return self.origin != "generated"


class CanarySet(BaseModel):
    """All canaries and controls of a run, with what their spaces depend on: the contents of canaries.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    corpus_symbols: str
    """The corpus vocabulary before any canary: what an ``any`` slot ranges over."""
    wider_space: Literal["digits", "alnum", "any"] | None = None
    """Measure against this alphabet in every slot, instead of the slot's own."""
    canaries: Annotated[tuple[Canary, ...], FailFast()]

    @property
    def inserted(self) -> tuple[Canary, ...]:
        """The canaries that stand in the corpus."""
        return tuple(canary for canary in self.canaries if not canary.control)

    @property
    def controls(self) -> tuple[Canary, ...]:
        """The canaries that were drawn and never inserted."""
        return tuple(canary for canary in self.canaries if canary.control)

    def by_template(self) -> dict[str, list[Canary]]:
        """Return canaries and controls by template, in order of first appearance."""
        groups: dict[str, list[Canary]] = {}
        for canary in self.canaries:
            groups.setdefault(canary.template, []).append(canary)
        return groups

    def space(self, template: Template) -> Space:
        """Return the space R that exposure of ``template``'s canaries is measured in."""
        return (template.widened(self.wider_space) if self.wider_space else template).space(self.corpus_symbols)
