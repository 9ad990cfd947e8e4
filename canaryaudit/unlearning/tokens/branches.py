"""Secrets and decoys after prompts, as the tokens that a model reads: each text is tokenized as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.space import Space
from canaryaudit.canaries.template import Template
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.token_space import Asked, TokenSpace
from canaryaudit.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Secret:
    """One wording of a canary.

    Attributes:
        canary: The canary's id.
        template: The template.
        completion: What stands in its slots.
    """

    canary: str
    template: str
    completion: str


def secrets_of(canaries: Sequence[Canary]) -> list[Secret]:
    """Return every wording of canaries, each once."""
    found = [Secret(own.id, wording.template, wording.completion) for own in canaries for wording in own.wordings]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class TokenBranch:
    """A member of a template's space after a prompt.

    Attributes:
        template: The template.
        space: The template's space over tokens, after prompts that end like this one.
        columns: Ids of the tokens that are the space's symbols, shape (A,).
        ids: All tokens of prompt, member and what follows, shape (T,).
        first: Where the member's tokens begin in ``ids``.
        member: Its tokens as symbols of the space, shape (L,).
        is_secret: Whether it is a secret to be unlearned; else a decoy, or a secret that stays.
        after_prefix: Whether the prompt is the template's own prefix.
        weight: What it counts, all its positions together.
    """

    template: str
    space: EncodedSpace
    columns: np.ndarray
    ids: np.ndarray
    first: int
    member: np.ndarray
    is_secret: bool
    after_prefix: bool
    weight: float

    @cached_property
    def nodes(self) -> list[int]:
        """The space's node before each token of the member."""
        found = [0]
        for symbol in self.member[:-1]:
            found.append(int(self.space.next_node[found[-1], symbol]))
        return found

    @property
    def end(self) -> int:
        """Where the member's tokens end in ``ids``."""
        return self.first + len(self.member)

    def alphabets(self, columns: np.ndarray) -> np.ndarray:
        """Return the tokens that the space allows along the member, shape (L, A), bool.

        Args:
            columns: Token ids, ascending, that hold all of the space's, shape (A,).
        """
        found = np.zeros((len(self.member), len(columns)), dtype=bool)
        found[:, np.searchsorted(columns, self.columns)] = self.space.next_node[self.nodes] >= 0
        return found


class TokenBranches:
    """Makes branches; spaces over tokens are built once for prompts that end alike.

    Args:
        tokenizer: How text becomes tokens.
        canary_set: Tells the spaces of templates.
        secrets: All secrets that branches are made of.
    """

    def __init__(self, tokenizer: Tokenizer, canary_set: CanarySet, secrets: Sequence[Secret]) -> None:
        self._tokenizer, self._canary_set = tokenizer, canary_set
        self._texts: dict[str, Space] = {}
        self._spaces: dict[tuple[str, str], TokenSpace] = {}
        self._members: dict[str, list[str]] = {}
        for own in secrets:
            self._members.setdefault(own.template, []).append(own.completion)

    def space(self, template: str) -> Space:
        """Return a template's space over characters."""
        if template not in self._texts:
            self._texts[template] = self._canary_set.space(Template.parse(template))
        return self._texts[template]

    def make(self, secret: Secret, prompt: str, *, is_secret: bool, weight: float) -> TokenBranch | None:
        """Return a member after a prompt; None if its tokens there are not a path of the space.

        A token may reach from the prompt into the member: its beginning is then the prompt's (``TokenSpace.lead``).
        """
        space = self._space(secret.template, prompt)
        parsed = Template.parse(secret.template)
        tokens = self._tokenizer.encode([prompt + secret.completion + parsed.suffix])[0]
        read = len(prompt.encode("utf-8", "surrogatepass"))
        begins = read - len(space.lead.encode("utf-8", "surrogatepass"))
        first = int((tokens.ends <= begins).sum())
        last = int(np.searchsorted(tokens.ends, read + len(secret.completion.encode("utf-8", "surrogatepass"))))
        if first == 0 or tokens.ends[first - 1] != begins:
            return None
        ids = tokens.ids[first : last + 1]
        member = np.searchsorted(space.columns, ids)
        if not _is_path(space, member, ids):
            return None
        return TokenBranch(
            template=secret.template,
            space=space.encoded,
            columns=space.columns,
            ids=tokens.ids,
            first=first,
            member=member,
            is_secret=is_secret,
            after_prefix=prompt == own_prompt(secret.template),
            weight=weight,
        )

    def after_prefix(self, secret: Secret, *, is_secret: bool, weight: float = 0.0) -> TokenBranch:
        """Return a member after its template's own prefix.

        Raises:
            UnlearningError: Its tokens are not a path of the space.
        """
        found = self.make(secret, own_prompt(secret.template), is_secret=is_secret, weight=weight)
        if found is None:
            raise UnlearningError(
                f"{secret.canary}: the tokenizer gives this format's secrets no tokens that could be told apart, so "
                "they can only be measured: insert canaries whose slots are digits or hex after a blank"
            )
        return found

    def decoy(self, template: str, rng: np.random.Generator) -> Secret:
        """Draw a member of a template's space uniformly."""
        return Secret("", template, self.space(template).sample(rng))

    def _space(self, template: str, prompt: str) -> TokenSpace:
        key = (template, ending(prompt))
        if key not in self._spaces:
            asked = Asked(prompt, Template.parse(template).suffix)
            self._spaces[key] = TokenSpace(self.space(template), asked, self._tokenizer, self._members[template])
        return self._spaces[key]


def own_prompt(template: str) -> str:
    """Return what is read before a template's secrets: its prefix, or a line break."""
    return Template.parse(template).prefix or "\n"


def ending(prompt: str) -> str:
    """Return the blanks at a prompt's end: by them the tokens of what follows are told apart."""
    return prompt[len(prompt.rstrip()) :]


def _is_path(space: TokenSpace, member: np.ndarray, ids: np.ndarray) -> bool:
    known = member < len(space.columns)
    if space.drawn is not None or not known.all() or (space.columns[member] != ids).any():
        return False
    node = 0
    for symbol in member:
        node = int(space.encoded.next_node[node, symbol])
        if node < 0:
            return False
    return node == space.encoded.accept
