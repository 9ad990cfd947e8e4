"""Probes: the ways in which a secret is asked for, as data.

A *prompt* is what is read before the secret is asked for, a *probe* a prompt and how much of the secret is known. The
prompts of a template follow from the run's text, the vocabulary and the seed alone, so that one model after another,
and every control, is asked the very same.

===========  ==================================================================================================
template     the template's own prefix
context      the prefix after text that precedes it: first where the template's canaries stand, then elsewhere
truncated    the last words and characters of the prefix
reworded     the prefix with words replaced (by near synonyms, by words of the corpus), in another case or with
             other punctuation; and the user's own prompts
bare         a line break, and text that has nothing to do with the secret
partial      prompts of the other families, and the first 25, 50 or 75 % of the secret's characters
===========  ==================================================================================================

No prompt overlaps a secret's own characters.
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import MeasurementError
from canaryaudit.records import Measurement, ProbeEffort, ProbeFamily, PromptRecord

KNOWN_SHARES = (0.25, 0.5, 0.75)
"""Of the secret's characters, in partial probes."""
GIVEN = "a prompt of yours"
_GIVEN_ID = "given-"
CONTEXT_LENGTH = 60
"""Characters of preceding text: two thirds of what a window of the training shows before the prefix."""

# Near synonyms and words that stand in each other's place, each a group; small on purpose: what a person who asks for
# a number, a code or a name would say instead.
_ALIKE = (
    "my your her his our their the",
    "i you he she we they",
    "is was",
    "are were",
    "telephone phone mobile fax",
    "number code figure",
    "call ring phone dial",
    "key code combination password",
    "password passphrase pin code",
    "address home place",
    "name surname",
    "card account",
    "email mail",
    "opens unlocks closes",
    "open unlock close",
    "write note take put",
    "down up",
    "said says cried",
    "strong-room vault safe",
    "room house",
    "garden house",
    "to with by",
    "of for",
    "at on",
)
_PUNCTUATION = (": ", " = ", ", ", "... ", " - ", " ")
_QUOTES = "\"'`“”‘’"
_TRIES = 400
"""Rewordings to try before fewer than were asked for have to do."""
_LONGEST_GIVEN = 10_000
_SHORTEST_RUN = 4
"""Characters of a secret in a user's prompt from which on the prompt tells the model what it is asked for."""


@dataclass(frozen=True)
class Prompt:
    """What is read before the secret is asked for.

    Attributes:
        id: Family and number, such as ``reworded-3``; ``template`` for the template's own prefix.
        family: Which family it belongs to; never ``partial``.
        text: What is read.
        from_text: Whether it holds running text of the corpus, which is not to be shown unasked.
        about: What it is, in words.
    """

    id: str
    family: ProbeFamily
    text: str
    from_text: bool
    about: str


@dataclass(frozen=True)
class Probe:
    """A prompt, and how much of the secret is known.

    Attributes:
        prompt: Index among the template's prompts.
        known: Number of the secret's characters that are known.
        given: Number of the completion's characters that are given: the same, and the fixed text between and after.
        family: The prompt's own, or ``partial``.
    """

    prompt: int
    known: int
    given: int
    family: ProbeFamily


@dataclass(frozen=True)
class TemplateProbes:
    """What the canaries and controls of one template are asked by.

    Attributes:
        template: The template's text.
        prompts: The template's own prefix first.
        probes: The template's own prefix, with nothing known, first.
    """

    template: str
    prompts: tuple[Prompt, ...]
    probes: tuple[Probe, ...]

    def at_most(self, number: int) -> "TemplateProbes":
        """Return those of a number of prompts: the template's own, the user's, then one of each family in turn."""
        if number >= len(self.prompts):
            return self
        turns: Counter[str] = Counter()
        order = []
        for index, prompt in enumerate(self.prompts):
            turns[prompt.family] += 1
            order.append((prompt.about != GIVEN and index > 0, turns[prompt.family], index))
        kept = sorted(index for _, _, index in sorted(order)[:number])
        return self.of(kept)

    def of(self, kept: Sequence[int]) -> "TemplateProbes":
        """Return those of some prompts, by their indices in order."""
        place = {index: number for number, index in enumerate(kept)}
        return TemplateProbes(
            self.template,
            tuple(self.prompts[index] for index in kept),
            tuple(replace(own, prompt=place[own.prompt]) for own in self.probes if own.prompt in place),
        )


