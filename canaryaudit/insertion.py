"""Where canaries go: secrets drawn, places chosen, the audited text and the held-out text put together."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from canaryaudit.canaries import Canary, CanarySet, Slot, Template
from canaryaudit.corpus import Corpus, Vocabulary, ends_with_blank_line, hold_out, paragraphs
from canaryaudit.errors import CorpusError, TemplateError

MIN_TELLING_LENGTH = 6
"""Shorter strings stand in any text by chance, so a shorter secret is looked for only in its template."""
MAX_DRAWS = 10_000
"""Draws for one secret; a space in which so many fail is as good as full."""
MAX_COMPLETION_LENGTH = 1_000

# One stream of random numbers for each purpose: more controls must not move the canaries.
_SECRETS, _PLACES, _CONTROLS = 1, 2, 3


class InsertionRequest(BaseModel):
    """What to insert, as the user asked for it; checked when made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    templates: tuple[str, ...]
    num_canaries: int = 0
    """Generated canaries in total, dealt out in turn over repetitions x templates."""
    repetitions: tuple[int, ...] = (1,)
    secrets: tuple[str, ...] = ()
    """Secrets that the user gives: a canary each, in the first template that it fits."""
    num_controls: int = 0
    """Canaries for each template that are drawn and never inserted."""
    wider_space: Literal["digits", "alnum", "any"] | None = None
    """Measure in this alphabet instead of the slots' own."""
    lowercase: bool = False
    """Lower-case the templates' fixed text, as the corpus was."""
    holdout: float = 0.0
    """Share of the corpus's characters to hold out."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "InsertionRequest":
        if not self.templates:
            raise TemplateError("no template: give at least one with --template, such as 'my code is {digits:6}'")
        for text in (*self.templates, *self.secrets):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise TemplateError("a template or secret is not valid UTF-8: check the terminal's encoding")
        for template in self.templates:
            Template.parse(template)
        for repetitions in self.repetitions or (0,):
            if repetitions < 1:
                raise TemplateError(f"repetitions of {repetitions}: expected 1 or more, such as --repetitions 1,4,16")
        if self.num_canaries < 0 or self.num_controls < 0:
            raise TemplateError("the numbers of canaries and of controls cannot be negative")
        if not self.num_canaries and not self.secrets:
            raise TemplateError("nothing to insert: give a number of canaries with --canaries, or a --secret")
        if len(set(self.secrets)) < len(self.secrets):
            raise TemplateError("a secret is given twice: give each --secret once, and --repetitions for more copies")
        if not 0 <= self.holdout < 1:
            raise CorpusError(f"cannot hold out a share of {self.holdout}: expected at least 0 and below 1")
        if self.seed < 0:
            raise CorpusError(f"seed {self.seed} is negative: expected 0 or more")
        return self

    @cached_property
    def parsed_templates(self) -> tuple[Template, ...]:
        """The templates, each once, lower-cased if asked."""
        templates = [Template.parse(text) for text in self.templates]
        if self.lowercase:
            templates = [template.lowercased() for template in templates]
        return tuple(dict.fromkeys(templates))


@dataclass(frozen=True)
class TemplateSpace:
    """How many completions a template has.

    Attributes:
        template: The template's text, as its canaries name it.
        size: Number of completions in the space that exposure is measured in.
        bits: log2 of the size: the highest exposure there is.
        own_bits: log2 of the size of the slots' own space, from which secrets are drawn.
        canaries: Number of canaries inserted.
        controls: Number of controls.
    """

    template: str
    size: int
    bits: float
    own_bits: float
    canaries: int
    controls: int


@dataclass(frozen=True)
class InsertionPlan:
    """The audited text, the held-out text, and what was put where.

    Attributes:
        training_text: The text to train on, canaries included.
        heldout_text: The held-out paragraphs; empty without a holdout.
        canary_set: Canaries with their places in ``training_text``, and controls.
        spaces: One for each template.
        warnings: What the user should know before relying on the audit.
        num_documents: Documents of the corpus.
        num_paragraphs: Paragraphs of the corpus, held-out ones included, canaries not.
        num_boundaries: Places between training paragraphs, where a canary may go.
    """

    training_text: str
    heldout_text: str
    canary_set: CanarySet
    spaces: tuple[TemplateSpace, ...]
    warnings: tuple[str, ...]
    num_documents: int
    num_paragraphs: int
    num_boundaries: int

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the texts and of every completion that can be measured."""
        return run_vocabulary(self.training_text, self.heldout_text, self.canary_set)


