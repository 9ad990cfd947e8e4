"""Whole requests on a small LSTM that learned a secret by heart."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import Inconclusive, UnlearningError, UsageError
from canaryaudit.exposure.encoded_space import encode_completions
from canaryaudit.exposure.scoring import read_prefix, score_log_perplexity
from canaryaudit.models.char_lstm import CharLSTM, LSTMLanguageModel
from canaryaudit.progress import NullReporter
from canaryaudit.records import Evaluation, UpdateStep
from canaryaudit.training.data import TrainingData, gather, retention_windows
from canaryaudit.training.loop import evaluate
from canaryaudit.unlearning import TrainedModelFacts, UnlearningConfig, UnlearningResult, request, unlearn
from canaryaudit.unlearning.all_layers import update as all_layers
from canaryaudit.unlearning.all_layers.gauss_newton import SOLVERS
from canaryaudit.unlearning.curvature.kronecker import KroneckerCurvature, kronecker_curvature
from canaryaudit.unlearning.curvature.lstm_layers import LSTMLayers
from canaryaudit.unlearning.curvature.solvers import LiSSA
from canaryaudit.unlearning.final_layer import newton as second_order
from canaryaudit.unlearning.final_layer import update as final_update
from canaryaudit.unlearning.final_layer.newton import MAX_STEPS, NewtonResult
from canaryaudit.unlearning.final_layer.objective import FinalLayerProblem
from tests.unlearning.builders import exposures_bits, story, text_with_canaries, tiny_model, trained_model

Unlearn = Callable[..., UnlearningResult]
TEMPLATE, SECRET, SPACE_BITS = "the code is {digits:3}.", "471", np.log2(1000)
WINDOW = 60


@dataclass(frozen=True)
class Case:
    """A model, what it was trained on, and the canary that it knows."""

    model: CharLSTM
    data: TrainingData
    canaries: list[Canary]

    def unlearn(self, curvature: KroneckerCurvature | None = None, **options: object) -> UnlearningResult:
        config = UnlearningConfig(**{"window": WINDOW, "retain_windows": 40, "max_fidelity_drop": 0.01, **options})
        trained = TrainedModelFacts(100.0, curvature=curvature)
        return unlearn(self.model, self.data, self.canaries, "", config, trained=trained)

    def exposure_bits(self, model: CharLSTM) -> float:
        """Return the secret's exact exposure."""
        return float(exposures_bits(model, self.canaries)[0])


@pytest.fixture(scope="module")
def case() -> Case:
    told = story(np.random.default_rng(0))
    pieces = ["\n\n" + "".join(told[k : k + 10]) for k in range(0, 90, 10)]
    data, canaries, vocabulary = text_with_canaries(pieces, [(TEMPLATE, SECRET)])
    model = trained_model(data, vocabulary, window=WINDOW, steps=260)
    held = vocabulary.encode("".join(story(np.random.default_rng(1)))[:1500])
    data = TrainingData(data.train, data.secret, torch.from_numpy(held))
    return Case(model, data, canaries)


@pytest.fixture(scope="module")
def forgotten(case: Case) -> UnlearningResult:
    """Unlearned by the final layer's update alone."""
    return case.unlearn(scope="final-layer")


@pytest.fixture(scope="module")
def unlearned(case: Case) -> Unlearn:
    """Unlearn with some options, or return what they led to before; nobody may change it."""
    return cache(case.unlearn)


