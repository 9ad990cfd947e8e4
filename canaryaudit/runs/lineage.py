"""Sequences of unlearning requests: which model a new request may start from, and which requests it invalidates."""

from collections.abc import Sequence
from typing import Any

from canaryaudit.errors import UnlearningError
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import ModelId
from canaryaudit.runs.sealed_run import SealedRun, U


def checked_lineage(
    run: SealedRun[Any, Any, Any, U], start: ModelId, name: str, models: Sequence[ModelId], progress: ProgressReporter
) -> tuple[U, ...]:
    """Return the unlearnings that led to the model to start from, and warn of those that become invalid.

    Args:
        run: The run directory.
        start: The model to start from.
        name: Name of the new unlearning.
        models: Models that a request may start from.
        progress: Receives a warning about unlearnings that started from the one being replaced.

    Raises:
        UnlearningError: There is no such model, or it is the one to be replaced or was derived from it.
    """
    if start not in models:
        raise UnlearningError(
            f"{run.path} has no model '{start}' to start from: choose one of {', '.join(map(str, models))} with --from"
        )
    lineage = () if start.unlearning is None else run.lineage(start.unlearning)
    if name in {link.name for link in lineage}:
        raise UnlearningError(
            f"unlearning {name!r} cannot start from {start}, which it would replace or which was derived from it: "
            "choose another --name"
        )
    others = run.unlearnings(but=name)  # which may be damaged, and will be replaced
    invalid = [record.name for record in others if name in {link.name for link in run.lineage(record.name)}]
    if invalid:
        progress.warn(
            f"{', '.join(invalid)} started from {ModelId(name)}, which is being replaced: unlearn them again."
        )
    return lineage
