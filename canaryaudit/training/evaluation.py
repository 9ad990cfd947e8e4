"""Evaluate a model on a text: predict every character from all characters before it."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.device import autocast
from canaryaudit.models.ensemble import Ensemble
from canaryaudit.models.language_model import LOG2_E
from canaryaudit.progress import check_signals
from canaryaudit.records import Evaluation

MOST_EVALUATED = 2**22
"""Maximum characters to evaluate; longer texts are sampled. The sample determines an accuracy to 0.0005, less than any
fidelity limit. Reading a huge text completely would take longer than a third of a training epoch."""
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
    """Predict every character of a text from all characters before it.

    The text is read in ``streams`` parallel parts, each from the zero state; the first character of a part is not
    predicted. For a text shorter than two characters, all figures are 0. For a text longer than ``MOST_EVALUATED``, 256
    evenly spaced parts are read, always the same ones.

    Args:
        model: The model.
        symbols: Shape (N,).
        secret: Whether each character belongs to a secret, shape (N,); None for no secrets.
        precision: ``fp32`` or ``bf16``.
        streams: Number of parts.
        processes: The processes that share the streams; all of them call this, and rank 0's text is used.
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
    counts = torch.zeros(
        4, dtype=torch.int64, device=symbols.device
    )  # correct, total; then the same outside the secrets
    local = processes.part(streams)
    for start in range(0, length - 1, 256):
        check_signals()
        end = min(start + 256, length - 1)
        offsets = begins[:, None] + torch.arange(start, end + 1, device=symbols.device)  # (streams, <= 257)
        inside = offsets[:, 1:] < size  # the last part may be shorter
        offsets = offsets.clamp(max=size - 1)
        read = symbols[offsets].long()
        plain = inside if secret is None else inside & ~secret[offsets[:, 1:]]
        plain = plain.contiguous()
        processes.broadcast(read)
        processes.broadcast(plain)
        read, plain, inside = read[local], plain[local], inside[local]
        if len(read) == 0:
            continue
        with autocast(symbols.device, precision):
            hidden, state = model.features(read[:, :-1], state)
            logits = model.output(hidden).float()  # (streams, <= 256, V)
        target = read[:, 1:]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        loss += (losses * inside).double().sum()
        hits = (logits.argmax(2) == target) & inside
        counts += torch.stack((hits.sum(), inside.sum(), (hits & plain).sum(), plain.sum()))
    processes.total(loss)
    processes.total(counts)
    correct, counted, correct_ordinary, counted_ordinary = counts.tolist()
    return Evaluation(
        accuracy=correct_ordinary / max(1, counted_ordinary),
        accuracy_all=correct / max(1, counted),
        loss_bits=float(loss) * LOG2_E / max(1, counted),
        sampled_characters=counted if sampled else None,
    )