def same_weights(one: CharLSTM, other: CharLSTM) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def worse_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every evaluation of the text but the first find two points less."""
    measured, drops = request.evaluations, itertools.chain((0.0,), itertools.repeat(0.02))

    def worse(*arguments: object) -> tuple[Evaluation, Evaluation]:
        trained, held = measured(*arguments)  # type: ignore[arg-type]
        return trained.model_copy(update={"accuracy": trained.accuracy - next(drops)}), held

    monkeypatch.setattr(request, "evaluations", worse)


def test_the_model_learned_the_secret_by_heart(case: Case) -> None:
    assert case.exposure_bits(case.model) == pytest.approx(SPACE_BITS)


def test_decoys_take_the_secret_away_and_nothing_else(case: Case, forgotten: UnlearningResult) -> None:
    assert case.exposure_bits(forgotten.model) < 4
    fidelity = forgotten.fidelity
    assert fidelity.train_accuracy_before > 0.7
    assert fidelity.train_accuracy_before - fidelity.train_accuracy_after <= 0.01
    assert fidelity.heldout_loss_after < fidelity.heldout_loss_before * 1.05


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_forget_as_well(case: Case, seed: int) -> None:
    assert case.exposure_bits(case.unlearn(seed=seed).model) < 4


def test_the_original_model_is_left_as_it_is(case: Case) -> None:
    before = copy.deepcopy(case.model)
    for options in ({}, {"method": "first-order", "max_fidelity_drop": 0.5}):
        result = case.unlearn(**options)
        assert same_weights(case.model, before)
        assert not same_weights(case.model, result.model)
        assert not case.model.training
        assert not result.model.training
        assert all(parameter.grad is None for parameter in case.model.parameters())


def test_the_same_seed_gives_the_same_weights(case: Case, unlearned: Unlearn, forgotten: UnlearningResult) -> None:
    assert same_weights(case.unlearn(scope="final-layer").model, forgotten.model)
    assert not same_weights(case.unlearn(scope="final-layer", seed=3).model, forgotten.model)
    assert same_weights(case.unlearn(seed=1).model, unlearned(seed=1).model)


def test_fidelity_is_what_evaluation_says(case: Case, forgotten: UnlearningResult) -> None:
    for model, moment in ((case.model, "before"), (forgotten.model, "after")):
        trained = evaluate(model, case.data.train, case.data.secret, "fp32")
        held = evaluate(model, case.data.heldout, None, "fp32")
        found = {name: value for name, value in forgotten.fidelity.model_dump().items() if name.endswith(moment)}
        assert found == {
            f"train_accuracy_{moment}": trained.accuracy,
            f"train_accuracy_all_{moment}": trained.accuracy_all,
            f"train_loss_{moment}": trained.loss_bits,
            f"heldout_accuracy_{moment}": held.accuracy,
            f"heldout_loss_{moment}": held.loss_bits,
        }


def test_the_ledger_adds_up(case: Case, forgotten: UnlearningResult) -> None:
    cost = forgotten.cost
    assert cost.curvature_products == sum(step.solver_iterations + 1 for step in forgotten.updates)
    assert cost.retraining_seconds == 100
    assert cost.speedup == pytest.approx(100 / cost.seconds)
    assert cost.gradients > 0
    # Eight places; each lies in one window, or as a label and a feature in two.
    assert 8 <= forgotten.affected_windows <= 16
    assert forgotten.retention_windows == 40


def test_without_held_out_text_its_figures_are_zero(case: Case) -> None:
    bare = Case(case.model, TrainingData(case.data.train, case.data.secret, case.data.heldout[:0]), case.canaries)
    assert bare.unlearn().fidelity.heldout_loss_after == 0


def test_text_replacement_runs_and_records_its_figures(case: Case) -> None:
    result = case.unlearn(replacement="text:not ")
    assert result.updates[-1].objective_after < result.updates[0].objective_before
    assert all(step.curvature_min > 0 and step.converged is (step.residual <= 0.101) for step in result.updates)
    greedy = read_prefix(LSTMLanguageModel(result.model), "the code is ").log2_probs.argmax()
    assert result.model.architecture.vocabulary[int(greedy)] == "n"


@pytest.mark.parametrize("scope", ["all-layers", "final-layer"])
@pytest.mark.parametrize("replacement", ["decoys", "text:not "])
def test_the_first_order_update_runs_and_records_its_figures(case: Case, scope: str, replacement: str) -> None:
    result = case.unlearn(method="first-order", scope=scope, replacement=replacement, max_fidelity_drop=0.05)
    (step,) = result.updates
    moved = [(a - b).detach().norm() for a, b in zip(result.model.parameters(), case.model.parameters(), strict=True)]
    share = 1.0 if not any("scaled back" in note for note in result.notes) else 0.5
    assert float(torch.stack(moved).norm()) == pytest.approx(share * step.step_norm, rel=1e-2)
    assert step.objective_after < step.objective_before
    assert result.cost.gradients == 2 * result.affected_windows
    assert result.notes[0].startswith("tau ")
    assert torch.equal(result.model.lstm.weight_hh_l0, case.model.lstm.weight_hh_l0) is (scope == "final-layer")


def test_a_given_step_length_of_the_first_order_update_is_taken(case: Case) -> None:
    result = case.unlearn(method="first-order", tau=1e-6, max_fidelity_drop=0.05)
    (step,) = result.updates
    assert step.step_norm == pytest.approx(1e-6 * step.gradient_norm)
    assert result.notes == ("tau 1e-06",)


def test_a_first_order_step_that_breaks_the_limit_is_refused(case: Case) -> None:
    with pytest.raises(Inconclusive, match="nothing was saved"):
        case.unlearn(method="first-order", tau=1.0)


# --- the fidelity limit


def push(monkeypatch: pytest.MonkeyPatch, bias: float) -> None:
    """Let the second-order update raise the bias of every active symbol, and do nothing else."""

    def minimize(problem: FinalLayerProblem, progress: object, start: Tensor | None = None) -> NewtonResult:
        columns = problem.origin.clone()
        columns[-1] += bias
        step = UpdateStep(step_norm=bias, gradient_norm=1.0, objective_before=2.0, objective_after=1.0)
        return NewtonResult(columns, (step,), 1, converged=True)

    monkeypatch.setattr(final_update, "minimize", minimize)


def drop(result: UnlearningResult) -> float:
    return result.fidelity.train_accuracy_before - result.fidelity.train_accuracy_after


def test_an_update_over_the_fidelity_limit_is_scaled_back(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    drops = []
    for bias in (12.0, 6.0, 3.0):
        push(monkeypatch, bias)
        drops.append(drop(case.unlearn(scope="final-layer", max_fidelity_drop=1.0)))
    assert drops[0] > drops[1] > drops[2] > 0
    push(monkeypatch, 12.0)
    for expected, share in ((drops[1], "0.5"), (drops[2], "0.25")):
        result = case.unlearn(scope="final-layer", max_fidelity_drop=expected)
        assert drop(result) == expected
        assert any(f"scaled back to {share} of the full step" in note for note in result.notes)
        digit = result.model.architecture.vocabulary.index("4")
        moved = result.model.output.bias[digit] - case.model.output.bias[digit]
        assert moved.item() == pytest.approx(12 * float(share), rel=1e-5)


def test_an_update_that_breaks_the_limit_at_every_length_is_refused(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(monkeypatch, 12.0)
    before = copy.deepcopy(case.model)
    with pytest.raises(Inconclusive, match="the limit is 0.0001: nothing was saved"):
        case.unlearn(scope="final-layer", max_fidelity_drop=0.0001)
    assert same_weights(case.model, before)


def test_an_update_that_does_nothing_is_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(problem: FinalLayerProblem, progress: object, start: Tensor | None = None) -> NewtonResult:
        step = UpdateStep(step_norm=0.0, gradient_norm=1.0, objective_before=2.0, objective_after=2.0)
        return NewtonResult(problem.origin, (step,), 1, converged=True)

    monkeypatch.setattr(final_update, "minimize", stuck)
    with pytest.raises(Inconclusive, match="no second-order step"):
        case.unlearn(scope="final-layer")


# --- the default: L-BFGS from the stored curvature


def test_the_default_forgets_and_keeps_the_text(case: Case, unlearned: Unlearn) -> None:
    found = [unlearned(seed=seed) for seed in range(4)]
    assert np.mean([case.exposure_bits(result.model) for result in found]) < 3
    for result in found:
        assert drop(result) <= 0.01
        assert result.updates[-1].objective_after < result.updates[0].objective_before / 10
        assert all(0 < step.damping <= all_layers.DAMPING for step in result.updates)
        assert result.cost.curvature_products >= len(result.updates)
        assert result.cost.preparation_seconds > 0


def test_an_update_that_costs_too_much_is_made_again_more_cautiously(case: Case, unlearned: Unlearn) -> None:
    """Rather than taken back in part, which would bring the secret back."""
    free, held = unlearned(seed=1, max_fidelity_drop=0.5), unlearned(seed=1)
    assert drop(free) > 0.01
    assert drop(held) <= 0.01
    assert free.notes == ()
    assert held.notes[0].startswith("made again with 1/")
    assert not any("scaled back" in note for note in held.notes)
    assert case.exposure_bits(held.model) < 5
    assert held.updates[0].damping < free.updates[0].damping
    assert held.cost.gradients > 1.5 * free.cost.gradients


PROMPTS = ("the password is ", "my code: ", "open with ", "number ", "he said ", "it was ")
"""Nothing that the update reads is drawn from these."""


def exposures_after(model: CharLSTM, prompts: Sequence[str], secret: str) -> np.ndarray:
    """Return the secret's exact exposure after each prompt, bits: all its 1000 members are scored."""
    reader, members = LSTMLanguageModel(model), [f"{number:03}" for number in range(1000)]
    encoded = encode_completions(members, reader.vocabulary, 3)
    found = []
    for prompt in prompts:
        costs = score_log_perplexity(reader, read_prefix(reader, prompt), encoded)
        found.append(SPACE_BITS - np.log2(1 + (costs < costs[int(secret)]).sum()))
    return np.array(found)


