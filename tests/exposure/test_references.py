"""Tests of canaryaudit.exposure.references: large samples, in parts, and a fast draft of the model."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from canaryaudit.exposure import Execution, ScoredMembers, references
from canaryaudit.exposure.encoded_space import EncodedSpace, match_targets
from canaryaudit.exposure.estimators import sampled_exposure
from canaryaudit.exposure.references import References, score_references
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.exposure.scoring_models import ScoringModels
from canaryaudit.exposure.uniform_sample import UniformSample
from canaryaudit.models.language_model import PrefixState
from canaryaudit.storage.part_cache import DirectoryCache
from tests.fakes import Recorder, TableModel, encoded, every_member, naive_ranks

SYMBOLS = "\n!-0123456789abcdef"
TEMPLATE = "{digits:4}"
RANKS = (1, 3, 10, 100, 1000, 5000, 9999)


class Draft(TableModel):
    """A table model whose every step is a little wrong, always in the same way."""

    def advance(self, state: PrefixState, symbols: Tensor) -> PrefixState:
        right = super().advance(state, symbols)
        wave = torch.sin(right.cache[0][:, None] * 12.9898 + torch.arange(right.log2_probs.shape[1]) * 78.233)
        wrong = 0.15 * (wave + 0.3)  # not the same on average, so that errors do not cancel out
        return PrefixState((right.log2_probs + wrong).clamp(max=0), right.cache)


class Setting:
    def __init__(self) -> None:
        self.model, self.draft = (
            kind(SYMBOLS, 3, memorized=["0123", "0129"], certainty=0.9) for kind in (TableModel, Draft)
        )
        self.space, self.start = encoded(TEMPLATE, self.model)
        self.members, self.costs = every_member(TEMPLATE, self.model)
        order = np.argsort(self.costs, kind="stable")
        rows = [int(order[rank - 1]) for rank in RANKS]
        self.targets, self.target_costs = self.members[rows], self.costs[rows]
        self.truth = [self.space.bits - math.log2(rank) for rank in naive_ranks(self.costs, rows, [])]

    def score(
        self,
        sample: UniformSample | int,
        seed: int,
        *,
        draft: bool = True,
        inserted: np.ndarray | None = None,
        execution: Execution | None = None,
    ) -> References:
        if inserted is None:
            inserted = np.zeros(len(RANKS), dtype=bool)
        return score_references(
            ScoringModels(self.model, self.draft if draft else None),
            ScoredMembers(self.space, self.start, self.targets, inserted, self.target_costs),
            UniformSample(self.space, sample, (seed,)) if isinstance(sample, int) else sample,
            np.random.default_rng(seed),
            execution or Execution(),
        )


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


def test_references_cost_what_the_scorer_says_and_know_their_owners(setting: Setting) -> None:
    found = setting.score(30_000, 1, draft=False)
    sample = UniformSample(setting.space, 30_000, (1,))
    completions = np.concatenate([sample.part(index)[0] for index in range(sample.num_parts)])
    np.testing.assert_array_equal(found.bits, score_log_perplexity(setting.model, setting.start, completions))
    np.testing.assert_array_equal(found.target_index, match_targets(completions, setting.targets))
    assert sorted(set(found.target_index.tolist())) == list(range(-1, len(RANKS)))
    assert (found.total, found.rescored, found.draft_error_bits) == (30_000, None, 0.0)


def test_inserted_secrets_are_no_references_and_a_secret_is_not_its_own(setting: Setting) -> None:
    inserted = np.arange(len(RANKS)) < 2
    found = setting.score(50_000, 1, inserted=inserted)
    assert set(found.target_index.tolist()) == {-1, *range(2, len(RANKS))}
    assert found.rescored is not None
    others = found.where(found.target_index != 4)
    assert len(others.bits) == len(found.bits) - 1
    assert others.total < found.total
    assert set(others.target_index.tolist()) == {-1, 2, 3, *range(5, len(RANKS))}
    rescored = others.rescored
    assert rescored is not None
    # Still the same members: their second costs are near their first, and the model's own.
    assert np.abs(rescored.bits - others.bits[rescored.rows]).max() < 4 * 0.15 * 1.3 * 1.01
    assert np.isin(rescored.bits, setting.costs).all()


class Kept(UniformSample):
    """A sample whose parts are kept, not drawn anew at each look at them."""

    def __init__(self, space: EncodedSpace, count: int, seed: int) -> None:
        super().__init__(space, count, (seed,))
        self.kept = [super(Kept, self).part(index) for index in range(self.num_parts)]

    def part(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.kept[index]


@pytest.mark.slow
def test_intervals_hold_the_truth_though_a_draft_scored_the_references(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration over seeds, from rank 1 on, against enumeration by the exact model; without the second look the
    same intervals miss. Whether many or few references are scored twice."""
    limits, seeds = {"most": (4096, 1000), "few": (300, 40)}, 160
    covered, widths = ({name: np.zeros((seeds, len(RANKS))) for name in (*limits, "plain")} for _ in range(2))
    for seed in range(seeds):
        sample = Kept(setting.space, 100_000, seed)
        for name, (pilot, near) in limits.items():
            monkeypatch.setattr(references, "_PILOT", pilot)
            monkeypatch.setattr(references, "_NEAR", near)
            found = setting.score(sample, seed)
            for k, truth in enumerate(setting.truth):
                others = found.where(found.target_index != k)
                for kind, rescored in ((name, others.rescored), ("plain", None)):
                    own = sampled_exposure(
                        float(setting.target_costs[k]),
                        others.bits,
                        setting.space.bits,
                        counts=others.counts,
                        rescored=rescored,
                    )
                    covered[kind][seed, k] = own.low - 1e-9 <= truth <= own.high + 1e-9
                    widths[kind][seed, k] = own.high - own.low
    median = {kind: np.median(own, 0) for kind, own in widths.items()}
    for kind, own in covered.items():
        for rank, share, width in zip(RANKS, own.mean(0), median[kind], strict=True):
            print(f"{kind}, rank {rank}: {share:.1%} of {seeds}, median width {width:.3f} bits")
    assert covered["most"].mean(0).min() >= 0.93
    assert covered["few"].mean(0).min() >= 0.93
    assert setting.score(100_000, 0).draft_error_bits > 0.1
    assert covered["plain"].mean(0).min() < 0.5, "the draft's errors must matter, or this shows nothing"
    assert (median["most"] <= 1.2 * median["plain"] + 0.1).all(), "no wider than need be"


