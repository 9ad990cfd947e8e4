"""The model's quality before and after an unlearning, and the limit that it is held to."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from canaryaudit.errors import Inconclusive
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import Evaluation, Fidelity
from canaryaudit.training.data import TrainingData
from canaryaudit.training.evaluation import evaluate

BATCH = 64
"""Windows read at a time: thousands at once would take gigabytes."""
MOST_TRIES, CAUTION = 3, 10.0
"""How often the default update is made where it costs too much accuracy, and how much more cautious each is."""
Evaluations = tuple[Evaluation, Evaluation]
"""On the training text and on the held-out text."""


def evaluations(model: CharLSTM | Ensemble, data: TrainingData, precision: str) -> Evaluations:
    """Evaluate a model on the training text and on the held-out text."""
    return evaluate(model, data.train, data.secret, precision), evaluate(model, data.heldout, None, precision)


def as_trained(fidelity: Fidelity) -> Evaluations:
    """Return the trained model's quality from an earlier request's record; held-out text has no secrets."""
    return (
        Evaluation(
            accuracy=fidelity.train_accuracy_before,
            accuracy_all=fidelity.train_accuracy_all_before,
            loss_bits=fidelity.train_loss_before,
        ),
        Evaluation(
            accuracy=fidelity.heldout_accuracy_before,
            accuracy_all=fidelity.heldout_accuracy_before,
            loss_bits=fidelity.heldout_loss_before,
        ),
    )


def fidelity(before: Evaluations, after: Evaluations) -> Fidelity:
    """Put the quality before and after side by side."""
    return Fidelity(
        train_accuracy_before=before[0].accuracy,
        train_accuracy_after=after[0].accuracy,
        train_accuracy_all_before=before[0].accuracy_all,
        train_accuracy_all_after=after[0].accuracy_all,
        train_loss_before=before[0].loss_bits,
        train_loss_after=after[0].loss_bits,
        heldout_accuracy_before=before[1].accuracy,
        heldout_accuracy_after=after[1].accuracy,
        heldout_loss_before=before[1].loss_bits,
        heldout_loss_after=after[1].loss_bits,
    )


def accuracy_drop(before: Evaluations, after: Evaluations) -> float:
    """Return the drop of the accuracy on training text outside the secrets, as a share."""
    return before[0].accuracy - after[0].accuracy


def check_fidelity(before: Evaluations, after: Evaluations, limit: float, what: str, advice: str = "") -> None:
    """Refuse a result that has lost more accuracy than is allowed.

    Args:
        before: Of the original model.
        after: Of the result.
        limit: Largest drop allowed, as a share.
        what: The result, as the subject of a sentence.
        advice: What else can be done about it than to raise the limit, beginning with "or".

    Raises:
        Inconclusive: The drop is over the limit.
    """
    lost = accuracy_drop(before, after)
    if lost > limit:
        enough = math.ceil(lost * 1000) / 1000
        raise Inconclusive(
            f"{what} has accuracy {after[0].accuracy:.4f} on training text outside the secrets, the original model "
            f"{before[0].accuracy:.4f}: the drop of {lost:.4f} exceeds the limit of {limit}, so nothing was saved; "
            f"allow it with --max-fidelity-drop {enough:g} {advice}".rstrip()
        )


def keep_within_limit(
    updated: CharLSTM,
    origin: CharLSTM,
    data: TrainingData,
    before: Evaluations,
    limit: float,
    precision: str,
    progress: ProgressReporter,
) -> tuple[Evaluations, tuple[str, ...]]:
    """Scale an update back to a half or a quarter where it costs more accuracy on the training text than is allowed.

    Args:
        updated: A copy of the original, updated; changed in place.
        origin: The original model.
        data: What quality is measured on.
        before: The original's quality.
        limit: Largest drop of accuracy allowed, as a share.
        precision: ``fp32`` or ``bf16``.
        progress: Told where it is scaled back.

    Returns:
        The quality of the model as it is left, and a note where it was scaled back.

    Raises:
        Inconclusive: A quarter of the update is still over the limit.
    """
    after = before

    def lost() -> float:
        nonlocal after
        after = evaluations(updated, data, precision)
        return accuracy_drop(before, after)

    notes = scale_back_update(updated, origin, lost(), lost, limit, "the training text", progress)
    return after, notes


@torch.no_grad()
def halve_update(updated: nn.Module, origin: nn.Module) -> None:
    """Take back half of an update: put a copy half-way between itself and the original it was made from."""
    for mine, theirs in zip(updated.parameters(), origin.parameters(), strict=True):
        mine.copy_((mine + theirs) / 2)


def scale_back_update(
    updated: nn.Module,
    origin: nn.Module,
    drop: float,
    lost: Callable[[], float],
    limit: float,
    text: str,
    progress: ProgressReporter,
) -> tuple[str, ...]:
    """Scale an update back to a half or a quarter until its drop is within the limit; return a note where it was.

    Args:
        updated: A copy of the original, updated; changed in place.
        origin: The original model.
        drop: The accuracy that the copy has lost, as a share.
        lost: Returns it anew once the copy has changed.
        limit: Largest loss allowed.
        text: What it is measured on, as the end of a clause.
        progress: Told where it is scaled back.

    Raises:
        Inconclusive: A quarter of the update is still over the limit.
    """
    share = 1.0
    while drop > limit:
        share /= 2
        if share < 0.2:
            raise Inconclusive(
                f"the update lowers accuracy on {text} by {drop:.4f} even when scaled back to a quarter, and the limit "
                f"is {limit}: nothing was saved; raise --max-fidelity-drop"
            )
        halve_update(updated, origin)
        drop = lost()
    if share == 1:
        return ()
    progress.info(f"Scaled the update back to {share:g} of its length, to stay within the fidelity limit.")
    return (f"scaled back to {share:g} of the full step, to stay within the fidelity limit",)


@torch.no_grad()
def accuracy_on(model: CharLSTM, windows: Tensor, precision: str) -> float:
    """Return the share of labels in windows, shape (W, T + 1), that the model predicts."""
    hits = 0
    for batch in torch.split(windows, BATCH):
        if len(batch):  # a text full of secrets has no other windows; its accuracy is then taken as unchanged
            with autocast(batch.device, precision):
                hits += int((model(batch[:, :-1]).argmax(2) == batch[:, 1:]).sum())
    return hits / max(1, windows[:, 1:].numel())
