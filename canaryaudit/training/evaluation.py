"""How well a model predicts a text: every character from all that stands before it."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.models.language_model import LOG2_E
from canaryaudit.records import Evaluation

MOST_EVALUATED = 2**22
"""Characters of a text that is read whole; of a longer one as many. An accuracy is then known to 0.0005, less than any
fidelity limit, and to read all of a great text would take longer than to train on it for a third of an epoch."""
_SAMPLED_STREAMS = 256


@torch.no_grad()
def evaluate(
    model: CharLSTM | Ensemble,
    symbols: Tensor,
    secret: Tensor | None,
    precision: str,
    streams: int = 32,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Predict every character of a text from all that stands before it.

    The text is read in ``streams`` parallel parts, each from the zero state; the first character of a part
    is not predicted. Of a text shorter than two characters every figure is 0. Of one longer than ``MOST_EVALUATED``
    256 parts are read, at even distances from its beginning to its end, always the same.

    Args:
        model: The model.
        symbols: Shape (N,).
        secret: Which characters belong to a secret, shape (N,); None for none.
        precision: ``fp32`` or ``bf16``.
        streams: Number of parts.
        processes: Who shares the streams; all of them call this, and the leader's text counts.
    """
    size = len(symbols)
    if sampled := size > MOST_EVALUATED:
        streams, length = _SAMPLED_STREAMS, MOST_EVALUATED // _SAMPLED_STREAMS
        begins = torch.arange(streams) * (size - length) // (streams - 1)
    else:
        streams = max(1, min(streams, size // 1000))
        length = math.ceil(size / streams)
        begins = torch.arange(streams) * length
    begins = begins.to(symbols.device)
    state: Any = None
    loss = torch.zeros((), dtype=torch.float64, device=symbols.device)
    counts = torch.zeros(4, dtype=torch.int64, device=symbols.device)  # right and all, then outside the secrets
    mine = processes.part(streams)
    for start in range(0, length - 1, 256):
        end = min(start + 256, length - 1)
        places = begins[:, None] + torch.arange(start, end + 1, device=symbols.device)  # (streams, <= 257)
        here = places[:, 1:] < size  # the last part may be shorter
        places = places.clamp(max=size - 1)
        read = symbols[places].long()
        plain = here if secret is None else here & ~secret[places[:, 1:]]
        plain = plain.contiguous()
        processes.broadcast(read)
        processes.broadcast(plain)
        read, plain, here = read[mine], plain[mine], here[mine]
        if len(read) == 0:
            continue
        with autocast(symbols.device, precision):
            hidden, state = model.features(read[:, :-1], state)
            logits = model.output(hidden).float()  # (streams, <= 256, V)
        target = read[:, 1:]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        loss += (losses * here).double().sum()
        hits = (logits.argmax(2) == target) & here
        counts += torch.stack((hits.sum(), here.sum(), (hits & plain).sum(), plain.sum()))
    processes.total(loss)
    processes.total(counts)
    right, counted, right_ordinary, counted_ordinary = counts.tolist()
    return Evaluation(
        accuracy=right_ordinary / max(1, counted_ordinary),
        accuracy_all=right / max(1, counted),
        loss_bits=float(loss) * LOG2_E / max(1, counted),
        sampled_characters=counted if sampled else None,
    )
