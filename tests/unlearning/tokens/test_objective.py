"""The objective over tokens, against figures that are enumerated text by text from a tiny transformer."""

from typing import Any

import numpy as np
import pytest
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import UnlearningError
from canaryaudit.exposure.probes import RunText
from canaryaudit.models.token_model import as_tokenizer
from canaryaudit.models.tokenizer import Tokenizer
from canaryaudit.unlearning.tokens import objective
from canaryaudit.unlearning.tokens.branches import Secret, TokenBranch, TokenBranches, secrets_of
from canaryaudit.unlearning.tokens.distributions import TokenDistributions
from canaryaudit.unlearning.tokens.objective import RequestTexts, TokenProblem
from canaryaudit.unlearning.tokens.prompts import PromptDraws
from canaryaudit.unlearning.tokens.quality import TokenWindow
from tests.token_models import Kind, make_model, make_tokenizer, text_of_words

TEMPLATE = "my code is {digits:4}."
SECRETS = ("0123", "7391", "5540")
kinds = pytest.mark.parametrize("kind", ["merged", "triples", "single"])


def canaries() -> CanarySet:
    made = [
        Canary(id=f"canary-{number}", template=TEMPLATE, completion=own, repetitions=1, places=(number,))
        for number, own in enumerate(SECRETS, 1)
    ]
    return CanarySet(corpus_symbols="", canaries=made)


def run_text() -> RunText:
    text = "\n".join(text_of_words(40).split("\n")[::2])
    vocabulary = Vocabulary.of([text, "0123456789"])
    return RunText(vocabulary.encode(text), np.zeros(len(text), dtype=bool), vocabulary)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: as_tokenizer(make_tokenizer(kind, 300)) for kind in ("merged", "triples", "single")}


def after_prefix(tokenizer: Tokenizer, completion: str = SECRETS[0]) -> TokenBranch:
    maker = TokenBranches(tokenizer, canaries(), secrets_of(canaries().inserted))
    return maker.after_prefix(Secret("c", TEMPLATE, completion), is_secret=True, weight=1.0)


@kinds
def test_alphabets_are_the_tokens_with_which_some_member_goes_on(tokenizers: dict[str, Tokenizer], kind: Kind) -> None:
    """Found by tokenizing all 10,000 members whole."""
    tokenizer = tokenizers[kind]
    branch = after_prefix(tokenizer)
    whole = tokenizer.encode([f"my code is {number:04d}." for number in range(10_000)])
    columns = np.arange(300)
    for place, row in enumerate(branch.alphabets(columns)):
        before = branch.ids[: branch.first + place].tolist()
        going = {own.ids[len(before)] for own in whole if own.ids[: len(before)].tolist() == before}
        assert set(np.flatnonzero(row).tolist()) == going
    assert tokenizer.decode(branch.columns[branch.member].tolist()).strip(" .") == SECRETS[0]


@kinds
def test_distributions_lie_on_the_alphabet_and_do_not_know_which_member_is_the_secret(
    tokenizers: dict[str, Tokenizer], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many seeds a secret's token is as often above the median of the members as below it."""
    monkeypatch.setattr("canaryaudit.unlearning.tokens.distributions.FEW_TOKENS", 5 if kind == "triples" else 64)
    branch = after_prefix(tokenizers[kind])
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(len(branch.columns)), len(branch.member)))
    logs[np.arange(len(branch.member)), branch.member] = 0.0  # It is remembered.
    ranks = []
    for seed in range(200):
        found = TokenDistributions(seed, [branch]).along(branch, logs)
        allowed = branch.alphabets(branch.columns)
        np.testing.assert_allclose(found.sum(1), 1.0)
        assert not found[~allowed].any()
        shares = branch.space.shares[0]
        each = found[0] / np.maximum(shares, 1e-300) if kind == "single" else found[0]
        own = each[branch.member[0]]
        ranks.append(float(shares[(each < own) & allowed[0]].sum() + shares[(each == own) & allowed[0]].sum() / 2))
    assert 0.4 < np.mean(ranks) < 0.6
    assert np.std(ranks) > 0.2


def model_of(seed: int = 0) -> Any:
    return make_model("gpt2", 300, width=16, layers=1, seed=seed).double()


def problem_of(model: Any, tokenizer: Tokenizer, chosen: int = 2) -> TokenProblem:
    canary_set, text = canaries(), run_text()
    ids = tokenizer.encode(["she said the house was opened"])[0].ids
    retained = [TokenWindow(ids, np.zeros(len(ids), dtype=bool), 29)]
    return TokenProblem(model, tokenizer, RequestTexts(canary_set, canary_set.inserted[:chosen], text, retained), 0)


