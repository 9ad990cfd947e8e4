"""Locate secrets that already occur in a text by their template, to audit them in place.

An occurrence matches the template's whole text exactly, with its slots filled. A slot takes exactly its number of
characters. ``any`` takes any characters within one line. A slot at the template's end takes a whole run of its
symbols, so a prefix of a longer number does not match. No character fills slots of two occurrences: the earlier
template wins, and within a template the earlier occurrence. Fixed text may be shared, such as the comma between
adjacent fields in ``,{digits:5},``.
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
"""More distinct secrets than this usually mean that ordinary text matches the template."""

_LOCATED, _INSERTED = 1, 2
_MIN_ENDING = 4
_SHOWN_FORM = 24


def located_templates(texts: Sequence[str], *, lowercase: bool) -> tuple[Template, ...]:
    """Parse the distinct templates of secrets to locate; lower-cased, including choices, if the text is.

    Raises:
        TemplateError: One has no slot, nothing before its first slot, or slots that no such text can fill. The message
            omits a text without slots, since it may be the secret itself.
    """
    templates = []
    for number, text in enumerate(texts, 1):
        if not re.search(r"\{[a-z]+:", text):
            raise TemplateError(
                f"--locate number {number} has no slot: write a slot in place of the secret, such as "
                "'my telephone number is {digits:10}'"
            )
        template = Template.parse(text.lower() if lowercase else text)
        if not template.prefix.strip():
            raise TemplateError(
                f"template {template.text!r} cannot be located: add text before its first slot; exposure is measured "
                "after that text, which an attacker types"
            )
        if lowercase and any(isinstance(part, Slot) and part.kind == "upper" for part in template.parts):
            raise TemplateError(
                f"template {template.text!r} cannot be located: --lowercase leaves no upper-case letters; use "
                "{lower:N}, or drop --lowercase"
            )
        templates.append(template)
    return tuple(dict.fromkeys(templates))


@dataclass(frozen=True)
class TemplateMatches:
    """The occurrences of one template in a text.

    Attributes:
        template: The template.
        places: Ascending offsets of the template's text by completion, in order of first occurrence.
        overlapping: Occurrences skipped because their slots share characters with another's.
        longer: Occurrences skipped because the run of the last slot's symbols is longer than the slot.
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
        """Return the starts and ends of the whole occurrences, shape (n, 2), unordered."""
        fixed = len(self.template.prefix) + len(self.template.suffix)
        spans = [
            (start, start + fixed + len(completion)) for completion, starts in self.places.items() for start in starts
        ]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)


def locate(text: str, templates: Sequence[Template], inserted: Iterable[tuple[int, int]] = ()) -> list[TemplateMatches]:
    """Find the occurrences of templates, in time linear in the text and in their number.

    Args:
        text: The text to search.
        templates: The templates to find, from ``located_templates``.
        inserted: Spans of inserted canaries; occurrences inside them are ignored.

    Returns:
        One entry per template.
    """
    taken = bytearray(len(text))
    for start, end in inserted:
        taken[start:end] = bytes([_INSERTED]) * (end - start)
    return [_locate_one(text, _Matcher(template), taken) for template in templates]


def check_found(text: str, matches: Sequence[TemplateMatches]) -> None:
    """Check that every template occurs.

    Raises:
        CorpusError: One does not; near misses are described by their format, never by their text.
    """
    for match in matches:
        if not match.places:
            raise CorpusError(
                f"template {match.template.text!r} does not occur in the corpus: {_near_miss(text, match)}"
            )


def paragraphs_with(spans: np.ndarray, lengths: np.ndarray) -> tuple[frozenset[int], frozenset[int]]:
    """Return the indices of the paragraphs that overlap a span, and of those that begin within one.

    Args:
        spans: Starts and ends in the concatenated paragraphs, shape (n, 2).
        lengths: Lengths of the paragraphs, shape (paragraphs,), at least one.
    """
    begins = np.r_[0, np.cumsum(lengths)[:-1]]
    first, last = (np.searchsorted(begins, edge, "right") - 1 for edge in (spans[:, 0], spans[:, 1] - 1))
    within = {number for a, b in zip(first.tolist(), last.tolist(), strict=True) for number in range(a + 1, b + 1)}
    return frozenset({*first.tolist(), *within}), frozenset(within)


