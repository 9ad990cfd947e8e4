"""The loop of a worker process: run the tasks of rank 0 until there are no more."""

from canaryaudit.distributed import ProcessGroup
from canaryaudit.exposure.importance_sampling import draw_worker
from canaryaudit.exposure.prompt_scoring import prompt_worker
from canaryaudit.exposure.references import reference_worker
from canaryaudit.exposure.scoring import score_worker
from canaryaudit.exposure.scoring_models import ScoringModels, received_scoring_models
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.training.loop import train_worker

_MEASURING = {
    "costs": score_worker,
    "references": reference_worker,
    "draws": draw_worker,
    "prompts": prompt_worker,
}


def run_worker(processes: ProcessGroup) -> None:
    """Run this process's part of rank 0's tasks.

    Raises:
        CanaryAuditError: This process's part failed, or another process ended.
    """
    readers: ScoringModels[LanguageModel] | None = None
    with processes.together():
        while (task := processes.next_task()) is not None:
            if task.name == "train":
                train_worker(task, processes)
            elif task.name == "readers":
                readers = received_scoring_models(task, processes)
            elif readers is not None:
                _MEASURING[task.name](task, readers, processes)
    processes.leave()
