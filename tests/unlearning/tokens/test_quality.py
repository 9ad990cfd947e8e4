"""Quality by tokens, against a loop over single predictions."""

import numpy as np
import pytest
import torch

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.token_model import as_tokenizer
from canaryaudit.models.tokenizer import Tokenizer
from canaryaudit.unlearning.tokens.quality import (
    SPAN,
    TokenQuality,
    bytes_per_token,
    evaluate_tokens,
    retained_windows,
    token_windows,
    windows_with_secrets,
)
from tests.token_models import make_model, make_tokenizer, text_of_words

CODE = "my code is 7391."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return as_tokenizer(make_tokenizer("merged", 300, bos=True))


def text_of(count: int) -> RunText:
    """Return a text with a secret in every fourth line."""
    lines = text_of_words(count).split("\n")[::2]
    text = "\n".join(CODE if index % 4 == 3 else line for index, line in enumerate(lines)) + "\n"
    secret = np.zeros(len(text), dtype=bool)
    place = text.find(CODE)
    while place >= 0:
        secret[place + 11 : place + 15] = True
        place = text.find(CODE, place + 1)
    vocabulary = Vocabulary.of([text])
    return RunText(vocabulary.encode(text), secret, vocabulary)


def test_quality_is_that_of_predictions_one_by_one(tokenizer: Tokenizer) -> None:
    model = make_model("llama", 300, width=16, layers=1).double()
    windows = token_windows(tokenizer, text_of(30), 60)
    found = evaluate_tokens(model, windows)
    losses, hits, plain = [], [], []
    with torch.no_grad():
        for window in windows:
            for place in range(1, len(window.ids)):
                logs = model(input_ids=torch.tensor(window.ids[None, :place])).logits[0, -1].log_softmax(0)
                losses.append(-float(logs[window.ids[place]]) / np.log(2))
                hits.append(int(logs.argmax()) == window.ids[place])
                plain.append(not window.secret[place])
    assert found.loss_bits == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.accuracy_all == pytest.approx(np.mean(hits))
    assert found.accuracy == pytest.approx(np.mean([hit for hit, own in zip(hits, plain, strict=True) if own]))


def test_windows_hold_the_text_and_mark_the_tokens_of_secrets(tokenizer: Tokenizer) -> None:
    text = text_of(60)
    windows = token_windows(tokenizer, text, 10_000)
    whole = "".join(tokenizer.decode(own.ids[1:].tolist()) for own in windows)  # the first is the tokenizer's own
    assert whole == text.vocabulary.decode(text.ids)
    assert len(windows) == -(-len(text.ids) // SPAN)
    for window in windows:
        marked = [tokenizer.decode([own]) for own in window.ids[window.secret].tolist()]
        assert set("".join(marked)) <= set(" 7391.")
    spelled = "".join(tokenizer.decode(own.ids[own.secret].tolist()) for own in windows)
    assert spelled.replace(" ", "").replace(".", "").count("7391") >= whole.count("7391") - len(windows)
    assert bytes_per_token(windows) == pytest.approx(len(whole) / sum(len(own.ids) - 1 for own in windows))


def test_what_is_held_is_free_of_secrets_or_begins_before_one(tokenizer: Tokenizer) -> None:
    windows, rng = token_windows(tokenizer, text_of(200), 10_000), np.random.default_rng(0)
    free = retained_windows(windows, 20, 16, rng)
    assert len(free) == 20
    assert {len(own) for own in free} == {16}
    assert not any("7391" in tokenizer.decode(own.tolist()) for own in free)
    with_secrets = windows_with_secrets(windows, 10, 40, rng)
    assert len(with_secrets) == 10
    for own in with_secrets:
        assert own.secret.any()
        first = int(np.flatnonzero(own.secret)[0])
        assert first <= 8
        assert first == 0 or not own.predicts_text[first - 1]
        assert own.predicts_text[-1]


def test_a_text_full_of_secrets_leaves_nothing_to_hold(tokenizer: Tokenizer) -> None:
    text = text_of(30)
    windows = token_windows(tokenizer, RunText(text.ids, np.ones_like(text.secret), text.vocabulary), 1_000)
    assert [len(own) for own in retained_windows(windows, 5, 16, np.random.default_rng(0)) if len(own) > 1] == []


def test_without_held_out_text_its_figures_are_zero(tokenizer: Tokenizer) -> None:
    model, text = make_model("gpt2", 300, width=16, layers=1), text_of(30)
    nothing = RunText(text.ids[:0], text.secret[:0], text.vocabulary)
    quality = TokenQuality(tokenizer, text, nothing, model)
    assert quality.of(model)[1].loss_bits == 0
    assert max(len(own.ids) for own in quality.train) <= 128  # as many as the model reads
