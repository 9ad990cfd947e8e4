"""Preconditioned steps over all layers, against plain definitions, and what they do to a trained model."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from canaryaudit.progress import NullReporter
from canaryaudit.training.data import gather, retention_windows
from canaryaudit.unlearning.all_layers import preconditioned_adam as preconditioned
from canaryaudit.unlearning.all_layers.preconditioned_adam import (
    PreconditionedProblem,
    inverse_root,
    layer_inputs,
    take_steps,
)
from canaryaudit.unlearning.nonuniform_decoys import NonUniformDecoys
from canaryaudit.unlearning.occurrences import occurrences
from canaryaudit.unlearning.replacement import FixedText
from tests.unlearning.builders import exposures_bits, story, text_with_canaries, tiny_model, trained_model

PIECES = ["the tide came in and went out. ", " the lamp burned on all night long. ", " and so it went on for ever."]
WINDOW = 20


def problem_of(model: Any, data: Any, canaries: Any, vocabulary: Any, replacement: Any) -> PreconditionedProblem:
    starts = retention_windows(data.secret.numpy(), WINDOW, 100, np.random.default_rng(0))
    return PreconditionedProblem(
        model,
        data.train,
        occurrences(canaries, "", vocabulary),
        replacement,
        gather(data.train, starts, WINDOW + 1),
        precision="fp32",
        rng=np.random.default_rng(1),
    )


def made(replacement: Any = None, template: str = "code {digits:4}!", own: str = "1234") -> tuple[Any, Any, Any]:
    data, canaries, vocabulary = text_with_canaries(PIECES, [(template, own)])
    model = tiny_model(vocabulary.symbols, hidden=4, scale=3.0).double()
    distribution = replacement(vocabulary) if replacement else NonUniformDecoys(0)
    return problem_of(model, data, canaries, vocabulary, distribution), model, vocabulary


def test_the_objective_is_a_sum_of_divergences_and_its_gradient_automatic() -> None:
    problem, model, _ = made()
    rows = problem.draw()
    loss = problem.loss(model, rows)
    logs = model(rows.symbols).log_softmax(2)
    expected = sum(
        float(rows.weights[b, t])
        * float(nn.functional.kl_div(logs[b, t], rows.targets[b, t], reduction="sum").detach())
        for b, t in rows.weights.nonzero().tolist()
    )
    assert float(loss.detach()) == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, [model.output.bias])
    excess = logs.exp() - rows.targets
    torch.testing.assert_close(gradient, (rows.weights[..., None] * excess).sum((0, 1)))


def test_every_target_that_counts_is_a_law_and_weights_are_as_promised() -> None:
    rows = made()[0].draw()
    counted = rows.weights > 0
    torch.testing.assert_close(rows.targets[counted].sum(1), torch.ones(int(counted.sum())).double(), atol=1e-6, rtol=0)
    told = len(rows.symbols) - preconditioned.RETAINED_ROWS
    assert float(rows.weights[told:].sum()) == pytest.approx(preconditioned.RETAINED_WEIGHT)
    assert float(rows.weights[:told].sum()) == pytest.approx(1 + preconditioned.AROUND_WEIGHT)


def test_the_secret_itself_is_among_the_rows_and_so_are_decoys() -> None:
    problem, _, vocabulary = made()
    rows = problem.draw()
    texts = ["".join(vocabulary.symbols[own] for own in row) for row in rows.symbols.tolist()]
    assert sum("code 1234!" in text for text in texts) == 1 + preconditioned.DEEP_SECRETS
    assert len({text[:9] for text in texts if text.startswith("code ")}) > preconditioned.BARE_DECOYS // 2


def test_half_of_the_decoys_are_what_the_law_itself_would_say() -> None:
    """Every other row: the law's favorite as often as the law says, and in the rows between, uniform draws."""
    problem, _, vocabulary = made()
    own = next(problem._turns)
    distribution = NonUniformDecoys(0).distributions(own)[0]
    favorite = 4 * vocabulary.symbols[int(distribution.argmax())]
    rows = [row for _ in range(30) for row in problem.draw().symbols[: preconditioned.BARE_DECOYS].tolist()]
    texts = ["".join(vocabulary.symbols[symbol] for symbol in row[5:9]) for row in rows]
    uniform, likely = texts[::2], texts[1::2]
    expected = float(distribution.max() / distribution.sum()) ** 4
    assert expected > 0.1
    assert likely.count(favorite) / len(likely) == pytest.approx(expected, abs=0.09)
    assert uniform.count(favorite) / len(uniform) < 0.02
    assert np.mean([len(set(text)) == 4 for text in uniform]) == pytest.approx(0.504, abs=0.13)


