"""What a process does that follows another one of its job: whatever task comes, until there is none any more."""

from canaryaudit.ranks import Ranks
from canaryaudit.training import follow_training


def follow(ranks: Ranks) -> None:
    """Take part in the leader's tasks.

    Raises:
        CanaryAuditError: This process's part failed, or another process has ended.
    """
    with ranks.together():
        while (task := ranks.next_task()) is not None:
            if task.name == "train":
                follow_training(task, ranks)
        ranks.leave()
