"""Locate secrets that already occur in a text by their template, to audit them in place.

An occurrence is the template's whole text with its slots filled. Slots are filled by exactly what stands in the text:
that is what a model learned. The fixed text around and between them is compared loosely unless asked otherwise:
without regard to case, the kind and amount of white space, Unicode normalization, and the kind of hyphens and
quotation marks. Each way in which an occurrence is written is a *wording*; a secret in several wordings is one secret.

A slot takes exactly its number of characters, one of words a whole word of its list as it is written there. ``any``
takes any characters within one line. A slot at the template's end takes a whole run of its symbols, so a prefix of a
longer number does not match; one at its beginning starts where a run of its symbols does. No character fills slots of
two occurrences: the earlier template wins, within a template those that match exactly, and among these the earlier one.
Fixed text may be shared, such as the comma between adjacent fields in ``,{digits:5},``.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from canaryaudit.canaries.folding import FoldedText, fold, fold_character, occurrences
from canaryaudit.canaries.generation import MIN_TELLING_LENGTH, Secret
from canaryaudit.canaries.near_misses import NearMisses
from canaryaudit.canaries.space import Lexicon, Slot
from canaryaudit.canaries.template import MAX_TEMPLATE, Template
from canaryaudit.errors import CorpusError, TemplateError

Match = Literal["loose", "exact"]
"""How fixed text is compared."""

_MIN_PARTED = 8
"""Letters and digits of words that are looked for whatever signs are between them: fewer occur by chance."""
_SIGNS = re.compile(r"[^\w\n]{0,3}")
MANY_SECRETS = 1_000
"""More distinct secrets than this usually mean that ordinary text matches the template."""


def located_templates(texts: Sequence[str], *, lowercase: bool) -> tuple[Template, ...]:
    """Parse the distinct templates of secrets to locate; lower-cased, including choices, if the text is.

    Raises:
        TemplateError: One has no slot, nothing that tells where it begins, or slots that no such text can fill. The
            message omits a text without slots, since it may be the secret itself.
    """
    templates = []
    for number, text in enumerate(texts, 1):
        if not re.search(r"\{([a-z]+:|\[|word\})", text):
            raise TemplateError(
                f"--locate number {number} has no slot: write a slot in place of the secret, such as "
                "'my telephone number is {digits:10}'"
            )
        template = Template.parse(text.lower()).lowercased() if lowercase else Template.parse(text)
        first = template.body[0]
        if template.prefix and not fold(template.prefix).strip():
            raise TemplateError(
                f"template {template.text!r} cannot be located: it begins with white space only; begin with the slot, "
                "or add text before it"
            )
        if not template.prefix and isinstance(first, Slot) and first.kind == "any":
            raise TemplateError(
                f"template {template.text!r} cannot be located: any text fills its first slot; add text before it, or "
                "name its symbols, such as {[A-Za-z0-9]:N}"
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
        places: Ascending offsets of whole occurrences by wording: the template as it is written there, and what fills
            it. In order of first occurrence, exact ones first.
        misses: What was not counted, and why.
    """

    template: Template
    places: dict[tuple[Template, str], list[int]] = field(default_factory=dict)
    misses: NearMisses = field(default_factory=NearMisses)

    @property
    def secrets(self) -> list[Secret]:
        """The distinct secrets, once for each wording."""
        return [Secret(*wording) for wording in self.places]

    def spans(self) -> np.ndarray:
        """Return the starts and ends of the whole occurrences, shape (n, 2), unordered."""
        spans = [
            (start, start + len(template.prefix) + len(completion) + len(template.suffix))
            for (template, completion), starts in self.places.items()
            for start in starts
        ]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)


def locate(
    text: str, templates: Sequence[Template], match: Match = "loose", lexicon: Lexicon | None = None
) -> list[TemplateMatches]:
    """Find the occurrences of templates, in time linear in the text and in their number.

    Args:
        text: The text to search.
        templates: The templates to find, from ``located_templates``.
        match: ``loose`` or ``exact`` comparison of the fixed text.
        lexicon: What slots of words range over; only needed for these.

    Returns:
        One entry per template.
    """
    if not templates:
        return []
    folded = FoldedText(text)
    taken = bytearray(len(text))
    lexicon = lexicon or Lexicon()
    return [_Search(text, folded, template, lexicon).run(taken, match) for template in templates]


def check_found(text: str, matches: Sequence[TemplateMatches]) -> None:
    """Check that every template occurs.

    Raises:
        CorpusError: One does not; near misses are described by their format, never by their text.
    """
    for match in matches:
        if not match.places:
            raise CorpusError(
                f"template {match.template.text!r} does not occur in the corpus: "
                f"{match.misses.explanation(text, match.template)}"
            )


