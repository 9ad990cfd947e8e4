"""Automata over tokens: built from pairs of tokens that may stand side by side, or from a list of members."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from canaryaudit.canaries.space import Space
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.models.tokenizer import Tokenizer

_MOST_TOKENS = 2_048
"""Tokens that may occur in an automaton; its pairs are the square of it."""
_MOST_CELLS = 60_000_000
"""Of an automaton's table, 12 bytes each."""
_MOST_EXAMPLES = 200_000
"""Texts that are tokenized to see what may follow at each place."""
_ACCEPT = 0
"""While an automaton is built, from its end to its beginning."""

Edges = tuple[np.ndarray, np.ndarray]
"""Tokens that may follow, ascending, and the node that each leads to."""


@dataclass(frozen=True)
class Automaton:
    """An automaton over token ids; node 0 is the start, the last node accepts, and edges lead to later nodes.

    Attributes:
        edges: Of each node.
    """

    edges: tuple[Edges, ...]

    @cached_property
    def counts(self) -> np.ndarray:
        """Exact number of paths from each node to the end, as Python integers of any size."""
        counts = np.ones(len(self.edges), dtype=object)
        for node in reversed(range(len(self.edges) - 1)):
            counts[node] = int(counts[self.edges[node][1]].sum()) if len(self.edges[node][1]) else 0
        return counts

    @property
    def size(self) -> int:
        """Exact number of paths."""
        return int(self.counts[0])

    @cached_property
    def columns(self) -> np.ndarray:
        """The tokens that occur, ascending."""
        return np.unique(np.concatenate([tokens for tokens, _ in self.edges]))

    @property
    def fits(self) -> bool:
        """Whether its table is of a bearable size."""
        return len(self.edges) * len(self.columns) <= _MOST_CELLS

    def accepts(self, ids: Sequence[int]) -> bool:
        """Return whether these tokens are a path from the start to the end."""
        node = 0
        for token in ids:
            tokens, targets = self.edges[node]
            place = int(np.searchsorted(tokens, token))
            if place == len(tokens) or tokens[place] != token:
                return False
            node = int(targets[place])
        return node == len(self.edges) - 1

    def encoded(self) -> EncodedSpace:
        """Return it as a space whose symbols are indices into ``columns``."""
        next_node = np.full((len(self.edges), len(self.columns)), -1, dtype=np.int32)
        shares = np.zeros(next_node.shape)
        longest = np.zeros(len(self.edges), dtype=np.int64)
        for node in reversed(range(len(self.edges) - 1)):
            tokens, targets = self.edges[node]
            symbols = np.searchsorted(self.columns, tokens)
            next_node[node, symbols] = targets
            whole = int(self.counts[node])
            shares[node, symbols] = [int(count) / whole for count in self.counts[targets]]
            longest[node] = 1 + longest[targets].max()
        log2_counts = np.array([_log2(int(count)) for count in self.counts])
        return EncodedSpace(self.size, next_node, shares, log2_counts, len(self.edges) - 1, int(longest[0]))


def _log2(count: int) -> float:
    """Return the binary logarithm of an integer of any size."""
    shift = max(0, count.bit_length() - 64)
    return float(np.log2(float(count >> shift))) + shift


def automaton_of_rows(rows: np.ndarray) -> Automaton | None:
    """Build the smallest automaton of a list of members.

    Args:
        rows: Token ids, shape (N, L), padded with -1.

    Returns:
        None if two members are the same, or one is the beginning of another.
    """
    unique = np.unique(rows, axis=0)
    if len(unique) < len(rows):
        return None
    nodes: dict[tuple[tuple[int, int], ...], int] = {}
    built: list[Edges] = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
    below = np.full(len(unique), _ACCEPT)
    for place in reversed(range(unique.shape[1])):
        here = unique[:, place] >= 0
        changed = (unique[1:, :place] != unique[:-1, :place]).any(1) if place else np.zeros(len(unique) - 1, dtype=bool)
        firsts = np.r_[0, np.flatnonzero(changed) + 1, len(unique)]
        for begin, end in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
            if not here[begin:end].any():
                continue
            if not here[begin:end].all():
                return None
            edges = tuple(dict(zip(unique[begin:end, place].tolist(), below[begin:end].tolist(), strict=True)).items())
            if edges not in nodes:
                nodes[edges] = len(built)
                built.append((np.array([t for t, _ in edges]), np.array([n for _, n in edges])))
            below[begin:end] = nodes[edges]
    return _reversed(built)


