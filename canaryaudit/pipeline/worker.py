"""What a process does that follows another one of its job: whatever task comes, until there is none any more."""

from canaryaudit.distributed import Ranks
from canaryaudit.exposure.importance_sampling import follow_drawing
from canaryaudit.exposure.references import follow_references
from canaryaudit.exposure.scoring import follow_scoring
from canaryaudit.exposure.scoring_models import Readers, received_readers
from canaryaudit.training.loop import follow_training

_MEASURING = {"costs": follow_scoring, "references": follow_references, "draws": follow_drawing}


def follow(ranks: Ranks) -> None:
    """Take part in the leader's tasks.

    Raises:
        CanaryAuditError: This process's part failed, or another process has ended.
    """
    readers: Readers | None = None
    with ranks.together():
        while (task := ranks.next_task()) is not None:
            if task.name == "train":
                follow_training(task, ranks)
            elif task.name == "readers":
                readers = received_readers(task, ranks)
            elif readers is not None:
                _MEASURING[task.name](task, readers, ranks)
    ranks.leave()