def group_wordings(matches: Sequence[TemplateMatches]) -> list[list[tuple[Template, str, list[int]]]]:
    """Return the distinct secrets, each as its wordings with their places; the most frequent wording first.

    The same filling of the same template is one secret in whatever wording. Under different templates only secrets
    that are too long to occur twice by chance are the same.
    """
    groups: dict[tuple[object, ...], list[tuple[Template, str, list[int]]]] = {}
    frequency: dict[Template, int] = {}
    for number, found in enumerate(matches):
        for (template, completion), places in found.places.items():
            secret = template.secret_of(completion)
            telling = len(secret) >= MIN_TELLING_LENGTH and Secret(template, completion).is_telling
            key = (secret,) if telling else (number, *template.fillings(completion))
            groups.setdefault(key, []).append((template, completion, places))
            frequency[template] = frequency.get(template, 0) + len(places)
    # The order of groups is that of first occurrence; ``sorted`` keeps the order of equals.
    return [
        sorted(wordings, key=lambda wording: (-len(wording[2]), -frequency[wording[0]])) for wordings in groups.values()
    ]


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
    """Return what was found in which wordings, what was not counted, and where else the secrets occur."""
    warnings = []
    for match in matches:
        name = repr(match.template.text)
        warnings += match.misses.warnings(text, match.template, match.places)
        if len(match.places) > MANY_SECRETS:
            warnings.append(
                f"template {name} matches {len(match.places):,} distinct secrets, and each takes time to measure and "
                "unlearn: if most are not secrets, make the surrounding text more specific"
            )
    if elsewhere := len(bare_spans(text, matches)):
        places = "1 other place" if elsewhere == 1 else f"{elsewhere:,} other places"
        warnings.append(
            f"located secrets also occur at {places} of the training text, in other wording: these are neither "
            "measured nor unlearned; add a --locate template for them"
        )
    return warnings


def bare_spans(text: str, matches: Sequence[TemplateMatches]) -> np.ndarray:
    """Return where else located secrets occur, with or without the fixed text between their slots.

    Returns:
        Starts and ends, shape (n, 2), without the located occurrences and without very short secrets.
    """
    known: set[int] = set()
    forms: dict[int, set[str]] = {}
    for located in matches:
        for (template, completion), places in located.places.items():
            known.update(place + len(template.prefix) for place in places)
            if Secret(template, completion).is_telling:
                for form in (completion, template.secret_of(completion)):
                    if len(form) >= MIN_TELLING_LENGTH:
                        forms.setdefault(len(form), set()).add(form)
    spans = np.empty((0, 2), dtype=np.int64)
    for length, strings in forms.items():
        starts = np.fromiter((own for own in _places_of(text, length, strings) if own not in known), dtype=np.int64)
        spans = np.concatenate((spans, np.stack((starts, starts + length), axis=1)))
    return spans[np.lexsort((spans[:, 1], spans[:, 0]))]


def _places_of(text: str, length: int, strings: set[str]) -> Iterator[int]:
    """Yield where strings of one length occur, by their first characters: the whole is compared only after these."""
    beginnings = {string[:MIN_TELLING_LENGTH] for string in strings}
    symbols = ["".join({*column}) for column in zip(*beginnings, strict=True)]
    classes = "".join(f"[{re.escape(column)}]" for column in symbols)
    for candidate in re.finditer(f"(?=({classes}))", text):
        start = candidate.start()
        if candidate[1] in beginnings and text[start : start + length] in strings:
            yield start


# --- one template ---------------------------------------------------------------------------------------