def test_an_interrupted_sample_goes_on_with_the_same_figures(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(references, "KEEP_FROM", 1)
    monkeypatch.setattr(references, "_BLOCK", 1)
    monkeypatch.setattr("canaryaudit.exposure.uniform_sample.PART", 1000)
    cache = DirectoryCache(tmp_path)  # type: ignore[arg-type]
    per_part = setting.space.max_length + 1  # once for each symbol, and once at the end
    whole = setting.score(20_000, 5)
    with pytest.raises(KeyboardInterrupt):
        setting.score(20_000, 5, execution=Execution(progress=Recorder(interrupt_after=4 * per_part), cache=cache))
    kept = sorted(cache.path.iterdir())
    assert len(kept) == 4
    kept[1].write_bytes(b"half a file")
    progress = Recorder()
    resumed = setting.score(20_000, 5, execution=Execution(progress=progress, cache=cache))
    np.testing.assert_array_equal(resumed.bits, whole.bits)
    np.testing.assert_array_equal(resumed.counts, whole.counts)
    assert resumed.rescored is not None
    assert whole.rescored is not None
    np.testing.assert_array_equal(resumed.rescored.bits, whole.rescored.bits)
    parts = UniformSample(setting.space, 20_000, (5,)).num_parts
    # The first part was kept, and the second is scored again.
    assert 1 / parts < progress.told[0][1] / progress.told[0][2] < 2 / parts


def test_subsamples_are_of_the_draws_with_their_multiplicities(setting: Setting) -> None:
    found = setting.score(100_000, 2, draft=False)
    all_of_them = found.subsample(10**6, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(all_of_them), np.sort(np.repeat(found.bits, found.counts)))
    some = found.subsample(20_000, np.random.default_rng(0))
    assert len(some) == 20_000
    assert some.mean() == pytest.approx(all_of_them.mean(), abs=4 * all_of_them.std() / math.sqrt(20_000))
