"""Secrets that stand in a text already: found by their template, so that they can be audited without inserting any.

An occurrence is the template's whole text with its slots filled, letter by letter. A slot takes exactly its
number of characters: ``any`` takes whatever stands there within one line, and a slot at the template's end
takes a whole run of its symbols, so that the beginning of a longer number is no occurrence. No character
fills the slots of two occurrences: the earlier template wins, and within a template the occurrence that
begins first. Fixed text may be shared, as the comma in ``,{digits:5},`` is by neighboring fields.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from canaryaudit.canaries.generation import MIN_TELLING_LENGTH, Secret
from canaryaudit.canaries.space import ALPHABETS, Slot
from canaryaudit.canaries.template import Template
from canaryaudit.errors import CorpusError, TemplateError

MANY_SECRETS = 1_000
"""More distinct secrets than this are most often a template that ordinary text fits."""

_FOUND, _INSERTED = 1, 2
_TELLING_ENDING = 4
_SHOWN_FORM = 24


def located_templates(texts: Sequence[str], *, lowercase: bool) -> tuple[Template, ...]:
    """Parse the templates of secrets to locate, each once; lower-cased, words of choices too, if the text is.

    Raises:
        TemplateError: One has no slot, nothing before its first slot, or slots that no such text can fill. Where
            there is no slot its text is not told: the secret itself may stand there.
    """
    templates = []
    for number, text in enumerate(texts, 1):
        if not re.search(r"\{[a-z]+:", text):
            raise TemplateError(
                f"--locate number {number} has no slot: write one in the secret's place, such as "
                "'my telephone number is {digits:10}'"
            )
        template = Template.parse(text.lower() if lowercase else text)
        if not template.prefix.strip():
            raise TemplateError(
                f"template {template.text!r} cannot be located: it needs words before its first slot, which an "
                "attacker types and exposure is measured after"
            )
        if lowercase and any(isinstance(part, Slot) and part.kind == "upper" for part in template.parts):
            raise TemplateError(
                f"template {template.text!r} cannot be located: --lowercase leaves no upper-case letters; write "
                "{lower:N}, or drop --lowercase"
            )
        templates.append(template)
    return tuple(dict.fromkeys(templates))


@dataclass(frozen=True)
class TemplateMatches:
    """What of one template stands in a text.

    Attributes:
        template: The template.
        places: Offsets of the template's text by completion, ascending, in order of first occurrence.
        overlapping: Occurrences left out because their slots share characters with another's.
        longer: Places left out because the run of the last slot's symbols goes on.
    """

    template: Template
    places: dict[str, list[int]]
    overlapping: int
    longer: int

    @property
    def secrets(self) -> list[Secret]:
        """The distinct secrets."""
        return [Secret(self.template, completion) for completion in self.places]

    def spans(self) -> np.ndarray:
        """Return the whole occurrences' first offsets and ends, shape (n, 2), in no order."""
        fixed = len(self.template.prefix) + len(self.template.suffix)
        spans = [(start, start + fixed + len(own)) for own, starts in self.places.items() for start in starts]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)


def locate(text: str, templates: Sequence[Template], inserted: Iterable[tuple[int, int]] = ()) -> list[TemplateMatches]:
    """Find the occurrences of templates, in time linear in the text and in their number.

    Args:
        text: Where to look.
        templates: What to look for, as ``located_templates`` gives it.
        inserted: Spans of canaries that were put there; what lies in them is no finding.

    Returns:
        One for each template.
    """
    taken = bytearray(len(text))
    for start, end in inserted:
        taken[start:end] = bytes([_INSERTED]) * (end - start)
    return [_locate_one(text, _Matcher(template), taken) for template in templates]


def check_found(text: str, findings: Sequence[TemplateMatches]) -> None:
    """Check that every template was found.

    Raises:
        CorpusError: One was not; near misses are described by their form, never by their text.
    """
    for found in findings:
        if not found.places:
            raise CorpusError(
                f"template {found.template.text!r} stands nowhere in the corpus: {_near_miss(text, found)}"
            )


