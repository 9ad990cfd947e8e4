"""The space of a template's secrets: every completion that fits its slots."""

import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from canaryaudit.errors import TemplateError

ALPHABETS = {
    "digits": string.digits,
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "alnum": string.ascii_letters + string.digits,
    "hex": string.digits + "abcdef",
}


SLOT_KINDS = (*ALPHABETS, "any", "choice", "words", "word")


LIST_KINDS = ("words", "word")
"""Slots that hold one word of a list: of a file, or the corpus's own words."""


WIDER_SPACES = ("digits", "alnum", "any")


MAX_COMPLETION, MAX_EDGES = 5_000, 2_000_000
"""Maximum positions of a completion, and symbols summed over positions; memory is quadratic in the positions."""


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What slots range over that their template does not say: the symbols of ``any``, and lists of words.

    Attributes:
        symbols: The symbols of the corpus.
        lists: The words of each list, by its name; the corpus's own words have the empty name.
    """

    symbols: str = ""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: "str | Lexicon") -> "Lexicon":
        """Return a lexicon; symbols alone are one without lists."""
        return given if isinstance(given, Lexicon) else cls(given)

    def words(self, slot: "Slot") -> tuple[str, ...]:
        """Return the words that may fill a slot of words.

        Raises:
            TemplateError: There is no such list.
        """
        if slot.kind == "choice":
            return slot.words
        if slot.list_name not in self.lists:
            raise TemplateError(f"slot {slot.source} needs its word list, which is missing: give it with the canaries")
        return self.lists[slot.list_name]


@dataclass(frozen=True)
class Slot:
    """A slot to fill: ``length`` symbols of an alphabet, or up to ``longest``, or one of several words."""

    kind: str
    length: int = 1
    words: tuple[str, ...] = ()
    most: int = 0
    """The largest length, if it varies."""
    list_name: str = ""
    """The list that has its words, if they are no part of the template."""

    @property
    def listed(self) -> bool:
        """Whether a list has its words."""
        return self.kind in LIST_KINDS

    @property
    def longest(self) -> int:
        """The largest number of symbols."""
        return self.most or self.length

    @property
    def varies(self) -> bool:
        """Whether secrets of several lengths fill it."""
        return self.longest > self.length or bool(self.words) or self.listed

    @property
    def source(self) -> str:
        """The slot as it is written in a template."""
        if self.kind == "word":
            return "{word}"
        length = f"{self.length}-{self.most}" if self.most else str(self.length)
        argument = {"choice": "|".join(self.words), "words": self.list_name}.get(self.kind, length)
        return f"{{{self.kind}:{argument}}}"

    def longest_in(self, lexicon: Lexicon) -> int:
        """Return the most characters that fill it."""
        return max(map(len, lexicon.words(self))) if self.words or self.listed else self.longest

    @property
    def fixed_alphabet(self) -> str | None:
        """The symbols allowed at each position; None if they are the corpus's, or words are chosen."""
        return symbols_of_set(self.kind) if self.kind.startswith("[") else ALPHABETS.get(self.kind)

    def alphabet(self, corpus_symbols: str) -> str:
        """Return the symbols allowed at each position of the slot (not for ``choice``)."""
        return self.fixed_alphabet or corpus_symbols

    def open_alphabet(self, corpus_symbols: str, following: "str | Slot | None") -> str:
        """Return the same without the symbol that ends an ``any`` slot of varying length: that which follows it."""
        ending = following[:1] if isinstance(following, str) and self.most and self.kind == "any" else ""
        return "".join(symbol for symbol in self.alphabet(corpus_symbols) if symbol != ending)


@lru_cache(maxsize=1024)
def symbols_of_set(text: str) -> str:
    """Return the distinct symbols of a character set such as ``[A-Z0-9_]``, in order; a backslash quotes a symbol.

    Raises:
        TemplateError: It is empty, or a range runs backward.
    """
    items = re.findall(r"\\(.)|(.)", text[1:-1], re.DOTALL)
    symbols: list[str] = []
    position = 0
    while position < len(items):
        quoted, plain = items[position]
        first, last = quoted or plain, quoted or plain
        if position + 2 < len(items) and items[position + 1][1] == "-":
            last = "".join(items[position + 2])
            position += 2
        if last < first or ord(last) - ord(first) > MAX_EDGES:
            raise TemplateError(f"character set {text}: the range {first}-{last} is empty or too long: swap its ends")
        symbols += map(chr, range(ord(first), ord(last) + 1))
        position += 1
    if len(dict.fromkeys(symbols)) < 2:
        raise TemplateError(f"character set {text}: expected at least two symbols, such as [A-Z0-9]")
    return "".join(dict.fromkeys(symbols))


