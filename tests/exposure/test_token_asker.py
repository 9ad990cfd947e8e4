"""Exposure over tokens against an independent enumeration: every member tokenized whole, every text read whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure import MeasurementConfig, draw_members, measure, search_ranks
from canaryaudit.exposure.closing import judge_closings
from canaryaudit.exposure.encoded_space import match_targets
from canaryaudit.exposure.estimators import importance_exposure
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.probes import Probe, Prompt, RunText, TemplateProbes
from canaryaudit.exposure.scoring import score_log_perplexity
from canaryaudit.exposure.targets import Targets
from canaryaudit.exposure.token_asker import TokenAsker
from canaryaudit.models.huggingface import HuggingFaceModel
from tests.token_models import make_model, make_tokenizer

pytest.importorskip("transformers")
TEXT = "my code is {digits:4}."
SECRETS = ("0123", "9876", "4071", "5555")


def naive_bits(model: Any, tokenizer: Any, prompt: str, members: Sequence[str], suffix: str) -> np.ndarray:
    """Return what members cost: whole texts, tokenized and read whole, from the first token that differs on."""
    encoded = tokenizer([prompt + own + suffix for own in members], return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    shared = 0
    while len({tuple(own[: shared + 1]) for own in ids}) == 1 and offsets[0][shared][1] <= len(prompt):
        shared += 1
    longest = max(map(len, ids))
    whole = torch.tensor([own + [0] * (longest - len(own)) for own in ids])
    costs = []
    for first in range(0, len(members), 500):
        with torch.no_grad():
            logs = torch.log_softmax(model(whole[first : first + 500]).logits, -1) / np.log(2)
        each = -logs[:, :-1].gather(2, whole[first : first + 500, 1:, None])[..., 0]
        for row, own in enumerate(range(first, min(first + 500, len(members)))):
            end = len(prompt + members[own])
            last = next(k for k, (_, stop) in enumerate(offsets[own]) if stop >= end)
            costs.append(float(each[row, shared - 1 : last].sum()))
    return np.array(costs)


def canary_set(text: str = TEXT, secrets: Sequence[str] = SECRETS, controls: int = 2) -> CanarySet:
    canaries = [
        Canary(id=f"c-{k}", template=text, completion=own, repetitions=1, places=(k,))
        if k < len(secrets) - controls
        else Canary(id=f"c-{k}", template=text, completion=own, repetitions=0, control=True)
        for k, own in enumerate(secrets)
    ]
    return CanarySet(corpus_symbols="", canaries=tuple(canaries))


class Case:
    """A model, its targets, and what each member of the space costs."""

    def __init__(self, kind: Any, arch: Any) -> None:
        self.is_quick = (kind, arch) in QUICK
        self.tokenizer = make_tokenizer(kind, bos=kind == "single")
        self.model = make_model(arch, len(self.tokenizer))
        self.canaries = canary_set()
        self.asker = TokenAsker(HuggingFaceModel(self.model, self.tokenizer), self.canaries)
        self.targets: Targets = self.asker.targets(TEXT, self.canaries.canaries)
        self.members = list(Template.parse(TEXT).space(""))
        self.bits = naive_bits(self.model, self.tokenizer, "my code is ", self.members, ".")

    def rank(self, secret: str) -> float:
        """Count the members that are likelier and no inserted canary."""
        cost = self.bits[self.members.index(secret)]
        others = [own not in ("0123", "9876", secret) for own in self.members]
        return float(1 + (self.bits[others] < cost).sum())


QUICK = {("merged", "gpt2"), ("triples", "llama"), ("single", "neox")}
ALL = [(kind, arch) for kind in ("merged", "triples", "single") for arch in ("gpt2", "llama", "neox")]


@pytest.fixture(
    scope="module",
    params=[pytest.param(own, marks=() if own in QUICK else pytest.mark.slow, id="-".join(own)) for own in ALL],
)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_costs_and_ranks_agree_with_whole_texts(case: Case) -> None:
    targets = case.targets
    rows, _ = targets.tokens.encode(case.members) if targets.tokens else (np.empty(0), None)
    scored = score_log_perplexity(targets.reader, targets.start, rows)
    assert scored == pytest.approx(case.bits, abs=1e-3)
    assert targets.log_perplexity_bits == pytest.approx(
        [case.bits[case.members.index(secret)] for secret in SECRETS], abs=1e-3
    )
    assert targets.symbol_bits.sum(1) == pytest.approx(targets.log_perplexity_bits, abs=1e-3)
    search = search_ranks(targets.reader, targets, budget=20_000)
    assert [own.exact for own in search.ranks] == [True] * 4
    # Costs that agree to the last bit of one way of reading may lie in another order in the other way.
    assert [own.lower for own in search.ranks] == pytest.approx([case.rank(secret) for secret in SECRETS], abs=1.0)


@pytest.mark.parametrize("suffix", [", said the key to her house and the code.", "9 was it"])
def test_closings_agree_with_whole_texts(case: Case, suffix: str) -> None:
    """The second suffix begins with a digit, which some tokens join to the secret's."""
    text, model = "my code is {digits:4}" + suffix, HuggingFaceModel(case.model, case.tokenizer)
    canaries = canary_set(text)
    asker = TokenAsker(model, canaries)
    targets = asker.targets(text, canaries.canaries)
    rows = np.array([[int(digit) for digit in own] for own in (*SECRETS, "1234", "9999", "0000", "8675")])
    found = asker.closing_costs(targets, rows)
    assert found is not None
    for row, bits in zip(rows, found.bits, strict=True):
        before = "my code is " + "".join(map(str, row))
        encoded = case.tokenizer(before + suffix, return_offsets_mapping=True)
        with torch.no_grad():
            logs = torch.log_softmax(case.model(torch.tensor([encoded["input_ids"]])).logits[0].double(), -1)
        expected = 0.0
        for place, (token, (begin, end)) in enumerate(
            zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ):
            if begin >= len(before) and end <= len(before) + 24:
                expected -= float(logs[place - 1, token]) / np.log(2)
        assert bits == pytest.approx(expected, abs=2e-3)
    assert found.bits.std() > 0.01
    closings, _ = judge_closings(asker, targets, 60, (0, 0))
    assert [own.references for own in closings if own] == [60, 60, 59, 59]