def paragraphs_with(spans: np.ndarray, lengths: np.ndarray) -> tuple[frozenset[int], frozenset[int]]:
    """Return the numbers of the paragraphs that hold a part of a span, and of those that begin within one.

    Args:
        spans: First offsets and ends in the paragraphs put together, shape (n, 2).
        lengths: The paragraphs' lengths, shape (paragraphs,), at least one.
    """
    begins = np.r_[0, np.cumsum(lengths)[:-1]]
    first, last = (np.searchsorted(begins, edge, "right") - 1 for edge in (spans[:, 0], spans[:, 1] - 1))
    within = {number for a, b in zip(first.tolist(), last.tolist(), strict=True) for number in range(a + 1, b + 1)}
    return frozenset({*first.tolist(), *within}), frozenset(within)


def occurrence_spans(findings: Sequence[TemplateMatches]) -> np.ndarray:
    """Return all occurrences' first offsets and ends, prefix and suffix included, shape (n, 2)."""
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *(found.spans() for found in findings)])


def location_warnings(text: str, findings: Sequence[TemplateMatches]) -> list[str]:
    """Say what an owner who wants these secrets forgotten must know: where else they stand, and what was left out."""
    warnings = []
    for found in findings:
        name = repr(found.template.text)
        if found.overlapping:
            warnings.append(
                f"template {name}: {_times(found.overlapping, 'occurrence')} overlapping another left out; only a "
                "template that holds the whole of such a secret finds it whole"
            )
        if found.longer:
            warnings.append(
                f"template {name}: {_times(found.longer, 'place')} left out, where its last slot's symbols go on: a "
                "longer slot would find them"
            )
        if len(found.places) > MANY_SECRETS:
            warnings.append(
                f"template {name} found {len(found.places):,} distinct secrets: measuring and unlearning take time for "
                "each; make its words more telling if they are not what you look for"
            )
    if elsewhere := len(bare_spans(text, findings)):
        warnings.append(
            f"located secrets stand at {_times(elsewhere, 'other place')} of the training text too, in other words: "
            "these are neither measured nor unlearned; give a --locate for them"
        )
    return warnings


# --- one template ---------------------------------------------------------------------------------------


class _Matcher:
    """A template as what follows its prefix: a completion and the suffix."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.completion = re.compile("".join(map(_pattern, template.body)))
        last = template.body[-1]
        ends_open = not template.suffix and isinstance(last, Slot) and last.kind in ALPHABETS
        self.run = ALPHABETS[last.kind] if ends_open and isinstance(last, Slot) else ""

    def end_at(self, text: str, start: int) -> int | None:
        """Return where the completion that begins at ``start`` ends, or None; at most one does."""
        match = self.completion.match(text, start)
        return match.end() if match and text.startswith(self.template.suffix, match.end()) else None

    def goes_on(self, text: str, end: int) -> bool:
        """Tell whether the last slot's run of symbols goes on after ``end``."""
        return bool(self.run) and text[end : end + 1] != "" and text[end] in self.run


def _pattern(part: str | Slot) -> str:
    if isinstance(part, str):
        return re.escape(part)
    if part.kind == "choice":
        return f"(?:{'|'.join(map(re.escape, part.words))})"
    return rf"[^\n]{{{part.length}}}" if part.kind == "any" else f"[{ALPHABETS[part.kind]}]{{{part.length}}}"


def _locate_one(text: str, matcher: _Matcher, taken: bytearray) -> TemplateMatches:
    """Find one template's occurrences, and mark the characters that fill its completions in ``taken``."""
    prefix = matcher.template.prefix
    places: dict[str, list[int]] = {}
    overlapping = longer = 0
    place = text.find(prefix)
    while place >= 0:
        start = place + len(prefix)
        end = matcher.end_at(text, start)
        if end is not None and taken.find(_INSERTED, start, end) < 0:
            if matcher.goes_on(text, end):
                longer += 1
            elif taken.find(_FOUND, start, end) >= 0:
                overlapping += 1
            else:
                places.setdefault(text[start:end], []).append(place)
                taken[start:end] = bytes([_FOUND]) * (end - start)
        place = text.find(prefix, place + 1)
    return TemplateMatches(matcher.template, places, overlapping, longer)


