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
from canaryaudit.canaries.canary import FEWEST_COINS, Canary, CanarySet, Wording
from canaryaudit.canaries.detection import Detector
from canaryaudit.canaries.generation import (
    MIN_TELLING_LENGTH,
    CorpusIndex,
    Secret,
    SecretGenerator,
    draw_until_absent,
)
from canaryaudit.canaries.locating import (
    Match,
    TemplateMatches,
    bare_spans,
    check_found,
    group_wordings,
    locate,
    located_templates,
    location_warnings,
    occurrence_spans,
    paragraphs_with,
)
from canaryaudit.canaries.selection import Detected, DetectedKind, Places, moved, select
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import Corpus, hold_out
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import CorpusError, TemplateError, UsageError

MAX_COMPLETION_LENGTH = 1_000

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
    for template in (*templates, *located):
        _check_spaces(template, request, symbols)
    detected, must_stay = _search_corpus(corpus, request)
    held = hold_out(corpus.lengths, request.holdout, request.seed, must_stay)
    search = _search_training_text(corpus, held, request, detected)
    wordings = search.secrets
    every = tuple(dict.fromkeys((*templates, *(first[0][0] for _, first in wordings))))
    occupied = search.occupied(corpus.lengths[~held])
    num_boundaries = num_paragraphs - int(held.sum()) - 1 - len(occupied)
    _check_room(corpus, _generated_insertions(request), num_boundaries)  # Drawing too many would not terminate.
    total = len(request.secrets) + request.num_canaries + len(wordings)
    secrets = [Secret(template, completion) for _, own in wordings for template, completion, _ in own]

    def draw(presence: CorpusIndex) -> tuple[SecretGenerator, list[Canary]]:
        draws = SecretGenerator(presence, symbols, request.seed, max(2, len(str(total))), secrets)
        draws.take_given(request.secrets, templates, request.repetitions)
        draws.generate(request.num_canaries, templates, request.repetitions, coin=request.coin)
        _check_room(corpus, sum(canary.repetitions for canary in draws.canaries), num_boundaries)
        return draws, [*draws.kept_out, *draws.draw_controls(every, request.num_controls)]

    draws, controls = draw_until_absent(corpus.text, draw)
    num_places = sum(canary.repetitions for canary in draws.canaries)
    chosen = np.random.default_rng([request.seed, _PLACES]).permutation(num_boundaries)[:num_places]
    assembly, canaries = assemble(corpus, held, draws.canaries, _boundaries(chosen, occupied))
    located_canaries = _located_canaries(wordings, assembly, len(canaries), draws.width)
    canary_set = CanarySet(
        corpus_symbols=symbols,
        wider_space=request.wider_space,
        canaries=(*canaries, *located_canaries, *controls),
    )
    _check_others(canary_set)
    return InsertionPlan(
        assembly=assembly,
        canary_set=canary_set,
        spaces=tuple(_describe(template, canary_set) for template in every),
        warnings=(
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
        drawn, measured = template.space(canary_set.corpus_symbols), canary_set.space(template)
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


@dataclass(frozen=True)
class _SearchedText:
    """The training text before anything is inserted, and the secrets that it holds.

    Attributes:
        text: The text; empty if nothing is located.
        matches: What was located in it.
        detected: What was detected in it.
    """

    text: str
    matches: list[TemplateMatches]
    detected: Detected

    @cached_property
    def secrets(self) -> list[tuple[str | None, Places]]:
        """The kind of each secret, None if it was located, and its wordings; one entry for a secret found both ways."""
        found: list[tuple[str | None, Places]] = [(None, own) for own in group_wordings(self.matches)]
        known = {own[0][0].secret_of(own[0][1]): own for _, own in found}
        for kind, wordings in self.detected.secrets:
            secret = wordings[0][0].secret_of(wordings[0][1])
            if len(secret) >= MIN_TELLING_LENGTH and secret in known:
                known[secret].extend(wordings)
            else:
                found.append((kind, wordings))
        return found

    def occupied(self, lengths: np.ndarray) -> list[int]:
        """Return the indices of the training paragraphs that begin within an occurrence, ascending."""
        spans = np.concatenate((occurrence_spans(self.matches), self.detected.spans))
        return sorted(paragraphs_with(spans, lengths)[1]) if len(spans) else []


def _search_corpus(corpus: Corpus, request: InsertionRequest) -> tuple[Detected, frozenset[int]]:
    """Return what was detected, and the paragraphs that contain a secret that becomes a canary.

    Raises:
        CorpusError: A located template does not occur, or nothing is detected.
    """
    detector = request.detector
    if not request.parsed_located and not detector:
        return Detected(), frozenset()
    text = corpus.text.read()
    matches = locate(text, request.parsed_located, request.match)
    check_found(text, matches)
    spans = np.concatenate((occurrence_spans(matches), bare_spans(text, matches)))
    detected = Detected()
    if detector:
        detected = select(text, detector, request.max_detected, occurrence_spans(matches))
        if not detected.secrets and not matches:
            raise CorpusError(
                f"nothing to audit: no {', '.join(sorted(detector.kinds))} detected in {len(text):,} characters; use "
                "--locate with a template for data of another form"
            )
    return detected, paragraphs_with(np.concatenate((spans, detected.spans)), corpus.lengths)[0]


def _search_training_text(
    corpus: Corpus, held: np.ndarray, request: InsertionRequest, detected: Detected
) -> _SearchedText:
    """Locate the secrets in the training text; what was detected in the corpus is where it was."""
    training = assemble(corpus, held)[0]
    moved_places = moved(detected, training.places_in_training(detected.spans[:, 0]))
    if not request.parsed_located:
        return _SearchedText("", [], moved_places)
    text = "".join(training.training_blocks())
    return _SearchedText(text, locate(text, request.parsed_located, request.match), moved_places)


def _boundaries(chosen: np.ndarray, occupied: Sequence[int]) -> list[int]:
    """Map choices among the free boundaries to indices of the training paragraphs after them."""
    numbers = chosen + 1
    for taken in occupied:
        numbers += numbers >= taken
    return numbers.tolist()  # type: ignore[no-any-return]


def _located_canaries(
    secrets: Sequence[tuple[str | None, Places]], assembly: Assembly, before: int, width: int
) -> list[Canary]:
    """Return a canary for each located or detected secret, with its places after the insertions.

    Args:
        secrets: The kind and the wordings of each, with their places before the insertions.
        assembly: The insertions.
        before: Number of canaries before these.
        width: Digits of a canary's number.
    """
    canaries = []
    for number, (kind, wordings) in enumerate(secrets, before + 1):
        first, *others = [
            Wording(template=template.text, completion=completion, places=assembly.places_after(places))
            for template, completion, places in wordings
        ]
        canaries.append(
            Canary(
                id=f"canary-{number:0{width}}",
                template=first.template,
                completion=first.completion,
                places=first.places,
                repetitions=sum(len(places) for _, _, places in wordings),
                origin="located",
                kind=kind,
                other_wordings=tuple(others),
            )
        )
    return canaries


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


def _check_spaces(template: Template, request: InsertionRequest, symbols: str) -> None:
    length = sum(len(part) if isinstance(part, str) else part.longest for part in template.body)
    if length > MAX_COMPLETION_LENGTH:
        raise TemplateError(
            f"the slots of template {template.text!r} take {length:,} characters: expected at most "
            f"{MAX_COMPLETION_LENGTH:,}; use shorter slots"
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


def _describe(template: Template, canary_set: CanarySet) -> TemplateSpace:
    space = canary_set.space(template)
    return TemplateSpace(
        template=template.text,
        size=space.size,
        bits=space.bits,
        slot_bits=template.space(canary_set.corpus_symbols).bits,
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
        drawn = template.space(canary_set.corpus_symbols).bits
        measured = canary_set.space(template).bits
        if measured > drawn:
            warnings.append(
                f"--space {canary_set.wider_space}: exposure of {template.text!r} is measured among 2^{measured:.1f} "
                f"strings, but its secrets are drawn from 2^{drawn:.1f}: up to {measured - drawn:.1f} bits come from "
                "learning the format, not the secret"
            )
    return tuple(warnings)
