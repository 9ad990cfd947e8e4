"""Does a secret come back when the unlearned model is trained further?

Two attackers have the weights. One trains on other text only, without ill intent; the other has got hold of
one window of the canary's own text and puts it into every batch. Both are let loose, batch for batch the
same, on the model that was *retrained* on corrected text, which holds nothing of the secret: whatever comes
back sooner than there was still in the unlearned model.
"""

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, get_args

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure import MeasurementConfig, measure
from canaryaudit.exposure.probing import TEMPLATE_PROBE, AskedProbe, exposure_asked
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.models.ensemble import Ensemble, as_language_model
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.records import Relearning, RelearningAttack, RelearningCurve, RelearningPoint
from canaryaudit.training.data import TrainingData, gather, retention_windows

OTHER_TEXT_MARGIN_BITS = 1.0
"""Exposure that training on other text may bring back beyond what it does in the retrained model."""
CANARY_WINDOW_MARGIN_BITS = 2.0
"""Exposure by which the canary's window may lift the model above the retrained one."""

_ATTACKS: tuple[RelearningAttack, ...] = get_args(RelearningAttack)
T = TypeVar("T")


class RelearningConfig(BaseModel):
    """How to attack; checked when made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16, 32, 64), min_length=1)
    """Ascending; optimizer steps after which exposure is taken; it is always taken before the first one too."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam: what someone who knows nothing of the model would take."""
    batch_size: int = Field(default=8, ge=2)
    """Windows a step; the canary's window is one of them."""
    window: int = Field(default=100, gt=1)
    seed: int = Field(default=0, ge=0)
    measurement: MeasurementConfig = MeasurementConfig(
        num_references=1_000,
        estimators=("exact", "importance", "sampled"),
        search_budget=5_000,
        draws_per_temperature=500,
    )
    """One exposure is taken for each step, attack and model: a second's work, to about a tenth of a bit."""


@dataclass(frozen=True)
class AttackedModel:
    """A model under attack.

    Attributes:
        name: The unlearning that made it.
        model: The model; it is left as it is.
        sha256: Of its weights.
        worst: The probe that shows most of a canary in this very model, by the canary's id; without one it is asked by
            its template's own prefix only.
    """

    name: str
    model: CharLSTM | Ensemble
    sha256: str
    worst: Mapping[str, AskedProbe] = field(default_factory=dict)


def attack_by_relearning(
    unlearned: AttackedModel,
    retrained: AttackedModel,
    data: TrainingData,
    canaries: Sequence[Canary],
    canary_set: CanarySet,
    config: RelearningConfig,
    progress: ProgressReporter,
) -> Relearning:
    """Attack an unlearned model and a retrained one with the very same batches.

    Args:
        unlearned: The model to attack.
        retrained: What was trained on corrected text, to compare with.
        data: The audited text, from which the attackers' windows are taken.
        canaries: Whom to attack, each by itself; all stand in the text.
        canary_set: All canaries: those that were inserted are no references of each other.
        config: How to attack.
        progress: Told of progress.

    Raises:
        UnlearningError: There is no text without a secret to train on.
    """
    started = time.perf_counter()
    digest = hashlib.sha256()
    curves: list[RelearningCurve] = []
    runs = [(canary, attack) for canary in canaries for attack in _ATTACKS]
    total = len(runs) * 2 * (len(config.steps) + 1)
    done = 0
    for canary, attack in runs:
        batches = attack_batches(data, canary, attack, config)
        digest.update(batches.cpu().numpy().tobytes())
        courses: list[list[tuple[RelearningPoint, RelearningPoint]]] = []
        for contender in (unlearned, retrained):
            found = []
            measure_step = partial(_points, canary, canary_set, config.measurement, contender.worst.get(canary.id))
            for points in finetune_and_measure(contender.model, batches, config, measure_step):
                done += 1
                point = points[0]
                facts = f"{canary.id}, {attack}, {contender.name}, step {point.step}: {point.exposure.bits:.1f} bits"
                progress.update("attack", done, total, facts)
                found.append(points)
            courses.append(found)
        by_prefix, by_worst = ([[points[way] for points in course] for course in courses] for way in (0, 1))
        curves.append(compare(canary.id, attack, *by_prefix))
        asked = [contender.worst.get(canary.id) for contender in (unlearned, retrained)]
        if any(asked):
            names = [own.name if own else TEMPLATE_PROBE for own in asked]
            curve = compare(canary.id, attack, *by_worst)
            curves.append(curve.model_copy(update={"probe": names[0], "retrained_probe": names[1]}))
    return Relearning(
        retrained_name=retrained.name,
        retrained_sha256=retrained.sha256,
        optimizer="Adam",
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        window=config.window,
        steps=config.steps,
        seed=config.seed,
        batches_sha256=digest.hexdigest(),
        other_text_margin_bits=OTHER_TEXT_MARGIN_BITS,
        canary_window_margin_bits=CANARY_WINDOW_MARGIN_BITS,
        curves=tuple(curves),
        seconds=time.perf_counter() - started,
    )


