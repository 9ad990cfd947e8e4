"""A template's space over the tokens of a model, after one prompt.

Every member has one tokenization: that of prompt, completion and suffix together. The tokens that count are cut where
no member moves a boundary: from the last token that all members share within the prompt, to the first token that ends
at or after the completion. In between, the space is an automaton over tokens. Byte-pair encoding is canonical if every
adjacent pair of tokens is, so edges follow from pairs; the count of paths, which must be the number of members, and a
comparison of random members show that a path and a member are one to one. Where they are not, a small space is
tokenized member by member. Of a large one only random members are tokenized and scored: its ranks are sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.canaries.space import Space
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import MeasurementError, UnreadableText
from canaryaudit.exposure.automaton import Automaton, automaton_of_pairs, automaton_of_rows
from canaryaudit.exposure.encoded_space import PAD, EncodedSpace
from canaryaudit.models.tokenizer import Tokenizer, Tokens

_DRAWN = 256
"""Random members by which the common tokens are found and the automaton is checked."""
_MOST_MEMBERS = 20_000
"""Members that are tokenized one by one where pairs do not tell."""
_MOST_DRAWN = 10_000
"""Random members where there is no automaton: they are the references."""
_LONGEST_TAIL = 24
"""Bytes of the suffix that are looked at for tokens that reach from the completion into it."""


@dataclass(frozen=True)
class Asked:
    """What a secret is asked for with.

    Attributes:
        prompt: Text that is read first, not empty.
        suffix: Fixed text that follows the completion.
    """

    prompt: str
    suffix: str


@dataclass(frozen=True)
class JointTokens:
    """Completions as tokens, each tokenized together with its prompt and suffix.

    Attributes:
        prompt: Tokens that all of them share, within the prompt, shape (P,).
        ids: The tokens that follow, up to the first that ends at or after the completion, shape (N, L), padded with -1.
        ends: Characters of the completion up to the end of each token, at most all of them, shape (N, L); 0 for tokens
            that end within the prompt.
        read_bytes: Bytes of the prompt up to the end of its tokens.
        asked: What they were tokenized with: after a line feed if no token ends within the prompt that was given.
    """

    prompt: tuple[int, ...]
    ids: np.ndarray
    ends: np.ndarray
    read_bytes: int
    asked: Asked


def tokenize(
    tokenizer: Tokenizer, asked: Asked, completions: Sequence[str], prompt_tokens: int | None = None
) -> JointTokens:
    """Tokenize completions with what is before and after them.

    Args:
        tokenizer: How.
        asked: Prompt and suffix.
        completions: At least one.
        prompt_tokens: How many tokens are the prompt's; as many as all completions share if not given.

    Raises:
        UnreadableText: No token ends before the completions, or the tokenizer cannot write them.
    """
    encoded = tokenizer.encode([asked.prompt + own + asked.suffix for own in completions])
    before = len(asked.prompt.encode("utf-8", "surrogatepass"))
    if prompt_tokens is None:
        prompt_tokens = _shared(encoded, before)
    if prompt_tokens == 0 and not asked.prompt.startswith("\n"):  # A blank alone belongs to the secret's first token.
        return tokenize(tokenizer, Asked("\n" + asked.prompt, asked.suffix), completions)
    if prompt_tokens == 0:
        raise UnreadableText(
            "the tokenizer has no token that ends before the secret: expected some text before the first slot"
        )
    rows, ends = [], []
    for own, text in zip(encoded, completions, strict=True):
        last = int(np.searchsorted(own.ends, before + len(text.encode("utf-8", "surrogatepass"))))
        rows.append(own.ids[prompt_tokens : last + 1])
        places = _characters(text)
        ends.append(places[np.clip(own.ends[prompt_tokens : last + 1] - before, 0, len(places) - 1)])
    longest = max(map(len, rows))
    return JointTokens(
        tuple(encoded[0].ids[:prompt_tokens].tolist()),
        _padded(rows, longest, PAD),
        _padded(ends, longest, 0),
        int(encoded[0].ends[prompt_tokens - 1]),
        asked,
    )


@dataclass(frozen=True)
class ClosingTokens:
    """Completions as tokens, with those of the closing text that no completion has a part in.

    Attributes:
        prompt: Tokens that all of them share, within the prompt, shape (P,).
        ids: The tokens that follow, shape (N, L), padded with -1.
        is_closing: Which of them begin at or after the completion's end, shape (N, L).
    """

    prompt: tuple[int, ...]
    ids: np.ndarray
    is_closing: np.ndarray


def tokenize_closing(tokenizer: Tokenizer, asked: Asked, completions: Sequence[str], longest: int) -> ClosingTokens:
    """Tokenize completions with what is before and after them, as far as the closing text is read.

    Args:
        tokenizer: How.
        asked: Prompt and suffix.
        completions: At least one.
        longest: Bytes of the suffix that are read at most.
    """
    joint = tokenize(tokenizer, asked, completions)
    first, asked = len(joint.prompt), joint.asked
    before = len(asked.prompt.encode("utf-8", "surrogatepass"))
    rows, marks = [], []
    for own, text in zip(
        tokenizer.encode([asked.prompt + text + asked.suffix for text in completions]), completions, strict=True
    ):
        end = before + len(text.encode("utf-8", "surrogatepass"))
        follows = int(np.searchsorted(own.ends, end)) + 1  # A token that reaches into the suffix belongs to the secret.
        stop = max(follows, int(np.searchsorted(own.ends, end + longest, side="right")))
        rows.append(own.ids[first:stop])
        marks.append(np.arange(first, stop) >= follows)
    width = max(map(len, rows))
    return ClosingTokens(joint.prompt, _padded(rows, width, PAD), _padded(marks, width, 0).astype(bool))


def _shared(encoded: Sequence[Tokens], before: int) -> int:
    """Return how many first tokens all texts share that end within the prompt."""
    first = encoded[0]
    count = int((first.ends <= before).sum())
    for own in encoded[1:]:
        count = min(count, len(own.ids))
        differing = np.flatnonzero(own.ids[:count] != first.ids[:count])
        count = int(differing[0]) if len(differing) else count
    return count


def _characters(text: str) -> np.ndarray:
    """Return how many characters are whole within each number of bytes of a text, shape (bytes + 1,)."""
    lengths = [len(c.encode("utf-8", "surrogatepass")) for c in text]
    return np.searchsorted(np.cumsum(lengths), np.arange(sum(lengths) + 1), side="right")


def _padded(rows: Sequence[np.ndarray], longest: int, filler: int) -> np.ndarray:
    whole = np.full((len(rows), longest), filler, dtype=np.int64)
    for index, row in enumerate(rows):
        whole[index, : len(row)] = row
    return whole


class TokenSpace:
    """A space over the tokens of a model, after one prompt.

    Args:
        space: R, over characters.
        asked: Prompt and suffix.
        tokenizer: How text becomes tokens.
        members: Members that must be encoded, such as canaries and controls.

    Attributes:
        prompt: Tokens that are read first.
        lead: What the prompt's text has besides: the beginning of the first token that follows.
        columns: Ids of the tokens that may follow, shape (A,), ascending; symbols of the space are indices into them.
        encoded: R over these symbols; where no automaton has a path for each member, only random members of it.
        drawn: These members, shape (N, max_length), padded with -1; None where all members have a path.
    """

    def __init__(self, space: Space, asked: Asked, tokenizer: Tokenizer, members: Sequence[str]) -> None:
        rng = np.random.default_rng(0)
        drawn = [*members, *(space.sample(rng) for _ in range(_DRAWN))]
        joint = tokenize(tokenizer, asked, drawn)
        self._asked, self._tokenizer = joint.asked, tokenizer
        asked = joint.asked
        self.prompt = joint.prompt
        self.lead = asked.prompt.encode("utf-8", "surrogatepass")[joint.read_bytes :].decode("utf-8", "replace")
        automaton = _checked(_by_pairs(space, asked, tokenizer, joint), joint, space.size)
        if automaton is None and space.size <= _MOST_MEMBERS:
            whole = tokenize(tokenizer, asked, list(space), len(joint.prompt))
            automaton = _checked(automaton_of_rows(whole.ids), joint, space.size)
        self.drawn: np.ndarray | None = None
        if automaton is not None:
            self.columns, self.encoded = automaton.columns, automaton.encoded()
        else:
            self._draw(space, members)

    def _draw(self, space: Space, members: Sequence[str]) -> None:
        """Tokenize random members besides those that must be encoded."""
        vocabulary = Vocabulary("".join(sorted(space.symbols)))
        rows = EncodedSpace.of(space, vocabulary).sample(_MOST_DRAWN, np.random.default_rng(1))
        # In the order in which they were drawn: the first of them are a sample too.
        texts = dict.fromkeys([*members, *(vocabulary.decode(row[row >= 0]) for row in rows)])
        whole = tokenize(self._tokenizer, self._asked, list(texts))
        if len(np.unique(whole.ids, axis=0)) < len(whole.ids):
            raise MeasurementError(
                "the tokenizer does not tell secrets of one format apart: use slots of digits or hex"
            )
        self.prompt, self.columns = whole.prompt, np.unique(whole.ids[whole.ids >= 0])
        length = whole.ids.shape[1]
        # Any token may follow any other, for what is counted by length; no path is taken from it.
        edges = np.tile(np.arange(1, length + 2)[:, None], (1, len(self.columns))).astype(np.int32)
        edges[length] = -1
        counts = np.full(length + 1, space.bits)
        self.encoded = EncodedSpace(space.size, edges, (edges >= 0) / len(self.columns), counts, length, length)
        drawn = whole.ids[len(dict.fromkeys(members)) :]
        self.drawn = np.where(drawn < 0, PAD, np.searchsorted(self.columns, drawn)).astype(np.int32)

    def encode(self, completions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return completions as symbols, shape (N, max_length), padded with -1, and where each token ends."""
        joint = tokenize(self._tokenizer, self._asked, completions, len(self.prompt))
        symbols = np.searchsorted(self.columns, joint.ids).astype(np.int32)
        symbols[joint.ids < 0] = PAD
        shape = (len(completions), self.encoded.max_length)
        rows, ends = np.full(shape, PAD, dtype=np.int32), np.zeros(shape, dtype=np.int64)
        rows[:, : symbols.shape[1]], ends[:, : symbols.shape[1]] = symbols, joint.ends
        return rows, ends


def _checked(automaton: Automaton | None, joint: JointTokens, size: int) -> Automaton | None:
    """Return the automaton if it has one path for each member, and the drawn members' are among them."""
    if automaton is None or automaton.size != size:
        return None
    return automaton if all(automaton.accepts(row[row >= 0].tolist()) for row in joint.ids) else None


def _by_pairs(space: Space, asked: Asked, tokenizer: Tokenizer, joint: JointTokens) -> Automaton | None:
    lead = asked.prompt.encode("utf-8", "surrogatepass")[joint.read_bytes :]
    tail = asked.suffix.encode("utf-8", "surrogatepass")[:_LONGEST_TAIL]
    return automaton_of_pairs(space, lead, tail, tokenizer, joint.prompt)