@pytest.mark.slow
def test_the_search_agrees_with_a_million_members(case: Case) -> None:
    """The secrets are those of chosen ranks, since a search for a secret that was not memorized takes too long."""
    if not case.is_quick:
        pytest.skip("one architecture for each tokenizer")
    text = "my code is {digits:6}."
    model = HuggingFaceModel(case.model, case.tokenizer)
    every = [Canary(id="c", template=text, completion="000000", repetitions=1, places=(0,))]
    whole = TokenAsker(model, CanarySet(corpus_symbols="", canaries=tuple(every))).targets(text, every)
    members = whole.space.members()
    order = np.argsort(score_log_perplexity(whole.reader, whole.start, members), kind="stable")
    assert whole.tokens is not None
    assert len(members) == 1_000_000
    ranks = (1, 3, 40, 500)
    chosen = [whole.tokens.columns[row[row >= 0]].tolist() for row in members[order[np.array(ranks) - 1]]]
    texts = [case.tokenizer.decode([*whole.tokens.prompt, *ids]) for ids in chosen]
    secrets = [own.split("my code is ")[1].removesuffix(".") for own in texts]
    controls = [
        Canary(id=f"c-{k}", template=text, completion=own, repetitions=0, control=True) for k, own in enumerate(secrets)
    ]
    targets = TokenAsker(model, CanarySet(corpus_symbols="", canaries=tuple(controls))).targets(text, controls)
    found = search_ranks(targets.reader, targets, budget=120_000)
    assert [own.exact for own in found.ranks] == [True] * 4
    assert [own.lower for own in found.ranks] == pytest.approx(ranks, abs=1.0)


def covered(case: Case, seeds: int, draws: int) -> float:
    """Return in how many cases an interval of importance sampling holds the exact exposure."""
    targets, hits = case.targets, []
    exact = {k: np.log2(10_000) - np.log2(case.rank(SECRETS[k])) for k in range(4)}
    for seed in range(seeds):
        drawn = draw_members(targets.reader, targets.start, targets.space, draws, np.random.default_rng(seed))
        owner = match_targets(drawn.completions, targets.completions)
        for k in range(4):
            bits = np.where((owner == k) | np.r_[targets.inserted, False][owner], np.inf, drawn.bits)
            cost = float(targets.log_perplexity_bits[k])
            weights = {"log2_weights": drawn.log2_weights, "strata": drawn.strata}
            own = importance_exposure(cost, bits, targets.space.bits, **weights)
            hits.append(own.low - 1e-6 <= exact[k] <= own.high + 1e-6)
    return float(np.mean(hits))


def test_importance_intervals_cover_the_exact_rank(case: Case) -> None:
    assert covered(case, seeds=3, draws=150) >= 9 / 12


@pytest.mark.slow
def test_importance_intervals_cover_the_exact_rank_over_two_hundred_seeds(case: Case) -> None:
    if not case.is_quick:
        pytest.skip("one architecture for each tokenizer")
    assert covered(case, seeds=200, draws=150) >= 0.93


def test_probes_cost_what_whole_texts_cost(case: Case) -> None:
    texts = ("my code is ", "call 5", "the key:")
    prompts = tuple(Prompt(text, "bare", text, from_text=False, about="") for text in texts)
    probes = TemplateProbes(TEXT, prompts, (*(Probe(k, 0, 0, "bare") for k in range(3)), Probe(0, 2, 2, "partial")))
    fresh = np.array([[int(c) for c in own] for own in ("1200", "8888")], dtype=np.int32)
    found = case.asker.probe_costs(case.targets, fresh, probes, Execution())
    asked = [*SECRETS, "1200", "8888"]
    for index, text in enumerate(texts):
        expected = naive_bits(case.model, case.tokenizer, text, asked, ".")
        assert found.bits[index] - found.bits[index][0] == pytest.approx(expected - expected[0], abs=1e-3)
    assert (found.bits[3] <= found.bits[0] + 1e-6).all()
    assert found.greedy.shape == (4, 6)