# --- what an owner must know ----------------------------------------------------------------------------


def bare_spans(text: str, findings: Sequence[TemplateMatches]) -> np.ndarray:
    """Return where else located secrets stand, with or without the fixed text between their slots.

    Returns:
        First offsets and ends, shape (n, 2), without the occurrences' own and without very short secrets.
    """
    known: set[int] = set()
    for found in findings:
        before = len(found.template.prefix)
        known.update(place + before for places in found.places.values() for place in places)
    spans: set[tuple[int, int]] = set()
    for found in findings:
        template = found.template
        slots = [part for part in template.body if isinstance(part, Slot)]
        if all(part.kind == "choice" for part in slots):
            continue  # words of the language: that they stand in the text says nothing
        for parts, forms in (
            (template.body, set(found.places)),
            (slots, {template.secret_of(completion) for completion in found.places}),
        ):
            pattern = re.compile(f"(?=({''.join(map(_pattern, parts))}))")
            spans.update(
                (match.start(), match.end(1))
                for match in pattern.finditer(text)
                if len(match[1]) >= MIN_TELLING_LENGTH and match[1] in forms and match.start() not in known
            )
    return np.array(sorted(spans), dtype=np.int64).reshape(-1, 2)


def _near_miss(text: str, found: TemplateMatches) -> str:
    """Say what comes nearest to an occurrence, by its form alone."""
    template = found.template
    if found.overlapping:
        return "all its occurrences overlap those of a template given before it; leave one of the two out"
    if found.longer:
        return f"at {_times(found.longer, 'place')} its last slot's symbols go on after the slot: make the slot longer"
    starts = [match.end() for match in re.finditer(f"(?={re.escape(template.prefix)})", text)]
    if not starts:
        return _prefix_miss(text, template.prefix)
    starts = [start + len(template.prefix) for start in starts]
    matcher = _Matcher(template)
    if filled := sum(matcher.completion.match(text, start) is not None for start in starts):
        return (
            f"at {_times(filled, 'place')} the slots are filled, but other text follows than the template's "
            f"{template.suffix!r}: leave out what stands after the last slot"
        )
    said = f"what stands before its first slot is there {_times(len(starts), 'time')}, but what follows fits no slots"
    if any(isinstance(part, Slot) and part.kind == "any" for part in template.body):
        return f"{said}: an any slot stays within its line; make it shorter"
    forms = Counter(_form(text[start : start + _SHOWN_FORM]) for start in starts)
    form = forms.most_common(1)[0][0]
    return f"{said}; it looks like {form!r} (9 a digit, a and A letters): write slots of that form"


def _prefix_miss(text: str, prefix: str) -> str:
    """Say how the text differs from a template's prefix that it does not hold."""
    spaced = r"\s+".join(map(re.escape, prefix.split()))
    for pattern, flags, cure in (
        (re.escape(prefix), re.IGNORECASE, "in other letters, small or capital: write them so, or use --lowercase"),
        (spaced, 0, "with other white space, such as a line break: write a template for each way"),
        (spaced, re.IGNORECASE, "with other white space and in other letters, small or capital: write them so"),
    ):
        if count := sum(1 for _ in re.finditer(pattern, text, flags)):
            return f"the words before its first slot stand there {_times(count, 'time')} {cure}"
    low, high = 0, len(prefix)  # The text holds the last ``low`` characters, and not the last ``high``.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if prefix[-middle:] in text else (low, middle)
    ending = prefix[len(prefix) - low :]
    ending = ending[ending.find(" ") + 1 :]  # a part of a word says nothing
    if len(ending) >= _TELLING_ENDING:
        return f"of the words before its first slot only the last, {ending!r}, stand there; begin with them"
    return "the words before its first slot are not there; write them as they stand in the text"


def _form(text: str) -> str:
    """Return a text's form up to its line's end: which characters are digits and letters, and not which ones."""
    line = text.split("\n", 1)[0]
    kinds = ((str.isdigit, "9"), (str.isupper, "A"), (str.isalpha, "a"), (" -.,:/()".__contains__, ""))
    return "".join(next((sign or c for test, sign in kinds if test(c)), "·") for c in line)


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