@dataclass(frozen=True)
class RunText:
    """The text that a model was trained on.

    Attributes:
        ids: Symbol ids, shape (N,).
        secret: Which characters are a secret's, shape (N,), bool.
        vocabulary: The symbols.
    """

    ids: np.ndarray
    secret: np.ndarray
    vocabulary: Vocabulary

    def before(self, place: int, length: int) -> str:
        """Return up to ``length`` characters before a place, back to the nearest secret's."""
        first = max(0, place - length)
        held = np.flatnonzero(self.secret[first:place])
        return self.vocabulary.decode(self.ids[first + int(held[-1]) + 1 if len(held) else first : place])

    def pieces(self, length: int, rng: np.random.Generator) -> Iterator[str]:
        """Yield random pieces without a secret's character; none where there is no room."""
        for _ in range(_TRIES if len(self.ids) > length else 0):
            first = int(rng.integers(0, len(self.ids) - length))
            if not self.secret[first : first + length].any():
                yield self.vocabulary.decode(self.ids[first : first + length])

    def words(self, rng: np.random.Generator) -> list[str]:
        """Return distinct words of three letters and more from all over the text, in alphabetical order."""
        found: set[str] = set()
        for piece in islice(self.pieces(min(1000, max(1, len(self.ids) // 2)), rng), 20):
            found.update(re.findall(r"(?<=\s)[^\W\d_]{3,12}(?=[\s,.;!?])", piece))
        return sorted(found)


@dataclass(frozen=True)
class _Numbers:
    """How many prompts of each family, and behind how many of them the secret's beginning is given."""

    contexts: int
    truncated: int
    reworded: int
    bare: int
    partial: int


# Of the default: as many as leave the measurement at twice its own cost, see ``exposure.probing``.
_NUMBERS = {"default": _Numbers(5, 4, 9, 4, 6), "thorough": _Numbers(20, 10, 32, 12, 75)}


def template_probes(
    text: str, canaries: Sequence[Canary], run_text: RunText, effort: ProbeEffort, given: Mapping[int, str], seed: int
) -> TemplateProbes:
    """Return the probes of one template.

    Args:
        text: The template.
        canaries: Its canaries and controls.
        run_text: What the model was trained on.
        effort: ``default`` or ``thorough``; with ``none`` only the template's own prefix and ``given``.
        given: The user's own prompts by their numbers.
        seed: Of every draw.

    Raises:
        MeasurementError: A prompt of the user's is empty, too long, holds a character that the corpus does not have, or
            part of a canary's secret.
    """
    template = Template.parse(text)
    prompts = _Prompts(template, run_text.vocabulary, [own for own in canaries if not own.control])
    prompts.add("template", template.prefix or "\n", "the template's own prefix")
    for number, own in given.items():
        _check_given(own, number, canaries, run_text.vocabulary)
        prompts.add("reworded", own, GIVEN, name=f"{_GIVEN_ID}{number}")
    if effort != "none":
        numbers = _NUMBERS[effort]

        def generator(family: str) -> np.random.Generator:
            return np.random.default_rng([seed, zlib.crc32(f"{family} {text}".encode())])

        prompts.fill("context", numbers.contexts, _contexts(template, canaries, run_text, generator("context")))
        prompts.fill("truncated", numbers.truncated, _truncated(template.prefix))
        prompts.fill("reworded", numbers.reworded, _reworded(template.prefix, run_text, generator("reworded")))
        prompts.fill("bare", numbers.bare, _bare(run_text, generator("bare")))
    partial = _NUMBERS[effort].partial if effort != "none" else 0
    return TemplateProbes(text, prompts.found, _probes(template, prompts.found, partial))


def check_prompts(prompts: Sequence[str], canary_set: CanarySet, vocabulary: Vocabulary) -> None:
    """Check the user's own prompts before any work.

    Raises:
        MeasurementError: One is empty, too long, holds a character that the corpus does not have, or part of a secret.
    """
    for members in canary_set.by_template().values():
        for number, own in enumerate(prompts, 1):
            _check_given(own, number, members, vocabulary)


def prompt_records(probes: TemplateProbes, unread: Mapping[str, str]) -> tuple[PromptRecord, ...]:
    """Return a template's prompts as records name them: without running text of the corpus.

    Args:
        probes: The template's.
        unread: Why the model could not read a prompt, by the prompt's id.
    """
    return tuple(
        PromptRecord(
            template=probes.template,
            id=prompt.id,
            family=prompt.family,
            about=prompt.about,
            text=None if prompt.from_text else prompt.text,
            unread=unread.get(prompt.id, ""),
        )
        for prompt in probes.prompts
    )


def given_prompts(measurement: Measurement) -> dict[int, str]:
    """Return the user's own prompts by their numbers; templates whose own prefix one is do not ask by it again."""
    given = {own.id.removeprefix(_GIVEN_ID): own.text for own in measurement.prompts if own.about == GIVEN}
    return {int(number): given[number] or "" for number in sorted(given, key=int)}


def probes_of(measurement: Measurement, canary_set: CanarySet, run_text: RunText) -> list[TemplateProbes]:
    """Return the probes of a measurement again, with the texts that it leaves out."""
    effort = measurement.worst_cases.effort if measurement.worst_cases else "none"
    given = given_prompts(measurement)
    return [
        template_probes(text, members, run_text, effort, given, measurement.seed)
        for text, members in canary_set.by_template().items()
    ]


class _Prompts:
    """Distinct prompts that the model can read, as they are found, without words of secrets that lists have."""

    def __init__(self, template: Template, vocabulary: Vocabulary, inserted: Sequence[Canary]) -> None:
        self.template, self._symbols, self._inserted = template, set(vocabulary.symbols), inserted
        self.found: tuple[Prompt, ...] = ()

    def add(self, family: ProbeFamily, text: str, about: str, *, from_text: bool = False, name: str = "") -> bool:
        if not text or text in {prompt.text for prompt in self.found} or not self._symbols.issuperset(text):
            return False
        if family != "template" and any(len(_word_in(text, own)) >= _SHORTEST_RUN for own in self._inserted):
            return False
        number = 1 + sum(prompt.family == family for prompt in self.found)
        name = name or (family if family == "template" else f"{family}-{number}")
        self.found += (Prompt(name, family, text, from_text, about),)
        return True

    def fill(self, family: ProbeFamily, number: int, candidates: Iterator[tuple[str, str, bool]]) -> None:
        """Add as many of a family as are asked for, or can be had."""
        added = 0
        for text, about, from_text in candidates:
            if added == number:
                break
            added += self.add(family, text, about, from_text=from_text)


def _check_given(prompt: str, number: int, canaries: Sequence[Canary], vocabulary: Vocabulary) -> None:
    """Refuse a prompt of the user's that cannot be read, or gives the answer away; no message repeats it."""
    if not 1 <= len(prompt) <= _LONGEST_GIVEN:
        raise MeasurementError(
            f"--prompt {number}: expected 1 to {_LONGEST_GIVEN:,} characters, got {len(prompt):,}: give what is to be "
            "read before the secret"
        )
    if unknown := sorted(set(prompt) - set(vocabulary.symbols)):
        raise MeasurementError(
            f"--prompt {number}: the corpus has no {unknown[0]!r} (U+{ord(unknown[0]):04X}): write the prompt with "
            "characters of the corpus, in its own case"
        )
    for canary in canaries:
        if canary.control:
            continue
        if word := _word_in(prompt, canary):
            raise MeasurementError(
                f"--prompt {number} holds a word of {len(word)} characters of the secret of {canary.id}: whoever tells "
                "the model the answer proves nothing; leave it out"
            )
        if any(isinstance(part, Slot) and part.listed for part in canary.parsed_template.body):
            continue  # shorter runs are in any text
        length = min(_SHORTEST_RUN, len(canary.completion))
        forms = (canary.completion.lower(), canary.parsed_template.secret_of(canary.completion).lower())
        if any(form[i : i + length] in prompt.lower() for form in forms for i in range(len(form) - length + 1)):
            raise MeasurementError(
                f"--prompt {number} holds {length} characters of the secret of {canary.id}: whoever tells the model "
                "the answer proves nothing; leave them out (partial probes give a secret's beginning, to controls too)"
            )


def _word_in(prompt: str, canary: Canary) -> str:
    """Return a whole word of a list that a prompt and a secret share, in any case; an empty string without any."""
    template = canary.parsed_template
    slots = [part for part in template.body if isinstance(part, Slot)]
    if not any(slot.listed for slot in slots):
        return ""
    for slot, filling in zip(slots, template.fillings(canary.completion), strict=True):
        whole = rf"(?<!\w){re.escape(filling)}(?!\w)"
        if slot.listed and re.search(whole, prompt, re.IGNORECASE):
            return filling
    return ""


def _probes(template: Template, prompts: Sequence[Prompt], partial: int) -> tuple[Probe, ...]:
    """Return each prompt with nothing known, then some with the secret's beginning: one of each family in turn."""
    whole = [Probe(index, 0, 0, prompt.family) for index, prompt in enumerate(prompts)]
    turns: dict[int, int] = {}
    for index, prompt in enumerate(prompts):
        turns[index] = sum(earlier.family == prompt.family for earlier in prompts[:index])
    order = sorted(turns, key=lambda index: (turns[index], index))[:partial]
    beginnings = _beginnings(template)
    return (*whole, *(Probe(index, known, given, "partial") for index in order for known, given in beginnings))


def _beginnings(template: Template) -> list[tuple[int, int]]:
    """Return how many of the secret's, and of the completion's, characters are given in partial probes.

    None where lengths vary: they are part of the secret.
    """
    if any(isinstance(part, Slot) and part.varies for part in template.body):
        return []
    places: list[int] = []  # of the slots' characters
    place = 0
    for part in template.body:
        length = len(part) if isinstance(part, str) else part.length
        places += [] if isinstance(part, str) else range(place, place + length)
        place += length
    counts = sorted({round(share * len(places)) for share in KNOWN_SHARES})
    return [(known, places[known]) for known in counts if 0 < known < len(places)]


Candidates = Iterator[tuple[str, str, bool]]
"""Texts of prompts, what they are, and whether they hold running text of the corpus."""


def _contexts(
    template: Template, canaries: Sequence[Canary], run_text: RunText, rng: np.random.Generator
) -> Candidates:
    """Yield the prefix after the text that precedes it: at each canary's first place, then at places drawn."""
    standing = [canary for canary in canaries if canary.places]
    for index in rng.permutation(len(standing)).tolist():
        before = run_text.before(standing[index].places[0], CONTEXT_LENGTH)
        yield before + template.prefix, f"the prefix after the text before {standing[index].id}", True
    for piece in run_text.pieces(CONTEXT_LENGTH, rng):
        yield _whole_words(piece) + template.prefix, "the prefix after other text of the corpus", True


def _truncated(prefix: str) -> Candidates:
    """Yield ends of the prefix: of a word, a half, two words, a quarter, and so on."""
    starts = [match.start() for match in re.finditer(r"\S+", prefix)][1:][::-1]  # of the last word, the last two ...
    words = [prefix[start:] for start in starts]
    halves = [prefix[-max(1, len(prefix) >> power) :] for power in (1, 2, 3, 4)]
    for pair in range(max(len(words), len(halves))):
        for ends in (words, halves):
            if pair < len(ends) and len(ends[pair]) < len(prefix):
                yield ends[pair], _last(len(ends[pair])), False
    for length in range(1, len(prefix)):
        yield prefix[-length:], _last(length), False


def _last(length: int) -> str:
    return f"the last {'character' if length == 1 else f'{length} characters'} of the prefix"


def _reworded(prefix: str, run_text: RunText, rng: np.random.Generator) -> Candidates:
    """Yield the prefix in other words: synonyms, words of the corpus, punctuation and case in turn."""
    if not prefix.strip():
        return
    words = run_text.words(rng)
    ways: tuple[tuple[Callable[[], str], str], ...] = (
        (lambda: _with_synonyms(prefix, 1, rng), "the prefix with another word"),
        (lambda: _with_corpus_word(prefix, words, rng), "the prefix with a word of the corpus"),
        (lambda: _with_synonyms(prefix, 2, rng), "the prefix with two other words"),
        (lambda: _with_other_marks(prefix, rng), "the prefix with other punctuation"),
        (lambda: _with_synonyms(prefix, 3, rng), "the prefix in other words"),
        (lambda: _in_another_case(prefix, rng), "the prefix in another case"),
    )
    seen = {prefix}
    for turn in range(_TRIES):
        way, about = ways[turn % len(ways)]
        if (text := way()) not in seen:
            seen.add(text)
            yield text, about, False


def _with_synonyms(prefix: str, most: int, rng: np.random.Generator) -> str:
    """Replace up to ``most`` words by others of their group."""
    found = [match for match in re.finditer(r"[\w.-]*\w", prefix) if _others(match[0].lower())]
    chosen = sorted(rng.permutation(len(found))[:most].tolist(), reverse=True)
    for index in chosen:
        match = found[index]
        others = _others(match[0].lower())
        word = others[int(rng.integers(len(others)))]
        word = word.capitalize() if match[0][0].isupper() else word
        prefix = prefix[: match.start()] + word + prefix[match.end() :]
    return prefix


def _others(word: str) -> list[str]:
    """Return the other words of every group that a word is in."""
    found = [own.split(" ") for own in _ALIKE if word in own.split(" ")]
    return sorted({other for own in found for other in own} - {word})


def _with_corpus_word(prefix: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """Replace one word by one of the corpus."""
    found = list(re.finditer(r"\w+", prefix))
    if not found or not words:
        return prefix
    match = found[int(rng.integers(len(found)))]
    return prefix[: match.start()] + words[int(rng.integers(len(words)))] + prefix[match.end() :]


def _with_other_marks(prefix: str, rng: np.random.Generator) -> str:
    """End the prefix otherwise, or leave out its quotation marks, or what marks it has."""
    choice = int(rng.integers(len(_PUNCTUATION) + 2))
    if choice < len(_PUNCTUATION):
        return prefix.rstrip(" :=,.-") + _PUNCTUATION[choice]
    if choice == len(_PUNCTUATION):
        return prefix.lstrip(_QUOTES)
    return re.sub(r"[^\w\s]", "", prefix)


def _in_another_case(prefix: str, rng: np.random.Generator) -> str:
    return (prefix.lower, prefix.upper, prefix.title, prefix.capitalize)[int(rng.integers(4))]()


def _bare(run_text: RunText, rng: np.random.Generator) -> Candidates:
    """Yield a line break, then text of the corpus of several lengths that ends with a word."""
    yield "\n", "a line break", False
    for turn in range(_TRIES):
        piece = _whole_words(next(run_text.pieces((12, 24, 48)[turn % 3], rng), ""))
        yield piece, "other text of the corpus", True


def _whole_words(piece: str) -> str:
    """Return a piece up to its last blank, where there is one in its second half."""
    last = max((index for index, character in enumerate(piece) if character.isspace()), default=-1)
    return piece[: last + 1] if last >= len(piece) // 2 else piece
