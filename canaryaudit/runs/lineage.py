"""One unlearning request after another: what a new one may start from, and which others it undoes."""

from collections.abc import Sequence

from canaryaudit.errors import UnlearningError
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import ModelId, UnlearningRecord
from canaryaudit.runs.run_directory import RunDirectory


def checked_lineage(
    run: RunDirectory, start: ModelId, name: str, models: Sequence[ModelId], progress: ProgressReporter
) -> tuple[UnlearningRecord, ...]:
    """Return the unlearnings that led to the model to start from, and warn of those that will not count any more.

    Args:
        run: The run directory.
        start: The model to start from.
        name: What the new unlearning is to be called.
        models: The models that may be started from.
        progress: Told of unlearnings that started from one that is made anew.

    Raises:
        UnlearningError: There is no such model, or it is, or came from, the one to be replaced.
    """
    if start not in models:
        raise UnlearningError(
            f"{run.path} has no model '{start}' to start from, but {', '.join(map(str, models))}: choose one of them "
            "with --from"
        )
    lineage = () if start.unlearning is None else run.lineage(start.unlearning)
    if name in {link.name for link in lineage}:
        raise UnlearningError(
            f"unlearning {name!r} cannot start from {start}, which would be replaced or came from it: choose another "
            "--name"
        )
    others = run.unlearnings(but=name)  # which may be damaged, and is to be replaced
    lost = [own.name for own in others if name in {link.name for link in run.lineage(own.name)}]
    if lost:
        progress.warn(f"{', '.join(lost)} started from {ModelId(name)}, which is made anew: do them again.")
    return lineage
