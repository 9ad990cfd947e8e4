"""Secrets for canaries and controls: given ones checked, others drawn, all telling apart and none in the corpus."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal, TypeVar

import numpy as np

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.spooled_text import SpooledText
from canaryaudit.errors import CorpusError, TemplateError

T = TypeVar("T")

MIN_TELLING_LENGTH = 6
"""Shorter strings stand in any text by chance, so a shorter secret is looked for only in its template."""
MAX_DRAWS = 10_000
"""Draws for one secret; a space in which so many fail is as good as full."""

# One stream of random numbers for each purpose: more controls must not move the canaries.
_SECRETS, _CONTROLS = 1, 3


@dataclass(frozen=True)
class Secret:
    """A completion, with the strings that give it away wherever they stand."""

    template: Template
    completion: str

    @cached_property
    def telling(self) -> tuple[str, ...]:
        """The canary's text, and its bare secret if no text holds it by chance."""
        strings = [self.template.fill(self.completion)]
        # Choices are words of the language: that they stand in the text says nothing.
        if any(isinstance(part, Slot) and part.kind != "choice" for part in self.template.parts):
            bare = dict.fromkeys((self.completion, self.template.secret_of(self.completion)))
            strings += [string for string in bare if len(string) >= MIN_TELLING_LENGTH]
        return tuple(strings)

    @cached_property
    def sought(self) -> tuple[str, ...]:
        """The shortest of these strings: where a longer one stands, one of them does."""
        short = self.telling[1:] or self.telling[:1]
        return tuple(own for own in short if not any(other != own and other in own for other in short))

    def stands_in(self, text: str) -> bool:
        """Tell whether any of the strings that give it away stands in ``text``."""
        return any(string in text for string in self.telling)

    def clashes_with(self, other: "Secret") -> bool:
        """Tell whether inserting one would insert the other too, or make them one member of R."""
        if self.template == other.template and self.completion == other.completion:
            return True
        return self.stands_in(other.telling[0]) or other.stands_in(self.telling[0])


class CorpusIndex:
    """What is known of strings that stand in a text, or do not.

    A string that was never looked for is taken to be absent, and noted: ``resolve`` then looks for all such strings
    in one pass, however long the text. What was drawn meanwhile is to be drawn again where one was there after all.

    Args:
        text: Where to look.
    """

    def __init__(self, text: SpooledText) -> None:
        self._text = text
        self._present: set[str] = set()
        self._absent: set[str] = set()
        self._supposed: set[str] = set()

    def holds(self, secret: Secret) -> bool:
        """Tell whether any of the strings that give a secret away is known to stand in the text."""
        self._supposed.update(own for own in secret.sought if own not in self._absent)
        return not self._present.isdisjoint(secret.sought)

    def resolve(self) -> bool:
        """Look for the strings that were taken to be absent; return whether one was there after all."""
        unknown = self._supposed - self._present
        found = self._text.holding(unknown)
        self._present |= found
        self._absent |= unknown - found
        self._supposed = set()
        return bool(found)


def draw_until_absent(text: SpooledText, draw: Callable[[CorpusIndex], T]) -> T:
    """Return what ``draw`` makes of the truth about ``text``, in a few passes over it.

    The result is that of looking through the text for each secret as it is drawn: in every round what comes before
    the first string that was wrongly taken to be absent is drawn as it will be.

    Args:
        text: What the secrets must not stand in.
        draw: Draws them, always in the same way; what it raises counts once it is based on the truth.
    """
    presence = CorpusIndex(text)
    while True:
        try:
            drawn = draw(presence)
        except (CorpusError, TemplateError):
            if not presence.resolve():
                raise
            continue
        if not presence.resolve():
            return drawn


