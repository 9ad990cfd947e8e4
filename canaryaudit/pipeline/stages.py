"""Recording in a run's manifest which stages ran in it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from canaryaudit.progress import ProgressReporter
from canaryaudit.records import StageRun
from canaryaudit.runs.sealed_run import SealedRun


@contextmanager
def recorded_stage(run: SealedRun[Any, Any, Any, Any], progress: ProgressReporter, facts: StageRun) -> Iterator[None]:
    """Record a stage in the manifest when its work is done, before its record is written.

    Args:
        run: The run directory, whose lock the caller holds.
        progress: Told where nothing can be recorded.
        facts: What is known at the start; the seconds are filled in.

    Raises:
        RunDirectoryError: The run is read-only; only a report can be made of it, which is then not recorded.
    """
    if run.is_read_only:
        if facts.stage != "report":
            run.refuse_to_write()
        progress.info(f"{run.path} is read-only: its manifest does not record this report.")
        yield
        return
    clock = time.perf_counter()
    yield
    run.add_stage(facts.model_copy(update={"seconds": time.perf_counter() - clock}))
