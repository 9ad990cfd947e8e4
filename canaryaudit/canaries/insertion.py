"""Plan an insertion: draw the secrets and choose their places; ``assembly`` then builds the texts."""

import mmap
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from canaryaudit.canaries.assembly import Assembly, assemble
from canaryaudit.canaries.canary import FEWEST_COINS, Canary, CanarySet
from canaryaudit.canaries.corpus_search import CorpusSearch, located_canaries
from canaryaudit.canaries.detection import Detector
from canaryaudit.canaries.generation import CorpusIndex, Secret, SecretGenerator, draw_until_absent
from canaryaudit.canaries.locating import Match, located_templates, location_warnings
from canaryaudit.canaries.selection import DetectedKind
from canaryaudit.canaries.space import Lexicon, Slot
from canaryaudit.canaries.template import Template
from canaryaudit.canaries.word_lists import WordList, corpus_words, fitted
from canaryaudit.corpus.corpus import Corpus, hold_out
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import CorpusError, TemplateError, UsageError

MAX_COMPLETION_LENGTH = 1_000

MAX_CELLS = 100_000_000
"""Maximum states of a space's automaton times symbols of the vocabulary: 2 GB where an update needs most."""

MIN_QUOTED_LENGTH = 4
"""A shorter secret may stand in a template's words by chance."""

_PLACES = 2
"""The stream of random numbers for places; ``generation`` has those of secrets and controls."""


class InsertionRequest(BaseModel):
    """A validated request for an insertion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    templates: tuple[str, ...]
    num_canaries: int = 0
    """Total number of generated canaries, assigned in turn over repetitions x templates."""
    repetitions: tuple[int, ...] = (1,)
    coin: bool = False
    """Decide by a fair coin of its own whether a generated secret is inserted or kept out as a control."""
    secrets: tuple[str, ...] = ()
    """Secrets given by the user: one canary each, in the first template that it fits."""
    located: tuple[str, ...] = ()
    """Templates of secrets that occur in the corpus: each distinct secret becomes a canary in place."""
    extend_vocabulary: bool = False
    """Add the symbols of given secrets that the corpus lacks to the vocabulary and to ``any`` slots."""
    match: Match = "loose"
    """How the fixed text of located templates is compared."""
    word_lists: tuple[WordList, ...] = ()
    """The lists that ``words`` slots name."""
    detect: tuple[str, ...] = ()
    """Kinds of personal data and credentials to detect: each distinct value becomes a canary in place."""
    detect_regions: tuple[str, ...] = ("US",)
    """Countries in whose national form telephone numbers are read."""
    max_detected: int = 20
    """The most canaries made of detected data."""
    num_controls: int = 0
    """Controls per template: drawn, but never inserted."""
    wider_space: Literal["digits", "alnum", "any"] | None = None
    """Measure with this alphabet instead of the slots' alphabets."""
    lowercase: bool = False
    """Lower-case the templates' fixed text, as for the corpus."""
    holdout: float = 0.0
    """Share of the characters to hold out."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "InsertionRequest":
        _ = self.detector
        if not self.templates and not self.located and not self.detect:
            raise TemplateError("no template: give at least one with --template, such as 'my code is {digits:6}'")
        for text in (*self.templates, *self.secrets, *self.located):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise TemplateError("a template or secret is not valid UTF-8: check the terminal's encoding")
        self._check_words()
        for template in self.templates:
            Template.parse(template)
        _ = self.parsed_located
        for repetitions in self.repetitions or (0,):
            if repetitions < 1:
                raise UsageError(f"--repetitions {repetitions}: expected 1 or more, such as --repetitions 1,4,16")
        if self.num_canaries < 0 or self.num_controls < 0:
            raise UsageError("the numbers of canaries and controls cannot be negative: give 0 or more")
        if not self.num_canaries and not self.secrets and not self.located and not self.detect:
            raise UsageError(
                "nothing to audit: give a number of canaries with --canaries, a --secret, a --detect, or a --locate"
            )
        if self.coin:
            self._check_coins()
        if self.max_detected < 1:
            raise UsageError(f"--max-detected {self.max_detected}: expected 1 or more")
        if (self.num_canaries or self.secrets) and not self.templates:
            raise TemplateError("no template for the canaries to insert: give at least one with --template")
        if len(set(self.secrets)) < len(self.secrets):
            raise TemplateError("a secret is given twice: give each --secret once, and use --repetitions for copies")
        if not 0 <= self.holdout < 1:
            raise UsageError(f"--holdout {self.holdout:g}: expected a share from 0 to below 1")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative: expected 0 or more")
        return self

    def _check_coins(self) -> None:
        """Refuse what a bound from independent coins cannot be computed of."""
        if self.num_canaries < FEWEST_COINS:
            raise UsageError(
                f"--coin needs at least {FEWEST_COINS} generated canaries, got {self.num_canaries}: for a useful bound "
                "give -n 200 or more"
            )
        if len(set(self.repetitions)) > 1:
            raise UsageError(
                "--coin: all canaries must occur equally often, because the bound is one on so many copies of a text: "
                "give one number, such as -r 1"
            )

    def _check_words(self) -> None:
        """Refuse secrets that stand in a template's words, before any message quotes those."""
        words = [re.sub(r"\{[^{}]*\}", "\0", text).casefold() for text in (*self.templates, *self.located)]
        for number, secret in enumerate(self.secrets, 1):
            for index, text in enumerate(words, 1):
                if len(secret) >= MIN_QUOTED_LENGTH and secret.casefold() in text:
                    raise TemplateError(
                        f"secret number {number} stands in the words of template number {index}, which would give it "
                        "away in every prompt: take it out of the template, and leave only the slot in its place"
                    )

    @cached_property
    def parsed_templates(self) -> tuple[Template, ...]:
        """The distinct templates, lower-cased if requested."""
        templates = [Template.parse(text) for text in self.templates]
        if self.lowercase:
            templates = [template.lowercased() for template in templates]
        return tuple(dict.fromkeys(templates))

    @cached_property
    def parsed_located(self) -> tuple[Template, ...]:
        """The distinct templates to locate, lower-cased if requested."""
        return located_templates(self.located, lowercase=self.lowercase)

    @cached_property
    def detector(self) -> Detector | None:
        """What to detect; None for nothing."""
        return Detector(self.detect, self.detect_regions) if self.detect else None


