"""The space of a template's secrets: every completion that fits its slots."""

import math
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from canaryaudit.errors import TemplateError

ALPHABETS = {
    "digits": string.digits,
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "alnum": string.ascii_letters + string.digits,
    "hex": string.digits + "abcdef",
}


SLOT_KINDS = (*ALPHABETS, "any", "choice")


WIDER_SPACES = ("digits", "alnum", "any")


MAX_COMPLETION, MAX_EDGES = 5_000, 2_000_000
"""Maximum positions of a completion, and symbols summed over positions; memory is quadratic in the positions."""


@dataclass(frozen=True)
class Slot:
    """A slot to fill: ``length`` symbols of an alphabet, or up to ``longest``, or one of several words."""

    kind: str
    length: int = 1
    words: tuple[str, ...] = ()
    most: int = 0
    """The largest length, if it varies."""

    @property
    def longest(self) -> int:
        """The largest number of symbols."""
        return self.most or self.length

    @property
    def varies(self) -> bool:
        """Whether secrets of several lengths fill it."""
        return self.longest > self.length or bool(self.words)

    @property
    def source(self) -> str:
        """The slot as it is written in a template."""
        length = f"{self.length}-{self.most}" if self.most else str(self.length)
        return f"{{{self.kind}:{'|'.join(self.words) if self.kind == 'choice' else length}}}"

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
    "a slot of varying length ends the template: write the character after the secret too, such as a period, since the "
    "end is part of what is measured"
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
    def of_body(cls, body: Sequence[str | Slot], corpus_symbols: str) -> "Space":
        """Build the automaton of literals and slots.

        A slot of varying length may be left wherever it is long enough, by what follows it. The space is prefix-free
        because no symbol can both follow the slot and belong to it.

        Raises:
            TemplateError: The automaton would take gigabytes, or a slot's end cannot be told from what follows.
        """
        _check_size(body, corpus_symbols)
        edges: list[dict[str, int]] = [{}]

        def step(symbols: str) -> None:
            edges[-1] = dict.fromkeys(symbols, len(edges))
            edges.append({})

        exits: list[int] = []  # nodes at which the last slot may end early
        for part, following in zip(body, (*body[1:], None), strict=True):
            start, left, exits = len(edges) - 1, exits, []
            if isinstance(part, str):
                for character in part:
                    step(character)
            elif part.kind == "choice":
                _append_trie(edges, part.words)
            else:
                symbols = part.open_alphabet(corpus_symbols, following)
                for count in range(part.longest):
                    exits += [len(edges) - 1] if count >= part.length else []
                    step(symbols)
            for node in left:
                if not edges[node].keys().isdisjoint(edges[start]):
                    raise TemplateError(
                        "a slot of varying length is followed by one of its own symbols, so its end cannot be told: "
                        "put a character between them that the slot cannot take"
                    )
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


def _check_size(body: Sequence[str | Slot], corpus_symbols: str) -> None:
    positions = edges = 0
    for part in body:
        if isinstance(part, Slot) and part.kind != "choice":
            positions, edges = positions + part.longest, edges + part.longest * len(part.alphabet(corpus_symbols))
        else:
            length = len(part) if isinstance(part, str) else sum(map(len, part.words))
            positions, edges = positions + length, edges + length
    if positions > MAX_COMPLETION or edges > MAX_EDGES:
        raise TemplateError(
            f"the slots have {positions:,} positions with {edges:,} symbols: expected at most {MAX_COMPLETION:,} "
            f"positions and {MAX_EDGES:,} symbols; use fewer or shorter slots"
        )


def _append_trie(edges: list[dict[str, int]], words: Sequence[str]) -> None:
    """Append the trie of prefix-free ``words`` to the automaton; all words end in one new last node."""
    start = len(edges) - 1
    nodes = {"": start}
    for word in words:
        for end in range(1, len(word)):
            if word[:end] not in nodes:
                nodes[word[:end]] = len(edges)
                edges.append({})
    # Inner nodes are numbered word by word, so parents come before children, as the counts require.
    last = len(edges)
    edges.append({})
    for word in words:
        for end in range(1, len(word) + 1):
            target = last if end == len(word) else nodes[word[:end]]
            edges[nodes[word[: end - 1]]][word[end - 1]] = target
