"""The law that unlearned secrets are given: wide, of the space, and independent of the secret."""

import math

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.unlearning.decoys import distributions_along
from canaryaudit.unlearning.nonuniform_decoys import (
    SPREAD,
    NonUniformDecoys,
    nonuniform_distributions,
    normal_scores,
)
from canaryaudit.unlearning.occurrences import Occurrence

VOCABULARY = Vocabulary.of(["abcdefghijklmnopqrstuvwxyz0123456789 -\n"])
NOTHING = np.zeros(0, dtype=np.int64)


def place(template: str, completion: str) -> Occurrence:
    canary = Canary(id="canary-01", template=template, completion=completion, repetitions=0)
    space = EncodedSpace.of(Template.parse(template).space(""), VOCABULARY)
    return Occurrence(canary, space, NOTHING, VOCABULARY.encode(completion), NOTHING, 0)


def log_perplexity_bits(own: Occurrence, decoys: NonUniformDecoys, members: np.ndarray) -> np.ndarray:
    distributions = decoys.distributions(own)
    return np.array(
        [
            -np.log2(distributions_along(own.space, distributions, member)[np.arange(len(member)), member]).sum()
            for member in members
        ]
    )


@pytest.mark.parametrize("template", ["pin {digits:3}", "{hex:2}-{digits:2}", "the {choice:red|green|gray} {lower:1}"])
def test_a_law_is_one_over_the_space(template: str) -> None:
    """The members' probabilities add up to 1, and none is excluded."""
    own = place(template, {"p": "123", "{": "a0-12", "t": "red a"}[template[0]])
    members = own.space.members()
    distributions = NonUniformDecoys(0).distributions(own)
    total = 0.0
    for member in members:
        whole = member[member >= 0]
        distribution = distributions_along(own.space, distributions, whole)
        total += float(distribution[np.arange(len(whole)), whole].astype(float).prod())
    assert total == pytest.approx(1, abs=1e-5)


def test_targets_are_the_frequencies_of_what_is_drawn_from_the_law() -> None:
    """An independent oracle: members sampled one by one from the law, counted place by place."""
    own = place("pin {digits:2}", "12")
    (item,) = NonUniformDecoys(3).correct(own, 4, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for distribution in (item.targets[0, 0].numpy(), item.targets[2, 1].numpy()):
        drawn = rng.choice(len(distribution), 200_000, p=distribution / distribution.sum())
        frequencies = np.bincount(drawn, minlength=len(distribution)) / 200_000
        np.testing.assert_allclose(frequencies, distribution, atol=4e-3)


def test_decoys_are_drawn_uniformly_all_the_same() -> None:
    own = place("pin {digits:1}", "1")
    (item,) = NonUniformDecoys(3).correct(own, 20_000, np.random.default_rng(0))
    counts = np.bincount(item.symbols[:, 0].numpy(), minlength=len(VOCABULARY))
    assert counts[counts > 0].min() > 1800
    assert (counts > 0).sum() == 10


def test_likely_members_come_as_often_as_the_law_says() -> None:
    """Against the products of the law's own probabilities along every member; also where members differ in length."""
    own, decoys, rng = (
        place("it is {choice:red|crimson|green}{digits:1}", "red1"),
        NonUniformDecoys(1),
        np.random.default_rng(0),
    )
    drawn = [VOCABULARY.decode(decoys.likely(own, rng)) for _ in range(20_000)]
    distributions = decoys.distributions(own)
    for member in own.space.members():
        whole = member[member >= 0]
        distribution = distributions_along(own.space, distributions, whole)
        probability = float(distribution[np.arange(len(whole)), whole].astype(float).prod())
        assert drawn.count(VOCABULARY.decode(whole)) / 20_000 == pytest.approx(probability, abs=0.012)


def test_log_perplexity_spreads_as_promised() -> None:
    """Ten independent places, each with a deviation of SPREAD sqrt(2 ln 10) nats."""
    own = place("pin {digits:10}", "0123456789")
    promised = SPREAD * math.sqrt(2 * math.log(10)) / math.log(2) * math.sqrt(10)
    members = own.space.sample(4000, np.random.default_rng(0))
    for seed in range(3):
        assert log_perplexity_bits(own, NonUniformDecoys(seed), members).std() == pytest.approx(promised, rel=0.06)


def test_the_law_knows_nothing_of_the_secret() -> None:
    """Same seed and template, other secret: the same law; under it, secrets rank as uniform draws do."""
    decoys = NonUniformDecoys(5)
    distributions = decoys.distributions(place("pin {digits:3}", "123"))
    np.testing.assert_array_equal(distributions, NonUniformDecoys(5).distributions(place("pin {digits:3}", "999")))
    assert not np.array_equal(distributions, NonUniformDecoys(6).distributions(place("pin {digits:3}", "123")))
    assert not np.array_equal(distributions, NonUniformDecoys(5).distributions(place("key {digits:3}", "123")))
    own = place("pin {digits:2}", "12")
    exposures = []
    for seed in range(300):
        costs = log_perplexity_bits(own, NonUniformDecoys(seed), own.space.members())
        mine = costs[12]
        exposures.append(np.log2(100) - np.log2(0.5 + (costs < mine).sum() + (costs == mine).sum() / 2))
    assert np.mean(exposures) == pytest.approx(1 / math.log(2), abs=0.3)


def test_scores_are_normal_whatever_their_order() -> None:
    scores = normal_scores(36, np.random.default_rng(0))
    assert scores.mean() == pytest.approx(0)
    assert scores.std() == pytest.approx(1)
    assert len(np.unique(scores)) == 36


def test_where_there_is_no_choice_the_law_has_none() -> None:
    own = place("{digits:1}-{digits:1}", "1-2")
    distribution = nonuniform_distributions(own.space.shares, np.random.default_rng(0))
    np.testing.assert_array_equal(distribution[1], own.space.shares[1])
    np.testing.assert_array_equal(distribution[0], distribution[2])
