"""The reference distribution: log-perplexity of uniform members of R, by the million if need be.

A fast draft of the model may score them in bfloat16. The secrets' own costs stay in float32, so the few
references that decide are scored again by the model itself: all those next to a secret's cost where there are
few, a random share where there are many, and a share of all the others. The share of likelier references is
then estimated without bias, whatever the draft's errors (Horvitz & Thompson 1952, a difference estimator).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from canaryaudit.distributed import Arrays, ProcessGroup, Task
from canaryaudit.exposure.encoded_space import EncodedSpace, match_targets
from canaryaudit.exposure.estimators.sampled import Rescored
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.scored_members import ScoredMembers
from canaryaudit.exposure.scoring import packed_state, score_log_perplexity, score_sorted, unpacked_state
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.exposure.uniform_sample import UniformSample
from canaryaudit.models.language_model import PrefixReader, PrefixState

DRAFT_FROM = 200_000
"""References from which a draft is worth its second look; below, float32 takes seconds."""
KEEP_FROM = 1_000_000
"""References from which finished parts are kept on the disk: a minute of work and more."""
_BLOCK = 8
"""Parts that are kept in one file: half a million draws, some ten seconds."""
_PILOT = 4096
"""References of any cost that are scored twice."""
_NEAR = 1000
"""References next to each secret's cost that are scored twice, at least where there are so many."""
_MOST_RESCORED = 100_000
_WIDTH = 4.0
"""Width of the window around a secret's cost, in root mean square errors of the draft."""


