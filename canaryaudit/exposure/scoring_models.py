"""A model ready to be measured, on every process that shares the work."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from canaryaudit import environment
from canaryaudit.distributed import ProcessGroup, Task
from canaryaudit.models.char_lstm import BFloat16LanguageModel, CharLSTM
from canaryaudit.models.ensemble import Ensemble, as_language_model, untrained_model
from canaryaudit.models.language_model import LanguageModel, PrefixReader
from canaryaudit.records import Architecture

R = TypeVar("R", bound=PrefixReader, covariant=True)


@dataclass(frozen=True)
class ScoringModels(Generic[R]):
    """A model as exposure is measured on it.

    Attributes:
        model: Reads one symbol at a time, in float32.
        draft: The same model, faster and less exact; None where there is none.
    """

    model: R
    draft: PrefixReader | None = None


def share_scoring_models(
    model: CharLSTM | Ensemble, *, large: bool, with_draft: bool, processes: ProcessGroup
) -> ScoringModels[LanguageModel]:
    """Get a model ready to be measured, here and on all followers.

    Args:
        model: The model.
        large: Whether very many completions are to be scored.
        with_draft: Whether a draft is to score the bulk of them, if the model can have one.
        processes: Who shares the work.
    """
    members = len(model.models) if isinstance(model, Ensemble) else 1
    facts = {"members": members, "large": large, "with_draft": with_draft}
    device = next(model.parameters()).device.type
    processes.share(
        "readers", model.state_dict(), {**facts, "architecture": model.architecture.model_dump(), "device": device}
    )
    return _readers(model, large=large, with_draft=with_draft)


def received_scoring_models(task: Task, processes: ProcessGroup) -> ScoringModels[LanguageModel]:
    """Return what ``share_scoring_models`` got ready."""
    facts = task.facts
    with torch.device("meta"):
        model = untrained_model(Architecture.model_validate(facts["architecture"]), facts["members"])
    model.load_state_dict(task.tensors, assign=True)
    model.to(processes.device(facts["device"])).eval()
    return _readers(model, large=facts["large"], with_draft=facts["with_draft"])


def _readers(model: CharLSTM | Ensemble, *, large: bool, with_draft: bool) -> ScoringModels[LanguageModel]:
    if large:
        environment.keep_freed_memory()
    return ScoringModels(
        as_language_model(model), BFloat16LanguageModel(model) if with_draft and isinstance(model, CharLSTM) else None
    )