class _Search:
    """The search for one template in a text."""

    def __init__(self, text: str, folded: FoldedText, template: Template, lexicon: Lexicon) -> None:
        self.text, self.folded, self.template, self.lexicon = text, folded, template, lexicon
        body = template.body
        self.parts = [
            _reader(part, following, lexicon) if isinstance(part, Slot) else part
            for part, following in zip(body, (*body[1:], ""), strict=True)
        ]
        # Without other fixed text, what does not fit exactly behind the prefix does not fit loosely either.
        self.only_prefix = not template.suffix and not any(isinstance(part, str) for part in template.body)
        literals = (part for part in (template.prefix, *body, template.suffix) if isinstance(part, str))
        self.folded_literals = {literal: fold(literal) for literal in literals}
        last = template.body[-1]
        ends_open = not template.suffix and isinstance(last, Slot)
        self.run_symbols = (last.fixed_alphabet or "") if ends_open and isinstance(last, Slot) else ""
        self.wordings: dict[tuple[str, ...], Template | None] = {}

    def run(self, taken: bytearray, match: Match) -> TemplateMatches:
        """Find the occurrences, and mark the characters of their completions in ``taken``."""
        found = TemplateMatches(self.template)
        fitting = bytearray(len(self.text) + 1)  # 1 where the body of an exact occurrence begins, 2 of none
        for start, body in self._exact_prefixes():
            if (read := self._read(start, body, loosely=False)) and read[0]:
                fitting[body] = 1
                self._take(start, (body, read[1]), read[0], taken, found)
            elif self.only_prefix:
                fitting[body] = 2
        misses = found.misses
        for start, body in self._loose_prefixes():
            if fitting[body] == 1:
                continue
            read = None if fitting[body] else self._read(start, body, loosely=True)
            if read is None:
                misses.unfitting.extend([body] if body > start else [])
                misses.parted.extend([body] if body == start and self._is_parted(body) else [])
            elif read[0] is None:
                misses.other_suffix += 1
            elif match == "exact":
                misses.wordings[read[0]] += 1
            else:
                self._take(start, (body, read[1]), read[0], taken, found)
        if self.template.prefix:
            self._add_other_signs(misses)
        return found

    def _add_other_signs(self, misses: NearMisses) -> None:
        """Add the places of the prefix's words with other signs between or after them."""
        text, prefix = self.folded.text, self.folded_literals[self.template.prefix]
        words = prefix.rstrip("".join({c for c in prefix if not c.isalnum()}))
        lead = next((place for place, c in enumerate(prefix) if c.isalnum()), 0)
        long = sum(c.isalnum() for c in prefix) >= _MIN_PARTED
        after: list[int] = []
        between: list[int] = []
        for start, end in self.folded.words.spans(prefix):
            following = text[end : end + 1]
            joined = following.isalnum() and (following.isalpha() or text[end - 1].isdigit())
            begins = start - lead
            if joined or (start and text[start - 1].isalnum()) or (begins >= 0 and text.startswith(prefix, begins)):
                continue
            if begins >= 0 and text.startswith(words, begins):
                after.append(end)
            elif long:
                between.append(end)
        for found, ends in ((misses.unfitting, after), (misses.parted, between)):
            places = self.folded.original(np.array(ends, dtype=np.int64))
            found.extend(places[places >= 0].tolist())

    def _is_parted(self, position: int) -> bool:
        """Return whether the slots are filled from here on, with other signs between them."""
        for part in self.parts:
            if not isinstance(part, str):
                end = part.end(self.text, position)
            elif any(c.isalnum() for c in part):
                end = self._literal_end(part, position, loosely=True)
            else:
                signs = _SIGNS.match(self.text, position)
                end = signs.end() if signs else position
            if end < 0:
                return False
            position = end
        return not (self.run_symbols and self.text[position : position + 1] in {*self.run_symbols})

    def _exact_prefixes(self) -> Iterator[tuple[int, int]]:
        """Yield the starts and ends of the prefix's occurrences; without one, where the first slot may begin."""
        if prefix := self.template.prefix:
            yield from ((start, start + len(prefix)) for start in occurrences(self.text, prefix))
        elif not isinstance(self.parts[0], str):
            yield from ((start, start) for start in self.parts[0].starts(self.text))

    def _loose_prefixes(self) -> Iterator[tuple[int, int]]:
        """Yield the starts and ends of the folded prefix's occurrences in the text."""
        if not self.template.prefix:
            yield from self._exact_prefixes()
            return
        words = self.folded_literals[self.template.prefix]
        places = np.fromiter(occurrences(self.folded.text, words), dtype=np.int64)
        starts, ends = self.folded.original(places), self.folded.original(places + len(words))
        whole = (starts >= 0) & (ends >= 0)
        yield from zip(starts[whole].tolist(), ends[whole].tolist(), strict=True)

    def _take(
        self, start: int, span: tuple[int, int], wording: Template, taken: bytearray, found: TemplateMatches
    ) -> None:
        """Add an occurrence with its completion's span, unless that is cut off from a longer run or taken."""
        misses, (body, end) = found.misses, span
        if self.run_symbols and self.text[end : end + 1] and self.text[end] in self.run_symbols:
            misses.longer += 1
        elif taken.find(1, body, end) >= 0:
            misses.overlapping += 1
        else:
            found.places.setdefault((wording, self.text[body:end]), []).append(start)
            taken[body:end] = b"\x01" * (end - body)

    def _read(self, start: int, body: int, *, loosely: bool) -> tuple[Template | None, int] | None:
        """Return the wording and the end of the completion; no wording if only the suffix differs; or None."""
        literals: list[str] = []
        position = body
        for part in self.parts:
            if isinstance(part, str):
                end = self._literal_end(part, position, loosely=loosely)
            else:
                end = part.end(self.text, position)
            if end < 0:
                return None
            if isinstance(part, str):
                literals.append(self.text[position:end])
            position = end
        if suffix := self.template.suffix:
            end = self._literal_end(suffix, position, loosely=loosely)
            if end < 0:
                return None, position
            literals.append(self.text[position:end])
            if self.template.ending:  # one literal of the template, of which the first character ends the slot
                literals[-2:] = ["".join(literals[-2:])]
        wording = self._wording(tuple([self.text[start:body]] * (body > start) + literals))
        return (wording, position) if wording else None

    def _literal_end(self, literal: str, position: int, *, loosely: bool) -> int:
        """Return where a literal that begins at ``position`` ends; -1 if it is not there."""
        if self.text.startswith(literal, position):
            return position + len(literal)
        words = self.folded_literals[literal]
        if not loosely or not words.startswith(fold_character(self.text[position : position + 1])[:1]):
            return -1
        place = self.folded.place(position)
        if place < 0 or not self.folded.text.startswith(words, place):
            return -1
        return int(self.folded.original(np.array([place + len(words)]))[0])

    def _wording(self, literals: tuple[str, ...]) -> Template | None:
        """Return the template with the literals as they are written; None if it would be too long."""
        if literals not in self.wordings:
            short = sum(map(len, literals)) + len(self.template.text) <= MAX_TEMPLATE
            self.wordings[literals] = self._measurable(self.template.reworded(literals)) if short else None
        return self.wordings[literals]

    def _measurable(self, wording: Template) -> Template | None:
        """Return a wording if its words end as clearly as the template's do."""
        if any(isinstance(part, Slot) and part.listed for part in wording.body):
            try:
                wording.space(self.lexicon)
            except TemplateError:
                return None
        return wording