def automaton_of_pairs(
    space: Space, lead: bytes, tail: bytes, tokenizer: Tokenizer, prompt: Sequence[int]
) -> Automaton | None:
    """Build the automaton of all token sequences that spell a member and whose adjacent tokens go together.

    Args:
        space: R, over characters.
        lead: What is between the prompt's tokens and the completion.
        tail: What follows the completion, for tokens that reach into it.
        tokenizer: Tells which tokens go together.
        prompt: The prompt's tokens.

    Returns:
        None if it would be too large, or no path leads to its end.
    """
    text = _ByteAutomaton(space, lead, tail)
    try:
        steps = text.token_steps(tokenizer.pieces)
    except _TooManyTokens:
        return None
    tokens = np.unique(np.concatenate([own[0] for own in steps.values()]))
    read = [index for index in prompt if tokenizer.pieces[index] is not None]
    if not read:
        return None
    ways: Sequence[Callable[[], _Follows | None]] = (
        lambda: _by_tokens(steps, tokens, tokenizer, read, ()),
        lambda: _by_tokens(steps, tokens, tokenizer, read, read[-1:]),
        lambda: _by_places(text, steps, tokens, tokenizer, read),
    )
    for way in ways:
        follows = way()
        automaton = follows and _Build(text, steps, tokens, follows).automaton()
        if automaton and automaton.size == space.size and automaton.fits:
            return automaton
    return None


class _TooManyTokens(Exception):
    pass


class _ByteAutomaton:
    """A space over bytes, between what comes before and after it.

    Attributes:
        edges: For each node, the next node by byte.
        finished: For each node, whether the completion is whole.
    """

    def __init__(self, space: Space, lead: bytes, tail: bytes) -> None:
        self.edges: list[dict[int, int]] = [{}]
        node = self._chain(0, lead)
        at = {0: node}
        for place, targets in enumerate(space.edges):
            for character, target in targets.items():
                *inner, last = character.encode("utf-8", "surrogatepass")
                here = at.setdefault(place, len(self.edges))
                if here == len(self.edges):
                    self.edges.append({})
                for byte in inner:
                    here = self._chain(here, bytes([byte]))
                if target not in at:
                    at[target] = len(self.edges)
                    self.edges.append({})
                self.edges[here][last] = at[target]
        whole = at[space.accept]
        first = len(self.edges)
        self._chain(whole, tail)
        self.finished = [node == whole or node >= first for node in range(len(self.edges))]

    def _chain(self, node: int, text: bytes) -> int:
        for byte in text:
            if byte not in self.edges[node]:
                self.edges[node][byte] = len(self.edges)
                self.edges.append({})
            node = self.edges[node][byte]
        return node

    def order(self) -> list[int]:
        """Return all nodes, each after those that it leads to."""
        done: dict[int, None] = {}
        stack = [(0, False)]
        while stack:
            node, left = stack.pop()
            if left:
                done[node] = None
            elif node not in done:
                stack.append((node, True))
                stack += [(target, False) for target in set(self.edges[node].values()) if target not in done]
        return list(done)

    def token_steps(self, pieces: Sequence[bytes | None]) -> dict[int, Edges]:
        """Return, for each node at which a token may begin, the tokens that may follow and where each ends."""
        trie = _trie(pieces, {byte for targets in self.edges for byte in targets})
        steps: dict[int, Edges] = {}
        pending, seen = [0], set()
        while pending:
            node = pending.pop()
            if node in steps:
                continue
            found = dict(self._walk(trie, node))
            seen |= set(found)
            if len(seen) > _MOST_TOKENS:
                raise _TooManyTokens
            order = sorted(found)
            steps[node] = (np.array(order, dtype=np.int64), np.array([found[t] for t in order], dtype=np.int64))
            pending += set(found.values())
        return steps

    def _walk(self, trie: "_Trie", node: int) -> Iterator[tuple[int, int]]:
        stack = [(trie, node)]
        while stack:
            branch, here = stack.pop()
            for byte, target in self.edges[here].items():
                if (below := branch.children.get(byte)) is not None:
                    for token in below.tokens:
                        yield token, target
                    stack.append((below, target))


class _Trie:
    """Tokens by their bytes."""

    __slots__ = ("children", "tokens")

    def __init__(self) -> None:
        self.children: dict[int, _Trie] = {}
        self.tokens: list[int] = []


def _trie(pieces: Sequence[bytes | None], used: set[int]) -> _Trie:
    root = _Trie()
    for index, piece in enumerate(pieces):
        if piece and used.issuperset(piece):
            node = root
            for byte in piece:
                node = node.children.setdefault(byte, _Trie())
            node.tokens.append(index)
    return root


_Follows = Callable[[int, np.ndarray], np.ndarray]
"""Given a place in the text and tokens' indices, returns which may follow there after which, shape (A + 1, tokens),
bool; the last row is of the prompt's last token."""


