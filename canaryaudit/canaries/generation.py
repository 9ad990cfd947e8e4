"""Secrets for canaries and controls: given ones checked, others drawn; all distinct and absent from the corpus."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal, TypeVar

import numpy as np

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.space import Lexicon
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.spooled_text import SpooledText
from canaryaudit.errors import CorpusError, TemplateError

T = TypeVar("T")

MIN_TELLING_LENGTH = 6
"""Shorter strings occur in any text by chance, so a shorter secret is only searched for within its template."""
MAX_DRAWS = 10_000
"""Maximum draws for one secret; if all fail, the space counts as full."""

# One stream of random numbers per purpose: adding controls must not change the canaries.
_SECRETS, _CONTROLS, _COINS = 1, 3, 5


@dataclass(frozen=True)
class Secret:
    """A completion, with the strings that reveal it wherever they occur."""

    template: Template
    completion: str

    @property
    def is_telling(self) -> bool:
        """Whether the bare secret reveals something; choices and single words of a list are ordinary words."""
        return self.template.reveals(self.completion)

    @cached_property
    def telling(self) -> tuple[str, ...]:
        """The canary's text, and the bare secret if it is too long to occur by chance."""
        strings = [self.template.fill(self.completion)]
        if self.is_telling:
            bare = dict.fromkeys((self.completion, self.template.secret_of(self.completion)))
            strings += [string for string in bare if len(string) >= MIN_TELLING_LENGTH]
        return tuple(strings)

    @cached_property
    def sought(self) -> tuple[str, ...]:
        """The shortest of these strings: wherever a longer one occurs, one of these does."""
        short = self.telling[1:] or self.telling[:1]
        return tuple(string for string in short if not any(other != string and other in string for other in short))

    def stands_in(self, text: str) -> bool:
        """Return whether any string that reveals the secret occurs in ``text``."""
        return any(string in text for string in self.telling)

    def clashes_with(self, other: "Secret") -> bool:
        """Return whether inserting one secret would also insert the other, or both are the same member of R."""
        if self.template == other.template and self.completion == other.completion:
            return True
        return self.stands_in(other.telling[0]) or other.stands_in(self.telling[0])


class CorpusIndex:
    """Records which strings occur in a text.

    A string that was not searched for yet is assumed absent. ``resolve`` then searches for all such strings in one
    pass. If one of them occurs after all, everything drawn under the assumption must be drawn again.

    Args:
        text: The text to search.
    """

    def __init__(self, text: SpooledText) -> None:
        self._text = text
        self._present: set[str] = set()
        self._absent: set[str] = set()
        self._assumed_absent: set[str] = set()

    def holds(self, secret: Secret) -> bool:
        """Return whether any string that reveals the secret is known to occur in the text."""
        self._assumed_absent.update(string for string in secret.sought if string not in self._absent)
        return not self._present.isdisjoint(secret.sought)

    def resolve(self) -> bool:
        """Search for the strings that were assumed absent; return whether any occurs after all."""
        unknown = self._assumed_absent - self._present
        present = self._text.holding(unknown)
        self._present |= present
        self._absent |= unknown - present
        self._assumed_absent = set()
        return bool(present)


