"""The final layer's problem, row by row, against whole sequences read by the model's own forward pass."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.training.data import gather
from canaryaudit.unlearning import Decoys, FixedText, UnlearningConfig
from canaryaudit.unlearning.correction import Correction
from canaryaudit.unlearning.decoys import Corrected
from canaryaudit.unlearning.final_layer import problem as final_layer
from canaryaudit.unlearning.final_layer.objective import FinalLayerProblem, KroneckerInverse
from canaryaudit.unlearning.final_layer.problem import (
    FORGET_WEIGHT,
    RIDGE,
    SECRET_WEIGHT,
    SecretReading,
    build_problem,
    swap_target_distributions,
    write_columns,
)
from canaryaudit.unlearning.method import MethodInput
from canaryaudit.unlearning.occurrences import Occurrence, occurrences
from canaryaudit.unlearning.replacement import Replacement
from tests.unlearning.builders import text_with_canaries, tiny_model

WINDOW = 40
PIECES = ["the tide came in.\n\n", "\n\nnobody saw.\n\n", "\n\n", "\n\nthe end of it."]
CODE = ("the code is {digits:2}-{digits:1}!", "12-3")


class Spy:
    """A replacement that remembers what it answered."""

    def __init__(self, inner: Replacement) -> None:
        self.inner, self.name = inner, inner.name
        self.drawn: list[list[Corrected]] = []
        self.stand_ins: list[tuple[list[int], list[int] | None]] = []

    def active_symbols(self, space: EncodedSpace) -> np.ndarray:
        return self.inner.active_symbols(space)

    def correct(self, place: Occurrence, count: int, rng: np.random.Generator) -> list[Corrected]:
        self.drawn.append(self.inner.correct(place, count, rng))
        return self.drawn[-1]

    def proxy_member(self, place: Occurrence, rng: np.random.Generator) -> np.ndarray | None:
        member = self.inner.proxy_member(place, rng)
        self.stand_ins.append((place.secret.tolist(), None if member is None else member.tolist()))
        return member


class Built:
    """A built problem, with all that it was built from."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        canaries: list[tuple[str, str]],
        make: Callable[[Vocabulary], Replacement],
        pieces: list[str] = PIECES,
        window: int = WINDOW,
    ) -> None:
        self.data, made, vocabulary = text_with_canaries(pieces, canaries)
        self.text = self.data.train
        self.model = tiny_model(vocabulary.symbols, hidden=7, scale=4.0)
        self.places = occurrences(made, "ab", vocabulary)
        self.spy = Spy(make(vocabulary))
        self.contexts: list[tuple[Tensor, Occurrence, int]] = []
        self.retained = np.array([3, 0] if window < len(self.text) - 3 else [], dtype=np.int64)
        add = final_layer._PositionBuffer.add_occurrence

        def remember(
            rows: final_layer._PositionBuffer,
            context: Tensor,
            place: Occurrence,
            replacement: Replacement,
            draws: int,
            rng: np.random.Generator,
        ) -> SecretReading:
            self.contexts.append((context, place, draws))
            return add(rows, context, place, replacement, draws, rng)

        monkeypatch.setattr(final_layer._PositionBuffer, "add_occurrence", remember)
        monkeypatch.setattr(final_layer, "CONTEXTS", 12)
        monkeypatch.setattr(final_layer, "MIN_REPLACEMENTS", 36)
        monkeypatch.setattr(final_layer, "REPLACEMENTS_PER_CANARY", 2)
        monkeypatch.setattr(final_layer, "STAND_INS", 1)
        self.given = MethodInput(
            self.model,
            self.model,
            self.data,
            self.places,
            Correction(self.text, self.places, self.spy, vocabulary, window),
            gather(self.text, self.retained, window + 1),
            UnlearningConfig(window=window),
            np.random.default_rng(5),
            NullReporter(),
        )
        self.problem, self.active, self.readings = build_problem(self.given, self.spy)

    def exchanged(self, columns: Tensor) -> FinalLayerProblem:
        """Return the problem with the secrets' own rows, where ``columns`` are the layer's."""
        given = replace(self.given, rng=np.random.default_rng(6))
        return swap_target_distributions(given, self.spy, self.problem, self.active, columns, self.readings)