def _by_tokens(
    steps: dict[int, Edges],
    tokens: np.ndarray,
    tokenizer: Tokenizer,
    read: Sequence[int],
    context: Sequence[int],
) -> _Follows:
    """Let tokens follow each other wherever two of them do, read after some context.

    Args:
        steps: The space's tokens, by place.
        tokens: All of them, shape (A,).
        tokenizer: Tells which go together.
        read: The prompt's tokens.
        context: What pairs are read after.
    """
    needed = np.zeros((len(tokens), len(tokens)), dtype=bool)
    for place, last in _reaching(steps).items():
        rows = np.searchsorted(tokens, sorted(last))
        needed[np.ix_(rows, np.searchsorted(tokens, steps[place][0]))] = True
    left, right = np.nonzero(needed)
    pairs = np.zeros((len(tokens) + 1, len(tokens)), dtype=bool)
    pairs[left, right] = tokenizer.agrees(tokens[left].tolist(), tokens[right].tolist(), context)
    first = steps[0][0]
    own = tokenizer.agrees([read[-1]] * len(first), first.tolist(), read[:-1])
    pairs[-1, np.searchsorted(tokens, first)] = own
    return lambda _, columns: pairs[:, columns]


def _by_places(
    text: _ByteAutomaton, steps: dict[int, Edges], tokens: np.ndarray, tokenizer: Tokenizer, read: Sequence[int]
) -> _Follows | None:
    """Let tokens follow each other at a place of the text, after one example of what leads there.

    A tokenizer that cuts numbers into groups from the left decides by the place what goes together.

    Args:
        text: The space.
        steps: Its tokens, by place.
        tokens: All of them, shape (A,).
        tokenizer: Tells which go together.
        read: The prompt's tokens.

    Returns:
        None where too many texts would have to be tokenized.
    """
    if sum(len(last) * len(steps[place][0]) for place, last in _reaching(steps).items()) > _MOST_EXAMPLES:
        return None
    index = {token: place for place, token in enumerate(tokens.tolist())}
    examples: dict[int, dict[int, tuple[int, ...]]] = {0: {len(tokens): ()}}  # by place and last token
    found: dict[int, np.ndarray] = {}
    for place in reversed(text.order()):
        if place not in steps:
            continue
        own, targets = steps[place]
        table = np.zeros((len(tokens) + 1, len(tokens)), dtype=bool)
        asked = [(last, path, token) for last, path in examples.get(place, {}).items() for token in own.tolist()]
        after = tokenizer.extends([(*read, *path) for _, path, _ in asked], [token for _, _, token in asked])
        target_of = dict(zip(own.tolist(), targets.tolist(), strict=True))
        for (last, path, token), goes in zip(asked, after.tolist(), strict=True):
            if goes:
                table[last, index[token]] = True
                examples.setdefault(target_of[token], {}).setdefault(index[token], (*path, token))
        found[place] = table
    return lambda place, columns: found[place][:, columns]


def _reaching(steps: dict[int, Edges]) -> dict[int, set[int]]:
    """Return the tokens that end at each place."""
    reached: dict[int, set[int]] = {}
    for own, targets in steps.values():
        for token, target in zip(own.tolist(), targets.tolist(), strict=True):
            reached.setdefault(target, set()).add(token)
    return reached


class _Build:
    """Builds an automaton from its end: nodes are places in the text and kinds of last tokens, by what may follow."""

    def __init__(self, text: _ByteAutomaton, steps: dict[int, Edges], tokens: np.ndarray, follows: _Follows) -> None:
        self._text, self._steps, self._tokens, self._follows = text, steps, tokens, follows
        self._nodes: dict[int, np.ndarray] = {}  # by place in the text: the node by last token, -1 where none leads on
        self._built: list[Edges] = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]

    def automaton(self) -> Automaton | None:
        """Return it; None if no path leads to its end, or several do after a completion."""
        for place in self._text.order():
            if place in self._steps and not self._add(place):
                return None
        return _reversed(self._built) if self._nodes[0][-1] == len(self._built) - 1 else None

    def _add(self, place: int) -> bool:
        own, targets = self._steps[place]
        columns = np.searchsorted(self._tokens, own)
        reached = zip(targets.tolist(), columns.tolist(), strict=True)
        below = np.array([self._nodes[target][column] for target, column in reached], dtype=int)
        allowed = self._follows(place, columns) & (below >= 0)  # (A + 1, children)
        if self._text.finished[place]:
            ways = allowed.sum(1) if len(own) else np.ones(len(allowed), dtype=int)
            self._nodes[place] = np.where(ways == 1, _ACCEPT, -1)
            return not (ways > 1).any()
        if place == 0:
            allowed[:-1] = False  # Only the prompt is before the start.
        kinds, inverse = np.unique(np.packbits(allowed, axis=1), axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        nodes = np.full(len(kinds), -1)
        for kind in range(len(kinds)):
            may = allowed[int(np.flatnonzero(inverse == kind)[0])]
            if may.any():
                nodes[kind] = len(self._built)
                self._built.append((own[may], below[may]))
        self._nodes[place] = nodes[inverse]
        return True


def _reversed(built: Sequence[Edges]) -> Automaton:
    """Number nodes from the beginning instead of from the end."""
    last = len(built) - 1
    return Automaton(tuple((tokens, last - targets) for tokens, targets in reversed(built)))
