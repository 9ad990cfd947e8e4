"""Tests of canaryaudit.exposure.uniform_sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure import uniform_sample as uniform
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.uniform_sample import UniformSample

SYMBOLS = "\n !-0123456789abcdefghijklmnopqrstuvwxyz"
TEMPLATES = (
    "{digits:3}",
    "{digits:12}",
    "{choice:red|green|blue}-{lower:2}",
    "{hex:1}{choice:0|11|2-a}",
    "{[a-z0-9]:40}",
)


def space_of(template: str) -> EncodedSpace:
    return EncodedSpace.of(Template.parse(template).space(SYMBOLS), Vocabulary(SYMBOLS))


def whole(sample: UniformSample) -> tuple[np.ndarray, np.ndarray]:
    parts = [sample.part(index) for index in range(sample.num_parts)]
    return np.concatenate([own for own, _ in parts]), np.concatenate([counts for _, counts in parts])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TEMPLATES), st.integers(1, 3000), st.integers(0, 5), st.sampled_from([1, 3, 40, 16_384]))
def test_a_sample_is_sorted_distinct_members_with_counts_that_add_up(
    template: str, count: int, seed: int, part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uniform, "PART", part)
        completions, counts = whole(UniformSample(space_of(template), count, (seed,)))
    assert counts.sum() == count
    assert counts.min() >= 1
    rows = [tuple(row) for row in completions.tolist()]
    assert rows == sorted(set(rows))
    space, vocabulary = Template.parse(template).space(SYMBOLS), Vocabulary(SYMBOLS)
    assert all(vocabulary.decode(row[row >= 0]) in space for row in completions[:50])


@pytest.mark.parametrize("part", [7, 16_384])
@pytest.mark.parametrize("template", ["{digits:2}", "{choice:a|bb|bcd}-{digits:1}"])
def test_members_are_drawn_uniformly_and_independently(
    template: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts of all members over many samples: multinomial, by their mean and by their spread."""
    monkeypatch.setattr(uniform, "PART", part)
    space = space_of(template)
    members = [tuple(row) for row in space.members().tolist()]
    table = np.zeros((400, len(members)))
    for seed in range(400):
        completions, counts = whole(UniformSample(space, 50, (seed,)))
        for row, number in zip(completions.tolist(), counts.tolist(), strict=True):
            table[seed, members.index(tuple(row))] = number
    assert stats.chisquare(table.sum(0)).pvalue > 1e-3
    share = 1 / len(members)
    assert table.var(ddof=1) == pytest.approx(50 * share * (1 - share), rel=0.1)
    pair = np.cov(table[:, 0], table[:, -1])[0, 1]
    assert pair == pytest.approx(-50 * share**2, abs=4 * 50 * share / 20)


def test_any_part_can_be_drawn_alone_and_again() -> None:
    one, two = (UniformSample(space_of("{digits:8}"), 300_000, (3, 1)) for _ in range(2))
    assert one.num_parts == two.num_parts > 1
    last = one.num_parts - 1
    for index in (last, 0):
        np.testing.assert_array_equal(one.part(index)[0], two.part(index)[0])
        np.testing.assert_array_equal(one.part(index)[1], one.part(index)[1])
    other = UniformSample(space_of("{digits:8}"), 300_000, (4, 1))
    assert not np.array_equal(other.part(0)[0][:50], one.part(0)[0][:50])


def test_no_part_is_larger_than_its_limit_however_many_are_drawn() -> None:
    sample = UniformSample(space_of("{digits:9}"), 300_000, (0,))
    sizes = [len(sample.part(index)[0]) for index in range(sample.num_parts)]
    assert max(sizes) <= uniform.PART
    assert np.mean(sizes) > uniform.PART / 4, "parts that are too small waste the scorer's tiles"
    few = UniformSample(space_of("{digits:4}"), 10**8, (0,))
    completions, counts = whole(few)
    assert (few.num_parts, len(completions)) == (1, 10_000)
    assert counts.std() == pytest.approx(100, rel=0.1)
