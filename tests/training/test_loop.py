"""Tests of canaryaudit.training.loop."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from canaryaudit.errors import ModelError
from canaryaudit.models.char_lstm import CharLSTM
from canaryaudit.progress import NullReporter
from canaryaudit.records import Architecture, TrainingRecord
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.storage.files import atomic_path
from canaryaudit.training import loop as training
from canaryaudit.training.config import TrainingConfig
from canaryaudit.training.data import TrainingData
from canaryaudit.training.loop import evaluate, one_cycle, train, window_starts
from tests.fakes import Recorder

VOCABULARY = "\n abcdefgh"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SIZES, "small", (6, 12, 1))
    monkeypatch.setitem(training.SIZES, "paper", (6, 12, 2))


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of every step, and keep a checkpoint after each."""
    monkeypatch.setattr(training, "_PROGRESS_SECONDS", -1.0)
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", -1.0)


def some_data(length: int = 700, seed: int = 0) -> TrainingData:
    """A text that repeats itself with mistakes, its secrets pure chance."""
    rng = np.random.default_rng(seed)
    text = np.resize(np.arange(len(VOCABULARY)), length)
    secret = np.zeros(length, dtype=bool)
    for start in range(40, length - 10, 90):
        secret[start : start + 6] = True
    text = np.where(secret, rng.integers(len(VOCABULARY), size=length), text)
    heldout = np.resize(np.arange(len(VOCABULARY)), 120)
    return TrainingData(*(torch.from_numpy(part) for part in (text, secret, heldout)))


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 3, "batch_size": 4, "window": 20, "learning_rate": 0.02} | changes)


def same(one: CharLSTM, two: CharLSTM) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def timeless(record: TrainingRecord) -> dict[str, Any]:
    """What must not depend on how often the training was interrupted."""
    facts = record.model_dump(exclude={"seconds", "characters_per_second"})
    return facts | {"history": [{**own, "seconds": 0} for own in facts["history"]]}


# --- the same weights, whatever happens -----------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two = (train(some_data(), VOCABULARY, config(), NullReporter()) for _ in range(2))
    assert same(one[0], two[0])
    assert timeless(one[1]) == timeless(two[1])
    assert not same(one[0], train(some_data(), VOCABULARY, config(seed=1), NullReporter())[0])


def test_freed_memory_is_kept_for_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr("canaryaudit.environment.keep_freed_memory", lambda: kept.append(True))
    train(some_data(), VOCABULARY, config(epochs=1), NullReporter())
    assert kept


def test_training_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(some_data(), VOCABULARY, config(epochs=1), NullReporter())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("interruptions", [(0,), (1,), (4,), (7, 5), (8,), (9,), (10, 0, 3), (13, 1, 1), (26,)])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, interruptions: tuple[int, ...]) -> None:
    whole, record = train(some_data(), VOCABULARY, config(), NullReporter())
    path = tmp_path / "checkpoint.safetensors"
    for after in interruptions:
        with pytest.raises(KeyboardInterrupt):
            train(some_data(), VOCABULARY, config(), Recorder(interrupt_after=after), path)
    progress = Recorder()
    resumed, resumed_record = train(some_data(), VOCABULARY, config(), progress, path)
    assert same(whole, resumed)
    assert timeless(record) == timeless(resumed_record)
    assert bool(progress.said) == (sum(interruptions) > 0)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("after", [1, 5, 11, 12, 13, 20])
def test_a_training_interrupted_while_it_writes_loses_one_checkpoint_at_most(tmp_path: Path, after: int) -> None:
    writes = iter(range(after))

    class Interrupting:
        """Like atomic_path, and a Ctrl-C before the last of its files takes its place."""

        def __init__(self, path: Path) -> None:
            self.whole = atomic_path(path)

        def __enter__(self) -> Path:
            return self.whole.__enter__()

        def __exit__(self, *error: Any) -> bool | None:
            if next(writes, None) is None:
                self.whole.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
                raise KeyboardInterrupt
            return self.whole.__exit__(*error)

    whole, _ = train(some_data(), VOCABULARY, config(), NullReporter())
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("canaryaudit.storage.checkpoint.atomic_path", Interrupting)
        train(some_data(), VOCABULARY, config(), NullReporter(), path)
    resumed, _ = train(some_data(), VOCABULARY, config(), NullReporter(), path)
    assert same(whole, resumed)
    assert [own.name for own in tmp_path.iterdir()] == [path.name]


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model, record = train(some_data(), VOCABULARY, config(), NullReporter(), path)
    progress = Recorder()
    again, again_record = train(some_data(), VOCABULARY, config(), progress, path)
    assert same(model, again)
    assert timeless(record) == timeless(again_record)
    assert progress.told == []