def draw_until_absent(text: SpooledText, draw: Callable[[CorpusIndex], T]) -> T:
    """Return the result of ``draw`` with full knowledge of ``text``, in a few passes over it.

    The result equals that of searching the text for each secret as it is drawn. In every round, all draws before the
    first wrong assumption are final.

    Args:
        text: The text in which the secrets must not occur.
        draw: Draws the secrets deterministically; an exception counts once no assumption is wrong.
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


def _check_symbols(text: str, number: int, templates: Sequence[Template], lexicon: Lexicon) -> None:
    """Name the symbols that a secret needs and ``any`` slots lack, if that is why it does not fit."""
    missing = sorted({*text} - {*lexicon.symbols})
    extended = replace(lexicon, symbols=lexicon.symbols + "".join(missing))
    for template in templates if missing else ():
        try:
            template.completion_of(text, extended)
        except TemplateError:
            continue
        named = ", ".join(f"{symbol!r} (U+{ord(symbol):04X})" for symbol in missing)
        raise TemplateError(
            f"secret number {number} needs {named}, which the corpus lacks, so no model of it could write the secret: "
            "add --extend-vocabulary, or give a secret of the corpus's symbols"
        )


class SecretGenerator:
    """Draws secrets that are distinct and absent from the corpus.

    Attributes:
        presence: The strings known to occur in the corpus.
        lexicon: What ``any`` slots and slots of words range over.
        width: Digits of a canary's number.
        drawn: The secrets so far, inserted or kept out.
        canaries: A canary for each secret that is to be inserted, without places yet.
        kept_out: A control for each secret whose coin decided against it.
    """

    def __init__(
        self, presence: CorpusIndex, lexicon: Lexicon, seed: int, width: int, located: Iterable[Secret] = ()
    ) -> None:
        """Start with the ``located`` secrets only, which already occur in the text."""
        self.presence, self.lexicon, self.seed, self.width = presence, lexicon, seed, width
        self.drawn: list[Secret] = []
        self.canaries: list[Canary] = []
        self.kept_out: list[Canary] = []
        # There may be very many, so they are looked up by hash instead of compared one by one.
        self._located: dict[int, set[str]] = defaultdict(set)
        for secret in located:
            for string in secret.telling:
                self._located[len(string)].add(string)

    def take_given(self, secrets: Sequence[str], templates: Sequence[Template], repetitions: Sequence[int]) -> None:
        """Add the secrets that the user gave, each in the first template that it fits."""
        for index, text in enumerate(secrets):
            secret = self._given(text, index + 1, templates)
            self._add(secret, repetitions[index % len(repetitions)], "given")

    def generate(
        self, count: int, templates: Sequence[Template], repetitions: Sequence[int], *, coin: bool = False
    ) -> None:
        """Draw secrets, assigned in turn over repetitions x templates.

        With ``coin``, a fair coin of its own decides of each whether it is inserted. All secrets are the same whatever
        the coins.
        """
        dealt = list(product(repetitions, templates))
        rng = np.random.default_rng([self.seed, _SECRETS])
        coins = np.random.default_rng([self.seed, _COINS]).random(count) < 0.5
        for index in range(count):
            times, template = dealt[index % len(dealt)]
            secret = self._drawn(template, rng, ())
            if not coin:
                self._add(secret, times, "generated")
            elif coins[index]:
                self._add(secret, times, "generated", "in")
            else:
                self._keep_out(secret)

    def draw_controls(self, templates: Sequence[Template], count: int) -> list[Canary]:
        """Draw ``count`` controls per template."""
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

    def _add(
        self,
        secret: Secret,
        repetitions: int,
        origin: Literal["generated", "given"],
        coin: Literal["in", "out"] | None = None,
    ) -> None:
        self.drawn.append(secret)
        self.canaries.append(
            Canary(
                id=f"canary-{len(self.canaries) + 1:0{self.width}}",
                template=secret.template.text,
                completion=secret.completion,
                repetitions=repetitions,
                origin=origin,
                coin=coin,
            )
        )

    def _keep_out(self, secret: Secret) -> None:
        self.drawn.append(secret)
        self.kept_out.append(
            Canary(
                id=f"kept-out-{len(self.kept_out) + 1:0{self.width}}",
                template=secret.template.text,
                completion=secret.completion,
                repetitions=0,
                control=True,
                coin="out",
            )
        )

    def _given(self, text: str, number: int, templates: Sequence[Template]) -> Secret:
        secret: Secret | None = None
        refusal = TemplateError("")
        for template in templates:
            try:
                secret = Secret(template, template.completion_of(text, self.lexicon))
                break
            except TemplateError as error:
                refusal = error
        if secret is None:
            _check_symbols(text, number, templates, self.lexicon)
            if len(templates) == 1:
                raise refusal
            raise TemplateError(
                f"secret number {number} ({len(text)} characters) does not fit the slots of any of the "
                f"{len(templates)} templates: give one character of the slot's alphabet for each position, or one of "
                "its words"
            )
        if self.presence.holds(secret):
            raise CorpusError(
                f"secret number {number} already occurs in the corpus, so its exposure would not be the canary's: give "
                "another, remove it from the text, or audit it in place with --locate"
            )
        if self._holds_located(secret):
            raise TemplateError(f"secret number {number} contains a secret located with --locate: give another")
        if any(secret.clashes_with(other) for other in self.drawn):
            raise TemplateError(
                f"secret number {number} contains another given secret, or is part of one: give another"
            )
        return secret

    def _drawn(self, template: Template, rng: np.random.Generator, taken: Container[str]) -> Secret:
        space = template.space(self.lexicon)
        for _ in range(MAX_DRAWS):
            secret = Secret(template, space.sample(rng))
            free = secret.completion not in taken and not self.presence.holds(secret)
            if free and not self._holds_located(secret) and not any(map(secret.clashes_with, self.drawn)):
                return secret
        raise TemplateError(
            f"template {template.text!r} has {space.size:,} completions, and no free one came up in {MAX_DRAWS:,} "
            "draws: ask for fewer canaries or controls, or use a longer slot or list"
        )

    def _holds_located(self, secret: Secret) -> bool:
        """Return whether inserting a secret would also insert a located one."""
        text = secret.telling[0]
        return any(
            text[start : start + length] in strings
            for length, strings in self._located.items()
            for start in range(len(text) - length + 1)
        )
