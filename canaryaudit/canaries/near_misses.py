"""What a search for a template did not count, and why: described by formats and numbers, never by the text."""

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from canaryaudit.canaries.folding import INVISIBLE, FoldedText, fold
from canaryaudit.canaries.space import Slot
from canaryaudit.canaries.template import Template

_MIN_ENDING = 4
_SHOWN_FORM = 24
_MOST_FORMS = 10_000
"""Places whose format is looked at: enough to tell which is the most frequent."""
_HYPHENS = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_DIFFERENCES = (
    "invisible characters",
    "other white space",
    "another case",
    "other hyphens",
    "other quotation marks or letter forms",
)


@dataclass
class NearMisses:
    r"""Occurrences of a template's words that are no occurrence of the template.

    Attributes:
        overlapping: Occurrences whose slots share characters with another's.
        longer: Occurrences where the run of the last slot's symbols is longer than the slot.
        other_suffix: Occurrences up to the last slot, with another text after it.
        unfitting: Where the text before the first slot ends, and what follows does not fill the slots.
        parted: Where the same words are with other signs between them, as in ``> my\n> words``: their ends, or where
            the first slot begins if there are none before it.
        wordings: Occurrences that match loosely where an exact match was asked for, by their wording.
    """

    overlapping: int = 0
    longer: int = 0
    other_suffix: int = 0
    unfitting: "array[int]" = field(default_factory=lambda: array("q"))
    parted: "array[int]" = field(default_factory=lambda: array("q"))
    wordings: Counter[Template] = field(default_factory=Counter)

    def warnings(self, text: str, template: Template, places: dict[tuple[Template, str], list[int]]) -> list[str]:
        """Return one line for each kind of near miss, and one for the wordings found.

        Args:
            text: The text searched.
            template: The template.
            places: What was found.
        """
        name = f"template {template.text!r}"
        warnings = []
        found = Counter[Template]()
        for (wording, _), starts in places.items():
            found[wording] += len(starts)
        if set(found) - {template}:
            kinds = _differences(template, found)
            as_written = [f"{found[template]:,} as in the template"] if found[template] else []
            warnings.append(
                f"{name} occurs {_times(found.total())}: {'; '.join([*as_written, *kinds])}; use --match exact to "
                "count only those as in the template"
            )
        if self.wordings:
            warnings.append(
                f"{name}: skipped {_count(self.wordings.total(), 'occurrence')} in another wording: "
                f"{'; '.join(_differences(template, self.wordings))}; use --match loose to include them"
            )
        if self.overlapping:
            warnings.append(
                f"{name}: skipped {_count(self.overlapping, 'occurrence')} overlapping another; to include "
                "them, use a template that covers the whole secret"
            )
        if self.longer:
            warnings.append(
                f"{name}: skipped {_count(self.longer, 'occurrence')} with more symbols than its last slot: "
                "use a longer slot to include them"
            )
        if self.other_suffix:
            warnings.append(
                f"{name}: skipped {_count(self.other_suffix, 'occurrence')} up to the last slot, but then other text "
                f"than {template.suffix!r}: remove the text after the last slot to include them"
            )
        if self.unfitting:
            warnings.append(
                f"{name}: the words before its first slot also occur {_times(len(self.unfitting))} before something "
                f"else, {_common_forms(text, self.unfitting)} (9 is a digit, a and A are letters)"
            )
        if self.parted:
            where = "the words before its first slot also occur" if template.prefix else "its format also occurs"
            before = ", before" if template.prefix else ":"
            warnings.append(
                f"{name}: {where} {_times(len(self.parted))} with other signs between{before} "
                f"{_common_forms(text, self.parted)} (9 is a digit, a and A are letters): add a --locate template for "
                "these"
            )
        return warnings

    def explanation(self, text: str, template: Template) -> str:
        """Describe the closest near miss of a template that does not occur."""
        if self.overlapping:
            return "all its occurrences overlap those of an earlier template; remove one of the two"
        if self.wordings:
            return (
                f"{_count(self.wordings.total(), 'occurrence')} in another wording: "
                f"{'; '.join(_differences(template, self.wordings))}; use --match loose"
            )
        if self.longer:
            return f"{_count(self.longer, 'occurrence')} with more symbols than its last slot: make the slot longer"
        if self.other_suffix:
            return (
                f"{_count(self.other_suffix, 'occurrence')} up to the last slot, but then other text than "
                f"{template.suffix!r}: remove the text after the last slot"
            )
        if self.parted and not self.unfitting:
            what = "the words before its first slot" if template.prefix else "its slots"
            return (
                f"{what} occur {_times(len(self.parted))}, but with other signs between them, such as the '>' of a "
                "quoted line: copy the words from the corpus"
            )
        if not template.prefix:
            return "no text of its format does; check the kinds and lengths of its slots"
        if not self.unfitting:
            return _prefix_miss(text, template.prefix)
        message = (
            f"the words before its first slot occur {_times(len(self.unfitting))}, but what follows does not match"
        )
        if any(isinstance(part, Slot) and part.kind == "any" for part in template.body):
            return f"{message}: an any slot cannot span lines; make it shorter"
        return (
            f"{message}; it looks like {_common_forms(text, self.unfitting, most=1)} (9 is a digit, a and A are "
            "letters): use slots of that format"
        )