# --- checkpoints that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epochs": 4}, {"learning_rate": 0.01}, {"size": "paper"}])
def test_a_checkpoint_of_another_configuration_is_ignored(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "checkpoint.safetensors"
    train(some_data(), VOCABULARY, config(**changes), NullReporter(), path)
    model, record = train(some_data(), VOCABULARY, config(), NullReporter(), path)
    undisturbed, undisturbed_record = train(some_data(), VOCABULARY, config(), NullReporter())
    assert same(model, undisturbed)
    assert timeless(record) == timeless(undisturbed_record)


def test_a_checkpoint_of_another_text_secret_or_vocabulary_is_ignored(tmp_path: Path) -> None:
    data = some_data()
    others = (
        (some_data(seed=1), VOCABULARY),
        (TrainingData(data.train, torch.zeros_like(data.secret), data.heldout), VOCABULARY),
        (TrainingData(data.train, data.secret, data.heldout[:50]), VOCABULARY),
        (data, "\n abcdefgz"),
    )
    for number, (other, vocabulary) in enumerate(others):
        path = tmp_path / f"{number}.safetensors"
        train(other, vocabulary, config(epochs=1), NullReporter(), path)
        progress = Recorder()
        train(data, VOCABULARY, config(epochs=1), progress, path)
        assert progress.told, "it must train"


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign"])
def test_a_damaged_checkpoint_begins_anew_and_says_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    expected, _ = train(some_data(), VOCABULARY, config(), NullReporter(), path)
    data = path.read_bytes()
    changed = bytearray(data)
    changed[-9] ^= 1  # a single bit of a weight or moment
    path.write_bytes({"cut": data[:-5], "changed": bytes(changed), "foreign": b"hello"}[damage])
    progress = Recorder()
    model, _ = train(some_data(), VOCABULARY, config(), progress, path)
    assert "damaged" in progress.said[0]
    assert same(model, expected)


# --- the target -----------------------------------------------------------------------------------------


def test_training_stops_at_the_target_and_does_not_go_on_when_resumed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    goal = config(epochs=40, target_accuracy=0.8)
    model, record = train(some_data(), VOCABULARY, goal, NullReporter(), path)
    assert record.reached_target
    assert record.train.accuracy >= 0.8
    assert record.epochs == len(record.history) < 40
    progress = Recorder()
    again, again_record = train(some_data(), VOCABULARY, goal, progress, path)
    assert same(model, again)
    assert timeless(record) == timeless(again_record)
    assert progress.told == []
    assert any("reached after" in said for said in progress.said)


def test_a_target_out_of_reach_is_said_to_be() -> None:
    progress = Recorder()
    _, record = train(some_data(), VOCABULARY, config(target_accuracy=0.99), progress)
    assert record.reached_target is False
    assert record.epochs == 3
    assert "was not reached in 3 epochs" in progress.said[-1]


def test_without_a_target_nothing_is_said_of_one() -> None:
    progress = Recorder()
    assert train(some_data(), VOCABULARY, config(), progress)[1].reached_target is None
    assert progress.said == []


def test_the_target_is_about_the_text_outside_the_secrets() -> None:
    _, record = train(some_data(), VOCABULARY, config(epochs=25), NullReporter())
    assert record.train.accuracy > 0.9
    share = float(some_data().secret.float().mean())
    assert record.train.accuracy_all < record.train.accuracy - share / 3


# --- progress and history -------------------------------------------------------------------------------


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("length", [700, 660])  # Of 660 characters some epochs take 9 steps, others 8.
def test_progress_never_goes_back_and_ends_at_the_end(length: int) -> None:
    progress = Recorder()
    train(some_data(length), VOCABULARY, config(), progress)
    done = [own[1] for own in progress.told]
    assert done == sorted(done)
    assert {own[0] for own in progress.told} == {"train"}
    assert done[-1] == progress.told[-1][2] == 3 * 9


def test_the_line_at_the_end_of_an_epoch_tells_that_epochs_figures() -> None:
    progress = Recorder()
    _, record = train(some_data(), VOCABULARY, config(), progress)
    ends = [own[3] for own in progress.told if own[1] % 9 == 0]
    assert len(ends) == 3
    for epoch, (facts, history) in enumerate(zip(ends, record.history, strict=True), start=1):
        assert f"epoch {epoch}/3" in facts
        assert f"loss {history.loss_bits:.2f} bits" in facts
        assert f"accuracy {history.accuracy:.3f}" in facts
        assert f"held-out {history.heldout_loss_bits:.2f}" in facts
        assert history.loss_bits > 0.1


def test_an_epochs_mean_loss_is_that_of_its_windows() -> None:
    """With a learning rate of next to nothing the weights stay as they were drawn, and the loss can be done again."""
    data, still = some_data(), config(epochs=1, learning_rate=1e-12)
    model, record = train(data, VOCABULARY, still, NullReporter())
    starts = window_starts(len(data.train), 20, 0, 0)
    losses, hits = [], []
    for start in starts:
        window = data.train[start : start + 21]
        with torch.no_grad():
            logits = model(window[None, :-1])[0]
        losses += torch.nn.functional.cross_entropy(logits, window[1:], reduction="none").tolist()
        ordinary = ~data.secret[start + 1 : start + 21]
        hits += (logits.argmax(1) == window[1:])[ordinary].tolist()
    assert record.history[0].loss_bits == pytest.approx(np.mean(losses) / math.log(2), rel=1e-4)
    assert record.history[0].accuracy == pytest.approx(np.mean(hits))


def test_training_learns() -> None:
    _, record = train(some_data(), VOCABULARY, config(epochs=15), NullReporter())
    assert record.history[0].loss_bits > 2
    assert record.heldout.loss_bits < 0.5
    assert record.history[-1].heldout_loss_bits == pytest.approx(record.heldout.loss_bits)
    assert record.parameters == sum(
        p.numel() for p in CharLSTM(Architecture(vocabulary=VOCABULARY, embedding=6, hidden=12, layers=1)).parameters()
    )


def test_without_held_out_text_training_works_all_the_same() -> None:
    data, progress = some_data(), Recorder()
    _, record = train(TrainingData(data.train, data.secret, data.heldout[:0]), VOCABULARY, config(epochs=1), progress)
    assert (record.heldout.loss_bits, record.history[0].heldout_loss_bits) == (0, 0)
    assert progress.told
    assert not any("held-out" in facts for *_, facts in progress.told), "nothing is told of a text that is not there"


@pytest.mark.parametrize("length", [0, 1, 41])
def test_a_text_shorter_than_two_windows_is_refused(length: int) -> None:
    data = some_data()
    short = TrainingData(data.train[:length], data.secret[:length], data.heldout)
    with pytest.raises(ModelError, match=f"has {length} training characters: expected at least 42"):
        train(short, VOCABULARY, config(), NullReporter())


def test_the_shortest_text_that_is_taken_trains() -> None:
    data = some_data()
    short = TrainingData(data.train[:42], data.secret[:42], data.heldout)
    assert train(short, VOCABULARY, config(epochs=1), NullReporter())[1].history[0].loss_bits > 0


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(ModelError, match="the loss became nan in epoch"):
        train(some_data(), VOCABULARY, config(learning_rate=1e38), NullReporter())


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"target_accuracy": 1.0}, {"window": 1}, {"seed": -1}, {"x": 1}])
def test_a_configuration_without_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        config(**changes)


