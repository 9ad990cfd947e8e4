"""Second-order updates of corrected labels: one step theta - tau (F + lambda)^-1 Delta.

    Delta = sum over corrected rows of grad l(x, new label) - grad l(x, old label)      (Warnecke et al. 2023)

F is the Gauss-Newton matrix of the training loss: over the dense layers exactly, by conjugate gradients on the cached
activations of all rows; over all layers in Kronecker factors from a sample. The first-order update has F + lambda = 1.
Networks are not convex and their steps not small, so each is taken in the length tau that serves the corrected labels
best: the loss on the corrected rows and as many others, a judge that every request brings along.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canaryaudit.images.training import Prepare
from canaryaudit.models.device import autocast
from canaryaudit.progress import ProgressReporter
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients
from canaryaudit.unlearning.curvature.kronecker import InverseRoot, kronecker_curvature
from canaryaudit.unlearning.curvature.module_layers import ModuleLayers
from canaryaudit.unlearning.curvature.products import DifferentiableLoss

BATCH = 500
MOST_JUDGED = 1000
"""Corrected rows on which the length of a step is judged, and as many others."""
SAMPLE = 256
"""Images from which the Kronecker factors are taken."""
LENGTHS = tuple(4.0**power for power in range(-6, 4))
DAMPING = 1e-2
"""lambda for each row: below it, curvature is noise of the sample or of bfloat16."""
ITERATIONS = 10


@dataclass(frozen=True, eq=False)
class Correction:
    """What an update of a network needs.

    Attributes:
        images: What the network takes, shape (N, ...), before ``prepare``.
        old: Labels that it was trained on, shape (N,).
        new: Corrected labels, shape (N,).
        prepare: Turns a batch of images into the network's input.
        precision: Of matrix products.
        seed: Of all that is drawn.
    """

    images: Tensor
    old: Tensor
    new: Tensor
    prepare: Prepare
    precision: str
    seed: int

    @property
    def rows(self) -> Tensor:
        """The corrected rows."""
        return torch.nonzero(self.old != self.new)[:, 0]

    def judged(self) -> Tensor:
        """Return corrected rows and as many others, at random."""
        generator = torch.Generator().manual_seed(self.seed)
        corrected = self.old != self.new
        chosen = []
        for places in (torch.nonzero(corrected)[:, 0], torch.nonzero(~corrected)[:, 0]):
            most = min(MOST_JUDGED, len(places), int(corrected.sum()))
            chosen.append(places[torch.randperm(len(places), generator=generator)[:most].to(places.device)])
        return torch.cat(chosen)


def label_gradient(module: nn.Module, correction: Correction, parameters: Sequence[Tensor]) -> Tensor:
    """Return Delta as a flat vector in the parameters' order, with the module in evaluation mode."""
    module.eval()
    total = torch.zeros(sum(own.numel() for own in parameters), device=correction.new.device)
    for rows in torch.split(correction.rows, BATCH):
        with autocast(correction.new.device, correction.precision):
            logits = module(correction.prepare(correction.images[rows])).float()
            # The terms without the label are alike and cancel.
            gained = logits.gather(1, correction.new[rows, None]) - logits.gather(1, correction.old[rows, None])
        gradients = torch.autograd.grad(-gained.sum(), parameters)
        total += torch.cat([own.reshape(-1) for own in gradients])
    return total


def take_step(module: nn.Module, correction: Correction, parameters: Sequence[Tensor], direction: Tensor) -> float:
    """Move the parameters along a direction, in the length that serves the corrected labels best; return it."""
    rows = correction.judged()
    shapes = [own.numel() for own in parameters]
    start = [own.detach().clone() for own in parameters]

    def move(length: float) -> None:
        with torch.no_grad():
            for own, old, part in zip(parameters, start, torch.split(direction, shapes), strict=True):
                own.copy_(old + length * part.view_as(own))

    best, least, worse = 0.0, mean_loss(module, correction, rows), 0
    for length in LENGTHS:
        move(length)
        loss = mean_loss(module, correction, rows)
        best, least, worse = (length, loss, 0) if loss < least else (best, least, worse + 1)
        if worse == 2:
            break
    move(best)
    return best


@torch.no_grad()
def mean_loss(module: nn.Module, correction: Correction, rows: Tensor) -> float:
    """Return the mean loss of the corrected labels on some rows."""
    module.eval()
    total = 0.0
    for part in torch.split(rows, BATCH):
        with autocast(correction.new.device, correction.precision):
            logits = module(correction.prepare(correction.images[part])).float()
        total += float(nn.functional.cross_entropy(logits, correction.new[part], reduction="sum"))
    return total / len(rows)


def first_order(module: nn.Module, correction: Correction) -> float:
    """Take a first-order step over all parameters; return its length for each corrected row."""
    parameters = [own for own in module.parameters() if own.requires_grad]
    gradient = label_gradient(module, correction, parameters)
    return take_step(module, correction, parameters, -gradient / len(correction.rows))


def gauss_newton_step(module: nn.Module, correction: Correction) -> float:
    """Take a second-order step over a module's parameters; return its length.

    Args:
        module: The dense layers; all rows' cached activations are what it takes.
        correction: Of these activations.
    """
    named = {name: own for name, own in module.named_parameters() if own.requires_grad}
    module.eval()

    def predict(parameters: Sequence[Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        outputs: Tensor = torch.func.functional_call(
            module, dict(zip(named, parameters, strict=True)), (correction.prepare(batch[0]).float(),)
        )
        return outputs

    def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch[1], reduction="sum")

    def through_softmax(outputs: Tensor, _: tuple[Tensor, Tensor], pushed: Tensor) -> Tensor:
        chances = outputs.softmax(1)
        return chances * (pushed - (chances * pushed).sum(1, keepdim=True))

    batches = list(zip(torch.split(correction.images, BATCH), torch.split(correction.new, BATCH), strict=True))
    summed = DifferentiableLoss(list(named.values()), predict, loss, batches, through_softmax)
    gradient = label_gradient(module, correction, list(named.values()))
    solver = ConjugateGradients[Tensor](tolerance=0.1, max_iterations=ITERATIONS, certify=False)
    found = solver.solve(summed.gauss_newton_product, -gradient, damping=DAMPING * len(correction.new))
    return take_step(module, correction, list(named.values()), found.x)


def kronecker_step(module: nn.Module, correction: Correction, progress: ProgressReporter) -> tuple[float, ModuleLayers]:
    """Take a second-order step over all layers, with the curvature in Kronecker factors.

    Returns:
        Its length, and the layers.
    """
    module.eval()
    generator = torch.Generator().manual_seed(correction.seed)
    chosen = torch.randperm(len(correction.new), generator=generator)[:SAMPLE].to(correction.new.device)
    layers = ModuleLayers(module, module)
    examples = correction.prepare(correction.images[chosen])
    curvature = kronecker_curvature(layers, examples, correction.seed, progress)
    root = InverseRoot(curvature, layers, len(correction.new), DAMPING * len(correction.new), torch.float32)
    gradient = label_gradient(module, correction, list(layers.moved))
    return take_step(module, correction, list(layers.moved), -root.apply(root.transposed(gradient))), layers
