"""Ensembles of character LSTMs that average their log-probabilities.

A model trained by shards is one (Bourtoule et al. 2021, *Machine Unlearning*, IEEE S&P). The normalized mean of
log-probabilities is the normalized geometric mean of the members' distributions.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.models.language_model import LOG2_E, LanguageModel, PrefixState
from canaryaudit.models.weights import load_into
from canaryaudit.records import Architecture, ModelRecord

State = tuple[tuple[Tensor, Tensor], ...]


class Ensemble(nn.Module):
    """Models of one architecture, usable as one model wherever a ``CharLSTM`` is trained further or evaluated."""

    def __init__(self, members: Sequence[CharLSTM]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.architecture = members[0].architecture

    @property
    def models(self) -> list[CharLSTM]:
        """The members."""
        return [member for member in self.members if isinstance(member, CharLSTM)]

    def features(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the concatenated inputs of the members' final layers, shape (B, T, K H), and their last states."""
        states = state or (None,) * len(self.members)
        read = [member.features(symbols, last) for member, last in zip(self.models, states, strict=True)]
        return torch.cat([hidden for hidden, _ in read], -1), tuple(last for _, last in read)

    def output(self, hidden: Tensor) -> Tensor:
        """Return the mean of the members' log-probabilities, which are logits: (..., K H) -> (..., V)."""
        parts = hidden.chunk(len(self.members), -1)
        logs = [member.output(part).float().log_softmax(-1) for member, part in zip(self.models, parts, strict=True)]
        return torch.stack(logs).mean(0)

    def forward(self, symbols: Tensor) -> Tensor:
        """Return logits of the next symbol at every position: (B, T) -> (B, T, V)."""
        return self.output(self.features(symbols)[0])


class EnsembleLanguageModel:
    """An ``Ensemble`` as a ``LanguageModel``: each member reads separately, and log-probabilities are averaged."""

    def __init__(self, model: Ensemble) -> None:
        self._readers = [LSTMLanguageModel(member) for member in model.models]
        self.vocabulary, self.device = self._readers[0].vocabulary, self._readers[0].device

    @property
    def multiplications(self) -> int:
        """How many reading one symbol takes."""
        return sum(reader.multiplications for reader in self._readers)

    def read(self, symbols: Tensor) -> PrefixState:
        """Read one prefix, shape (T,) with T >= 1, from the zero state."""
        return self._joined([reader.read(symbols) for reader in self._readers])

    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        """Add one symbol, shape (N,), to each of N prefixes."""
        share = len(state.cache) // len(self._readers)
        return self._joined(
            [
                reader.advance(PrefixState(state.log2_probs, state.cache[share * k : share * (k + 1)]), symbols)
                for k, reader in enumerate(self._readers)
            ]
        )

    def _joined(self, states: Sequence[PrefixState]) -> PrefixState:
        mean = torch.stack([state.log2_probs for state in states]).mean(0)
        cache = tuple(part for state in states for part in state.cache)
        return PrefixState(torch.log_softmax(mean / LOG2_E, 1) * LOG2_E, cache)


def as_language_model(model: CharLSTM | Ensemble) -> LanguageModel:
    """Return the adapter on which exposure is measured: one symbol at a time, in float32."""
    return EnsembleLanguageModel(model) if isinstance(model, Ensemble) else LSTMLanguageModel(model)


def untrained_model(architecture: Architecture, members: int) -> CharLSTM | Ensemble:
    """Return an untrained ensemble of ``members`` models, or a single model if ``members`` is 1."""
    if members == 1:
        return CharLSTM(architecture)
    return Ensemble([CharLSTM(architecture) for _ in range(members)])


def load_model(record: ModelRecord, path: Path, device: torch.device) -> CharLSTM | Ensemble:
    """Read the model that a record describes.

    Raises:
        ModelError: The file is damaged, or does not hold this model's weights.
    """
    return load_into(lambda: untrained_model(record.lstm, record.members), path, device)
