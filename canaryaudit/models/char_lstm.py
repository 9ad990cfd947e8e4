"""The character LSTM that ``canaryaudit train`` makes, and its adapters to the ``LanguageModel`` protocol.

Measuring needs the next-symbol log-probabilities after each of a batch of prefixes, and a state to which the next
symbol can be added.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import ModelError
from canaryaudit.models.language_model import LOG2_E, PrefixState
from canaryaudit.records import Architecture

_VECTOR = 16
"""Largest number of float32 values in a CPU vector register."""


class CharLSTM(nn.Module):
    """Embedding, LSTM layers, linear map to the vocabulary."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        size = len(architecture.vocabulary)
        self.embedding = nn.Embedding(size, architecture.embedding)
        self.lstm = nn.LSTM(architecture.embedding, architecture.hidden, architecture.layers, batch_first=True)
        self.output = nn.Linear(architecture.hidden, size)

    @property
    def num_parameters(self) -> int:
        """Number of trainable weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def features(
        self, symbols: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the inputs of the final layer, shape (B, T, H), and the LSTM's last state."""
        hidden, state = self.lstm(self.embedding(symbols), state)
        return hidden, state

    def forward(self, symbols: Tensor) -> Tensor:
        """Return logits of the next symbol at every position: (B, T) -> (B, T, V)."""
        logits: Tensor = self.output(self.features(symbols)[0])
        return logits


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Allow differentiation on every device: cuDNN differentiates an LSTM in training mode only."""
    training = model.training
    model.train()  # the model has no dropout
    try:
        yield
    finally:
        model.train(training)


class LSTMLanguageModel:
    """A trained ``CharLSTM`` as a ``LanguageModel`` in float32, with weights arranged for single-symbol steps.

    The first layer's input weights are a table by symbol; other layers have one matrix of input and recurrent weights.
    Single steps are three to seven times as fast as ``nn.LSTM`` in float32, and small batches are cheap.
    """

    def __init__(self, model: CharLSTM) -> None:
        self.vocabulary = Vocabulary(model.architecture.vocabulary)
        self.device = model.output.weight.device
        self.hidden, self.layers = model.architecture.hidden, model.architecture.layers
        # The candidate gate is last, so one sigmoid covers the other three.
        to_keep, forget, candidate, to_show = torch.arange(4 * self.hidden, device=self.device).chunk(4)
        order = torch.cat((to_keep, forget, to_show, candidate))
        with torch.no_grad():
            weight = {name: value.detach().float()[order] for name, value in model.lstm.named_parameters()}
            self._biases = [weight[f"bias_ih_l{k}"] + weight[f"bias_hh_l{k}"] for k in range(self.layers)]
            # What is added to the matrix product: by symbol in the first layer, (V, 4H); else (4H,).
            self._table = model.embedding.weight.float() @ weight["weight_ih_l0"].T + self._biases[0]
            inputs = [weight["weight_hh_l0"]]
            inputs += [
                torch.cat((weight[f"weight_ih_l{k}"], weight[f"weight_hh_l{k}"]), 1) for k in range(1, self.layers)
            ]
            self._matrices = [matrix.T.contiguous() for matrix in inputs]  # (H or 2H, 4H)
            # Padded with zero columns to a multiple of the vector size, V': at a matrix's edge, a row's products round
            # differently at another batch position if more than two threads share the work.
            pad = -len(self.vocabulary) % _VECTOR
            self._output = nn.functional.pad(model.output.weight.detach().float().T.contiguous(), (0, pad))  # (H, V')
            self._output_bias = nn.functional.pad(model.output.bias.detach().float(), (0, pad))

    @property
    def multiplications(self) -> int:
        """How many reading one symbol takes."""
        return sum(matrix.numel() for matrix in self._matrices) + self._output.numel()

    @torch.no_grad()
    def read(self, symbols: Tensor) -> PrefixState:
        """Read one prefix, shape (T,) with T >= 1, from the zero state."""
        if len(symbols) == 0:
            raise ModelError("cannot predict after an empty prefix: expected at least one symbol")
        zeros = torch.zeros(1, self.layers, self.hidden, device=self.device)
        state = PrefixState(torch.empty(1, len(self.vocabulary), device=self.device), (zeros, zeros))
        for symbol in symbols:
            state = self.advance(state, symbol[None])
        return state

    @torch.no_grad()
    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one symbol, shape (N,), to each of N prefixes."""
        hidden, cell = state.cache  # (N, layers, H) each
        new_hidden, new_cell = torch.empty_like(hidden), torch.empty_like(cell)
        for layer in range(self.layers):
            if layer == 0:
                gates = self._table.index_select(0, symbols).addmm_(hidden[:, 0], self._matrices[0])  # (N, 4H)
            else:
                seen = torch.cat((new_hidden[:, layer - 1], hidden[:, layer]), 1)
                gates = torch.addmm(self._biases[layer], seen, self._matrices[layer])
            gates[:, : 3 * self.hidden].sigmoid_()
            gates[:, 3 * self.hidden :].tanh_()
            to_keep, forget, to_show, candidate = gates.chunk(4, 1)  # (N, H) each
            memory = torch.mul(forget, cell[:, layer]).addcmul_(to_keep, candidate)
            new_cell[:, layer] = memory
            new_hidden[:, layer] = torch.tanh(memory).mul_(to_show)
        return PrefixState(self._log2_probs(new_hidden[:, -1]), (new_hidden, new_cell))

    def _log2_probs(self, features: Tensor) -> Tensor:
        logits = torch.addmm(self._output_bias, features, self._output)[:, : len(self.vocabulary)]
        return torch.log_softmax(logits, 1).mul_(LOG2_E)


class BFloat16LanguageModel(LSTMLanguageModel):
    """The same model with its LSTM in bfloat16, using PyTorch's fused cell: fast and slightly less accurate.

    Log-perplexities of ten characters differ by a few hundredths of a bit. The final layer stays in float32: it would
    cause most of the error, and it is cheap.
    """

    def __init__(self, model: CharLSTM) -> None:
        super().__init__(model)
        self._embedding = model.embedding.weight.detach().bfloat16()
        self._lstm = copy.deepcopy(model.lstm).bfloat16()

    @torch.no_grad()
    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one symbol, shape (N,), to each of N prefixes; also accepts states of ``LSTMLanguageModel``."""
        before = tuple(part.transpose(0, 1).to(torch.bfloat16).contiguous() for part in state.cache)  # (layers, N, H)
        seen, after = self._lstm(self._embedding[symbols][:, None], before)
        return PrefixState(self._log2_probs(seen[:, 0].float()), tuple(part.transpose(0, 1) for part in after))