@torch.no_grad()
def states(model: CharLSTM, sequence: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return, after each symbol of a whole sequence read at once, the final layer's input and the forward law."""
    symbols = torch.tensor([sequence])
    return list(model.features(symbols)[0][0]), list(model(symbols)[0].softmax(-1))


def rows_by_definition(built: Built) -> list[tuple[Tensor, Tensor, float]]:
    """Return features, targets and weight of every position, each sequence read on its own from its beginning."""
    rows: list[tuple[Tensor, Tensor, float]] = []
    for (context, place, _), drawn in zip(built.contexts, built.spy.drawn, strict=True):
        before, secret, suffix = context.tolist(), place.secret.tolist(), place.suffix.tolist()
        features, distributions = states(built.model, before + secret + suffix)
        start = len(before)
        # Up to the secret, and from its last character on, the original model's own predictions.
        rows += [(features[k], distributions[k], 1.0) for k in range(start - 1)]
        tail = distributions[start + len(secret) - 1 :]
        for item in drawn:
            mean = torch.stack(list(item.targets[:, 0])).mean(0)
            rows.append((features[start - 1], mean, 0.25 * len(item.symbols)))
            read = [states(built.model, before + symbols.tolist() + suffix)[0][start:] for symbols in item.symbols]
            length = item.symbols.shape[1]
            for own, targets in zip(read, item.targets, strict=True):
                rows += [(own[k], targets[k + 1], 0.25) for k in range(length - 1)]
            for own in read:
                rows += [(own[length - 1 + k], tail[k], 1.0) for k in range(max(1, len(suffix)))]
    for start in built.retained:
        rows += [
            (*row, 1.0) for row in zip(*states(built.model, built.text[start : start + WINDOW].tolist()), strict=True)
        ]
    return rows


def decoys(vocabulary: Vocabulary) -> Replacement:
    return Decoys()


def fixed_text(vocabulary: Vocabulary) -> Replacement:
    return FixedText("not ", vocabulary)


@pytest.mark.parametrize(
    ("canary", "make"),
    [
        (CODE, decoys),
        (("pin {digits:3}", "123"), decoys),  # no suffix: what follows the canary is predicted from its last character
        (("it was {choice:tin|steel}.", "steel"), decoys),  # of unequal lengths
        (("{digits:1}.", "7"), decoys),  # no prefix, one character
        (CODE, fixed_text),
    ],
)
def test_every_row_is_that_of_whole_sequences(
    canary: tuple[str, str], make: Callable[[Vocabulary], Replacement], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(monkeypatch, [canary], make)
    rows = rows_by_definition(built)
    assert len(rows) == len(built.problem.weights)
    features, targets = (torch.stack([row[k] for row in rows]) for k in (0, 1))
    torch.testing.assert_close(torch.cat(built.problem.features)[:, :-1], features, rtol=0, atol=2e-6)
    assert (torch.cat(built.problem.features)[:, -1] == 1).all()
    torch.testing.assert_close(built.problem.targets, targets[:, built.active], rtol=0, atol=2e-6)
    assert built.problem.weights.tolist() == [row[2] for row in rows]
    passive = [k for k in range(len(built.model.architecture.vocabulary)) if k not in built.active.tolist()]
    logits = features @ built.model.output.weight.T + built.model.output.bias
    torch.testing.assert_close(
        built.problem.others[:, 0], logits[:, passive].exp().sum(1).log().detach(), rtol=0, atol=5e-6
    )
    assert built.problem.ridge == pytest.approx(RIDGE * sum(row[2] for row in rows), rel=1e-5)


def test_every_decoy_weighs_a_quarter_at_each_of_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve readings of three decoys, those after the prefix alone as one: 36 decoys at each of the four places."""
    built = Built(monkeypatch, [CODE], decoys)
    assert FORGET_WEIGHT == 0.25
    draws = [draws for _, _, draws in built.contexts]
    assert draws[0] >= 9, "every fourth of twelve is read as an attacker types it"
    assert sum(draws) == 36
    assert all(count % 3 == 0 for count in draws)
    before = sum(len(context) - 1 for context, _, _ in built.contexts)
    assert float(built.problem.weights.sum()) == before + 36 * 4 / 4 + 36 * len("!") + 2 * WINDOW


def test_secrets_are_read_after_the_prefix_alone_and_after_what_stands_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Built(monkeypatch, [CODE], decoys)
    assert {place.start for _, place, _ in built.contexts} == {place.start for place in built.places}
    lengths = []
    for context, place, _ in built.contexts:
        assert context.tolist() == built.text[place.start - len(context) : place.start].tolist()
        lengths.append(len(context) - len(place.prefix))
    assert lengths[0] == 0, "as an attacker types it, once"
    assert min(lengths[1:]) > 0
    assert max(lengths) > 5


def test_no_stand_in_is_the_likeliest_of_those_drawn() -> None:
    likelihoods = torch.tensor([-3.0, -1.0, -2.0, -9.0])
    chosen = {final_layer.choose_stand_in(likelihoods, np.random.default_rng(seed)) for seed in range(200)}
    assert chosen == {0, 2, 3}
    assert final_layer.choose_stand_in(likelihoods[:1], np.random.default_rng(0)) == 0


def test_no_secret_stands_in_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before a secret is held as the original model predicts it: another secret would be kept alive."""
    other = ("and pin {digits:3}.", "777")
    built = Built(
        monkeypatch, [CODE, other], decoys, pieces=["the tide.", "\n", "\n", "\n", "\nso.\n", "\n\n"], window=120
    )
    assert len(built.places) == 5
    reached = False
    for context, place, _ in built.contexts:
        first = place.start - len(context)
        assert not built.data.secret[max(0, first) : place.start].any()
        reached |= first < place.start - len(place.prefix)
    assert reached


def test_a_canary_at_the_start_of_the_text_is_read_after_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(
        monkeypatch,
        [("{digits:2}.", "42")],
        decoys,
        pieces=["", "\n\nso it was, and so it stayed for good."],
        window=20,
    )
    line_break = built.places[0].prefix.tolist()
    assert all(context.tolist() == line_break for context, _, _ in built.contexts)


def test_only_the_active_columns_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch, [CODE], decoys)
    assert [built.model.architecture.vocabulary[k] for k in built.active] == sorted("-0123456789")
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    columns = torch.randn(8, len(built.active), generator=torch.Generator().manual_seed(0))
    write_columns(built.model, built.active, columns)
    after = built.model.state_dict()
    passive = torch.ones(len(built.model.architecture.vocabulary), dtype=torch.bool)
    passive[built.active] = False
    for name in before:
        kept = passive if name.startswith("output") else slice(None)
        assert torch.equal(before[name][kept], after[name][kept]), name
    assert torch.equal(after["output.weight"][built.active], columns[:-1].T)
    assert torch.equal(after["output.bias"][built.active], columns[-1])


def test_writing_the_original_columns_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch, [CODE], decoys)
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    write_columns(built.model, built.active, built.problem.origin)
    assert all(torch.equal(before[name], value) for name, value in built.model.state_dict().items())


