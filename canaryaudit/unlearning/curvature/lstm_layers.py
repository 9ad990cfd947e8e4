"""The layers of ``CharLSTM`` as a ``TrainableModel``: read one time step after the other, with all gates at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.unlearning.curvature.trainable_model import GradientSides, LabelDraw, LayerMatrix


@dataclass(frozen=True)
class Activity:
    """What every layer's matrix is multiplied with, and what comes out, by the layer's name.

    Attributes:
        inputs: Shape (B, T, D).
        outputs: Shape (B, T, O), in the graph: an LSTM layer's are what its gates get before their nonlinearities.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class LSTMLayers:
    """A ``CharLSTM``: an LSTM layer multiplies its matrix with x_t, h_{t-1}, 1 and 1 for its two biases.

    Args:
        model: The model.
    """

    def __init__(self, model: CharLSTM) -> None:
        self._model = model

    @property
    def layers(self) -> Mapping[str, LayerMatrix]:
        """``embedding``, ``lstm.0`` and so on, ``output``."""
        shape = self._model.architecture
        size, hidden = len(shape.vocabulary), shape.hidden
        lstm = {
            f"lstm.{layer}": LayerMatrix(4 * hidden, (hidden if layer else shape.embedding, hidden, 1, 1))
            for layer in range(shape.layers)
        }
        return {
            "embedding": LayerMatrix(size, (shape.embedding,)),
            **lstm,
            "output": LayerMatrix(size, (hidden, 1)),
        }

    @property
    def moved(self) -> Sequence[Tensor]:
        """All parameters."""
        return list(self._model.parameters())

    def predictions(self, examples: Tensor) -> int:
        """Return how many symbols are predicted."""
        return examples.numel()

    def sides(self, examples: Tensor, labels: LabelDraw) -> Mapping[str, Sequence[GradientSides]]:
        """Return what each layer's gradient is made of, of windows of shape (B, T); see ``TrainableModel``."""
        activity = unrolled(self._model, examples)
        logits = activity.outputs["output"].flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, labels(logits), reduction="sum")
        names = list(activity.outputs)
        gradients = dict(zip(names, torch.autograd.grad(loss, [activity.outputs[name] for name in names]), strict=True))
        # An embedding's table has a row for each symbol: its matrix stands turned round.
        return {
            name: [
                GradientSides(activity.inputs[name], gradients[name])
                if name == "embedding"
                else GradientSides(gradients[name], activity.inputs[name])
            ]
            for name in names
        }


def unrolled(model: CharLSTM, symbols: Tensor) -> Activity:
    """Read symbols, shape (B, T), from the zero state, one time step after the other, with all layers at hand."""
    one_hot = nn.functional.one_hot(symbols, len(model.architecture.vocabulary))
    below: Tensor = model.embedding(symbols)
    inputs, outputs = {"embedding": one_hot.to(below.dtype)}, {"embedding": below}
    for layer, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(model.lstm.all_weights):
        given = nn.functional.linear(below, weight_ih, bias_ih + bias_hh)  # (B, T, 4H)
        cell = hidden = below.new_zeros(len(symbols), model.architecture.hidden)
        hiddens = [hidden]
        for own in given.unbind(1):  # a gate's gradient is that of what it is given from below
            to_keep, forget, candidate, to_show = (own + hidden @ weight_hh.T).chunk(4, 1)  # (B, H) each
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(to_keep) * torch.tanh(candidate)
            hidden = torch.sigmoid(to_show) * torch.tanh(cell)
            hiddens.append(hidden)
        ones = below.new_ones(*symbols.shape, 2)
        inputs[f"lstm.{layer}"] = torch.cat((below, torch.stack(hiddens[:-1], 1), ones), 2).detach()
        outputs[f"lstm.{layer}"] = given
        below = torch.stack(hiddens[1:], 1)
    inputs["output"] = torch.cat((below, torch.ones_like(below[..., :1])), 2).detach()
    outputs["output"] = model.output(below)
    return Activity(inputs, outputs)