def test_a_measurement_shows_what_was_memorized() -> None:
    """Tokenized apart from its prompt, the memorized secret looks like a thousand others."""
    tokenizer = make_tokenizer("merged")
    model = make_model("gpt2", len(tokenizer), width=32)
    ids = torch.tensor([tokenizer("my code is 0123.\n" * 2)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    taken = canary_set(secrets=[f"{number:04d}" for number in (123, *range(7, 9000, 240))], controls=37)
    config = MeasurementConfig(num_references=2_000, enumerate_up_to=0, search_budget=2_000, max_draws=3_000)
    measured = measure(HuggingFaceModel(model, tokenizer), taken, config).canaries[0]
    assert (measured.exposure.method, round(measured.exposure.bits, 2)) == ("exact", 13.29)
    assert measured.extraction.greedy
    assert measured.extraction.beam_rank == 1
    assert measured.estimates["sampled"].high == pytest.approx(measured.space_bits)
    apart = []  # as a prompt with its blank, then the secret: what joint tokenization avoids
    prompt = tokenizer("my code is ")["input_ids"]
    for number in (123, *range(0, 10_000, 50)):
        own = tokenizer(f"{number:04d}")["input_ids"]
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([prompt + own])).logits[0], -1)
        apart.append(-float(logs[range(len(prompt) - 1, len(prompt + own) - 1), own].sum()))
    assert sum(cost < apart[0] for cost in apart) > 5


def test_ranks_of_a_space_without_an_automaton_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.exposure.token_space._MOST_DRAWN", 2_000)
    tokenizer = make_tokenizer("merged")
    text = "my code is {[a-pà-ï]:6}."
    rng = np.random.default_rng(0)
    space = Template.parse(text).space("")
    taken = canary_set(text, [space.sample(rng) for _ in range(34)], controls=33)
    model = HuggingFaceModel(make_model("gpt2", len(tokenizer)), tokenizer)
    measured = measure(model, taken, MeasurementConfig(num_references=2_000, time_limit=0))
    assert {tuple(own.estimates) for own in measured.canaries} == {("sampled", "skew-normal")}
    assert measured.calibration is not None
    assert measured.calibration.passed
    assert measured.canaries[0].extraction.beam_rank is None
    assert measured.references[0].num_references > 1_900


@pytest.mark.slow
def test_where_members_have_no_path_nothing_is_searched_after_other_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.exposure.token_space._MOST_DRAWN", 500)
    tokenizer, prompt = make_tokenizer("merged"), "then call me by "
    text, model = "my code is {[a-pà-ï]:6}.", make_model("gpt2", 420)
    rng, space = np.random.default_rng(1), Template.parse("{[a-pà-ï]:6}").space("")
    drawn = [space.sample(rng) for _ in range(3_000)]
    after = naive_bits(model, tokenizer, prompt, drawn, ".")
    taken = canary_set(text, [drawn[int(after.argmin())], *drawn[:33]], controls=33)
    words = "my code is then call me by"
    vocabulary = Vocabulary.of([words, "".join(drawn)])
    run_text = RunText(vocabulary.encode(words), np.zeros(len(words), dtype=bool), vocabulary)
    config = MeasurementConfig(num_references=500, time_limit=0, prompts=(prompt,))
    found = measure(HuggingFaceModel(model, tokenizer), taken, config, run_text=run_text).canaries[0]
    assert found.worst_case is not None
    assert (found.worst_case.probe.prompt, found.worst_case.method) == ("given-1", "sampled")


def test_a_prompt_of_one_blank_is_read_after_a_line_break() -> None:
    """Merged with the digits that follow, a blank alone would leave no token to read first."""
    tokenizer, model = make_tokenizer("merged"), make_model("gpt2", 420)
    asker = TokenAsker(HuggingFaceModel(model, tokenizer), canary_set())
    targets = asker.targets(TEXT, canary_set().canaries)
    probes = TemplateProbes(TEXT, (Prompt("truncated-1", "truncated", " ", False, ""),), (Probe(0, 0, 0, "truncated"),))
    fresh = targets.text_space.sample(20, np.random.default_rng(0))
    found = asker.probe_costs(targets, fresh, probes, Execution())
    np.testing.assert_allclose(
        found.bits[0, : len(SECRETS)], naive_bits(model, tokenizer, "\n ", SECRETS, "."), atol=1e-2
    )
    asked = asker.asked(targets, " ", 0, 0)
    np.testing.assert_allclose(asked.log_perplexity_bits, found.bits[0, : len(SECRETS)], atol=1e-2)