def occurrence_spans(matches: Sequence[TemplateMatches]) -> np.ndarray:
    """Return the starts and ends of all occurrences, including prefix and suffix, shape (n, 2)."""
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *(match.spans() for match in matches)])


def location_warnings(text: str, matches: Sequence[TemplateMatches]) -> list[str]:
    """Return warnings about skipped occurrences, and about other places where the secrets occur."""
    warnings = []
    for match in matches:
        name = repr(match.template.text)
        if match.overlapping:
            warnings.append(
                f"template {name}: skipped {_times(match.overlapping, 'occurrence')} overlapping another; to include "
                "them, use a template that covers the whole secret"
            )
        if match.longer:
            warnings.append(
                f"template {name}: skipped {_times(match.longer, 'occurrence')} with more symbols than its last slot: "
                "use a longer slot to include them"
            )
        if len(match.places) > MANY_SECRETS:
            warnings.append(
                f"template {name} matches {len(match.places):,} distinct secrets, and each takes time to measure and "
                "unlearn: if most are not secrets, make the surrounding text more specific"
            )
    if elsewhere := len(bare_spans(text, matches)):
        warnings.append(
            f"located secrets also occur at {_times(elsewhere, 'other place')} of the training text, in other wording: "
            "these are neither measured nor unlearned; add a --locate template for them"
        )
    return warnings


# --- one template ---------------------------------------------------------------------------------------


class _Matcher:
    """Matches what follows a template's prefix: a completion and the suffix."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.completion = re.compile("".join(map(_pattern, template.body)))
        last = template.body[-1]
        ends_open = not template.suffix and isinstance(last, Slot) and last.kind in ALPHABETS
        self.run = ALPHABETS[last.kind] if ends_open and isinstance(last, Slot) else ""

    def end_at(self, text: str, start: int) -> int | None:
        """Return the end of the completion that begins at ``start``, or None; there is at most one."""
        match = self.completion.match(text, start)
        return match.end() if match and text.startswith(self.template.suffix, match.end()) else None

    def is_longer(self, text: str, end: int) -> bool:
        """Return whether the last slot's run of symbols continues after ``end``."""
        return bool(self.run) and text[end : end + 1] != "" and text[end] in self.run


def _pattern(part: str | Slot) -> str:
    if isinstance(part, str):
        return re.escape(part)
    if part.kind == "choice":
        return f"(?:{'|'.join(map(re.escape, part.words))})"
    return rf"[^\n]{{{part.length}}}" if part.kind == "any" else f"[{ALPHABETS[part.kind]}]{{{part.length}}}"


def _locate_one(text: str, matcher: _Matcher, taken: bytearray) -> TemplateMatches:
    """Find one template's occurrences, and mark the characters of its completions in ``taken``."""
    prefix = matcher.template.prefix
    places: dict[str, list[int]] = {}
    overlapping = longer = 0
    offset = text.find(prefix)
    while offset >= 0:
        start = offset + len(prefix)
        end = matcher.end_at(text, start)
        if end is not None and taken.find(_INSERTED, start, end) < 0:
            if matcher.is_longer(text, end):
                longer += 1
            elif taken.find(_LOCATED, start, end) >= 0:
                overlapping += 1
            else:
                places.setdefault(text[start:end], []).append(offset)
                taken[start:end] = bytes([_LOCATED]) * (end - start)
        offset = text.find(prefix, offset + 1)
    return TemplateMatches(matcher.template, places, overlapping, longer)


# --- warnings and near misses ---------------------------------------------------------------------------


