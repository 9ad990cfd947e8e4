"""Choose which of the data detected in a text become canaries: the most repeated first, all counted."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from canaryaudit.canaries.detection import Detector, Finding, Kind, detect, template_of
from canaryaudit.canaries.template import Template
from canaryaudit.formatting import counted

_NUMBERED = ("phone", "iban", "card")
_HEAD = 3
"""Digits in which two numbers agree by chance in one of a thousand pairs."""
_BEGINNING = re.compile(r"\w+")
Places = list[tuple[Template, str, list[int]]]
"""The wordings of one secret with their places; the one that is measured first."""


@dataclass(frozen=True)
class DetectedKind:
    """How much of one kind was detected.

    Attributes:
        kind: The kind.
        occurrences: Places.
        distinct: Different values.
        canaries: Values that become canaries.
    """

    kind: Kind
    occurrences: int
    distinct: int
    canaries: int


@dataclass(frozen=True)
class Detected:
    """What was detected in a text.

    Attributes:
        secrets: The kind and the wordings of each value that becomes a canary.
        kinds: Counts of everything, by kind.
        unread: What is called a telephone number, and is none of the countries that were asked for.
        regions: These countries.
    """

    secrets: tuple[tuple[Kind, Places], ...] = ()
    kinds: tuple[DetectedKind, ...] = ()
    unread: int = 0
    regions: tuple[str, ...] = ()

    @property
    def spans(self) -> np.ndarray:
        """Starts and ends of all places of the secrets, with the words before them, shape (n, 2)."""
        spans = [
            (place, place + len(template.fill(completion)))
            for _, wordings in self.secrets
            for template, completion, places in wordings
            for place in places
        ]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)

    def warnings(self, option: str) -> list[str]:
        """Return what the user should know, without any value.

        Args:
            option: The flag that raises the number of canaries.
        """
        warnings = []
        distinct, canaries = (sum(getattr(own, name) for own in self.kinds) for name in ("distinct", "canaries"))
        if canaries < distinct:
            warnings.append(
                f"{canaries:,} of {distinct:,} detected values become canaries, the most repeated first; the other "
                f"{distinct - canaries:,} are neither measured nor unlearned: raise {option} to include them"
            )
        if self.unread:
            warnings.append(
                f"skipped {counted(self.unread, 'number')} after words such as 'phone', not valid in "
                f"{', '.join(self.regions)}: add other countries with --detect-regions"
            )
        heads = Counter(
            (kind, template.secret_of(completion)[:_HEAD])
            for kind, ((template, completion, _), *_) in self.secrets
            if kind in _NUMBERED
        )
        if any(count > 1 for count in heads.values()):
            warnings.append(
                "numbers are ranked among random digits: some begin alike, as with an area or bank code, which alone "
                "ranks them high, so compare with a retrained model"
            )
        if any(kind == "email" for kind, _ in self.secrets):
            warnings.append(
                "addresses are ranked among random strings of their length and symbols: one made of common names ranks "
                "high even in a model that never saw it, so compare with a retrained model"
            )
        return warnings


def select(text: str, detector: Detector, limit: int, taken: np.ndarray) -> Detected:
    """Detect data in a text, and choose what becomes canaries.

    Args:
        text: The text to search.
        detector: What to look for.
        limit: The most canaries to make.
        taken: Starts and ends of what is a canary already, shape (n, 2).
    """
    occupied = bytearray(len(text))
    for start, end in taken.tolist():
        occupied[start:end] = b"\x01" * (end - start)
    groups: dict[tuple[Kind, str], list[tuple[Finding, str]]] = {}
    for finding, context in zip(*detect(text, detector), strict=True):
        if occupied.find(1, finding.start, finding.end) < 0:
            groups.setdefault((finding.kind, finding.value), []).append((finding, context))
    groups = _with_shared_contexts(groups)
    # ``sorted`` keeps the order of equals, which is that of first occurrence.
    chosen = sorted(groups, key=lambda key: -len(groups[key]))[:limit]
    counts = Counter(kind for kind, _ in groups)
    places = Counter(kind for (kind, _), own in groups.items() for _ in own)
    canaries = Counter(kind for kind, _ in chosen)
    return Detected(
        tuple((key[0], _wordings(text, groups[key])) for key in chosen),
        tuple(DetectedKind(kind, places[kind], counts[kind], canaries[kind]) for kind in sorted(counts)),
        detector.unread if "phone" in detector.kinds else 0,
        detector.regions,
    )


def _with_shared_contexts(
    groups: dict[tuple[Kind, str], list[tuple[Finding, str]]],
) -> dict[tuple[Kind, str], list[tuple[Finding, str]]]:
    """Return findings with no more of the words before them than many have alike.

    A log writes ``user=`` before every address, after words that differ from line to line. What is alike is what a
    model learns to ask by, and one template serves for all. Each keeps the longest ending of its words that is at least
    half as frequent among findings of its kind as its most frequent ending.
    """
    counts: Counter[tuple[Kind, str]] = Counter()
    for (kind, _), found in groups.items():
        counts.update((kind, ending) for _, context in found for ending in _endings(context))

    def shared(kind: Kind, context: str) -> str:
        frequency = {ending: counts[kind, ending] for ending in _endings(context)}
        most = max(frequency.values(), default=0)
        return max((ending for ending, count in frequency.items() if 2 * count >= most), key=len, default=context)

    return {key: [(own, shared(key[0], context)) for own, context in found] for key, found in groups.items()}


def _endings(context: str) -> set[str]:
    """Return the ends of a context that begin with a word and hold a letter; and the whole of it."""
    starts = [0, *(match.start() for match in _BEGINNING.finditer(context))]
    return {context[start:] for start in starts if any(c.isalpha() for c in context[start:])}


def moved(detected: Detected, places: Sequence[int]) -> Detected:
    """Return the same secrets at other places, given in the order of ``spans``."""
    following = iter(places)
    return replace(
        detected,
        secrets=tuple(
            (kind, [(template, completion, [next(following) for _ in own]) for template, completion, own in wordings])
            for kind, wordings in detected.secrets
        ),
    )


def _wordings(text: str, findings: Sequence[tuple[Finding, str]]) -> Places:
    """Return the wordings of one value: those with words before them first, of these the most frequent."""
    wordings: dict[tuple[Template, str], list[int]] = {}
    for finding, context in findings:
        template, completion, start = template_of(text, finding, context)
        wordings.setdefault((template, completion), []).append(start)
    return sorted(
        ((template, completion, places) for (template, completion), places in wordings.items()),
        key=lambda own: (not own[0].prefix.strip(), -len(own[2])),
    )
