"""Secrets that a corpus holds already: searched before and after part of it is held out, and made canaries in place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from canaryaudit.canaries.assembly import Assembly, assemble
from canaryaudit.canaries.canary import Canary, Wording
from canaryaudit.canaries.detection import Detector
from canaryaudit.canaries.generation import MIN_TELLING_LENGTH
from canaryaudit.canaries.locating import (
    Match,
    TemplateMatches,
    bare_spans,
    check_found,
    group_wordings,
    locate,
    occurrence_spans,
    paragraphs_with,
)
from canaryaudit.canaries.selection import Detected, Places, moved, select
from canaryaudit.canaries.space import Lexicon
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import Corpus
from canaryaudit.errors import CorpusError


@dataclass(frozen=True)
class SearchedText:
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


@dataclass(frozen=True)
class CorpusSearch:
    """What to look for in a corpus.

    Attributes:
        templates: Templates of secrets to locate.
        match: How their fixed text is compared.
        detector: What to detect; None for nothing.
        max_detected: The most canaries to make of detected data.
        lexicon: What ``any`` slots and slots of words range over.
    """

    templates: tuple[Template, ...] = ()
    match: Match = "loose"
    detector: Detector | None = None
    max_detected: int = 20
    lexicon: Lexicon = field(default_factory=Lexicon)

    def in_corpus(self, corpus: Corpus) -> tuple[Detected, frozenset[int]]:
        """Return what was detected, and the paragraphs that contain a secret that becomes a canary.

        Raises:
            CorpusError: A located template does not occur, or nothing is detected.
        """
        if not self.templates and not self.detector:
            return Detected(), frozenset()
        text = corpus.text.read()
        matches = locate(text, self.templates, self.match, self.lexicon)
        check_found(text, matches)
        spans = np.concatenate((occurrence_spans(matches), bare_spans(text, matches)))
        detected = Detected()
        if self.detector:
            detected = select(text, self.detector, self.max_detected, occurrence_spans(matches))
            if not detected.secrets and not matches:
                raise CorpusError(
                    f"nothing to audit: no {', '.join(sorted(self.detector.kinds))} detected in {len(text):,} "
                    "characters; use --locate with a template for data of another form"
                )
        return detected, paragraphs_with(np.concatenate((spans, detected.spans)), corpus.lengths)[0]

    def in_training_text(self, corpus: Corpus, held: np.ndarray, detected: Detected) -> SearchedText:
        """Locate the secrets in the training text; what was detected in the corpus is where it was.

        Args:
            corpus: The corpus.
            held: Whether each paragraph is held out, shape (paragraphs,), bool.
            detected: What was detected in the corpus.
        """
        training = assemble(corpus, held)[0]
        moved_places = moved(detected, training.places_in_training(detected.spans[:, 0]))
        if not self.templates:
            return SearchedText("", [], moved_places)
        text = "".join(training.training_blocks())
        return SearchedText(text, locate(text, self.templates, self.match, self.lexicon), moved_places)


def located_canaries(
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