def test_at_the_original_only_secrets_and_decoys_cost_anything(tokenizers: dict[str, Tokenizer]) -> None:
    """What is held is held to the model's own predictions."""
    model = model_of()
    problem = problem_of(model, tokenizers["triples"])
    with torch.no_grad():
        parts = [float(problem._loss(model, own)) for own in problem._batches]
        totals = [float(problem.objective(own)) for own in (model, model_of(1))]
    held = [float(own) for own, batch in zip(parts, problem._batches, strict=True) if batch.targets is None]
    assert len(held) == 2  # other text, and the canary that stays
    assert max(held) < 1e-5
    assert totals[0] == pytest.approx(sum(parts))
    assert 0.1 < totals[0] < totals[1]


def test_the_objective_is_what_is_enumerated_text_by_text(tokenizers: dict[str, Tokenizer]) -> None:
    """Of another model, each member's positions one at a time, with the vocabulary written out."""
    original, other, tokenizer = model_of(), model_of(1), tokenizers["single"]
    problem, total = problem_of(original, tokenizer), 0.0
    columns = problem._columns
    for batch in problem._batches:
        pairs = list(zip(*(part.tolist() for part in batch.asked), strict=True)) if batch.targets else []
        for index, (row, column) in enumerate(pairs):
            logs = _predicted(other, batch.ids[row, : column + 1])
            targets = batch.targets
            assert targets is not None
            allowed = np.flatnonzero(targets.allowed[index].numpy())
            own = logs[columns[allowed]]
            mass = np.exp(own).sum()
            difference = own - np.log(mass) - targets.log_distributions[index].numpy()[allowed]
            weights = targets.symbol_weights[index].numpy()[allowed]
            mean = (weights * difference).sum() / weights.sum()
            kept = float(targets.masses[index].clamp(1e-6, 1 - 1e-5))
            moved = kept * np.log(kept / mass) + (1 - kept) * np.log((1 - kept) / (1 - mass))
            total += float(targets.weights[index]) * ((weights * (difference - mean) ** 2).sum() / 2 + moved)
        for index, (row, column) in enumerate(zip(*(part.tolist() for part in batch.held), strict=True)):
            logs, wanted = _predicted(other, batch.ids[row, : column + 1]), batch.distributions[index].numpy()
            total += float(batch.weights[index]) * float((wanted * (np.log(wanted) - logs)).sum())
    with torch.no_grad():
        assert float(problem.objective(other)) == pytest.approx(total, rel=1e-4)


def _predicted(model: Any, ids: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        logs: np.ndarray = model(input_ids=ids[None]).logits[0, -1].log_softmax(0).numpy()
    return logs


def test_every_secret_is_read_after_its_prefix_and_after_other_prompts(tokenizers: dict[str, Tokenizer]) -> None:
    problem = problem_of(model_of(), tokenizers["triples"])
    texts = [tokenizers["triples"].decode(row.tolist()) for batch in problem._batches for row in batch.ids]
    for secret in SECRETS[:2]:
        with_it = [text for text in texts if secret in text]
        assert len(with_it) > 5
        assert sum(text.startswith(f"my code is {secret}") for text in with_it) >= 1
    assert sum(SECRETS[2] in text for text in texts) == 1  # It stays: held behind its prefix.


def test_prompts_end_as_the_prefix_does_and_are_never_the_prefix() -> None:
    draws = iter(PromptDraws(TEMPLATE, run_text(), np.random.default_rng(0)))
    found = [next(draws) for _ in range(200)]
    assert all(text == "\n" or (text.endswith(" ") and not text.endswith("  ")) for text in found)
    assert "my code is " not in found
    assert any(text.endswith("my code is ") for text in found)  # after other text
    assert len(set(found)) > 60


def test_secrets_without_tokens_of_their_own_are_refused(tokenizers: dict[str, Tokenizer]) -> None:
    """Here the space is too large to be listed, and an automaton of pairs is not to be had."""

    class Undecided(type(tokenizers["merged"])):  # type: ignore[misc]
        def agrees(self, left: Any, right: Any, context: Any) -> np.ndarray:
            return np.zeros(len(left), dtype=bool)

        def extends(self, before: Any, tokens: Any) -> np.ndarray:
            return np.zeros(len(tokens), dtype=bool)

    template = "my code is {digits:9}."
    canary = Canary(id="canary-1", template=template, completion="012345678", repetitions=1, places=(0,))
    canary_set = CanarySet(corpus_symbols="", canaries=[canary])
    maker = TokenBranches(Undecided(make_tokenizer("merged", 300)), canary_set, secrets_of([canary]))
    with pytest.raises(UnlearningError, match="canary-1: the tokenizer gives this format's secrets no tokens"):
        maker.after_prefix(secrets_of([canary])[0], is_secret=True)


def test_weights_of_all_members_together_are_the_objectives(tokenizers: dict[str, Tokenizer]) -> None:
    problem = problem_of(model_of(), tokenizers["triples"])
    total = sum(float(own.targets.weights.sum()) for own in problem._batches if own.targets is not None)
    assert total == pytest.approx(objective.TEXT_WEIGHT + objective.PREFIX_WEIGHT, rel=0.05)