def bare_spans(text: str, matches: Sequence[TemplateMatches]) -> np.ndarray:
    """Return where else located secrets occur, with or without the fixed text between their slots.

    Returns:
        Starts and ends, shape (n, 2), without the located occurrences and without very short secrets.
    """
    known: set[int] = set()
    for located in matches:
        before = len(located.template.prefix)
        known.update(place + before for places in located.places.values() for place in places)
    spans: set[tuple[int, int]] = set()
    for located in matches:
        template = located.template
        slots = [part for part in template.body if isinstance(part, Slot)]
        if all(part.kind == "choice" for part in slots):
            continue  # ordinary words: their occurrence in the text reveals nothing
        for parts, forms in (
            (template.body, set(located.places)),
            (slots, {template.secret_of(completion) for completion in located.places}),
        ):
            pattern = re.compile(f"(?=({''.join(map(_pattern, parts))}))")
            spans.update(
                (match.start(), match.end(1))
                for match in pattern.finditer(text)
                if len(match[1]) >= MIN_TELLING_LENGTH and match[1] in forms and match.start() not in known
            )
    return np.array(sorted(spans), dtype=np.int64).reshape(-1, 2)


def _near_miss(text: str, matches: TemplateMatches) -> str:
    """Describe the closest near miss by its format alone."""
    template = matches.template
    if matches.overlapping:
        return "all its occurrences overlap those of an earlier template; remove one of the two"
    if matches.longer:
        return f"{_times(matches.longer, 'occurrence')} with more symbols than its last slot: make the slot longer"
    starts = [match.end() for match in re.finditer(f"(?={re.escape(template.prefix)})", text)]
    if not starts:
        return _prefix_miss(text, template.prefix)
    starts = [start + len(template.prefix) for start in starts]
    matcher = _Matcher(template)
    if filled := sum(matcher.completion.match(text, start) is not None for start in starts):
        return (
            f"{_times(filled, 'occurrence')} up to the last slot, but then other text than {template.suffix!r}: remove "
            "the text after the last slot"
        )
    message = f"the text before its first slot occurs {_times(len(starts), 'time')}, but what follows does not match"
    if any(isinstance(part, Slot) and part.kind == "any" for part in template.body):
        return f"{message}: an any slot cannot span lines; make it shorter"
    forms = Counter(_form(text[start : start + _SHOWN_FORM]) for start in starts)
    form = forms.most_common(1)[0][0]
    return f"{message}; it looks like {form!r} (9 is a digit, a and A are letters): use slots of that format"


def _prefix_miss(text: str, prefix: str) -> str:
    """Describe how the text differs from a template's prefix that does not occur in it."""
    spaced = r"\s+".join(map(re.escape, prefix.split()))
    for pattern, flags, cure in (
        (re.escape(prefix), re.IGNORECASE, "in a different case: match the case, or use --lowercase"),
        (spaced, 0, "with different white space, such as a line break: write a template for each variant"),
        (spaced, re.IGNORECASE, "with different white space and case: match both"),
    ):
        if count := sum(1 for _ in re.finditer(pattern, text, flags)):
            return f"the text before its first slot occurs {_times(count, 'time')} {cure}"
    low, high = 0, len(prefix)  # The text contains the last ``low`` characters, but not the last ``high``.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if prefix[-middle:] in text else (low, middle)
    ending = prefix[len(prefix) - low :]
    ending = ending[ending.find(" ") + 1 :]  # part of a word is not informative
    if len(ending) >= _MIN_ENDING:
        return f"only the end of the text before its first slot occurs, {ending!r}; begin the template with it"
    return "the text before its first slot does not occur; copy it exactly from the corpus"


def _form(text: str) -> str:
    """Return the format of a text up to the end of its line: letters and digits are replaced by their class."""
    line = text.split("\n", 1)[0]
    kinds = ((str.isdigit, "9"), (str.isupper, "A"), (str.isalpha, "a"), (" -.,:/()".__contains__, ""))
    return "".join(next((sign or c for test, sign in kinds if test(c)), "·") for c in line)


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