def character_set(symbols: Iterable[str]) -> str:
    """Return the character set of these symbols, as ``symbols_of_set`` reads it."""
    return f"[{''.join(chr(92) + c if c in '-]^' + chr(92) else c for c in dict.fromkeys(symbols))}]"


NO_ENDING = (
    "a slot of varying length ends the template: write the character after the secret too, such as a period or a line "
    "break, since the end is part of what is measured"
)


class Space:
    """R: the finite, prefix-free set of a template's completions, as an automaton over characters.

    Node 0 is the start; the last node accepts. Choices of words become small tries, so completions may differ in
    length. Counts are exact integers of any size.

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
    def of_body(cls, body: Sequence[str | Slot], lexicon: str | Lexicon) -> "Space":
        """Build the automaton of literals and slots.

        A slot of varying length may be left wherever it is long enough, by what follows it; a slot of words after each
        of them. The space is prefix-free because no symbol can both follow the slot and belong to it.

        Raises:
            TemplateError: The automaton would take gigabytes, or a slot's end cannot be told from what follows.
        """
        lexicon = Lexicon.of(lexicon)
        _check_size(body, lexicon)
        edges: list[dict[str, int]] = [{}]

        def step(symbols: str) -> None:
            edges[-1] = dict.fromkeys(symbols, len(edges))
            edges.append({})

        exits: list[int] = []  # nodes at which the last slot may end early
        for index, part in enumerate(body):
            following = body[index + 1] if index + 1 < len(body) else None
            start, left, exits = len(edges) - 1, exits, []
            if isinstance(part, str):
                for character in part:
                    step(character)
            elif part.kind == "choice":
                _append_words(edges, part.words)
            elif part.listed:
                _check_ending(part, lexicon.words(part), body[index + 1 :])
                exits = _append_words(edges, lexicon.words(part))
            else:
                symbols = part.open_alphabet(lexicon.symbols, following)
                for count in range(part.longest):
                    exits += [len(edges) - 1] if count >= part.length else []
                    step(symbols)
            for node in left:
                if not edges[node].keys().isdisjoint(edges[start]):
                    raise TemplateError(_unclear_end(body[index - 1], body[index]))
                edges[node].update(edges[start])
        if exits:
            raise TemplateError(NO_ENDING)
        return cls(edges)

    def after(self, text: str) -> "Space":
        """Return the space of what may follow the first characters of a member."""
        nodes = self.walk(text) or [0]
        kept = {nodes[-1]}
        for node in range(nodes[-1], len(self.edges)):  # edges lead to later nodes
            if node in kept:
                kept.update(self.edges[node].values())
        renumbered = {node: place for place, node in enumerate(sorted(kept))}
        return Space([{c: renumbered[t] for c, t in self.edges[node].items()} for node in sorted(kept)])

    @property
    def accept(self) -> int:
        """The node at which a completion is complete."""
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
        """Return the nodes visited while reading ``text`` from the start, or None if it leaves the space."""
        nodes = [0]
        for character in text:
            target = self.edges[nodes[-1]].get(character)
            if target is None:
                return None
            nodes.append(target)
        return nodes

    def __contains__(self, completion: str) -> bool:
        """Return whether ``completion`` is a member of R."""
        nodes = self.walk(completion)
        return nodes is not None and nodes[-1] == self.accept

    def __iter__(self) -> Iterator[str]:
        """Yield every member, in the automaton's order; for small spaces."""
        stack = [(0, "")]
        while stack:
            node, text = stack.pop()
            if node == self.accept:
                yield text
            stack.extend((target, text + c) for c, target in reversed(self.edges[node].items()))

    def sample(self, rng: np.random.Generator) -> str:
        """Draw one member uniformly."""
        node, text = 0, ""
        while node != self.accept:
            characters = list(self.edges[node])
            shares = np.array([self.counts[self.edges[node][c]] / self.counts[node] for c in characters])
            character = characters[rng.choice(len(characters), p=shares / shares.sum())]
            node, text = self.edges[node][character], text + character
        return text


