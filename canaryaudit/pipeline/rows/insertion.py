"""Insert stage of a run on rows: plan, compare with an existing run, and create the run directory."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

import canaryaudit
from canaryaudit import environment
from canaryaudit.errors import RunDirectoryError, UsageError
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import StageRun
from canaryaudit.records.run import ImagesFacts, TableFacts
from canaryaudit.runs.rows_verification import AnyRows

F = TypeVar("F", TableFacts, ImagesFacts)
R = TypeVar("R")


class Rows(Protocol):
    """Rows that a file holds."""

    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return the arrays that the file holds."""


@dataclass(frozen=True, eq=False)
class RowsPlan(Generic[R, F]):
    """An insertion into rows.

    Attributes:
        record: What the rows and canaries are.
        rows: The rows, with canaries.
        facts: Of the manifest.
    """

    record: R
    rows: Rows
    facts: F


@dataclass(frozen=True)
class RowsInsertion:
    """How rows of one kind are inserted.

    Attributes:
        directory: Their run directory.
        plan: Reads the source and plants canaries; nothing is written.
        sentences: Returns what was inserted.
        called: What messages call the source: ``a table``.
        package: That read it, and whose version is recorded.
        compared: Facts that an existing run must have alike.
        planted: What differs, for a message, if the records do.
    """

    directory: type[AnyRows]
    plan: Callable[[Any, ProgressReporter], RowsPlan[Any, Any]]
    sentences: Callable[[RowsPlan[Any, Any]], tuple[str, ...]]
    called: str
    package: str
    compared: tuple[str, ...]
    planted: str

    def planned(self, options: Any, progress: ProgressReporter) -> RowsPlan[Any, Any]:
        """Read the source and plant canaries; nothing is written.

        Raises:
            UsageError: The source is standard input.
            CorpusError: It cannot be used.
        """
        if options.corpus == "-":
            raise UsageError(f"{self.called} cannot be read from standard input: give a file or a folder")
        return self.plan(options, progress)

    def make(
        self, path: Path, options: Any, argv: Sequence[str], progress: ProgressReporter, *, replace: bool = False
    ) -> RowsPlan[Any, Any]:
        """Plan the insertion and write the run directory.

        Args:
            path: A directory that is missing or empty.
            options: What to find or plant.
            argv: The command line, for the manifest.
            progress: Told what the source was taken for.
            replace: Delete the run that the directory already holds.

        Raises:
            RunDirectoryError: The directory holds something else, or a run.
            CorpusError: The source cannot be used.
        """
        self.directory(path).check_can_create(replace=replace)
        source = Path(options.corpus)
        if replace and source.exists() and source.resolve().is_relative_to(path.resolve()):
            raise RunDirectoryError(
                f"the source {source} is in the run to be replaced: copy it elsewhere, or choose another directory"
            )
        started, clock = environment.utc_now(), time.perf_counter()
        made = self.planned(options, progress)
        stage = StageRun(
            stage="insert", argv=tuple(argv), started=started, seconds=time.perf_counter() - clock, seed=options.seed
        )
        facts: dict[str, Any] = {self.directory.kind: made.facts}
        manifest = self.directory.manifest_type(
            canaryaudit=canaryaudit.__version__,
            versions=environment.versions(self.package),
            commit=environment.commit(),
            machine=environment.machine(),
            stages=(stage,),
            warnings=(),
            **facts,
        )
        arrays = dict(made.rows.arrays())
        self.directory.create(path, manifest=manifest, record=made.record, arrays=arrays, replace=replace)
        return made

    def find(self, path: Path, options: Any, progress: ProgressReporter) -> RowsPlan[Any, Any] | None:
        """Return the plan of an existing run, if it was made with these options; None if the directory holds no run.

        Raises:
            RunDirectoryError: The run was made from another source or with other options; or the directory cannot hold
                one.
        """
        self.directory(path).check_can_create(replace=True)
        if not self.directory.holds_run(path):
            return None
        run = self.directory.open(path)
        made = self.planned(options, progress)
        there, part = run.manifest.facts, ""
        for name in (*self.compared, "sha256"):
            if not part and getattr(there, name) != getattr(made.facts, name):
                part = f"source ({there.name})" if name == "sha256" else f"{name} ({getattr(there, name)})"
        if not part and run.record() != made.record:
            part = self.planted
        if part:
            raise RunDirectoryError(
                f"{path} already holds a run that differs in its {part}: choose another directory, or replace the run "
                "with --force"
            )
        return made