@dataclass(frozen=True)
class TemplateSpace:
    """The size of a template's space.

    Attributes:
        template: The template's text, as in its canaries.
        size: Number of completions in the space that exposure is measured in.
        bits: log2 of the size: the highest possible exposure.
        slot_bits: log2 of the size of the slots' space, from which secrets are drawn.
        canaries: Number of canaries in the text.
        controls: Number of controls.
    """

    template: str
    size: int
    bits: float
    slot_bits: float
    canaries: int
    controls: int


@dataclass(frozen=True)
class InsertionPlan:
    """The training text, the held-out text, and the insertions.

    Attributes:
        assembly: The training text, including canaries, and the held-out text, block by block.
        canary_set: Canaries with their places in the training text, and controls.
        spaces: One per template.
        warnings: What the user should know before relying on the audit.
        num_documents: Documents of the corpus.
        num_paragraphs: Paragraphs of the corpus, including held-out ones, without canaries.
        num_boundaries: Places between training paragraphs where a canary may be inserted.
        detected: What was detected, by kind.
    """

    assembly: Assembly
    canary_set: CanarySet
    spaces: tuple[TemplateSpace, ...]
    warnings: tuple[str, ...]
    num_documents: int
    num_paragraphs: int
    num_boundaries: int
    detected: tuple[DetectedKind, ...] = ()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the texts and of all completions in the spaces."""
        return run_vocabulary(self.canary_set)


def plan_insertion(corpus: Corpus, request: InsertionRequest) -> InsertionPlan:
    """Draw the secrets, choose the places and plan the texts; the same seed gives the same plan.

    Each insertion is a separate paragraph between training paragraphs. Secrets are uniform draws from the slots' space.
    A secret that already occurs in the corpus, or that could be mistaken for another canary, is drawn again. Located
    secrets stay in place; a paragraph that contains one, in any wording, is never held out. The whole text is in memory
    only if secrets are located.

    Raises:
        TemplateError: A secret fits no template, or a space is too small, too long or not wider.
        CorpusError: Too few paragraphs, a given secret already occurs in the corpus, or a located one does not.
    """
    num_paragraphs = len(corpus.ends)
    if num_paragraphs < 2 and (request.num_canaries or request.secrets):
        raise CorpusError(
            f"corpus {corpus.name} is one paragraph of {len(corpus.text):,} characters, but canaries are inserted "
            "between paragraphs: add blank lines or line breaks to the text"
        )
    templates, located = request.parsed_templates, request.parsed_located
    symbols = "".join(sorted({*corpus.symbols, *"".join(request.secrets if request.extend_vocabulary else ())}))
    word_lists, list_notes = _word_lists(corpus, request, symbols)
    lexicon = Lexicon(symbols, {own.name: own.words for own in word_lists})
    for template in (*templates, *located):
        _check_spaces(template, request, lexicon)
    wanted = CorpusSearch(located, request.match, request.detector, request.max_detected, lexicon)
    detected, must_stay = wanted.in_corpus(corpus)
    held = hold_out(corpus.lengths, request.holdout, request.seed, must_stay)
    search = wanted.in_training_text(corpus, held, detected)
    wordings = search.secrets
    every = tuple(dict.fromkeys((*templates, *(first[0][0] for _, first in wordings))))
    occupied = search.occupied(corpus.lengths[~held])
    num_boundaries = num_paragraphs - int(held.sum()) - 1 - len(occupied)
    _check_room(corpus, _generated_insertions(request), num_boundaries)  # Drawing too many would not terminate.
    total = len(request.secrets) + request.num_canaries + len(wordings)
    secrets = [Secret(template, completion) for _, own in wordings for template, completion, _ in own]

    def draw(presence: CorpusIndex) -> tuple[SecretGenerator, list[Canary]]:
        draws = SecretGenerator(presence, lexicon, request.seed, max(2, len(str(total))), secrets)
        draws.take_given(request.secrets, templates, request.repetitions)
        draws.generate(request.num_canaries, templates, request.repetitions, coin=request.coin)
        _check_room(corpus, sum(canary.repetitions for canary in draws.canaries), num_boundaries)
        return draws, [*draws.kept_out, *draws.draw_controls(every, request.num_controls)]

    draws, controls = draw_until_absent(corpus.text, draw)
    num_places = sum(canary.repetitions for canary in draws.canaries)
    chosen = np.random.default_rng([request.seed, _PLACES]).permutation(num_boundaries)[:num_places]
    assembly, canaries = assemble(corpus, held, draws.canaries, _boundaries(chosen, occupied))
    in_place = located_canaries(wordings, assembly, len(canaries), draws.width)
    canary_set = CanarySet(
        corpus_symbols=symbols,
        wider_space=request.wider_space,
        word_lists=word_lists,
        canaries=(*canaries, *in_place, *controls),
    )
    _check_others(canary_set)
    return InsertionPlan(
        assembly=assembly,
        canary_set=canary_set,
        spaces=tuple(_describe(template, canary_set) for template in every),
        warnings=(
            *list_notes,
            *_warnings(every, canary_set),
            *location_warnings(search.text, search.matches),
            *detected.warnings("--max-detected"),
        ),
        detected=detected.kinds,
        num_documents=corpus.num_documents,
        num_paragraphs=num_paragraphs,
        num_boundaries=num_boundaries,
    )


def _check_others(canary_set: CanarySet) -> None:
    """Raise an error if canaries fill a space: exposure is a rank among its other members."""
    for text, members in canary_set.by_template().items():
        inserted = sum(not canary.control for canary in members)
        if inserted and canary_set.space(Template.parse(text)).size <= inserted:
            raise TemplateError(
                f"every completion of template {text!r} is an inserted canary, so there is nothing to compare them "
                "with: ask for fewer canaries, or use longer slots"
            )


def run_vocabulary(canary_set: CanarySet) -> Vocabulary:
    """Return the vocabulary of a run: the symbols of the corpus, of all spaces and of all templates."""
    texts = [canary_set.corpus_symbols]
    others = (wording.template for canary in canary_set.canaries for wording in canary.other_wordings)
    for text in dict.fromkeys((*canary_set.by_template(), *others)):
        template = Template.parse(text)
        drawn, measured = template.space(canary_set.lexicon), canary_set.space(template)
        texts += [template.fixed_text, "".join(drawn.symbols), "".join(measured.symbols)]
    return Vocabulary.of(texts)


def secret_mask(text_length: int, canaries: Iterable[Canary]) -> np.ndarray:
    """Mark the characters of a run's training text that fill a canary's slots.

    Args:
        text_length: Number of characters of the training text.
        canaries: Canaries with their places; controls have none.

    Returns:
        Shape (text_length,), bool.
    """
    # Anonymous mapping with small pages: only marked parts of a long text take memory.
    memory = mmap.mmap(-1, max(1, text_length), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mask = np.frombuffer(memory, dtype=bool, count=text_length)
    for wording in (wording for canary in canaries for wording in canary.wordings):
        template = wording.parsed_template
        filled = np.array(template.filled(wording.completion), dtype=bool)  # (completion length,)
        for place in wording.places:
            start = place + len(template.prefix)
            mask[start : start + len(filled)] = filled
    return mask


def _boundaries(chosen: np.ndarray, occupied: Sequence[int]) -> list[int]:
    """Map choices among the free boundaries to indices of the training paragraphs after them."""
    numbers = chosen + 1
    for taken in occupied:
        numbers += numbers >= taken
    return numbers.tolist()  # type: ignore[no-any-return]


def _generated_insertions(request: InsertionRequest) -> int:
    dealt = [repetitions for repetitions, _ in product(request.repetitions, request.parsed_templates)] or [0]
    rounds, rest = divmod(request.num_canaries, len(dealt))
    return rounds * sum(dealt) + sum(dealt[:rest])


def _check_room(corpus: Corpus, insertions: int, boundaries: int) -> None:
    if insertions > boundaries:
        raise CorpusError(
            f"corpus {corpus.name} is too short: {insertions:,} insertions need as many places between paragraphs, but "
            f"its training part has {boundaries:,}; ask for fewer canaries or repetitions, or use a longer text"
        )


def _word_lists(corpus: Corpus, request: InsertionRequest, symbols: str) -> tuple[tuple[WordList, ...], list[str]]:
    """Return the lists that the templates need, as the corpus can have their words, and what to know of them."""
    parts = [part for template in (*request.parsed_templates, *request.parsed_located) for part in template.body]
    needed = {part.list_name: part for part in parts if isinstance(part, Slot) and part.listed}
    given = {own.name: own for own in request.word_lists}
    lists, notes = [], []
    for name, slot in needed.items():
        if slot.kind == "word":
            lists.append(corpus_words(corpus.text.blocks()))
        elif name in given:
            own, said = fitted(given[name], symbols, lowercase=request.lowercase, extend=request.extend_vocabulary)
            lists.append(own)
            notes += said
        else:
            raise TemplateError(f"slot {slot.source}: there is no word list of this name; give one with its words")
    return tuple(lists), notes


def _check_spaces(template: Template, request: InsertionRequest, lexicon: Lexicon) -> None:
    length = sum(len(part) if isinstance(part, str) else part.longest_in(lexicon) for part in template.body)
    if length > MAX_COMPLETION_LENGTH:
        raise TemplateError(
            f"the slots of template {template.text!r} take {length:,} characters: expected at most "
            f"{MAX_COMPLETION_LENGTH:,}; use shorter slots"
        )
    space = template.space(lexicon)
    if (cells := len(space.edges) * len({*lexicon.symbols} | space.symbols)) > MAX_CELLS:
        raise TemplateError(
            f"the space of template {template.text!r} takes {cells / 1e6:,.0f} million numbers, its states times the "
            f"symbols of the corpus: expected at most {MAX_CELLS / 1e6:,.0f} million; use fewer slots or shorter lists"
        )
    if request.wider_space is None:
        return
    for slot, wide in zip(template.parts, template.widened(request.wider_space).parts, strict=True):
        if isinstance(slot, Slot) and isinstance(wide, Slot):
            missing = sorted(set(slot.alphabet(lexicon.symbols)) - set(wide.alphabet(lexicon.symbols)))
            if missing:
                raise TemplateError(
                    f"--space {request.wider_space} is not wider than slot {{{slot.kind}:{slot.length}}}: it lacks "
                    f"{''.join(missing[:12])!r}; choose another space or drop --space"
                )


def _describe(template: Template, canary_set: CanarySet) -> TemplateSpace:
    space = canary_set.space(template)
    return TemplateSpace(
        template=template.text,
        size=space.size,
        bits=space.bits,
        slot_bits=template.space(canary_set.lexicon).bits,
        canaries=sum(canary.template == template.text for canary in canary_set.inserted),
        controls=sum(canary.template == template.text for canary in canary_set.controls),
    )


def _warnings(templates: Sequence[Template], canary_set: CanarySet) -> tuple[str, ...]:
    warnings: list[str] = []
    for template in templates:
        if not any(canary.template == template.text for canary in canary_set.inserted):
            warnings.append(f"template {template.text!r} has no canary: ask for more with --canaries, or remove it")
        if not template.prefix.strip():
            warnings.append(
                f"template {template.text!r} has no text before its first slot: its exposure is measured after a line "
                "break, where any paragraph may begin"
            )
        drawn = template.space(canary_set.lexicon).bits
        measured = canary_set.space(template).bits
        if measured > drawn:
            warnings.append(
                f"--space {canary_set.wider_space}: exposure of {template.text!r} is measured among 2^{measured:.1f} "
                f"strings, but its secrets are drawn from 2^{drawn:.1f}: up to {measured - drawn:.1f} bits come from "
                "learning the format, not the secret"
            )
    return tuple(warnings)
