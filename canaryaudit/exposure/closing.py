"""Whether the text that closes a template confirms a secret: how surely it is predicted after it, by rank.

A model may have forgotten how to say a secret and still recognize it: after the true one, what follows in the training
text is predicted more surely than after other members of R. Whoever guesses a secret can then confirm it. A secret that
the model never saw is exchangeable with members that were never inserted, so that

    p = (1 + number of references after which the closing text costs at most as much) / (1 + number of references)

is at most alpha with probability at most alpha, ties included (a conformal p-value: Bates et al. 2023).
"""

from collections.abc import Sequence

import numpy as np

from canaryaudit.errors import MeasurementError
from canaryaudit.exposure.probing import fresh_members
from canaryaudit.exposure.targets import Asker, Targets
from canaryaudit.records import Closing

_TOO_FEW = 2
"""References without which there is nothing to judge by."""


def judge_closings(
    asker: Asker, targets: Targets, num_references: int, seed: Sequence[int]
) -> tuple[list[Closing | None], int]:
    """Judge every canary and control of a template by what its closing text costs after them.

    Args:
        asker: Asks the model.
        targets: Canaries and controls after the template's own prefix.
        num_references: Of these the controls are a part; the others are drawn.
        seed: Of the draws.

    Returns:
        In the order of the targets; None for all where the template has no closing text, the model cannot read it,
        or the space has too few members. And the number of symbols read.

    Raises:
        MeasurementError: A cost is no number.
    """
    controls = np.flatnonzero(~targets.inserted)
    nothing: list[Closing | None] = [None] * len(targets.canaries)
    if not targets.template.suffix:
        return nothing, 0
    rng = np.random.default_rng(seed)
    fresh = fresh_members(targets.text_space, targets.text_rows, max(0, num_references - len(controls)), rng)
    if len(controls) + len(fresh) <= _TOO_FEW:
        return nothing, 0
    members = np.concatenate((targets.text_rows, fresh))
    found = asker.closing_costs(targets, members)
    if found is None:
        return nothing, 0
    if not np.isfinite(found.bits).all():
        raise MeasurementError("a closing text's cost is no number: the model is damaged; verify the run")
    is_reference = np.concatenate((~targets.inserted, np.ones(len(fresh), dtype=bool)))
    closings: list[Closing | None] = []
    for index in range(len(targets.canaries)):
        others = is_reference.copy()
        others[index] = False  # a control is judged by all the others
        closings.append(closing_of(float(found.bits[index]), found.bits[others]))
    return closings, found.symbols


def closing_of(cost_bits: float, reference_bits: np.ndarray) -> Closing:
    """Judge one member of R by what follows it.

    Args:
        cost_bits: Cost of the closing text after it.
        reference_bits: The same after references, shape (n,): members drawn uniformly and never inserted.

    Examples:
        >>> closing_of(2.0, np.array([2.0, 4.0, 6.0]))
        Closing(bits=2.0, p_value=0.5, references=3)
    """
    count = len(reference_bits)
    return Closing(
        bits=round(float(reference_bits.mean()) - cost_bits, 4),
        p_value=(1 + int((reference_bits <= cost_bits).sum())) / (1 + count),
        references=count,
    )