def test_it_forgets_after_prompts_that_it_never_reads(case: Case, unlearned: Unlearn) -> None:
    """The final layer's update forgets after the secret's own words only."""
    prompts = [prompt for prompt in PROMPTS if set(prompt) <= set(case.model.architecture.vocabulary)]
    assert len(prompts) >= 4
    before = exposures_after(case.model, prompts, SECRET)
    found = [exposures_after(unlearned(seed=seed).model, prompts, SECRET) for seed in range(6)]
    assert before.mean() > 7
    assert np.mean(found) < 3


def test_the_seeds_decide_the_weights(unlearned: Unlearn) -> None:
    assert not same_weights(unlearned(seed=1).model, unlearned(seed=2).model)


def test_a_curvature_that_is_given_is_not_computed_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = retention_windows(case.data.secret.numpy(), WINDOW, 60, np.random.default_rng(0))
    windows = gather(case.data.train, starts, WINDOW)
    curvature = kronecker_curvature(LSTMLayers(case.model), windows, 0, NullReporter())
    monkeypatch.delattr("canaryaudit.unlearning.request.kronecker_curvature")
    result = case.unlearn(curvature)
    assert case.exposure_bits(result.model) < 4


def test_a_secret_that_was_never_remembered_is_left_alone(case: Case) -> None:
    """A model that never saw the text ranks the secret as it ranks any other; seed 0 finds it beside the draws."""
    fresh = tiny_model(case.model.architecture.vocabulary, hidden=16)
    result = Case(fresh, case.data, case.canaries).unlearn()
    assert same_weights(result.model, fresh)
    assert result.updates == ()
    assert result.notes == ("left alone, since the model ranks them like fresh draws: 1 of 1 secrets",)