def _reader(slot: Slot, after: str | Slot, lexicon: Lexicon) -> "_SlotReader":
    following = after if isinstance(after, str) else ""
    if slot.words or slot.listed:
        return _WordReader(lexicon.words(slot), whole=slot.listed and not following[:1].isalnum())
    return _RunReader(slot, after)


class _SlotReader(Protocol):
    """Reads what fills one slot."""

    def starts(self, text: str) -> Iterator[int]:
        """Yield where the slot may begin."""

    def end(self, text: str, position: int) -> int:
        """Return where the slot that begins at ``position`` ends; -1 if nothing there fills it."""


class _WordReader:
    """Reads the longest of several words.

    Args:
        words: The words.
        whole: Whether no letter or digit may follow one that ends with such.
    """

    def __init__(self, words: Sequence[str], *, whole: bool) -> None:
        self._whole = whole
        self._lengths: dict[str, list[int]] = {}  # of the words with each first character, the longest first
        self._words = frozenset(words)
        for first, length in sorted({(word[0], len(word)) for word in words}, reverse=True):
            self._lengths.setdefault(first, []).append(length)
        self._begins = re.compile(rf"(?<![^\W_])[{''.join(map(re.escape, self._lengths))}]")

    def starts(self, text: str) -> Iterator[int]:
        """Yield where a word of the text may be one of these."""
        yield from (match.start() for match in self._begins.finditer(text))

    def end(self, text: str, position: int) -> int:
        """Return where the longest word at ``position`` ends; -1 if none is there."""
        for length in self._lengths.get(text[position : position + 1], ()):
            end = position + length
            if text[position:end] in self._words:
                cut = self._whole and text[end - 1].isalnum() and text[end : end + 1].isalnum()
                return -1 if cut else end
        return -1


class _RunReader:
    """Reads symbols of an alphabet.

    A run of the slot's symbols is measured once, however many candidates begin within it.
    """

    def __init__(self, slot: Slot, following: str | Slot) -> None:
        self.slot = slot
        ending = re.escape(following[:1]) if slot.most and isinstance(following, str) else ""
        self._run = re.compile(f"[{re.escape(slot.fixed_alphabet)}]+" if slot.fixed_alphabet else rf"[^\n{ending}]+")
        self._start = self._end = 0

    def starts(self, text: str) -> Iterator[int]:
        """Yield the starts of runs of its symbols."""
        yield from (match.start() for match in self._run.finditer(text))

    def end(self, text: str, position: int) -> int:
        """Return where the slot that begins at ``position`` ends; -1 if nothing there fills it."""
        if not self._start <= position < self._end:
            run = self._run.match(text, position)
            self._start, self._end = (position, run.end()) if run else (position, position)
        length = self._end - position
        if self.slot.most:
            return self._end if self.slot.length <= length <= self.slot.most else -1
        return position + self.slot.length if length >= self.slot.length else -1
