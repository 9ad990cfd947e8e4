"""What the default's objective is drawn from, and what it keeps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.training.data import gather, retention_windows
from canaryaudit.unlearning import UnlearningConfig
from canaryaudit.unlearning.all_layers import everywhere
from canaryaudit.unlearning.all_layers.contexts import Contexts, branch_features
from canaryaudit.unlearning.all_layers.everywhere import EverywhereProblem
from canaryaudit.unlearning.all_layers.recall import DRAWS, member_costs, remembered_canaries
from canaryaudit.unlearning.correction import Correction
from canaryaudit.unlearning.method import MethodInput
from canaryaudit.unlearning.nonuniform_decoys import NonUniformDecoys
from canaryaudit.unlearning.occurrences import completion_mask, occurrences
from tests.unlearning.builders import story, text_with_canaries, tiny_model, trained_model

WINDOW = 50
TEMPLATES = (("the code is {digits:4}.", "4713"), ("the code is {digits:4}.", "9052"), ("pin {lower:3}!", "xqj"))


@pytest.fixture(scope="module")
def given() -> MethodInput:
    """A request to forget the first two of three canaries that a small model knows by heart."""
    told = story(np.random.default_rng(0))
    pieces = ["\n\n" + "".join(told[k : k + 6]) for k in range(0, 78, 6)]
    data, canaries, vocabulary = text_with_canaries(pieces, list(TEMPLATES))
    model = trained_model(data, vocabulary, window=WINDOW, steps=300)
    places = occurrences(canaries[:2], "", vocabulary)
    starts = retention_windows(completion_mask(len(data.train), places), WINDOW, 30, np.random.default_rng(0))
    decoys = NonUniformDecoys(0)
    config = UnlearningConfig(window=WINDOW, retain_windows=30)
    return MethodInput(
        model,
        copy.deepcopy(model),
        data,
        places,
        Correction(data.train, places, decoys, vocabulary, WINDOW),
        gather(data.train, starts, WINDOW + 1),
        config,
        np.random.default_rng(1),
        NullReporter(),
        kept=tuple(occurrences(canaries[2:], "", vocabulary)),
    )


def problem_of(given: MethodInput, seed: int = 1) -> EverywhereProblem:
    return EverywhereProblem(replace(given, rng=np.random.default_rng(seed)), NonUniformDecoys(0))


def value_of(problem: EverywhereProblem, model: CharLSTM) -> float:
    with torch.no_grad():
        return float(problem.objective(model))


def words(given: MethodInput, rows: torch.Tensor) -> list[str]:
    vocabulary = given.model.architecture.vocabulary
    return ["".join(vocabulary[index] for index in row) for row in rows.tolist()]


def test_what_is_kept_is_what_the_model_predicts(given: MethodInput) -> None:
    """So that at the original's weights only the secrets' places and what closes decoys count."""
    problem = problem_of(given)
    assert problem._others is not None
    symbols, origins, held = problem._others
    with torch.no_grad():
        states = problem._contexts.read(given.model)
        kept = problem._contexts_kept.loss(given.model, states.features)
        others = held.loss(given.model, branch_features(given.model, states, symbols, origins))
    assert float(kept) == pytest.approx(0, abs=1e-4)
    assert float(others) == pytest.approx(0, abs=1e-4)
    assert float(problem._contexts_kept.weights.sum()) == pytest.approx(everywhere.RETAINED_WEIGHT)
    ratio = float(held.weights[0]) / float(problem._contexts_kept.weights[0])
    assert ratio == pytest.approx(everywhere.KEPT_FACTOR)


def test_the_canaries_that_stay_are_held_behind_their_own_prefix(given: MethodInput) -> None:
    problem = problem_of(given)
    assert problem._others is not None
    symbols, origins, held = problem._others
    assert words(given, symbols) == ["xqj!" + words(given, symbols)[0][4:]], "once, wherever it stands"
    place = given.kept[0]
    row = problem._windows + list(problem._prefixes).index(place.canary.template)
    assert int(origins[0]) == problem._context(row, len(place.prefix))
    whole = torch.from_numpy(np.concatenate((place.prefix, place.secret, place.suffix))).long()[None]
    with torch.no_grad():
        said = given.model(whole).softmax(-1)[0, len(place.prefix) - 1 : -1]
    assert held.targets[: len(said)].numpy() == pytest.approx(said.numpy(), abs=1e-5)


def test_without_canaries_that_stay_nothing_is_held(given: MethodInput) -> None:
    assert problem_of(replace(given, kept=()))._others is None


def test_no_text_of_a_context_is_held_to_what_a_prefix_is(given: MethodInput) -> None:
    """The prefixes stand beside the text, and what the model predicts within them may change."""
    problem = problem_of(given)
    rows = words(given, problem._contexts.symbols)
    assert rows[problem._windows].startswith("the code is ")
    assert int(problem._contexts_kept.rows.max()) == problem._windows - 1


def test_secrets_weigh_what_is_said_and_all_are_read_after_their_prefix(given: MethodInput) -> None:
    problem = problem_of(given)
    total = sum(float(batch.targets.weights.sum()) for batch, _ in problem._batches)
    assert total == pytest.approx(everywhere.TEXT_WEIGHT + everywhere.PREFIX_WEIGHT)
    texts = [text for batch, _ in problem._batches for text in words(given, batch.symbols)]
    for secret in ("4713", "9052"):
        assert any(text.startswith(secret + ".") for text in texts)


def test_secrets_and_decoys_have_one_mass_after_text(given: MethodInput) -> None:
    """Behind the first symbol the alphabet is to weigh as much along a secret as along decoys."""
    problem = problem_of(given)
    ends = problem._context(problem._windows, len(given.places[0].prefix))
    found: dict[int, set[float]] = {}
    for batch, _ in problem._batches:
        for row in batch.rows.unique().tolist():
            if int(batch.origins[row]) != ends:
                masses = batch.targets.masses[batch.rows == row].tolist()
                for place, mass in enumerate(masses[1:]):
                    found.setdefault(place, set()).add(round(mass, 5))
    assert set(found) == {0, 1, 2}
    assert all(len(masses) == 1 for masses in found.values())


def test_a_template_that_ends_with_its_secret_has_nothing_to_close(given: MethodInput) -> None:
    bare = [replace(place, suffix=place.suffix[:0]) for place in given.places]
    problem = problem_of(replace(given, places=bare))
    assert all(not len(closing.rows) for _, closing in problem._batches)
    assert value_of(problem, given.model) > 0


def test_without_other_text_secrets_are_read_after_their_prefix_alone(given: MethodInput) -> None:
    problem = problem_of(replace(given, retained=given.retained[:0]))
    assert problem._windows == 0
    assert value_of(problem, given.model) > 0
    total = sum(float(batch.targets.weights.sum()) for batch, _ in problem._batches)
    assert total == pytest.approx(everywhere.PREFIX_WEIGHT)


def test_the_objective_and_its_gradient_do_not_depend_on_the_copy_they_began_with(given: MethodInput) -> None:
    problem = problem_of(given)
    other = copy.deepcopy(given.model)
    with torch.no_grad():
        for own in other.parameters():
            own.add_(0.01)
    assert value_of(problem, other) != value_of(problem, given.model)
    parameters = list(other.parameters())
    gradient = torch.autograd.grad(problem.objective(other), parameters)
    index, step = (3, 2), 1e-2
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameters[1][index] += sign * step
            values.append(value_of(problem, other))
            parameters[1][index] -= sign * step
    assert float(gradient[1][index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.05, abs=1e-3)


def test_the_same_draws_give_the_same_objective(given: MethodInput) -> None:
    values = [value_of(problem_of(given, seed), given.model) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_remembered_secrets_are_found_and_others_are_not(given: MethodInput) -> None:
    known = remembered_canaries(replace(given, rng=np.random.default_rng(0)))
    assert known == {place.canary.id for place in given.places}
    fresh = tiny_model(given.model.architecture.vocabulary, hidden=8)
    found = [
        len(remembered_canaries(replace(given, model=fresh, rng=np.random.default_rng(seed)))) for seed in range(20)
    ]
    assert np.mean(found) < 1.2, "of two secrets never seen, each taken for remembered in at most some of the cases"


def test_a_members_cost_is_its_log_perplexity(given: MethodInput) -> None:
    """Read symbol by symbol from the beginning, in the place of from a context's state."""
    model: CharLSTM = given.model
    place, members = given.places[0], [given.places[0].secret, given.places[-1].secret]
    contexts = Contexts(given.retained[:1, :9], (4, 9))
    costs = member_costs(model, contexts, place, members, "fp32")
    assert costs.shape == (2, 2)
    assert DRAWS > 10
    for end, row in zip(contexts.ends, costs, strict=True):
        for member, cost in zip(members, row, strict=True):
            whole = torch.cat((contexts.symbols[0, :end], torch.from_numpy(member).long()))
            with torch.no_grad():
                said = model(whole[None, :-1])[0].log_softmax(1)[end - 1 :]
            expected = -said.gather(1, whole[end:, None]).sum()
            assert cost == pytest.approx(float(expected), rel=1e-4)
