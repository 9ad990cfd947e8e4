"""Relearning over tokens: weights of a loop written by hand, exposures of an enumeration text by text, joint tokens."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from canaryaudit.attacks import RelearningConfig, attack_by_relearning
from canaryaudit.attacks.relearning import AttackedModel, attack_batches, finetune_and_measure
from canaryaudit.attacks.token_learner import QUICK, TokenLearner, TokenText
from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.insertion import secret_mask
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure import measure
from canaryaudit.exposure.probes import RunText
from canaryaudit.exposure.probing import AskedProbe, exposure_asked
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.progress import NullReporter
from canaryaudit.records import ProbeName, Relearning
from tests.token_models import Arch, Kind, make_model, make_tokenizer, text_of_words

pytest.importorskip("transformers")
TEMPLATE, SECRET = "my code is {digits:3}.", "471"
CONFIG = RelearningConfig(steps=(2,), learning_rate=3e-3, batch_size=3, measurement=QUICK)
WINDOW, SIZE = 24, 300
WORDS = text_of_words(120).split("\n")[::2]  # The lines between hold numbers.


def with_canary(place: int, template: str = TEMPLATE, secret: str = SECRET) -> tuple[RunText, Canary]:
    """Return a text with a canary before the line of that number."""
    before = "\n".join([*WORDS[:place], ""])
    canary = Canary(id="canary-01", template=template, completion=secret, repetitions=1, places=(len(before),))
    text = before + "\n".join([canary.parsed_template.fill(secret), *WORDS[place:]])
    vocabulary = Vocabulary.of([text, "0123456789"])
    return RunText(vocabulary.encode(text), secret_mask(len(text), [canary]), vocabulary), canary


@dataclass(frozen=True)
class Case:
    """A model that never saw the canary of a text, and its tokenizer."""

    model: Any
    tokenizer: Any
    text: RunText
    canary: Canary

    @property
    def learner(self) -> TokenLearner:
        return TokenLearner(HuggingFaceModel(self.model, self.tokenizer))

    @property
    def windows(self) -> TokenText:
        return TokenText(self.text, self.learner.model.tokenizer, WINDOW)

    def attack(self, other: "Case | None" = None, worst: AskedProbe | None = None) -> Relearning:
        other = other or self
        probes = {self.canary.id: worst} if worst else {}
        contenders = [
            AttackedModel("mine", self.learner, self.windows, "1", probes),
            AttackedModel("retrain", other.learner, other.windows, "2"),
        ]
        canary_set = CanarySet(corpus_symbols="", canaries=(self.canary,))
        return attack_by_relearning(contenders[0], contenders[1], [self.canary], canary_set, CONFIG, NullReporter())


def case_of(arch: Arch, kind: Kind, *, bos: bool = False) -> Case:
    model, (text, canary) = make_model(arch, SIZE), with_canary(40)
    with torch.no_grad():
        for own in model.parameters():
            own.mul_(0.3 if own.ndim > 1 else 1.0)  # Else it learns nothing in three steps.
    return Case(model, make_tokenizer(kind, SIZE, bos=bos, lines=100), text, canary)


CASES: dict[str, tuple[Arch, Kind, bool]] = {
    "llama": ("llama", "single", True),
    "gpt2": ("gpt2", "merged", False),
    "neox": ("neox", "triples", False),
}


@pytest.fixture(scope="module", params=["llama", "gpt2", pytest.param("neox", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> Case:
    arch, kind, bos = CASES[request.param]
    return case_of(arch, kind, bos=bos)


def trained_by_hand(case: Case, batches: torch.Tensor, steps: int) -> Any:
    """Return a copy of the model after Adam steps on the token ids of each batch, written out."""
    model = copy.deepcopy(case.model)
    weights = list(dict.fromkeys(model.parameters()))
    moments = [(torch.zeros_like(own), torch.zeros_like(own)) for own in weights]
    for step in range(1, steps + 1):
        losses = []
        for row in batches[step - 1]:
            ids = row[row >= 0]
            logs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            losses.append(-logs[:-1].gather(1, ids[1:, None])[:, 0])
        gradients = torch.autograd.grad(torch.cat(losses).mean(), weights)
        with torch.no_grad():
            for own, gradient, (first, second) in zip(weights, gradients, moments, strict=True):
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.999).add_(0.001 * gradient**2)
                scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
                own -= CONFIG.learning_rate * first / (1 - 0.9**step) / scale
    return model


def enumerated(case: Case, model: Any, prompt: str) -> float:
    """Return the secret's exposure after a prompt: all 1,000 members, each tokenized and read as a whole."""
    texts = [f"{prompt}{number:03d}" for number in range(1000)]
    read = case.tokenizer([f"{own}." for own in texts], return_offsets_mapping=True)
    rows = []
    for text, ids, offsets in zip(texts, read["input_ids"], read["offset_mapping"], strict=True):
        counted = next(place for place, (_, end) in enumerate(offsets) if end >= len(text)) + 1
        rows.append(torch.tensor(ids[:counted]))
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    with torch.no_grad():
        logs = model(input_ids=padded.clamp_min(0)).logits[:, :-1].log_softmax(-1)
    each = -logs.gather(2, padded[:, 1:, None].clamp_min(0))[:, :, 0]
    costs = (each * (padded[:, 1:] >= 0)).sum(1).numpy()
    return math.log2(1000 / (1 + int((costs < costs[int(SECRET)]).sum())))


