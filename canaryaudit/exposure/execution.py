"""How a piece of a measurement is carried out: who is told, what is kept, who shares the work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup
from canaryaudit.exposure.scoring import Ticker
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.storage.part_cache import NullCache, ResultCache


@dataclass(frozen=True)
class Execution:
    """How a piece of a measurement is carried out.

    Attributes:
        stage: What is being done, for people.
        progress: Told of progress.
        cache: Keeps finished parts of long samplings.
        processes: Who shares the work.
        span: Which part of the stage this is: shares of its progress.
        facts: What is done in this part, for people.
    """

    stage: str = ""
    progress: ProgressReporter = NullReporter()  # noqa: RUF009 -- it keeps nothing
    cache: ResultCache = NullCache()  # noqa: RUF009
    processes: ProcessGroup = SINGLE_PROCESS
    span: tuple[float, float] = (0.0, 1.0)
    facts: str = ""

    def parts(self, work: Sequence[float], facts: str = "") -> "list[Execution]":
        """Return the execution of parts that come one after another, by how much work each is expected to be."""
        ends = np.cumsum([0.0, *work]) / max(sum(work), 1e-9)
        begin, length = self.span[0], self.span[1] - self.span[0]
        return [
            replace(self, span=(begin + length * one, begin + length * other), facts=facts or self.facts)
            for one, other in pairwise(ends.tolist())
        ]

    def ticker(self, what: str) -> Ticker:
        """Return what tells the progress of a part of the stage."""
        share = 0.0

        def tick(done: int, total: int) -> None:
            nonlocal share
            share = max(share, done / max(1, total))  # the end moves away where more is drawn: no share ever falls
            begin, end = self.span
            facts = f"{self.facts}, {what}" if self.facts else what
            self.progress.update(self.stage, begin + share * (end - begin), 1.0, facts)

        return tick