@dataclass(frozen=True)
class References:
    """Uniform draws of a space, none of an inserted canary, as distinct members with multiplicities.

    Attributes:
        bits: Log-perplexity of each distinct member, shape (U,).
        counts: How often each was drawn, shape (U,).
        target_index: Which target each member is, -1 for most, shape (U,).
        rescored: Members that the model itself scored, where a draft scored them all.
        draft_error_bits: Root mean square error of the draft; 0 without one.
    """

    bits: np.ndarray
    counts: np.ndarray
    target_index: np.ndarray
    rescored: Rescored | None
    draft_error_bits: float

    @property
    def total(self) -> int:
        """Number of draws."""
        return int(self.counts.sum())

    def subsample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the costs of ``count`` of the draws, or of all if there are not so many."""
        if self.total <= count:
            return np.repeat(self.bits, self.counts)
        chosen = rng.choice(self.total, count, replace=False)
        costs: np.ndarray = self.bits[np.searchsorted(np.cumsum(self.counts), chosen, side="right")]
        return costs

    def where(self, kept: np.ndarray) -> "References":
        """Return those members that are kept, shape (U,), bool."""
        if kept.all():
            return self
        rescored = self.rescored.without(~kept) if self.rescored else None
        return References(self.bits[kept], self.counts[kept], self.target_index[kept], rescored, self.draft_error_bits)


def score_references(
    models: ScoringModels[PrefixReader],
    targets: ScoredMembers,
    sample: UniformSample,
    rng: np.random.Generator,
    execution: Execution,
    label: str = "references",
) -> References:
    """Score a sample of uniform references; what an interrupted call had scored is not scored again.

    Args:
        models: The model, and the draft that scores the bulk of the sample; without one the model scores it all.
        targets: Secrets and controls, scored by the model.
        sample: Which members of their space.
        rng: Chooses what is scored twice.
        execution: How to carry it out; its cache keeps finished parts of a large sample.
        label: What to keep them under.
    """
    cache, tick = execution.cache, execution.ticker("references")
    found: list[Arrays] = []
    done = 0
    blocks = [range(first, min(first + _BLOCK, sample.num_parts)) for first in range(0, sample.num_parts, _BLOCK)]
    names = [f"{label}-{number:05d}" for number in range(len(blocks))]
    kept = [cache.get(name) if sample.count >= KEEP_FROM else None for name in names]
    missing = [index for block, part in zip(blocks, kept, strict=True) if part is None for index in block]

    def tell(share: float) -> None:
        tick(round(1000 * min(1.0, (done + share * (sample.count / sample.num_parts)) / sample.count)), 1000)

    scored = _scored(models, targets, sample, missing, execution.processes, tell)
    for name, block, stored in zip(names, blocks, kept, strict=True):
        if stored is None:
            own: list[Arrays] = []
            for piece in islice(scored, len(block)):
                own.append(piece)
                done += int(piece["counts"].sum())
                tell(0.0)
            part = {key: np.concatenate([piece[key] for piece in own]) for key in own[0]}
            if sample.count >= KEEP_FROM:
                cache.put(name, part)
        else:
            part = stored
            done += int(part["counts"].sum())
        found.append(part)
    whole = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
    references = References(whole["bits"], whole["counts"], whole["owner"], None, 0.0)
    if models.draft is not None:
        rescored, error = _rescore(models.model, targets, sample, references.bits, rng, execution.processes)
        references = References(references.bits, references.counts, references.target_index, rescored, error)
    rivals = ~np.r_[targets.inserted, False][references.target_index]  # -1 finds the last
    return references.where(rivals)


def _scored(
    models: ScoringModels[PrefixReader],
    targets: ScoredMembers,
    sample: UniformSample,
    indices: Sequence[int],
    processes: ProcessGroup,
    tell: Callable[[float], None],
) -> Iterator[Arrays]:
    """Score parts of a sample by the draft, if there is one; yield them in order."""
    tensors, facts = sample.space.packed()
    tensors |= {"targets": torch.from_numpy(targets.completions), **packed_state(targets.start)}
    facts |= {"count": sample.count, "seed": sample.seed, "draft": models.draft is not None}
    piece = _parts_of(models.draft or models.model, targets.start, sample, targets.completions, tell)
    return processes.map_tasks("references", tensors, facts, piece, indices)


def reference_worker(task: Task, readers: ScoringModels[PrefixReader], processes: ProcessGroup) -> None:
    """Take this process's part in the leader's ``score_references``."""
    facts = task.facts
    sample = UniformSample(EncodedSpace.unpacked(task.tensors, facts), facts["count"], facts["seed"])
    model = (readers.draft if facts["draft"] else None) or readers.model
    start = unpacked_state(task.tensors, model.device)
    processes.run_tasks(_parts_of(model, start, sample, task.tensors["targets"].numpy()), facts["indices"])


def _parts_of(
    model: PrefixReader,
    start: PrefixState,
    sample: UniformSample,
    targets: np.ndarray,
    tell: Callable[[float], None] | None = None,
) -> Callable[[int], Arrays]:
    def piece(index: int) -> Arrays:
        completions, counts = sample.part(index)
        within = None if tell is None else lambda done, total: tell(done / total)
        return {
            "bits": score_sorted(model, start, completions, within),
            "counts": counts.astype(np.int32),
            "owner": match_targets(completions, targets),
        }

    return piece


def _rescore(
    model: PrefixReader,
    targets: ScoredMembers,
    sample: UniformSample,
    bits: np.ndarray,
    rng: np.random.Generator,
    processes: ProcessGroup,
) -> tuple[Rescored, float]:
    """Score again, by the model itself, the references that decide; return them and the draft's error."""
    share = min(1.0, _PILOT / len(bits))
    pilot = np.flatnonzero(rng.random(len(bits)) < share)
    pilot_bits = score_log_perplexity(model, targets.start, _completions(sample, pilot), processes=processes)
    error = float(np.sqrt(np.mean((pilot_bits - bits[pilot]) ** 2))) if len(pilot) else 0.0
    near_shares = _near_shares(bits, targets.log_perplexity_bits, _WIDTH * error)
    near = np.setdiff1d(np.flatnonzero(rng.random(len(bits)) < near_shares), pilot, assume_unique=True)
    near_bits = score_log_perplexity(model, targets.start, _completions(sample, near), processes=processes)
    rows = np.concatenate((pilot, near))
    order = np.argsort(rows)
    rows = rows[order]
    shares = 1 - (1 - share) * (1 - near_shares[rows])
    return Rescored(rows, np.concatenate((pilot_bits, near_bits))[order], shares), error


def _near_shares(bits: np.ndarray, log_perplexity_bits: np.ndarray, width: float) -> np.ndarray:
    """Return with which probability each reference is scored again for being next to a secret's cost, shape (U,)."""
    order = np.argsort(bits, kind="stable")
    ordered = bits[order]
    wanted = min(_NEAR, max(1, _MOST_RESCORED // len(log_perplexity_bits)))
    shares = np.zeros(len(bits))
    for cost in log_perplexity_bits:
        middle = int(np.searchsorted(ordered, cost))
        low = min(int(np.searchsorted(ordered, cost - width)), max(0, middle - wanted // 2))
        high = max(int(np.searchsorted(ordered, cost + width)), min(len(bits), middle + wanted // 2))
        if high > low:
            shares[low:high] = np.maximum(shares[low:high], min(1.0, wanted / (high - low)))
    by_row = np.empty(len(bits))
    by_row[order] = shares
    return by_row


def _completions(sample: UniformSample, rows: np.ndarray) -> np.ndarray:
    """Return the members that stand in the given rows of a scored sample, in order; drawn anew, which is quick."""
    found, first = [np.empty((0, sample.space.max_length), dtype=np.int32)], 0
    for index in range(sample.num_parts):
        completions, _ = sample.part(index)
        last = first + len(completions)
        here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
        found.append(completions[here - first])
        first = last
    return np.concatenate(found)