# --- the schedule ---------------------------------------------------------------------------------------


def test_the_learning_rate_goes_through_one_cycle() -> None:
    rates = np.array([one_cycle(step, 1000, 3e-3) for step in range(1000)])
    assert rates[0] == pytest.approx(3e-3 / 25)
    assert rates.argmax() == 300
    assert rates.max() == pytest.approx(3e-3)
    assert (np.diff(rates[:301]) > 0).all()
    assert (np.diff(rates[300:]) < 0).all()
    assert rates[-1] < 3e-3 / 10_000


def test_the_schedule_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=501)
    for step in range(500):
        # torch counts its phases to 0.3 * 501 - 1 and to 500.
        ours = one_cycle(step, 500, 3e-3)
        assert ours == pytest.approx(schedule.get_last_lr()[0], rel=0.02, abs=2e-5)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_schedules_have_rates_too(total: int) -> None:
    assert all(0 < one_cycle(step, total, 1.0) <= 1 for step in range(total))


@pytest.mark.parametrize(("length", "window"), [(700, 20), (705, 20), (1000, 33), (42, 20), (10_001, 100)])
def test_windows_cover_nearly_every_character_once_each_epoch(length: int, window: int) -> None:
    seen = np.zeros(length, dtype=int)
    for epoch in range(200):
        predicted = np.zeros(length, dtype=int)
        starts = window_starts(length, window, 7, epoch)
        for start in starts:
            assert 0 <= start <= length - window - 1
            predicted[start + 1 : start + window + 1] += 1
        assert predicted.max() == 1
        missed = np.flatnonzero(predicted == 0)
        assert len(missed) <= 2 * window
        assert ((missed <= window) | (missed >= length - window)).all()
        seen += predicted
    assert (seen[1:] > 0).all()
    assert seen[0] == 0, "nothing stands before the first character"


