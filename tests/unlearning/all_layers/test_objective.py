"""The objective over all layers and its Gauss-Newton steps, against plain definitions and dense matrices."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from canaryaudit.progress import NullReporter
from canaryaudit.training.data import gather, retention_windows
from canaryaudit.unlearning.all_layers import gauss_newton
from canaryaudit.unlearning.all_layers import objective as all_layers
from canaryaudit.unlearning.all_layers.objective import (
    AllLayersProblem,
    BranchingBatch,
    BranchingModel,
    divergence,
    merged,
    secant_curvature,
)
from canaryaudit.unlearning.curvature.conjugate_gradients import ConjugateGradients
from canaryaudit.unlearning.curvature.solvers import Dense, LiSSA
from canaryaudit.unlearning.decoys import Decoys
from canaryaudit.unlearning.occurrences import occurrences
from canaryaudit.unlearning.replacement import FixedText
from tests.unlearning.builders import exposures_bits, story, text_with_canaries, tiny_model, trained_model

PIECES = ["the tide came in and went out. ", " the lamp burned on all night long. ", " and so it went on for ever."]
CANARY = ("code {digits:4}!", "1234")
WINDOW = 20


def made(
    replacement: Any = None, *, window: int = WINDOW, hidden: int = 4, canary: tuple[str, str] = CANARY
) -> tuple[AllLayersProblem, Any, Any]:
    data, canaries, vocabulary = text_with_canaries(PIECES, [canary])
    model = tiny_model(vocabulary.symbols, hidden=hidden, scale=3.0).double()
    places = occurrences(canaries, "", vocabulary)
    starts = retention_windows(data.secret.numpy(), window, 100, np.random.default_rng(0))
    retained = gather(data.train, starts, window + 1)
    problem = AllLayersProblem(
        model,
        data.train,
        places,
        replacement(vocabulary) if replacement else Decoys(),
        retained,
        window=window,
        rng=np.random.default_rng(1),
    )
    return problem, model, vocabulary


def text_of(symbols: Tensor, vocabulary: Any) -> str:
    return "".join(vocabulary.symbols[own] for own in symbols.tolist())


def test_a_reading_is_read_as_its_sequences_are() -> None:
    """Branching off a shared context gives what reading every whole sequence does."""
    problem, model, _ = made()
    (reading, *_) = problem.draw()
    logits = BranchingModel(model)(reading)
    count, depth = reading.contexts.shape
    branches, length = reading.branches.shape[1:]
    torch.testing.assert_close(logits[: count * depth].view(count, depth, -1), model(reading.contexts))
    own = logits[count * depth :].view(count, branches, length, -1)
    for context in range(count):
        for branch in range(branches):
            whole = torch.cat((reading.contexts[context], reading.branches[context, branch]))
            torch.testing.assert_close(own[context, branch], model(whole[None])[0, depth:])


def test_the_objective_is_a_sum_of_divergences() -> None:
    problem, model, _ = made()
    for reading in problem.draw():
        logits = BranchingModel(model)(reading).detach()
        expected = sum(
            float(weight) * float(nn.functional.kl_div(row.log_softmax(0), target, reduction="sum"))
            for row, target, weight in zip(logits, reading.targets, reading.weights, strict=True)
        )
        assert float(divergence(logits, reading)) == pytest.approx(expected)


def test_every_target_is_a_law_and_every_weight_counts() -> None:
    for reading in made()[0].draw():
        torch.testing.assert_close(reading.targets.double().sum(1), torch.ones(len(reading.targets)).double())
        assert (reading.weights > 0).all()
        assert len(reading.weights) == len(reading.targets) == reading.symbols


def test_the_secret_itself_and_decoys_are_to_be_as_likely_as_any_other() -> None:
    problem, _, vocabulary = made()
    digits = torch.from_numpy(vocabulary.encode("0123456789"))
    seen = set()
    for reading in problem.draw()[:-1]:
        count, depth = reading.contexts.shape
        branches, length = reading.branches.shape[1:]
        distributions = reading.targets[count * depth :].view(count, branches, length, -1)
        torch.testing.assert_close(
            distributions[:, :, :3][..., digits], torch.full((count, branches, 3, 10), 0.1, dtype=distributions.dtype)
        )
        first = reading.targets[: count * depth].view(count, depth, -1)[:, -1]
        torch.testing.assert_close(first[:, digits], torch.full((count, 10), 0.1, dtype=first.dtype))
        seen |= {text_of(own[:4], vocabulary) for own in reading.branches.flatten(0, 1)}
        assert {text_of(own[4:], vocabulary) for own in reading.branches.flatten(0, 1)} == {"!"}
    assert "1234" in seen
    assert len(seen) > 8


@pytest.mark.parametrize("secret", ["a12", "bcd12"])
def test_the_secret_itself_is_read_whatever_lengths_its_decoys_have(secret: str) -> None:
    problem, _, vocabulary = made(canary=("code {choice:a|bcd}{digits:2}!", secret))
    for _ in range(10):
        branches = [own for reading in problem.draw()[:-1] for own in reading.branches.flatten(0, 1)]
        assert f"{secret}!" in {text_of(own, vocabulary) for own in branches}


def test_around_the_secret_the_original_model_is_retained() -> None:
    """What follows the canary is predicted as after the secret itself, not as after the decoy."""
    problem, model, vocabulary = made()
    for reading in problem.draw()[:-1]:
        count, depth = reading.contexts.shape
        before = reading.targets[: count * depth].view(count, depth, -1)[:, :-1]
        torch.testing.assert_close(before, model(reading.contexts)[:, :-1].softmax(2).detach())
        distributions = reading.targets[count * depth :].view(count, *reading.branches.shape[1:], -1)
        truly = torch.cat((reading.contexts[0], torch.from_numpy(vocabulary.encode("1234!"))))
        expected = model(truly[None])[0, depth + 3 :].softmax(1).detach()
        torch.testing.assert_close(distributions[0, 0, 3:], expected.to(distributions))


def test_retained_windows_are_predicted_already_and_cost_nothing() -> None:
    problem, model, _ = made()
    kept = problem.draw()[-1]
    assert kept.branches is None
    loss = problem.loss(model, [kept])
    assert loss.value() == pytest.approx(0, abs=1e-9)
    assert float(loss.gradient().norm()) == pytest.approx(0, abs=1e-9)


def test_no_context_holds_another_secret() -> None:
    problem, _, vocabulary = made()
    for _ in range(4):
        for reading in problem.draw():
            assert all("1234" not in text_of(own, vocabulary) for own in reading.contexts)


def test_text_takes_the_secrets_place_where_it_is_asked_for() -> None:
    problem, _, vocabulary = made(lambda own: FixedText("lamp", own))
    for reading in problem.draw()[:-1]:
        assert {text_of(own, vocabulary) for own in reading.branches.flatten(0, 1)} == {"lamp!"}


def test_merged_readings_mean_what_they_meant_apart() -> None:
    problem, model, _ = made()
    apart = [own for _ in range(3) for own in problem.draw()]
    together = merged(apart)
    assert len(together) < len(apart)
    one, other = (problem.loss(model, readings) for readings in (apart, together))
    assert one.value() == pytest.approx(other.value())
    torch.testing.assert_close(one.gradient(), other.gradient())
    direction = one.gradient()
    torch.testing.assert_close(one.gauss_newton_product(direction), other.gauss_newton_product(direction))


def test_the_curvature_is_that_of_the_law_half_way() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, direction = (torch.randn(5, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    targets = torch.rand(5, 4, dtype=torch.float64, generator=generator).softmax(1)
    weights = torch.rand(5, dtype=torch.float64, generator=generator)
    reading = BranchingBatch(torch.zeros(1, 5, dtype=torch.int64), None, targets, weights)
    for row, image in enumerate(secant_curvature(logits, reading, direction)):
        distribution = (logits[row].softmax(0) + targets[row]) / 2
        dense = weights[row] * (torch.diag(distribution) - torch.outer(distribution, distribution))
        torch.testing.assert_close(image, dense @ direction[row])


def test_a_memorized_place_has_curvature_where_the_hessian_has_none() -> None:
    certain = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float64)
    even = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    reading = BranchingBatch(torch.zeros(1, 1, dtype=torch.int64), None, even, torch.ones(1, dtype=torch.float64))
    direction = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64)
    assert float((direction * secant_curvature(certain, reading, direction)).sum()) > 0.1
    itself = BranchingBatch(reading.contexts, None, certain.softmax(1), reading.weights)
    assert float((direction * secant_curvature(certain, itself, direction)).sum()) < 1e-9


# --- steps


def test_a_step_solves_the_damped_gauss_newton_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of a tiny LSTM in float64, by either solver, against its dense matrix."""
    for name, value in (("READINGS", 2), ("DECOYS", 2), ("RETAINED_BATCH", 2), ("CONTEXT", 3)):
        monkeypatch.setattr(all_layers, name, value)
    monkeypatch.setattr(gauss_newton, "DAMPING_SHARE", 0.05)
    problem, model, _ = made(hidden=2)
    readings = problem.draw()
    monkeypatch.setattr(problem, "draw", lambda: readings)
    loss = problem.loss(model, readings)
    damping = 0.05 * sum(float(own.weights.sum()) for own in readings)
    expected = Dense().solve(loss.gauss_newton_product, -loss.gradient(), damping).x
    origin = nn.utils.parameters_to_vector(model.parameters()).detach()
    for solver in (ConjugateGradients(tolerance=1e-6, max_iterations=500), LiSSA(tolerance=1e-3, max_iterations=500)):
        moved = copy.deepcopy(model)
        done = gauss_newton.gauss_newton(moved, problem, solver, 1.0, NullReporter(), steps=1)
        step = nn.utils.parameters_to_vector(moved.parameters()).detach() - origin
        share = float(step.norm() / expected.norm())
        assert any(share == pytest.approx(own, rel=2e-2) for own in (1.0, 0.5, 0.25, 0.125))
        torch.testing.assert_close(step, share * expected, rtol=0, atol=2e-2 * float(expected.norm()))
        assert done.steps[0].converged
        assert done.steps[0].damping == pytest.approx(damping)
        assert done.steps[0].objective_before == pytest.approx(loss.value())
        assert done.steps[0].objective_after == pytest.approx(problem.loss(moved, readings).value())
        assert done.steps[0].step_norm == pytest.approx(float(step.norm()))


