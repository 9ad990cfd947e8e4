"""Retention without the corpus: text of the model's own, without the secrets that it is to forget."""

import numpy as np
import pytest
import torch

from canaryaudit.canaries.canary import Canary
from canaryaudit.canaries.template import Template
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.unlearning.model_samples import sample_windows
from canaryaudit.unlearning.occurrences import Occurrence
from tests.fakes import TableModel

SYMBOLS = "\n 0123456789abcdefgh"


def place(template: str, completion: str, model: TableModel) -> Occurrence:
    parsed = Template.parse(template)
    canary = Canary(id="canary-01", template=template, completion=completion, repetitions=1, places=(0,))
    space = EncodedSpace.of(parsed.space(""), model.vocabulary)
    ids = [model.vocabulary.encode(text) for text in (parsed.prefix, completion, parsed.suffix)]
    return Occurrence(canary, space, ids[0], ids[1], ids[2], len(parsed.prefix))


def spelled(model: TableModel, windows: np.ndarray) -> list[str]:
    return [model.vocabulary.decode(row) for row in windows]


def test_windows_follow_the_models_law_and_the_seed() -> None:
    model = TableModel(SYMBOLS, distribution="markov", seed=2)
    windows = sample_windows(model, [], 4000, 12, np.random.default_rng(0)).numpy()
    assert windows.shape == (4000, 13)
    same, other = (sample_windows(model, [], 4000, 12, np.random.default_rng(seed)).numpy() for seed in (0, 1))
    assert (same == windows).all()
    assert not (other == windows).all()
    table = np.zeros((len(SYMBOLS), len(SYMBOLS)))
    np.add.at(table, (windows[:, :-1].ravel(), windows[:, 1:].ravel()), 1)
    for symbol in np.flatnonzero(table.sum(1) > 2000):
        read = model.read(torch.tensor([int(symbol)]))
        distribution = np.exp2(read.log2_probs[0].double().numpy())
        np.testing.assert_allclose(table[symbol] / table[symbol].sum(), distribution / distribution.sum(), atol=0.04)


def test_windows_begin_anywhere_and_not_only_after_a_line_break() -> None:
    """A text known by heart is cut at every place."""
    told = "abcdefgh" * 8
    model = TableModel(SYMBOLS, memorized=["\n" + told], certainty=0.999999)
    windows = spelled(model, sample_windows(model, [], 500, 10, np.random.default_rng(0)).numpy())
    assert {window[0] for window in windows} >= set("abcdefgh")


def test_no_window_holds_a_secret_or_the_words_before_it() -> None:
    secret, words = "123456", "abc def "
    model = TableModel(SYMBOLS, memorized=["\n" + words + secret + "\n", "\nabcdefgh" * 3], certainty=0.99)
    own = place("abc def {digits:6}", secret, model)
    free = spelled(model, sample_windows(model, [], 300, 10, np.random.default_rng(0)).numpy())
    assert sum("1234" in window for window in free) > 30, "the model tells it when it is let"
    kept = spelled(model, sample_windows(model, [own], 300, 10, np.random.default_rng(0)).numpy())
    assert len(kept) == 300
    assert not any(part in window for window in kept for part in ("1234", "2345", "3456", words))


def test_a_short_prefix_alone_drops_no_window() -> None:
    model = TableModel(SYMBOLS, distribution="flat")
    own = place("a {digits:6}", "123456", model)
    windows = spelled(model, sample_windows(model, [own], 3000, 20, np.random.default_rng(0)).numpy())
    assert any("a " in window for window in windows)
    assert not any("a 1" in window for window in windows)


def test_chosen_words_are_ordinary_text_elsewhere() -> None:
    model = TableModel(SYMBOLS, distribution="flat")
    own = place("abc def {choice:ha|b}", "ha", model)
    windows = spelled(model, sample_windows(model, [own], 2000, 20, np.random.default_rng(0)).numpy())
    assert any("ha" in window for window in windows)


def test_a_model_that_says_nothing_else_is_an_error() -> None:
    model = TableModel(SYMBOLS, memorized=["\n" + "12" * 40], certainty=1 - 1e-9)
    with pytest.raises(UnlearningError, match="use windows of the corpus with --retain-windows N"):
        sample_windows(model, [place("\n{digits:4}", "1212", model)], 20, 10, np.random.default_rng(0))
