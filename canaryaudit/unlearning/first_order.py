"""The first-order update: theta* - tau Delta(Z, Z-tilde)   (Warnecke et al. 2023, section 4)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from canaryaudit.errors import Inconclusive
from canaryaudit.models.char_lstm import differentiable
from canaryaudit.models.device import autocast
from canaryaudit.progress import ProgressReporter
from canaryaudit.records import UpdateStep
from canaryaudit.unlearning.fidelity import BATCH, accuracy_on
from canaryaudit.unlearning.method import MethodInput, MethodResult
from canaryaudit.unlearning.replacement import Deletion

_STEP_SHARES = tuple(2.0**-k for k in range(12, 1, -1))


def delta(
    loss: Callable[[Tensor], Tensor],
    corrected: Tensor | Sequence[Tensor],
    original: Tensor,
    parameters: Sequence[Tensor],
) -> list[Tensor]:
    """Return Delta(Z, Z-tilde) = sum grad l(z-tilde) - sum grad l(z), for any differentiable model and loss.

    Args:
        loss: Summed loss of a batch of windows.
        corrected: Z-tilde, shape (W, T + 1), or several such where windows differ in length.
        original: Z, shape (W, T + 1).
        parameters: With respect to which the gradient is taken.

    Returns:
        One tensor for each parameter.
    """
    total = [torch.zeros_like(parameter) for parameter in parameters]
    groups = [corrected] if isinstance(corrected, Tensor) else corrected
    for sign, windows in (*((1.0, own) for own in groups), (-1.0, original)):
        for batch in torch.split(windows, 64):
            gradients = torch.autograd.grad(loss(batch), list(parameters))
            total = [mine + sign * gradient for mine, gradient in zip(total, gradients, strict=True)]
    return total


@torch.no_grad()
def line_search(
    parameters: Sequence[nn.Parameter],
    direction: Sequence[Tensor],
    corrected_loss: Callable[[], float],
    fidelity_drop: Callable[[], float],
    limit: float,
    taus: Sequence[float] | None,
    progress: ProgressReporter,
) -> tuple[float, UpdateStep]:
    """Move the parameters along -Delta by the step that serves Z-tilde best within the fidelity limit.

    Args:
        parameters: Changed in place.
        direction: Delta.
        corrected_loss: Loss of Z-tilde under the parameters as they are.
        fidelity_drop: Accuracy lost on other text under the parameters as they are.
        limit: Largest drop allowed.
        taus: Step lengths to try, ascending; None for those that move the weights by 2^-12 to 1/4 of their norm.
        progress: Told of every trial.

    Returns:
        tau (0 where every step breaks the limit or helps nothing), and the step's record.
    """
    origin = [parameter.clone() for parameter in parameters]
    size = float(torch.stack([part.norm() for part in direction]).norm())
    weights = float(torch.stack([part.norm() for part in origin]).norm())
    before = corrected_loss()
    best_tau, best_loss = 0.0, before

    def move(tau: float) -> None:
        for parameter, start, part in zip(parameters, origin, direction, strict=True):
            parameter.copy_(start - tau * part)

    trials = taus or [share * weights / max(size, 1e-30) for share in _STEP_SHARES]
    for index, tau in enumerate(trials):
        move(tau)
        loss, drop = corrected_loss(), fidelity_drop()
        progress.update("unlearn", index + 1, len(trials), f"tau {tau:.1e}, accuracy lost {drop:.4f}")
        if drop > limit:
            break
        if loss < best_loss:
            best_tau, best_loss = tau, loss
    move(best_tau)
    step = UpdateStep(step_norm=best_tau * size, gradient_norm=size, objective_before=before, objective_after=best_loss)
    return best_tau, step


def update_first_order(given: MethodInput) -> MethodResult:
    """Take one step along -Delta, of the given length or of the best within the fidelity limit.

    Args:
        given: The copy to change, and what may be used.

    Raises:
        Inconclusive: No step serves the corrected text within the limit.
    """
    config, model, kept = given.config, given.updated, given.retained
    original, corrected = given.correction.original_windows(), given.correction.corrected_windows(given.rng)

    def summed_loss(windows: Tensor) -> Tensor:
        with autocast(windows.device, config.precision):
            logits = model(windows[:, :-1])
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction="sum")

    def corrected_loss() -> float:
        return sum((float(summed_loss(part)) for windows in corrected for part in torch.split(windows, BATCH)), 0.0)

    parameters = list((model.output if config.resolved_scope == "final-layer" else model).parameters())
    with differentiable(model):
        direction = delta(summed_loss, corrected, original, parameters)
    accuracy = accuracy_on(model, kept, config.precision)
    tau, step = line_search(
        parameters,
        direction,
        corrected_loss=corrected_loss,
        fidelity_drop=lambda: accuracy - accuracy_on(model, kept, config.precision),
        limit=config.max_fidelity_drop,
        taus=None if config.tau is None else (config.tau,),
        progress=given.progress,
    )
    if tau == 0:
        other = "--replacement decoys" if config.replacement == Deletion.name else "--method second-order"
        raise Inconclusive(
            f"no first-order step lowers the loss within the fidelity limit ({config.max_fidelity_drop}): nothing was "
            f"saved; use {other}"
        )
    return MethodResult([step], 2.0 * len(given.correction.affected), 0, (f"tau {tau:.3g}",))