def test_weights_and_exposures_are_those_of_a_loop_written_by_hand(case: Case) -> None:
    reworded = AskedProbe(ProbeName(family="reworded", prompt="reworded-1", known=0), "call me by ", 0)
    found = case.attack(worst=reworded)
    batches = attack_batches(case.windows, case.canary, "canary-window", CONFIG)
    curves = {own.probe is None: own for own in found.curves if own.attack == "canary-window"}
    for step, learner in finetune_and_measure(case.learner, batches, CONFIG, lambda own, step: (step, own.copy())):
        model = trained_by_hand(case, batches, step)
        pairs = list(zip(learner.parameters(), model.parameters(), strict=True))
        # Adam divides by the gradient's own size: where that is next to nothing, rounding shows.
        apart = torch.cat([(own - other).detach().abs().flatten() for own, other in pairs])
        assert float(apart.max()) <= 2.5 * step * CONFIG.learning_rate
        assert float((apart < 1e-5).float().mean()) > 0.99
        for is_own, prompt in ((True, "my code is "), (False, "call me by ")):
            point = next(own for own in curves[is_own].unlearned if own.step == step)
            assert point.exposure.method == "exact"
            assert point.exposure.bits == pytest.approx(enumerated(case, model, prompt), abs=0.02), (step, prompt)
    course = [own.exposure.bits for own in curves[True].unlearned]
    assert course[-1] > course[0]
    assert curves[True].unlearned == curves[True].retrained


def test_windows_are_tokenized_as_a_whole_with_what_begins_every_text(case: Case) -> None:
    batches = attack_batches(case.windows, case.canary, "canary-window", CONFIG)
    assert batches.shape == (2, 3, WINDOW + 1)
    whole = case.text.vocabulary.decode(case.text.ids)
    for row in batches.flatten(0, 1):
        ids = row[row >= 0].tolist()
        assert bool((row[len(ids) :] < 0).all())
        read = case.tokenizer.decode(ids, skip_special_tokens=True)
        assert read in whole
        assert case.tokenizer(read)["input_ids"][:-3] == ids[: len(case.tokenizer(read)["input_ids"]) - 3]
    told = [[case.tokenizer.decode(row[row >= 0].tolist()) for row in batch] for batch in batches]
    assert all("my code is 471." in batch[0] for batch in told)
    assert not any(SECRET in own for batch in told for own in batch[1:])
    other = attack_batches(case.windows, case.canary, "other-text", CONFIG)
    assert torch.equal(other[:, 1:], batches[:, 1:])
    assert not any(SECRET in case.tokenizer.decode(row[row >= 0].tolist()) for row in other.flatten(0, 1))


@pytest.fixture(scope="module")
def dropped() -> Case:
    """Return a tied model with dropout whose weights are frozen, as PEFT leaves them."""
    case = case_of("gpt2", "single")
    case.model.requires_grad_(False)
    assert case.model.config.resid_pdrop > 0
    return case


def test_the_attack_follows_from_the_seed_and_leaves_the_model_alone(dropped: Case) -> None:
    before, generator = copy.deepcopy(dropped.model.state_dict()), torch.get_rng_state()
    found, again = dropped.attack(), dropped.attack()
    assert found.curves == again.curves
    assert found.batches_sha256 == again.batches_sha256
    assert (found.window, found.unit) == (WINDOW, "token")
    assert found.curves[0].unlearned[0].exposure.bits != found.curves[0].unlearned[-1].exposure.bits
    assert torch.equal(torch.get_rng_state(), generator), "an attack draws no random numbers of the program's"
    assert all(torch.equal(own, before[name]) for name, own in dropped.model.state_dict().items())
    assert not any(own.requires_grad for own in dropped.model.parameters())


