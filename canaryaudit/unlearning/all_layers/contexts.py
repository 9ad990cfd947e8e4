"""What is read before a secret is asked for: contexts, whose states are computed once for all that branches off.

Windows of ordinary text are read in parts. After each part stands a context, of a few characters to some dozens: what
the secrets and the decoys are read after, wherever an attacker may ask. The same positions hold the model to what it
predicts there.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from canaryaudit.models.char_lstm import CharLSTM

ENDS = (4, 12, 20)
"""Characters of text before a branch: short ones are what an attacker types, long ones what the text itself has."""


@dataclass(frozen=True)
class States:
    """What a model knows after each of C contexts.

    Attributes:
        features: Of the contexts' own positions, shape (W, T, H).
        memory: The LSTM's state after each context, two of shape (layers, C, H).
        last: The features after each context, shape (C, H).
    """

    features: Tensor
    memory: tuple[Tensor, Tensor]
    last: Tensor


@dataclass(frozen=True)
class Contexts:
    """Text to read, and where in it branches go on.

    Attributes:
        symbols: Symbol ids, shape (W, T).
        ends: Characters read before each branching, ascending; the last is T.
    """

    symbols: Tensor
    ends: tuple[int, ...]

    def __len__(self) -> int:
        """Return C, the number of contexts; context e W + w is window w up to end e."""
        return len(self.symbols) * len(self.ends)

    def read(self, model: CharLSTM) -> States:
        """Read all windows side by side, part after part."""
        state, features, hiddens, cells = None, [], [], []
        for first, last in itertools.pairwise((0, *self.ends)):
            part, state = model.features(self.symbols[:, first:last], state)
            features.append(part)
            hiddens.append(state[0])
            cells.append(state[1])
        last_features = torch.cat([part[:, -1] for part in features])
        return States(torch.cat(features, 1), (torch.cat(hiddens, 1), torch.cat(cells, 1)), last_features)


def branch_features(model: CharLSTM, states: States, symbols: Tensor, origins: Tensor) -> Tensor:
    """Return what the final layer sees before each symbol of branches.

    Args:
        model: The model.
        states: After the contexts.
        symbols: What follows them, padded at the end, shape (B, L).
        origins: The context that each branch follows, shape (B,).

    Returns:
        Features that each symbol is predicted from, shape (B, L, H).
    """
    hidden, cell = (part[:, origins].contiguous() for part in states.memory)
    ahead, _ = model.features(symbols[:, :-1], (hidden, cell)) if symbols.shape[1] > 1 else (states.last[:0], None)
    first = states.last[origins][:, None]
    return torch.cat((first, ahead), 1) if symbols.shape[1] > 1 else first
