"""What is wanted where a secret begins as canaries do that stay."""

import numpy as np
import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.unlearning.all_layers import kept
from canaryaudit.unlearning.all_layers.kept import KeptCanaries
from canaryaudit.unlearning.occurrences import occurrences

TEMPLATE, OTHER = "code {digits:4}.", "pin {digits:4}."
SECRETS = {TEMPLATE: ("1234", "1239", "1577", "8000"), OTHER: ("1299",)}


@pytest.fixture
def staying() -> KeptCanaries:
    vocabulary = Vocabulary.of(["code pin 0123456789."])
    canaries = [
        Canary(id=f"{template[:3]}-{secret}", template=template, completion=secret, repetitions=2, places=(0, 20))
        for template, secrets in SECRETS.items()
        for secret in secrets
    ]
    return KeptCanaries(occurrences(canaries, "", vocabulary))


def digits(text: str) -> np.ndarray:
    return Vocabulary.of(["code pin 0123456789."]).encode(text)


def test_each_counts_once_behind_its_own_template(staying: KeptCanaries) -> None:
    rng = np.random.default_rng(0)
    along = rng.dirichlet(np.ones(len(Vocabulary.of(["code pin 0123456789."]).symbols)), 4)
    for member in ("1236", "1500", "9123", "8000"):
        found = staying.blended(along, TEMPLATE, digits(member))
        assert found.sum(1) == pytest.approx(1)
        for index in range(4):
            sharing = [own for own in SECRETS[TEMPLATE] if own[:index] == member[:index]]
            for symbol in "0123456789":
                at = int(digits(symbol)[0])
                going = sum(own[index] == symbol for own in sharing)
                wanted = (going + kept.PRIOR * along[index, at]) / (len(sharing) + kept.PRIOR)
                assert found[index, at] == pytest.approx(wanted), (member, index, symbol)


def test_of_many_templates_those_that_are_asked_for_and_the_fullest_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_TEMPLATES", 2)
    templates = ["a {digits:1}", *["b {digits:1}"] * 3, *["c {digits:1}"] * 2, "d {digits:1}"]
    canaries = [
        Canary(id=f"canary-{n}", template=template, completion=str(n), repetitions=1, places=(n,))
        for n, template in enumerate(templates)
    ]
    places = occurrences(canaries, "", Vocabulary.of(["abcd 0123456789\n"]))

    def held(*asked: str) -> list[str]:
        return [place.canary.template[0] for place in KeptCanaries(places, asked).places]

    assert held() == ["b", "b", "b", "c", "c"]
    assert held("d {digits:1}", "z {digits:1}") == ["b", "b", "b", "d"]


def test_where_none_stays_the_replacement_alone_is_wanted(staying: KeptCanaries) -> None:
    along = np.full((4, 15), 1 / 15)
    assert (staying.blended(along, "no such {digits:4}", digits("1234")) == along).all()
    assert (KeptCanaries([]).blended(along, TEMPLATE, digits("1234")) == along).all()
    assert (along == 1 / 15).all(), "what is given stays as it is"
