"""The sum over all spellings of a text, against one that tries every way to cut it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from canaryaudit.exposure import MeasurementConfig, measure, spellings
from canaryaudit.exposure.spellings import bits_of_other_spellings
from canaryaudit.models.huggingface import HuggingFaceModel
from tests.exposure.test_token_asker import canary_set
from tests.token_models import make_model, make_tokenizer

pytest.importorskip("transformers")


def cuts(text: bytes, tokens: dict[bytes, int]) -> Iterator[list[int]]:
    if not text:
        yield []
    for end in range(1, len(text) + 1):
        if text[:end] in tokens:
            for rest in cuts(text[end:], tokens):
                yield [tokens[text[:end]], *rest]


class Case:
    def __init__(self) -> None:
        self.tokenizer = make_tokenizer("merged")
        self.model = HuggingFaceModel(make_model("gpt2", len(self.tokenizer)), self.tokenizer)
        self.tokens = {own: index for index, own in enumerate(self.model.tokenizer.pieces) if own}
        whole = [self.model.tokenizer.encode([f"my code is {own}."])[0].ids.tolist() for own in ("0123", "98761", "55")]
        self.prompt, self.rows = whole[0][:3], [own[3:] for own in whole]
        self.costs = [self.bits(row) for row in self.rows]

    def bits(self, row: list[int]) -> float:
        with torch.no_grad():
            logs = torch.log_softmax(self.model.model(torch.tensor([self.prompt + row])).logits[0].double(), -1)
        places = range(len(self.prompt) - 1, len(self.prompt) + len(row) - 1)
        return -float(logs[places, row].sum()) / np.log(2)

    def truth(self, row: list[int]) -> float:
        text = b"".join(self.model.tokenizer.pieces[index] or b"" for index in row)
        every = [self.bits(own) for own in cuts(text, self.tokens)]
        assert len(every) > 1
        return self.bits(row) + float(np.log2(np.sum(2.0 ** -np.array(every))))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_the_sum_is_that_over_every_way_to_cut_the_text(case: Case) -> None:
    least, most = bits_of_other_spellings(case.model, case.prompt, case.rows, case.costs)
    truth = np.array([case.truth(row) for row in case.rows])
    assert truth.max() > 0.01, "other spellings must matter, or this shows nothing"
    assert (least <= truth + 1e-3).all()
    assert (truth <= most + 1e-3).all()
    assert (most - least).max() < 1e-3


@pytest.mark.parametrize(("name", "value"), [("_HOPELESS", 0.5), ("_MOST_ROWS", 3)])
def test_what_was_not_read_is_bounded(case: Case, monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(spellings, name, value)
    least, most = bits_of_other_spellings(case.model, case.prompt, case.rows, case.costs)
    truth = np.array([case.truth(row) for row in case.rows])
    assert (least <= truth + 1e-3).all()
    assert (truth <= most + 1e-3).all()
    assert (most - least).max() > 1e-3


def test_a_measurement_records_them_for_each_template(case: Case) -> None:
    config = MeasurementConfig(num_references=1_000, enumerate_up_to=0, search_budget=100, max_draws=500)
    found = measure(case.model, canary_set(), config).spellings
    assert [(own.template, own.references) for own in found] == [("my code is {digits:4}.", 32)]
    assert list(found[0].secrets_bits) == ["c-0", "c-1"]
    assert 0 < found[0].references_mean_bits <= found[0].references_max_bits
