"""How a piece of a measurement is carried out: who is told, what is kept, who shares the work."""

from dataclasses import dataclass

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
    """

    stage: str = ""
    progress: ProgressReporter = NullReporter()  # noqa: RUF009 -- it keeps nothing
    cache: ResultCache = NullCache()  # noqa: RUF009
    processes: ProcessGroup = SINGLE_PROCESS

    def ticker(self, what: str) -> Ticker:
        """Return what tells the progress of a part of the stage."""
        share = 0.0

        def tick(done: int, total: int) -> None:
            nonlocal share
            share = max(share, done / max(1, total))  # the end moves away where more is drawn: no share ever falls
            self.progress.update(self.stage, share * total, total, what)

        return tick