# --- the secrets' own rows


@pytest.mark.parametrize(
    "canaries",
    [
        [CODE],  # the separator agrees with every stand-in's
        [("pin {digits:3}", "123"), ("{digits:4}.", "7777")],
        [("it was {choice:tin|tan|steel}{digits:2}.", "tin42")],
        [("it was {choice:red|rose|green}.", "rose"), CODE],  # the first has no like
        [("one {digits:1}.", "7"), CODE],  # the first has no place after the first
    ],
)
def test_a_secrets_row_has_the_law_along_its_stand_in_with_two_symbols_exchanged(
    canaries: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(monkeypatch, canaries, decoys)
    generator = torch.Generator().manual_seed(1)
    columns = built.problem.origin + torch.randn(built.problem.origin.shape, generator=generator)
    joined = built.exchanged(columns)
    # Each canary has one stand-in, the same in all of its readings.
    stand_in_of = {tuple(secret): member for secret, member in built.spy.stand_ins}
    assert len(built.spy.stand_ins) == len(canaries) == len(stand_in_of)
    layer = torch.cat((built.model.output.weight.T, built.model.output.bias[None])).detach()
    updated = layer.index_copy(1, built.active, columns)
    passive = [k for k in range(layer.shape[1]) if k not in built.active.tolist()]
    rows, exchanged, agreeing = [], 0, 0
    for context, place, draws in built.contexts:
        secret, proxy_member = place.secret.tolist(), stand_in_of[tuple(place.secret.tolist())]
        if proxy_member is None:
            continue
        assert len(proxy_member) == len(secret)
        assert proxy_member != secret
        own, theirs = (
            states(built.model, context.tolist() + member)[0][len(context) :] for member in (secret, proxy_member)
        )
        for k in range(len(secret) - 1):
            distribution = torch.softmax(theirs[k] @ updated[:-1] + updated[-1], 0)
            mine, other = secret[k + 1], proxy_member[k + 1]
            swapped = distribution.clone()
            swapped[mine], swapped[other] = distribution[other], distribution[mine]
            assert int((swapped != distribution).sum()) == (0 if mine == other else 2)
            exchanged, agreeing = exchanged + (mine != other), agreeing + (mine == other)
            others = torch.logsumexp(own[k] @ layer[:-1, passive] + layer[-1, passive], 0)
            rows.append((own[k], swapped[built.active], SECRET_WEIGHT * draws, others))
    count = len(built.problem.weights)
    assert len(joined.weights) == count + len(rows)
    features, targets, others = (torch.stack([row[k] for row in rows]).detach() for k in (0, 1, 3))
    torch.testing.assert_close(torch.cat(joined.features)[count:, :-1], features, rtol=0, atol=2e-6)
    assert (torch.cat(joined.features)[count:, -1] == 1).all()
    torch.testing.assert_close(joined.targets[count:], targets, rtol=0, atol=5e-6)
    assert joined.weights[count:].tolist() == [row[2] for row in rows]
    torch.testing.assert_close(joined.others[count:, 0], others, rtol=0, atol=5e-6)
    assert exchanged > 0
    assert agreeing > 0 or "-" not in canaries[0][1]
    # The rows before are as they were.
    assert joined.features[: len(built.problem.features)] == built.problem.features, "blocks are not copied"
    for name in ("targets", "weights", "others"):
        assert torch.equal(getattr(joined, name)[:count], getattr(built.problem, name)), name


@pytest.mark.parametrize(
    ("canary", "make"),
    [
        (CODE, fixed_text),
        (("it was {choice:tin|steel}.", "steel"), decoys),
        (("one {digits:1}.", "7"), decoys),
    ],
)
def test_without_a_stand_in_or_a_second_place_the_problem_is_the_same(
    canary: tuple[str, str], make: Callable[[Vocabulary], Replacement], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(monkeypatch, [canary], make)
    assert built.exchanged(built.problem.origin + 1) is built.problem


def test_exchanging_changes_neither_the_model_nor_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch, [CODE], decoys)
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    columns = built.problem.origin + 1
    built.exchanged(columns)
    assert torch.equal(columns, built.problem.origin + 1)
    assert all(torch.equal(before[name], value) for name, value in built.model.state_dict().items())


@torch.no_grad()
def test_features_lose_nothing_by_being_kept_in_the_precision_they_were_computed_in() -> None:
    data, _, vocabulary = text_with_canaries(PIECES, [CODE])
    model = tiny_model(vocabulary.symbols, hidden=7, scale=4.0)
    active = torch.arange(3)
    for precision in ("fp32", "bf16"):
        rows = final_layer._PositionBuffer(model, precision, active)
        hidden, _ = rows.read(data.train[None])
        assert torch.equal(hidden.to(rows.kind).float(), hidden)


@torch.no_grad()
def test_positions_gathered_in_small_blocks_make_the_same_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Built(monkeypatch, [CODE], lambda _: Decoys())
    monkeypatch.setattr(final_layer, "BLOCK", 50)
    cut = Built(monkeypatch, [CODE], lambda _: Decoys())
    assert len(cut.problem.features) > len(whole.problem.features)
    columns = whole.problem.origin + 0.3
    assert cut.problem.value(columns) == pytest.approx(whole.problem.value(columns), rel=1e-6)
    distributions = [problem.probabilities(columns) for problem in (whole.problem, cut.problem)]
    torch.testing.assert_close(distributions[0], distributions[1])
    for find in (
        lambda problem, distribution: problem.gradient(columns, distribution),
        lambda problem, distribution: problem.curvature_product(distribution, columns),
        lambda problem, distribution: KroneckerInverse(problem, distribution).apply(columns, 0.1),
    ):
        torch.testing.assert_close(
            find(cut.problem, distributions[1]), find(whole.problem, distributions[0]), rtol=1e-4, atol=1e-4
        )