class SecretGenerator:
    """Draws secrets, all of them telling apart, none of them in the corpus.

    Attributes:
        presence: What is known of the corpus.
        symbols: What an ``any`` slot ranges over.
        width: Digits of a canary's number.
        inserted: The secrets so far.
        canaries: A canary for each of them, its places still unknown.
    """

    def __init__(
        self, presence: CorpusIndex, symbols: str, seed: int, width: int, located: Iterable[Secret] = ()
    ) -> None:
        """Begin with no secret but ``located`` ones, which stand in the text already."""
        self.presence, self.symbols, self.seed, self.width = presence, symbols, seed, width
        self.inserted: list[Secret] = []
        self.canaries: list[Canary] = []
        # There may be very many of them: looked up by what they are, not one after another.
        self._located: dict[int, set[str]] = defaultdict(set)
        for secret in located:
            for string in secret.telling:
                self._located[len(string)].add(string)

    def take_given(self, secrets: Sequence[str], templates: Sequence[Template], repetitions: Sequence[int]) -> None:
        """Take secrets that the user gave, each in the first template that it fits."""
        for index, secret in enumerate(secrets):
            found = self._given(secret, index + 1, templates)
            self._add(found, repetitions[index % len(repetitions)], "given")

    def generate(self, count: int, templates: Sequence[Template], repetitions: Sequence[int]) -> None:
        """Draw secrets, dealt out in turn over repetitions x templates."""
        dealt = list(product(repetitions, templates))
        rng = np.random.default_rng([self.seed, _SECRETS])
        for index in range(count):
            times, template = dealt[index % len(dealt)]
            self._add(self._drawn(template, rng, ()), times, "generated")

    def draw_controls(self, templates: Sequence[Template], count: int) -> list[Canary]:
        """Draw ``count`` controls of each template."""
        width = max(3, len(str(len(templates) * count)))
        controls: list[Canary] = []
        for index, template in enumerate(templates):
            rng = np.random.default_rng([self.seed, _CONTROLS, index])
            completions: set[str] = set()
            for _ in range(count):
                completion = self._drawn(template, rng, completions).completion
                completions.add(completion)
                name = f"control-{len(controls) + 1:0{width}}"
                controls.append(
                    Canary(id=name, template=template.text, completion=completion, repetitions=0, control=True)
                )
        return controls

    def _add(self, secret: Secret, repetitions: int, origin: Literal["generated", "given"]) -> None:
        self.inserted.append(secret)
        self.canaries.append(
            Canary(
                id=f"canary-{len(self.inserted):0{self.width}}",
                template=secret.template.text,
                completion=secret.completion,
                repetitions=repetitions,
                origin=origin,
            )
        )

    def _given(self, secret: str, number: int, templates: Sequence[Template]) -> Secret:
        found: Secret | None = None
        refusal = TemplateError("")
        for template in templates:
            try:
                found = Secret(template, template.completion_of(secret, self.symbols))
                break
            except TemplateError as error:
                refusal = error
        if found is None:
            if len(templates) == 1:
                raise refusal
            raise TemplateError(
                f"secret number {number} ({len(secret)} characters) fits the slots of none of the {len(templates)} "
                "templates: give one character of the slot's alphabet for each place"
            )
        if self.presence.holds(found):
            raise CorpusError(
                f"secret number {number} already stands in the corpus, so that its exposure would not be the canary's: "
                "give another, remove it from the text, or audit it where it stands with --locate"
            )
        if self._holds_located(found):
            raise TemplateError(f"secret number {number} contains a secret that --locate found: give another")
        if any(found.clashes_with(other) for other in self.inserted):
            raise TemplateError(
                f"secret number {number} contains another given secret, or is part of one: give another"
            )
        return found

    def _drawn(self, template: Template, rng: np.random.Generator, taken: Container[str]) -> Secret:
        space = template.space(self.symbols)
        for _ in range(MAX_DRAWS):
            secret = Secret(template, space.sample(rng))
            free = secret.completion not in taken and not self.presence.holds(secret)
            if free and not self._holds_located(secret) and not any(map(secret.clashes_with, self.inserted)):
                return secret
        raise TemplateError(
            f"template {template.text!r} has {space.size:,} completions, and none is left after {MAX_DRAWS:,} draws: "
            "ask for fewer canaries or controls, or for a longer slot"
        )

    def _holds_located(self, secret: Secret) -> bool:
        """Tell whether inserting a secret would insert a located one once more."""
        text = secret.telling[0]
        return any(
            text[start : start + length] in strings
            for length, strings in self._located.items()
            for start in range(len(text) - length + 1)
        )