def attack_batches(data: TrainingData, canary: Canary, attack: RelearningAttack, config: RelearningConfig) -> Tensor:
    """Draw the windows of every step from the audited text; they depend on no model.

    Returns:
        Symbol ids, shape (steps, batch, window + 1); under the attack with the canary's window, that window
        is the first of every batch, and all others hold no secret.

    Raises:
        UnlearningError: No window is free of secrets, or the text is shorter than a window.
    """
    count, window = max(config.steps), config.window
    rng = np.random.default_rng(config.seed)
    if len(data.train) <= window:
        raise UnlearningError(f"the text has {len(data.train)} characters: expected more than a window of {window}")
    free = retention_windows(data.secret.cpu().numpy(), window, len(data.train), rng)
    if len(free) == 0:
        raise UnlearningError(
            f"every window of {window} characters holds a secret: expected other text to train the model further on"
        )
    starts = np.resize(free, (count, config.batch_size))  # over and over where the text is short
    if attack == "canary-window":
        starts[:, 0] = canary_window_start(canary, window, len(data.train))
    return gather(data.train, starts.reshape(-1), window + 1).view(count, config.batch_size, window + 1)


def canary_window_start(canary: Canary, window: int, text_length: int) -> int:
    """Return where the window begins that shows a canary's first occurrence: its text in the middle.

    Where the canary's text is longer than the window, the secret is in the middle instead.
    """
    template = Template.parse(canary.template)
    filled, place = template.fill(canary.completion), canary.places[0]
    first, length = place, len(filled)
    if length > window:
        first, length = place + len(template.prefix), len(canary.completion)
    return int(np.clip(first - max(0, window + 1 - length) // 2, 0, text_length - window - 1))


def finetune_and_measure(
    model: CharLSTM | Ensemble,
    batches: Tensor,
    config: RelearningConfig,
    measure_step: Callable[[CharLSTM | Ensemble, int], T],
) -> Iterator[T]:
    """Train a copy of a model further, and look at it before the first step and after the steps asked for.

    Args:
        model: The model; it is left as it is.
        batches: Windows by step, shape (S, B, T + 1).
        config: Learning rate and steps.
        measure_step: Called with the model as it is and the number of steps taken.

    Yields:
        What ``measure_step`` returned, in the order of the steps.
    """
    attacked = copy.deepcopy(model)
    optimizer = torch.optim.Adam(attacked.parameters(), lr=config.learning_rate)
    yield measure_step(attacked.eval(), 0)
    for step, windows in enumerate(batches, 1):
        attacked.train()  # cuDNN differentiates an LSTM in no other mode
        logits = attacked(windows[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in config.steps:
            yield measure_step(attacked.eval(), step)


def _points(
    canary: Canary,
    canary_set: CanarySet,
    config: MeasurementConfig,
    worst: AskedProbe | None,
    model: CharLSTM | Ensemble,
    step: int,
) -> tuple[RelearningPoint, RelearningPoint]:
    """Measure one canary's exposure by its template's own prefix, and by the probe that showed most of it."""
    own = exposure_point(canary, canary_set, config, model, step)
    if worst is None:
        return own, own
    bits, exposure = exposure_asked(as_language_model(model), canary_set, canary, worst, config)
    return own, RelearningPoint(step=step, log_perplexity_bits=bits, exposure=exposure)


def exposure_point(
    canary: Canary, canary_set: CanarySet, config: MeasurementConfig, model: CharLSTM | Ensemble, step: int
) -> RelearningPoint:
    """Measure one canary's exposure, against references drawn afresh from the model as it is."""
    alike = tuple(other for other in canary_set.inserted if other.template == canary.template)
    measurement = measure(
        as_language_model(model),
        canary_set.model_copy(update={"canaries": alike}),
        config,
        name="attacked",
        model_sha256="",
        precision="fp32",
        progress=NullReporter(),
    )
    found = next(own for own in measurement.canaries if own.id == canary.id)
    return RelearningPoint(step=step, log_perplexity_bits=found.log_perplexity_bits, exposure=found.exposure)


def compare(
    canary: str, attack: RelearningAttack, unlearned: Sequence[RelearningPoint], retrained: Sequence[RelearningPoint]
) -> RelearningCurve:
    """Put an attack's course beside that on the retrained model, and judge it.

    Under the attack with the canary's window the secret comes back sooner where, after some step, its exposure is
    more than ``CANARY_WINDOW_MARGIN_BITS`` above the retrained model's and their 95 % intervals lie apart. Under
    training on other text it comes back where it has gained more than ``OTHER_TEXT_MARGIN_BITS`` beyond what it
    gained in the retrained model, and its interval lies above that at step 0.

    Args:
        canary: Its id.
        attack: Which attack.
        unlearned: The attacked model's points, from step 0.
        retrained: The retrained model's, at the same steps.
    """
    excesses: list[tuple[float, int]] = []
    comes_back_at = None
    start, other_start = unlearned[0].exposure, retrained[0].exposure
    for mine, theirs in list(zip(unlearned, retrained, strict=True))[1:]:
        if attack == "canary-window":
            excess, margin = mine.exposure.bits - theirs.exposure.bits, CANARY_WINDOW_MARGIN_BITS
            apart = mine.exposure.low > theirs.exposure.high
        else:
            gained = max(0.0, theirs.exposure.bits - other_start.bits)
            excess, margin = mine.exposure.bits - start.bits - gained, OTHER_TEXT_MARGIN_BITS
            apart = mine.exposure.low > start.high
        excesses.append((excess, mine.step))
        if comes_back_at is None and excess > margin and apart:
            comes_back_at = mine.step
    largest, step = max(excesses, key=lambda pair: pair[0])
    return RelearningCurve(
        canary=canary,
        attack=attack,
        unlearned=tuple(unlearned),
        retrained=tuple(retrained),
        excess_bits=largest,
        excess_step=step,
        comes_back_at=comes_back_at,
    )