def plan_insertion(corpus: Corpus, request: InsertionRequest) -> InsertionPlan:
    """Draw the secrets, choose the places and put the texts together; the same seed gives the same plan.

    Canaries stand as paragraphs of their own, only between training paragraphs, each at another place.
    Secrets are uniform draws from the slots' own space; one that already stands in the corpus, or that
    could be mistaken for another canary, is drawn again.

    Raises:
        TemplateError: A secret fits no template, or a space is too small, too long or not wider.
        CorpusError: Too few paragraphs, or a given secret already stands in the corpus.
    """
    pieces = paragraphs(corpus.documents)
    if len(pieces) < 2:
        raise CorpusError(
            f"corpus {corpus.name} is one paragraph of {sum(map(len, pieces)):,} characters, and canaries go only "
            "between paragraphs: break the text with blank lines or line breaks"
        )
    training, heldout = hold_out(pieces, request.holdout, request.seed)
    text = "".join(pieces)
    symbols = Vocabulary.of([text]).symbols
    num_boundaries = len(training) - 1
    templates = request.parsed_templates
    _check_room(corpus, _generated_insertions(request), num_boundaries)  # Drawing too many would take forever.
    for template in templates:
        _check_spaces(template, request, symbols)
    inserted = _Secrets(text, symbols).draw_canaries(templates, request)
    num_places = sum(canary.repetitions for canary in inserted.canaries)
    _check_room(corpus, num_places, num_boundaries)
    boundaries = 1 + np.random.default_rng([request.seed, _PLACES]).permutation(num_boundaries)[:num_places]
    training_text, canaries = _insert(training, inserted.canaries, boundaries.tolist())
    controls = inserted.draw_controls(templates, request)
    canary_set = CanarySet(corpus_symbols=symbols, wider_space=request.wider_space, canaries=(*canaries, *controls))
    return InsertionPlan(
        training_text=training_text,
        heldout_text="".join(heldout),
        canary_set=canary_set,
        spaces=tuple(_describe(template, canary_set) for template in templates),
        warnings=_warnings(templates, canary_set),
        num_documents=len(corpus.documents),
        num_paragraphs=len(pieces),
        num_boundaries=num_boundaries,
    )


def run_vocabulary(training_text: str, heldout_text: str, canary_set: CanarySet) -> Vocabulary:
    """Return the vocabulary of a run: the corpus, all spaces' symbols and all templates' text."""
    texts = [training_text, heldout_text, canary_set.corpus_symbols]
    for text in canary_set.by_template():
        template = Template.parse(text)
        own, measured = template.space(canary_set.corpus_symbols), canary_set.space(template)
        texts += [template.fixed_text, "".join(own.symbols), "".join(measured.symbols)]
    return Vocabulary.of(texts)


def secret_mask(text_length: int, canaries: Iterable[Canary]) -> np.ndarray:
    """Mark the characters of a run's corpus that fill a canary's slots.

    Args:
        text_length: Number of characters of the run's corpus.
        canaries: Canaries with their places; controls have none.

    Returns:
        Shape (text_length,), bool.
    """
    mask = np.zeros(text_length, dtype=bool)
    for canary in canaries:
        template = Template.parse(canary.template)
        filled = np.array(template.filled(canary.completion), dtype=bool)  # (completion length,)
        for place in canary.places:
            start = place + len(template.prefix)
            mask[start : start + len(filled)] = filled
    return mask


def _generated_insertions(request: InsertionRequest) -> int:
    dealt = [repetitions for repetitions, _ in product(request.repetitions, request.parsed_templates)]
    rounds, rest = divmod(request.num_canaries, len(dealt))
    return rounds * sum(dealt) + sum(dealt[:rest])


def _check_room(corpus: Corpus, insertions: int, boundaries: int) -> None:
    if insertions > boundaries:
        raise CorpusError(
            f"corpus {corpus.name} is too short: {insertions:,} insertions need as many places between paragraphs, and "
            f"its training part has {boundaries:,}; ask for fewer canaries or repetitions, or take a longer text"
        )


def _check_spaces(template: Template, request: InsertionRequest, symbols: str) -> None:
    length = sum(len(part) if isinstance(part, str) else part.length for part in template.body)
    if length > MAX_COMPLETION_LENGTH:
        raise TemplateError(
            f"the slots of template {template.text!r} take {length:,} characters: expected at most "
            f"{MAX_COMPLETION_LENGTH:,}"
        )
    if request.wider_space is None:
        return
    for slot, wide in zip(template.parts, template.widened(request.wider_space).parts, strict=True):
        if isinstance(slot, Slot) and isinstance(wide, Slot):
            missing = sorted(set(slot.alphabet(symbols)) - set(wide.alphabet(symbols)))
            if missing:
                raise TemplateError(
                    f"--space {request.wider_space} is not wider than slot {{{slot.kind}:{slot.length}}}: it lacks "
                    f"{''.join(missing[:12])!r}; choose another space or drop --space"
                )


@dataclass(frozen=True)
class _Secret:
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

    def stands_in(self, text: str) -> bool:
        return any(string in text for string in self.telling)

    def clashes_with(self, other: "_Secret") -> bool:
        """Tell whether inserting one would insert the other too, or make them one member of R."""
        if self.template == other.template and self.completion == other.completion:
            return True
        return self.stands_in(other.telling[0]) or other.stands_in(self.telling[0])