def _unclear_end(slot: str | Slot, following: str | Slot) -> str:
    """Say that a slot's end cannot be told from what follows."""
    if isinstance(slot, Slot) and slot.listed and isinstance(following, str):
        return (
            f"slot {slot.source}: a word of its list, followed by {following[:1]!r}, begins another word, so its end "
            "cannot be told: write another character after the slot, such as a comma or a line break"
        )
    return (
        "a slot of varying length is followed by one of its own symbols, so its end cannot be told: put a character "
        "between them that the slot cannot take"
    )


def _check_ending(slot: Slot, words: Sequence[str], after: Sequence[str | Slot]) -> None:
    """Refuse a slot of words whose end no reader could tell without the list, where another slot follows."""
    if not any(isinstance(part, Slot) for part in after):
        return
    if isinstance(after[0], Slot):
        raise TemplateError(f"slot {slot.source} is followed by another slot: put a character between them")
    if number := sum(after[0][0] in word for word in words):
        raise TemplateError(
            f"slot {slot.source}: {number:,} of its {len(words):,} words hold {after[0][0]!r}, which ends the slot: "
            "write another character between the slots"
        )


def _check_size(body: Sequence[str | Slot], lexicon: Lexicon) -> None:
    positions = edges = 0
    for part in body:
        if isinstance(part, Slot) and part.listed:
            words = lexicon.words(part)
            positions, edges = positions + max(map(len, words)), edges + sum(map(len, words))
        elif isinstance(part, Slot) and part.kind != "choice":
            positions, edges = positions + part.longest, edges + part.longest * len(part.alphabet(lexicon.symbols))
        else:
            length = len(part) if isinstance(part, str) else sum(map(len, part.words))
            positions, edges = positions + length, edges + length
    if positions > MAX_COMPLETION or edges > MAX_EDGES:
        raise TemplateError(
            f"the slots have {positions:,} positions with {edges:,} symbols: expected at most {MAX_COMPLETION:,} "
            f"positions and {MAX_EDGES:,} symbols; use fewer or shorter slots"
        )


def _append_words(edges: list[dict[str, int]], words: tuple[str, ...]) -> list[int]:
    """Append the automaton of ``words``; return the nodes at which one word ends and another goes on.

    The last node ends every other word.
    """
    nodes = _automaton(words)
    start, top = len(edges) - 1, len(nodes) - 1
    edges += [{} for _ in range(top)]
    for number, (_, targets) in enumerate(nodes):
        edges[start + top - number] = {character: start + top - target for character, target in targets.items()}
    return [start + top - number for number, (ends, targets) in enumerate(nodes) if ends and targets]


@lru_cache(maxsize=16)  # several slots and templates have the same list
def _automaton(words: tuple[str, ...]) -> tuple[tuple[bool, dict[str, int]], ...]:
    """Return the smallest automaton of words: whether one ends at each node, and the nodes that follow by character.

    Nodes from which the same endings lead on are one node (Daciuk et al. 2000). The first node has no other after it;
    the last is the start, and every node comes after those that it leads to.
    """
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = None  # a word ends here
    known: dict[tuple[Any, ...], int] = {}
    distinct: list[tuple[bool, dict[str, int]]] = []
    waiting: list[tuple[dict[str, Any], bool]] = [(root, False)]
    number_of: dict[int, int] = {}
    while waiting:
        node, done = waiting.pop()
        below = {character: child for character, child in node.items() if character}
        if done:  # so are all nodes below it
            targets = {character: number_of[id(child)] for character, child in below.items()}
            number_of[id(node)] = known.setdefault(("" in node, *sorted(targets.items())), len(distinct))
            distinct += [("" in node, targets)] if len(distinct) < len(known) else []
        else:
            waiting += [(node, True), *((child, False) for child in below.values())]
    return tuple(distinct)