def test_the_end_of_a_secret_weighs_as_much_as_each_of_its_characters() -> None:
    problem, model, vocabulary = made()
    rows = problem.draw()
    secret = preconditioned.BARE_DECOYS + preconditioned.DEEP_DECOYS
    text = "".join(vocabulary.symbols[own] for own in rows.symbols[secret].tolist())
    assert text.startswith("code 1234!")
    weights = rows.weights[secret]
    assert weights[4:9].tolist() == pytest.approx([float(weights[4])] * 5)
    assert float(weights[9]) < float(weights[8]) / 5
    # What ends it is to be predicted as the original does.
    logits = model(rows.symbols[secret][None, :9])[0, 8]
    torch.testing.assert_close(rows.targets[secret, 8], logits.softmax(0))


def test_a_text_in_the_secrets_place_asks_nothing_of_the_secret() -> None:
    problem, _, vocabulary = made(lambda own: FixedText("not ", own))
    texts = ["".join(vocabulary.symbols[own] for own in row) for row in problem.draw().symbols.tolist()]
    assert any("code not !" in text for text in texts)
    assert not any("code 1234" in text for text in texts)


def test_words_of_different_length_stand_side_by_side() -> None:
    problem, model, _ = made(template="it is {choice:red|crimson} now!", own="red")
    assert torch.isfinite(problem.loss(model, problem.draw()))


def test_the_inverse_root_inverts_its_square() -> None:
    draws = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = draws.T @ draws / 50
    mean = torch.trace(moments) / 6
    root = inverse_root(moments, 0.1)
    torch.testing.assert_close(
        root @ root @ (moments / mean + 0.1 * torch.eye(6, dtype=torch.float64)), torch.eye(6, dtype=torch.float64)
    )


def test_inputs_are_what_the_layers_read() -> None:
    _, model, _ = made()
    symbols = torch.tensor([[1, 2, 3], [3, 2, 1]])
    found = dict(layer_inputs(model, symbols))
    torch.testing.assert_close(found["lstm.weight_ih_l0",], model.embedding(symbols))
    torch.testing.assert_close(found["lstm.weight_hh_l0", "output.weight"], model.features(symbols)[0])


def test_rare_inputs_are_moved_along_further_than_common_ones() -> None:
    root = inverse_root(torch.diag(torch.tensor([1.0, 0.01])), 0.01)
    assert root[1, 1] > 4 * root[0, 0]


@pytest.mark.parametrize(("count", "growth"), [(1, 1), (10, 1), (40, 2)])
def test_more_canaries_take_more_steps_of_more_rows(count: int, growth: int) -> None:
    many = [(f"code {number:02} {{digits:4}}!", f"{number:04}") for number in range(count)]
    data, canaries, vocabulary = text_with_canaries([PIECES[0]] * (count + 1), many)
    model = tiny_model(vocabulary.symbols, hidden=4)
    problem = problem_of(model, data, canaries, vocabulary, NonUniformDecoys(0))
    assert problem.steps == growth * preconditioned.STEPS
    secrets = min(count, growth * preconditioned.BARE_SECRETS) + preconditioned.DEEP_SECRETS
    decoys = preconditioned.BARE_DECOYS + preconditioned.DEEP_DECOYS
    assert len(problem.draw().symbols) == decoys + secrets + growth * preconditioned.RETAINED_ROWS


def test_steps_forget_and_tell_of_their_health() -> None:
    pieces = story(np.random.default_rng(0))
    grouped = ["".join(pieces[k : k + 15]) for k in range(0, 90, 15)]
    data, canaries, vocabulary = text_with_canaries(grouped, [("code {digits:3}!\n", "739")])
    model = trained_model(data, vocabulary, window=40, steps=250)
    after = []
    for distribution in range(3):
        moved = copy.deepcopy(model)
        done = take_steps(
            moved, problem_of(model, data, canaries, vocabulary, NonUniformDecoys(distribution)), NullReporter()
        )
        after.append(exposures_bits(moved, canaries)[0])
    assert exposures_bits(model, canaries)[0] > 9
    assert np.mean(after) < 5
    assert len(done.steps) == preconditioned.STEPS
    assert done.steps[-1].objective_after < done.steps[0].objective_before / 4
    assert all(step.step_norm > 0 and step.gradient_norm > 0 for step in done.steps)
    assert done.symbols > 0
    assert all(own.grad is None for own in moved.parameters())
