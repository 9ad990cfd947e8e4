"""Canaries: the secrets of an audit, and the set of canaries and controls."""

from functools import cached_property, lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast

from canaryaudit.canaries.space import Lexicon, Space
from canaryaudit.canaries.template import Template
from canaryaudit.canaries.word_lists import WordList
from canaryaudit.errors import TemplateError

MASK = "•"
FEWEST_COINS = 12
"""Canaries with a coin each; of fewer not even four are guessed, which can show next to nothing."""


MAX_EDGES = 10_000_000
"""Maximum over all templates' spaces: a thousand templates with a hundred positions of a hundred symbols. More would
take minutes."""


class Wording(BaseModel):
    """A secret as it is written at some of its places.

    The text around it and between its slots may differ from place to place; what fills the slots is the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str
    """The template with its fixed text as it is written there."""
    completion: str
    """From the first slot's start to the last slot's end: the secret with the fixed text between the slots."""
    places: Annotated[tuple[int, ...], FailFast()] = ()
    """Character offsets of this wording's text in the run's corpus.txt."""

    @cached_property
    def parsed_template(self) -> Template:
        """The template's parts."""
        return Template.parse(self.template)

    @property
    def text(self) -> str:
        """The whole text."""
        return self.parsed_template.fill(self.completion)


class Canary(Wording):
    """A template filled with a secret.

    A control is drawn like a canary, but never inserted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Stable name, ``canary-01`` or ``control-01``; never derived from the secret."""
    repetitions: int
    """How often it occurs in the corpus; 0 for a control."""
    control: bool = False
    origin: Literal["generated", "given", "located"] = "generated"
    """Drawn, given by the user, or located in the corpus; given and located ones are masked in every output."""
    coin: Literal["in", "out"] | None = None
    """What its own fair coin decided, if one was tossed: inserted, or kept out as a control."""
    kind: str | None = None
    """What it is, if it was detected: email, phone, iban, card, ssn or key."""
    other_wordings: tuple[Wording, ...] = ()
    """The other ways in which a located secret is written; its own template is the most frequent one."""

    @property
    def wordings(self) -> tuple[Wording, ...]:
        """Every way in which it is written, its own first."""
        return (self, *self.other_wordings)

    @property
    def masked(self) -> bool:
        """Whether outputs must hide the secret by default."""
        return self.origin != "generated"


class CanarySet(BaseModel):
    """All canaries and controls of a run, and the definition of their spaces: the contents of canaries.json.

    Examples:
        >>> text = "my code is {digits:4}."
        >>> canary = Canary(id="canary-01", template=text, completion="0123", repetitions=8)
        >>> control = Canary(id="control-01", template=text, completion="9630", repetitions=0, control=True)
        >>> canary_set = CanarySet(corpus_symbols="", canaries=(canary, control))
        >>> [canary.id for canary in canary_set.controls], canary_set.space(Template.parse(text)).size
        (['control-01'], 10000)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    corpus_symbols: str
    """The symbols of the corpus without canaries and those added for given secrets: the alphabet of ``any`` slots."""
    wider_space: Literal["digits", "alnum", "any"] | None = None
    """Measure with this alphabet in every slot, instead of the slot's alphabet."""
    word_lists: tuple[WordList, ...] = ()
    """The words of ``words`` and ``word`` slots."""
    canaries: Annotated[tuple[Canary, ...], FailFast()]

    @property
    def inserted(self) -> tuple[Canary, ...]:
        """The canaries that occur in the corpus."""
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

    @property
    def lexicon(self) -> Lexicon:
        """What the slots of all templates range over."""
        return _lexicon(self.corpus_symbols, self.word_lists)

    def space(self, template: Template) -> Space:
        """Return R, the space in which the exposure of ``template``'s canaries is measured."""
        return (template.widened(self.wider_space) if self.wider_space else template).space(self.lexicon)


@lru_cache(maxsize=8)  # one object for equal contents: spaces are kept by it
def _lexicon(symbols: str, word_lists: tuple[WordList, ...]) -> Lexicon:
    return Lexicon(symbols, {own.name: own.words for own in word_lists})


def expected_strings(canary_set: CanarySet) -> list[tuple[int, str]] | None:
    """Return the strings that the text must hold, with their offsets; None if canaries contradict their templates.

    Args:
        canary_set: The set, read from an untrusted file.
    """
    identifiers = [canary.id for canary in canary_set.canaries]
    sound, edges = len(set(identifiers)) == len(identifiers), 0
    strings: list[tuple[int, str]] = []
    spaces: dict[str, Space] = {}  # of wordings that are not measured
    try:
        for name, group in canary_set.by_template().items():
            template = Template.parse(name)
            space = canary_set.space(template)
            edges += sum(map(len, space.edges))
            if edges > MAX_EDGES:
                return None
            for canary in group:
                sound &= canary.completion in space
                sound &= canary.repetitions == sum(len(wording.places) for wording in canary.wordings)
                sound &= canary.control == (canary.repetitions == 0)
                for wording in canary.other_wordings:
                    if wording.template not in spaces:
                        spaces[wording.template] = wording.parsed_template.space(canary_set.lexicon)
                        edges += sum(map(len, spaces[wording.template].edges))
                    sound &= wording.completion in spaces[wording.template]
                    if edges > MAX_EDGES:
                        return None
                for wording in canary.wordings:
                    strings += [(place, wording.text) for place in wording.places]
    except TemplateError:
        return None
    return strings if sound else None