def test_windows_change_from_epoch_to_epoch_and_not_otherwise() -> None:
    first = window_starts(1000, 20, 0, 0)
    np.testing.assert_array_equal(first, window_starts(1000, 20, 0, 0))
    assert not np.array_equal(first, window_starts(1000, 20, 0, 1)[: len(first)])
    assert not np.array_equal(first, window_starts(1000, 20, 1, 0)[: len(first)])
    assert not np.array_equal(first, np.sort(first))


# --- evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "streams"), [(2, 32), (700, 32), (2500, 2), (2501, 2), (3300, 3), (3301, 1)])
def test_evaluation_agrees_with_a_plain_forward_pass(length: int, streams: int) -> None:
    data = some_data(length)
    torch.manual_seed(0)
    model = CharLSTM(Architecture(vocabulary=VOCABULARY, embedding=6, hidden=12, layers=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    losses, right, right_ordinary = [], [], []
    parts = max(1, min(streams, length // 1000))
    size = math.ceil(length / parts)
    for start in range(0, length, size):
        text, secret = data.train[start : start + size], data.secret[start : start + size]
        with torch.no_grad():
            logits = model(text[None, :-1])[0]
        losses += torch.nn.functional.cross_entropy(logits, text[1:], reduction="none").tolist()
        hits = (logits.argmax(1) == text[1:]).tolist()
        right += hits
        right_ordinary += [hit for hit, hidden in zip(hits, secret[1:].tolist(), strict=True) if not hidden]
    found = evaluate(model, data.train, data.secret, "fp32", streams=streams)
    assert found.loss_bits == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)
    assert found.accuracy_all == pytest.approx(np.mean(right))
    assert found.accuracy == pytest.approx(np.mean(right_ordinary))
    unmasked = evaluate(model, data.train, None, "fp32", streams=streams)
    assert unmasked.accuracy == unmasked.accuracy_all == found.accuracy_all


def test_a_text_without_a_character_to_predict_has_no_figures() -> None:
    model = CharLSTM(Architecture(vocabulary=VOCABULARY, embedding=2, hidden=2, layers=1))
    for length in (0, 1):
        found = evaluate(model, torch.zeros(length, dtype=torch.long), None, "fp32")
        assert (found.accuracy, found.accuracy_all, found.loss_bits) == (0, 0, 0)


def test_checkpoint_files_hold_no_more_than_this_training_needs(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model, _ = train(some_data(), VOCABULARY, config(), NullReporter(), path)
    assert CheckpointFile(path, "another").load() is None
    assert path.stat().st_size < 4 * 4 * model.num_parameters + 10_000