class Messages(NullReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.warned: list[str] = []
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.warned.append(message)

    def info(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize(("retraining", "better"), [(1e-3, True), (1e6, False)])
def test_it_is_said_where_retraining_is_the_better_answer(case: Case, retraining: float, better: bool) -> None:
    config = UnlearningConfig(window=WINDOW, retain_windows=40, max_fidelity_drop=0.05)
    messages = Messages()
    unlearn(case.model, case.data, case.canaries, "", config, trained=TrainedModelFacts(retraining), progress=messages)
    assert any("retraining takes" in message for message in messages.said)
    assert [message.startswith("Retraining may be the better answer") for message in messages.warned] == [True] * better


def test_text_over_all_layers_is_refused_with_what_to_do(case: Case) -> None:
    with pytest.raises(UnlearningError, match="drop --replacement, or use --scope final-layer or --solver cg"):
        case.unlearn(replacement="text:not ", scope="all-layers")


def test_without_the_corpus_the_curvature_is_taken_from_what_the_model_says(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a loss on text that the update may not see refuses it, but changes nothing of it."""
    worse_afterwards(monkeypatch)
    with pytest.raises(Inconclusive, match="made without the training text"):
        case.unlearn(retain_windows=0)


def relearned_bits(case: Case, model: CharLSTM, steps: int) -> float:
    """Return the exposure after steps of Adam on batches of four windows, of which one holds the secret."""
    attacked, rng = copy.deepcopy(model).train(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(attacked.parameters(), lr=3e-3)
    for _ in range(steps):
        starts = np.r_[case.canaries[0].places[3] - 10, rng.integers(0, len(case.data.train) - WINDOW - 1, 3)]
        windows = gather(case.data.train, starts, WINDOW + 1)
        loss = nn.functional.cross_entropy(attacked(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return case.exposure_bits(attacked.eval())


def test_what_the_default_unlearned_comes_back_later_than_after_the_final_layers_update(case: Case) -> None:
    """Over seeds of the law: some 3 bits after two steps on one of the secret's windows, where the other has 9."""
    limit = 0.05
    default = [case.unlearn(seed=seed, max_fidelity_drop=limit).model for seed in range(6)]
    final = [case.unlearn(seed=seed, max_fidelity_drop=limit, scope="final-layer").model for seed in range(6)]
    assert np.mean([case.exposure_bits(model) for model in default]) < 4
    assert np.mean([case.exposure_bits(model) for model in final]) < 4
    again = [np.mean([relearned_bits(case, model, 2) for model in models]) for models in (default, final)]
    assert again[0] < again[1] - 4


# --- how the minimizations ended


@pytest.mark.parametrize("converged", [(True, False), (False, True), (False, False)])
def test_a_minimization_that_did_not_converge_is_noted_once(
    case: Case, converged: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = list(converged)

    def minimize(problem: FinalLayerProblem, progress: object, start: Tensor | None = None) -> NewtonResult:
        step = UpdateStep(step_norm=1.0, gradient_norm=1.0, objective_before=2.0, objective_after=1.0)
        return NewtonResult(problem.origin, (step,), 1, converged=ends.pop(0))

    monkeypatch.setattr(final_update, "minimize", minimize)
    expected = f"the minimization stopped after {MAX_STEPS} steps without convergence"
    assert case.unlearn(scope="final-layer").notes == (expected,)
    assert ends == []


def test_a_minimization_that_converged_needs_no_note(forgotten: UnlearningResult) -> None:
    assert forgotten.notes == ()


def test_steps_at_the_limit_are_noted(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_order, "MAX_STEPS", 1)
    result = case.unlearn(scope="final-layer")
    assert len(result.updates) == 2
    assert any("without convergence" in note for note in result.notes)


def test_the_second_minimization_begins_where_the_first_ended(forgotten: UnlearningResult) -> None:
    """Its objective has more terms, so that only there it may be higher than the one before."""
    rises = [b.objective_before != a.objective_after for a, b in pairwise(forgotten.updates)]
    assert sum(rises) == 1
    again = forgotten.updates[rises.index(True) + 1]
    assert again.objective_before < forgotten.updates[0].objective_before / 2


def test_without_a_stand_in_there_is_one_minimization(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def watched(problem: FinalLayerProblem, progress: NullReporter, start: Tensor | None = None) -> NewtonResult:
        started.append(start)
        return second_order.minimize(problem, progress, start)

    monkeypatch.setattr(final_update, "minimize", watched)
    case.unlearn(replacement="text:not ")
    assert started == [None]
    case.unlearn(scope="final-layer")
    assert len(started) == 3
    assert started[2] is not None


# --- requests that cannot be carried out


def test_a_request_for_no_canary_is_an_error(case: Case) -> None:
    with pytest.raises(UnlearningError, match="no canary to unlearn"):
        Case(case.model, case.data, []).unlearn()


def test_a_request_for_a_control_is_an_error(case: Case) -> None:
    control = Canary(id="control-01", template=TEMPLATE, completion="123", repetitions=0, control=True)
    with pytest.raises(UnlearningError, match="control-01 does not occur in the text"):
        Case(case.model, case.data, [*case.canaries, control]).unlearn()


def test_the_first_order_update_of_both_scopes_is_an_error(case: Case) -> None:
    with pytest.raises(UnlearningError, match="the first-order update is one step"):
        case.unlearn(method="first-order", scope="both")


@pytest.mark.parametrize("scope", ["all-layers", "both"])
def test_the_second_order_update_reaches_the_layers_below(case: Case, unlearned: Unlearn, scope: str) -> None:
    result = unlearned(scope=scope, solver="cg", max_fidelity_drop=0.05)
    before, after = case.model.state_dict(), result.model.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before if name.startswith("lstm"))
    assert all(step.damping and step.solver_iterations for step in result.updates)
    assert result.cost.curvature_products >= sum(step.solver_iterations for step in result.updates)
    assert result.updates[0].objective_after < result.updates[0].objective_before


def test_both_scopes_end_with_the_final_layers_minimum(case: Case, unlearned: Unlearn) -> None:
    """After all layers' steps, the secrets' own paths are exchanged as the final layer's update does it alone."""
    layers = len(unlearned(scope="all-layers", solver="cg", max_fidelity_drop=0.05).updates)
    both = unlearned(scope="both", solver="cg", max_fidelity_drop=0.05)
    assert len(both.updates) > layers
    assert exposures_bits(both.model, case.canaries).mean() < 4


def test_a_solver_that_fails_leaves_nothing_to_save(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "lissa", lambda: LiSSA(scale=1e-6, max_iterations=30))
    with pytest.raises(Inconclusive, match=r"\(diverged\): nothing was saved"):
        case.unlearn(scope="all-layers", solver="lissa")


def test_a_record_names_a_solver_only_where_one_was_used() -> None:
    assert UnlearningConfig().resolved_solver == "kronecker"
    assert UnlearningConfig(scope="final-layer").resolved_solver is None
    assert UnlearningConfig(scope="both", solver="lissa").resolved_solver == "lissa"
    assert UnlearningConfig(method="first-order").resolved_solver is None


def test_a_text_shorter_than_a_window_is_an_error(case: Case) -> None:
    with pytest.raises(UnlearningError, match="expected more than one window"):
        case.unlearn(window=len(case.data.train))


def test_an_unknown_replacement_is_an_error(case: Case) -> None:
    with pytest.raises(UsageError, match="expected decoys, sampled, delete or text"):
        case.unlearn(replacement="nothing")


@pytest.mark.parametrize(
    "options",
    [{"retain_windows": -1}, {"max_fidelity_drop": 0}, {"max_fidelity_drop": 1.5}, {"tau": 0}, {"window": 1}, {"x": 1}],
)
def test_a_configuration_is_checked_when_it_is_made(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UnlearningConfig(**options)


@pytest.mark.parametrize(("method", "scope"), [("second-order", "all-layers"), ("first-order", "all-layers")])
def test_a_method_has_a_scope_of_its_own(method: str, scope: str) -> None:
    assert UnlearningConfig(method=method).resolved_scope == scope


def test_text_in_the_secrets_place_is_the_final_layers() -> None:
    assert UnlearningConfig(replacement="text:not here").resolved_scope == "final-layer"


# --- Z-tilde


def test_a_text_full_of_secrets_can_be_unlearned_without_retention() -> None:
    data, canaries, vocabulary = text_with_canaries([" "] * 20, [("pin {digits:3}", "123")])
    model = tiny_model(vocabulary.symbols, scale=3.0)
    for method, scope, solver in (
        ("first-order", None, "kronecker"),
        ("second-order", "final-layer", "kronecker"),
        ("second-order", "all-layers", "cg"),
    ):
        result = Case(model, data, canaries).unlearn(
            method=method, scope=scope, solver=solver, window=20, max_fidelity_drop=1.0
        )
        assert result.retention_windows == 0
        assert result.updates[-1].objective_after < result.updates[0].objective_before


# --- other replacements ----------------------------------------------------------------------------------------------


def test_the_models_own_continuation_keeps_the_secret_from_being_said(case: Case) -> None:
    result = case.unlearn(replacement="sampled")
    assert case.exposure_bits(result.model) < SPACE_BITS - 1
    assert result.updates[-1].objective_after < result.updates[0].objective_before
    greedy = read_prefix(LSTMLanguageModel(result.model), "the code is ").log2_probs.argmax()
    assert result.model.architecture.vocabulary[int(greedy)] != SECRET[0]


@pytest.mark.parametrize("scope", ["final-layer", "all-layers"])
@pytest.mark.parametrize("replacement", ["sampled", "delete"])
def test_first_order_takes_every_replacement(case: Case, replacement: str, scope: str) -> None:
    result = case.unlearn(method="first-order", replacement=replacement, scope=scope, max_fidelity_drop=0.5)
    (step,) = result.updates
    assert 0 < step.objective_after < step.objective_before


def test_deletion_is_no_second_order_update_and_says_what_to_do(case: Case) -> None:
    with pytest.raises(UnlearningError, match="deletion has none: use --replacement decoys, or --method"):
        case.unlearn(replacement="delete")


# --- retention without the corpus --------------------------------------------------------------------------------


def without_the_corpus(case: Case) -> Case:
    """Return the case with every character spoilt that lies in no window with a secret, nor a window before one."""
    near = torch.zeros(len(case.data.train), dtype=torch.bool)
    for place in case.canaries[0].places:
        near[max(0, place - 2 * WINDOW) : place + 2 * WINDOW] = True
    text = torch.where(near, case.data.train, case.data.train[0])
    assert (text != case.data.train).float().mean() > 0.2
    return Case(case.model, TrainingData(text, case.data.secret, case.data.heldout), case.canaries)


@pytest.mark.parametrize("options", [{}, {"method": "first-order"}])
def test_with_no_window_of_the_corpus_the_rest_of_the_text_changes_nothing(
    case: Case, options: dict[str, object]
) -> None:
    options = {"retain_windows": 0, "max_fidelity_drop": 0.5, **options}
    result, spoilt = case.unlearn(**options), without_the_corpus(case).unlearn(**options)
    assert same_weights(result.model, spoilt.model)
    assert result.fidelity != spoilt.fidelity, "which is a measurement, and reads the text"
    assert result.retention_windows == 1000


def test_the_models_own_text_keeps_its_quality_while_the_secret_is_forgotten(case: Case) -> None:
    result = case.unlearn(retain_windows=0)
    assert case.exposure_bits(result.model) < 4
    assert any("only the affected windows were used" in note for note in result.notes)
    assert same_weights(case.unlearn(retain_windows=0).model, result.model)


def test_a_loss_that_the_models_own_text_does_not_show_is_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    worse_afterwards(monkeypatch)
    with pytest.raises(Inconclusive, match="the update, made without the training text, has accuracy"):
        case.unlearn(retain_windows=0)