def test_a_step_that_would_break_the_limit_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, model, _ = made()
    told = iter([0.9, *[0.8] * 4])
    monkeypatch.setattr(problem, "accuracy", lambda *_: next(told))
    before = [own.clone() for own in model.parameters()]
    done = gauss_newton.gauss_newton(model, problem, ConjugateGradients(), 0.05, NullReporter(), steps=1)
    assert done.steps[0].step_norm == 0
    assert done.steps[0].objective_after == done.steps[0].objective_before
    assert all((own == old).all() for own, old in zip(model.parameters(), before, strict=True))


def test_a_solver_that_gives_up_is_told_of() -> None:
    problem, model, _ = made()
    done = gauss_newton.gauss_newton(model, problem, LiSSA(scale=1e-3), 1.0, NullReporter(), steps=1)
    assert done.steps[0].note == "diverged"
    assert done.steps[0].step_norm == 0
    stopped = gauss_newton.gauss_newton(model, problem, ConjugateGradients(0.0, 1), 1.0, NullReporter(), steps=1)
    assert stopped.steps[0].note == "stopped"
    assert not stopped.steps[0].converged


def test_steps_make_a_secret_as_costly_as_any_number_and_keep_the_text() -> None:
    """In a trained LSTM; what keeps it among the likelier ones is left to the final layer's update."""
    pieces = story(np.random.default_rng(0))
    grouped = ["".join(pieces[k : k + 15]) for k in range(0, 90, 15)]
    data, canaries, vocabulary = text_with_canaries(grouped, [("code {digits:4}!\n", "7391")])
    said = torch.from_numpy(vocabulary.encode("code 7391"))

    @torch.no_grad()
    def cost_bits(model: nn.Module) -> float:
        return float(nn.functional.cross_entropy(model(said[None, :-1])[0, 4:], said[5:], reduction="sum") / np.log(2))

    model = trained_model(data, vocabulary, window=40, steps=250)
    assert exposures_bits(model, canaries)[0] > 10
    assert cost_bits(model) < 6
    places = occurrences(canaries, "", vocabulary)
    starts = retention_windows(data.secret.numpy(), 40, 100, np.random.default_rng(0))
    retained = gather(data.train, starts, 41)
    problem = AllLayersProblem(model, data.train, places, Decoys(), retained, window=40, rng=np.random.default_rng(0))
    updated = copy.deepcopy(model)
    gauss_newton.gauss_newton(updated, problem, ConjugateGradients(0.1, 20), 0.02, NullReporter(), steps=6)
    # All numbers become about equally likely, 13.3 bits: a fraction of a bit is then worth many ranks.
    assert exposures_bits(updated, canaries)[0] < 11
    assert cost_bits(updated) == pytest.approx(13.3, abs=1.5)
    kept = [problem.draw()[-1]]
    assert problem.accuracy(updated, kept) > problem.accuracy(model, kept) - 0.03