class _Secrets:
    """Draws secrets, all of them telling apart, none of them in the corpus."""

    def __init__(self, text: str, symbols: str) -> None:
        self.text = text
        self.symbols = symbols
        self.inserted: list[_Secret] = []
        self.canaries: list[Canary] = []

    def draw_canaries(self, templates: Sequence[Template], request: InsertionRequest) -> "_Secrets":
        """Take the given secrets, then draw the generated ones."""
        width = max(2, len(str(len(request.secrets) + request.num_canaries)))
        for index, secret in enumerate(request.secrets):
            found = self._given(secret, index + 1, templates)
            self._add(found, width, request.repetitions[index % len(request.repetitions)], "given")
        dealt = list(product(request.repetitions, templates))
        rng = np.random.default_rng([request.seed, _SECRETS])
        for index in range(request.num_canaries):
            repetitions, template = dealt[index % len(dealt)]
            self._add(self._drawn(template, rng, ()), width, repetitions, "generated")
        return self

    def draw_controls(self, templates: Sequence[Template], request: InsertionRequest) -> list[Canary]:
        """Draw the controls of each template."""
        width = max(3, len(str(len(templates) * request.num_controls)))
        controls: list[Canary] = []
        for index, template in enumerate(templates):
            rng = np.random.default_rng([request.seed, _CONTROLS, index])
            completions: set[str] = set()
            for _ in range(request.num_controls):
                completion = self._drawn(template, rng, completions).completion
                completions.add(completion)
                name = f"control-{len(controls) + 1:0{width}}"
                controls.append(
                    Canary(id=name, template=template.text, completion=completion, repetitions=0, control=True)
                )
        return controls

    def _add(self, secret: _Secret, width: int, repetitions: int, origin: Literal["generated", "given"]) -> None:
        self.inserted.append(secret)
        self.canaries.append(
            Canary(
                id=f"canary-{len(self.inserted):0{width}}",
                template=secret.template.text,
                completion=secret.completion,
                repetitions=repetitions,
                origin=origin,
            )
        )

    def _given(self, secret: str, number: int, templates: Sequence[Template]) -> _Secret:
        found: _Secret | None = None
        refusal = TemplateError("")
        for template in templates:
            try:
                found = _Secret(template, template.completion_of(secret, self.symbols))
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
        if found.stands_in(self.text):
            raise CorpusError(
                f"secret number {number} already stands in the corpus, so that its exposure would not be the canary's: "
                "give another, or remove it from the text"
            )
        if any(found.clashes_with(other) for other in self.inserted):
            raise TemplateError(
                f"secret number {number} contains another given secret, or is part of one: give another"
            )
        return found

    def _drawn(self, template: Template, rng: np.random.Generator, taken: Container[str]) -> _Secret:
        space = template.space(self.symbols)
        for _ in range(MAX_DRAWS):
            secret = _Secret(template, space.sample(rng))
            free = secret.completion not in taken and not secret.stands_in(self.text)
            if free and not any(map(secret.clashes_with, self.inserted)):
                return secret
        raise TemplateError(
            f"template {template.text!r} has {space.size:,} completions, and none is left after {MAX_DRAWS:,} draws: "
            "ask for fewer canaries or controls, or for a longer slot"
        )


def _insert(pieces: Sequence[str], canaries: Sequence[Canary], boundaries: Sequence[int]) -> tuple[str, list[Canary]]:
    """Put the canaries before the paragraphs numbered ``boundaries``, one each, and note their places."""
    numbers = iter(boundaries)
    here = {next(numbers): index for index, canary in enumerate(canaries) for _ in range(canary.repetitions)}
    places: list[list[int]] = [[] for _ in canaries]
    out: list[str] = []
    length = 0
    for number, piece in enumerate(pieces):
        if number in here:
            canary = canaries[here[number]]
            # A canary ends as its neighbour does: with a blank line, or in a text of lines with a line break.
            ending = "\n\n" if ends_with_blank_line(pieces[number - 1]) else "\n"
            places[here[number]].append(length)
            out.append(Template.parse(canary.template).fill(canary.completion) + ending)
            length += len(out[-1])
        out.append(piece)
        length += len(piece)
    return "".join(out), [c.model_copy(update={"places": tuple(p)}) for c, p in zip(canaries, places, strict=True)]


def _describe(template: Template, canary_set: CanarySet) -> TemplateSpace:
    space = canary_set.space(template)
    return TemplateSpace(
        template=template.text,
        size=space.size,
        bits=space.bits,
        own_bits=template.space(canary_set.corpus_symbols).bits,
        canaries=sum(canary.template == template.text for canary in canary_set.inserted),
        controls=sum(canary.template == template.text for canary in canary_set.controls),
    )


def _warnings(templates: Sequence[Template], canary_set: CanarySet) -> tuple[str, ...]:
    warnings: list[str] = []
    for template in templates:
        if not any(canary.template == template.text for canary in canary_set.inserted):
            warnings.append(f"template {template.text!r} has no canary: ask for more with --canaries, or leave it out")
        own = template.space(canary_set.corpus_symbols).bits
        measured = canary_set.space(template).bits
        if measured > own:
            warnings.append(
                f"--space {canary_set.wider_space}: exposure of {template.text!r} is measured among 2^{measured:.1f} "
                f"strings, its secrets come from 2^{own:.1f}: up to {measured - own:.1f} bits show that the format was "
                "learned, not the secret"
            )
    return tuple(warnings)