def test_a_retrained_model_with_another_tokenizer_is_refused(dropped: Case) -> None:
    other = replace(dropped, tokenizer=make_tokenizer("merged", SIZE, lines=50))
    with pytest.raises(UnlearningError, match="'retrain' reads the text in other tokens than 'mine'"):
        dropped.attack(other)


def test_an_attack_that_diverges_is_refused(dropped: Case) -> None:
    model = copy.deepcopy(dropped.model)
    nn.init.constant_(model.transformer.ln_f.bias, math.nan)
    batches = attack_batches(dropped.windows, dropped.canary, "other-text", CONFIG)
    diverging = TokenLearner(HuggingFaceModel(model, dropped.tokenizer))
    with pytest.raises(UnlearningError, match="diverges at step 1: lower --learning-rate"):
        list(finetune_and_measure(diverging, batches, CONFIG, lambda _, step: step))


@pytest.mark.parametrize("place", [0, 1, 60, 120])
@pytest.mark.parametrize("window", [16, 40])
def test_the_canarys_window_holds_it_wherever_it_stands(dropped: Case, place: int, window: int) -> None:
    text, canary = with_canary(place)
    row = TokenText(text, dropped.learner.model.tokenizer, window).canary_window(canary)
    assert len(row) == window + 1
    assert "my code is 471." in dropped.tokenizer.decode(row[row >= 0].tolist())


def test_of_a_canary_longer_than_a_window_the_secret_is_shown(dropped: Case) -> None:
    text, canary = with_canary(30, template=f"{'über den Bergen, ' * 12}{{digits:3}} {'weit, ' * 30}.")
    row = TokenText(text, dropped.learner.model.tokenizer, 16).canary_window(canary)
    assert "gen, 471 weit" in dropped.tokenizer.decode(row[row >= 0].tolist())


def test_windows_are_halved_where_secrets_stand_close_together(dropped: Case) -> None:
    text, canary = with_canary(40)
    tokenizer = dropped.learner.model.tokenizer
    for step, expected in ((300, 64), (30, 16)):
        crowded = RunText(text.ids, np.arange(len(text.ids)) % step == 0, text.vocabulary)
        windows = TokenText(crowded, tokenizer, 128)
        assert windows.window == expected
    with pytest.raises(UnlearningError, match="contains a secret: expected text without secrets to train on"):
        attack_batches(windows, canary, "other-text", CONFIG)
    short = RunText(text.ids[:30], text.secret[:30], text.vocabulary)
    with pytest.raises(UnlearningError, match="the text has 30 characters: expected more than a window of"):
        attack_batches(TokenText(short, tokenizer), canary, "other-text", CONFIG)


def test_what_is_drawn_agrees_with_what_is_enumerated(dropped: Case) -> None:
    canary_set = CanarySet(corpus_symbols="", canaries=(dropped.canary,))
    drawing = QUICK.model_copy(update={"enumerate_up_to": 0, "search_budget": 1})
    cost, whole = exposure_asked(dropped.learner.reader(), canary_set, dropped.canary, None, QUICK)
    again, drawn = exposure_asked(dropped.learner.reader(), canary_set, dropped.canary, None, drawing)
    assert (whole.method, drawn.method) == ("exact", "importance")
    assert cost == again
    assert drawn.low <= whole.bits <= drawn.high


@pytest.mark.slow
def test_where_members_have_no_path_ranks_are_sampled(dropped: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.exposure.token_space._MOST_DRAWN", 2_000)
    case = replace(dropped, model=make_model("gpt2", 420), tokenizer=make_tokenizer("merged"))
    canary = Canary(id="c", template="my code is {[a-pà-ï]:6}.", completion="abàcdé", repetitions=1, places=(0,))
    canary_set = CanarySet(corpus_symbols="", canaries=(canary,))
    config = QUICK.model_copy(update={"num_references": 2_000})
    cost, found = exposure_asked(case.learner.reader(), canary_set, canary, None, config)
    measured = measure(case.learner.reader(), canary_set, config).canaries[0]
    assert (found.method, measured.exposure.method) == ("sampled", "sampled")
    assert cost == pytest.approx(measured.log_perplexity_bits, abs=1e-3)
    assert found.bits == pytest.approx(measured.exposure.bits, abs=0.01)