def _differences(template: Template, wordings: Counter[Template]) -> list[str]:
    """Return how often wordings differ from a template's fixed text, by the kinds of difference."""
    kinds: Counter[str] = Counter()
    for wording, count in wordings.items():
        if wording != template:
            kinds[" and ".join(_difference(template.fixed_text, wording.fixed_text))] += count
    return [f"{count:,} in {kind}" for kind, count in kinds.most_common()]


def _difference(one: str, other: str) -> list[str]:
    """Return the kinds of difference between two texts that are the same when folded."""
    hidden, spaces, case, hyphens, marks = _DIFFERENCES
    differences = []
    for kind, pattern, form in (
        (hidden, f"[{INVISIBLE}]", ""),
        (spaces, r"\s+", " "),
        (hyphens, f"[{_HYPHENS}]", "-"),
    ):
        if re.findall(pattern, one) != re.findall(pattern, other):
            differences.append(kind)
        one, other = (re.sub(pattern, form, text) for text in (one, other))
    if one != other:
        differences.append(case if one.casefold() == other.casefold() else marks)
    return differences


def _common_forms(text: str, starts: Sequence[int], most: int = 3) -> str:
    """Return the most frequent formats of what follows, each up to the end of its line."""
    forms = Counter(_form(text[start : start + _SHOWN_FORM]) for start in starts[:_MOST_FORMS])
    return ", ".join(repr(form) for form, _ in forms.most_common(most))


def _prefix_miss(text: str, prefix: str) -> str:
    """Describe how the text differs from a template's prefix that does not occur in it, loosely compared."""
    folded, words = FoldedText(text).text, fold(prefix)
    low, high = 0, len(words)  # The text contains the last ``low`` characters, but not the last ``high``.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if words[-middle:] in folded else (low, middle)
    ending = words[len(words) - low :]
    ending = ending[ending.find(" ") + 1 :]  # part of a word is not informative
    if len(ending) >= _MIN_ENDING:
        return f"only the end of the text before its first slot occurs, {ending!r}; begin the template with it"
    return "the text before its first slot does not occur; copy it from the corpus"


def _form(text: str) -> str:
    """Return the format of a text up to the end of its line: letters and digits are replaced by their class."""
    line = text.split("\n", 1)[0]
    kinds = ((str.isdigit, "9"), (str.isupper, "A"), (str.isalpha, "a"), (" -.,:/()".__contains__, ""))
    form = "".join(next((sign or c for test, sign in kinds if test(c)), c if c in _HYPHENS else "·") for c in line)
    return re.sub(f"[{_HYPHENS[1:]}]", lambda hyphen: f"⟨U+{ord(hyphen[0]):04X}⟩", form)


def _times(count: int) -> str:
    return f"{count:,} time{'' if count == 1 else 's'}"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
