"""The same commands on several processes: the same figures, whoever is killed, and one voice."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.commands import FAST, ROOT, Result, canaryaudit, steady
from tests.robustness.kills import PLAN
from tests.torchrun import MAIN, canaryaudit_on, complaints, finish, launch, side_by_side, start_tiny, worker

MakeRun = Callable[..., Path]
TRAIN = ("--epochs", "3", "--precision", "fp32")


def succeed_on(processes: int, *arguments: str | Path) -> Result:
    result = canaryaudit_on(processes, *arguments)
    assert result.status == 0, result.err
    return result


def wait_for(launcher: subprocess.Popen[str], path: Path) -> None:
    """Wait until a file is there."""
    while not path.exists():
        assert launcher.poll() is None, finish(launcher).err
        time.sleep(0.02)


def weights_differ(one: Path, other: Path) -> float:
    """Return the largest difference of a weight in two runs' models."""
    left, right = (load_file(run / "model.safetensors") for run in (one, other))
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def measured(run: Path) -> dict[str, Any]:
    """Return a measurement without its times."""
    found: dict[str, Any] = steady(json.loads((run / "measurements" / "before.json").read_text("utf-8")))
    return found


# --- training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.cluster)])
def test_a_shared_step_is_that_of_one_process_and_a_resumed_one_the_very_same(processes: int) -> None:
    result = side_by_side(processes, ROOT / "tests" / "torchrun_steps.py")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    for batch in found["batches"]:
        assert batch["error"] < 1e-6, batch
        assert batch["counted"], batch
    assert found["resumed_alike"]


def test_two_processes_train_as_one_does(make_run: MakeRun) -> None:
    one, two = make_run("inserted", "ONE"), make_run("inserted", "TWO")
    assert canaryaudit("train", one, *TRAIN).status == 0
    result = side_by_side(2, MAIN, "train", two, *TRAIN)
    assert result.status == 0, result.err
    assert result.out == "Next: canaryaudit unlearn TWO\n", "one process speaks"
    assert result.err.count("Trained in") == 1
    assert weights_differ(one, two) < 1e-4
    records = [json.loads((run / "model.json").read_text("utf-8"))["training"] for run in (one, two)]
    for figure in ("accuracy", "accuracy_all", "loss_bits"):
        for text in ("train", "heldout"):
            assert records[0][text][figure] == pytest.approx(records[1][text][figure], abs=1e-3)
    assert [own["loss_bits"] for own in records[0]["history"]] == pytest.approx(
        [own["loss_bits"] for own in records[1]["history"]], rel=1e-4
    )
    stages = json.loads((two / "manifest.json").read_text("utf-8"))["stages"]
    assert [(own["stage"], own["processes"]) for own in stages] == [("insert", 1), ("train", 2)]


@pytest.mark.parametrize(
    "victim", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.cluster)]
)
def test_a_training_goes_on_when_a_process_is_killed(make_run: MakeRun, victim: int) -> None:
    undisturbed, killed = make_run("inserted", "UNDISTURBED"), make_run("inserted", "KILLED")
    long = ("--epochs", "12", "--precision", "fp32")
    succeed_on(2, "train", undisturbed, *long)
    launcher = launch(2, MAIN, "train", killed, *long, restarts=1)
    wait_for(launcher, killed / "checkpoint.safetensors")
    os.kill(worker(launcher, victim), signal.SIGKILL)
    result = finish(launcher)
    assert result.status == 0, result.err
    assert "Resuming from a checkpoint" in result.err
    assert "canaryaudit.errors" not in result.err, "no traceback of ours"
    assert weights_differ(undisturbed, killed) == 0


@pytest.mark.cluster
def test_a_checkpoint_serves_another_number_of_processes(make_run: MakeRun) -> None:
    one, run = make_run("inserted", "ONE"), make_run("inserted")
    long = ("--epochs", "12", "--precision", "fp32")
    assert canaryaudit("train", one, *long).status == 0
    launcher = launch(2, MAIN, "train", run, *long)
    wait_for(launcher, run / "checkpoint.safetensors")
    launcher.send_signal(signal.SIGINT)
    result = finish(launcher)
    (complaint,) = complaints(result)
    assert complaint.startswith("interrupted; ")
    assert complaint.endswith(", rerun the command to resume")
    assert not list(run.glob(".*.tmp"))
    result = succeed_on(3, "train", run)
    assert "Resuming from a checkpoint" in result.err
    assert weights_differ(one, run) < 0.02


@pytest.mark.cluster
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_any_process_is_said_once_and_ends_all(make_run: MakeRun, failing: int) -> None:
    run = make_run("inserted")
    result = canaryaudit_on(3, "train", run, *TRAIN, FAIL=f"train:{failing}")
    assert result.status == 1
    assert complaints(result) == ["out of memory: use fewer --samples or a smaller --budget"]
    assert canaryaudit("train", run, *TRAIN).status == 0, "the run is sound, and nobody holds it"


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("train", "RUN", "--epochs", "x"), "Invalid value for '--epochs'"), (("train", "NONE"), "no such run directory")],
)
def test_a_wrong_command_is_refused_once(make_run: MakeRun, arguments: tuple[str, ...], complaint: str) -> None:
    make_run("inserted")
    result = canaryaudit_on(2, *arguments)
    assert result.status == 1, "torchrun knows no other"
    assert len(complaints(result)) == 1
    assert complaint in complaints(result)[0]


# --- measuring ------------------------------------------------------------------------------------------

INSERT = ("sea.txt", "-o", "RUN", "-t", "Call {digits:7} now.", "-t", "The code is {digits:3}.", "-n", "4", "-r", "1,5")
MEASURE = ("--samples", "5000", "--precision", "bf16", "--budget", "200")
MANY = ("--samples", "20000", "--precision", "bf16", "--budget", "200", "--estimators", "sampled", "--probes", "none")
"""Some eighty blocks of references, of which each is kept."""


@pytest.fixture
def trained(workplace: Path) -> Path:
    """A run with a large and a small space, trained a little."""
    assert canaryaudit("insert", *INSERT, "--controls", "8").status == 0
    assert canaryaudit("train", "RUN", "--epochs", "1", "--precision", "fp32").status == 0
    return Path("RUN")


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.cluster)])
def test_several_processes_measure_what_one_does(trained: Path, processes: int) -> None:
    others = Path(shutil.copytree(trained, "OTHERS"))
    assert finish(start_tiny("measure", trained, *MEASURE)).status == 0
    result = succeed_on(processes, "measure", others, *MEASURE)
    assert result.err.count("Measured before") == 1
    assert measured(others) == measured(trained), "to the last bit"
    assert measured(others)["references"][0]["rescored"] > 0, "a draft scored first"
    assert not list(others.rglob("references-*")), "no parts are left"


@pytest.mark.parametrize(
    "victim", [pytest.param(0, marks=pytest.mark.cluster), pytest.param(1, marks=pytest.mark.slow)]
)
def test_a_measurement_goes_on_when_a_process_is_killed(trained: Path, victim: int) -> None:
    undisturbed = Path(shutil.copytree(trained, "UNDISTURBED"))
    succeed_on(2, "measure", undisturbed, *MANY)
    launcher = launch(2, MAIN, "measure", trained, *MANY, restarts=1)
    while not list(trained.rglob("references-0-00003.safetensors")):
        assert launcher.poll() is None, finish(launcher).err
        time.sleep(0.02)
    os.kill(worker(launcher, victim), signal.SIGKILL)
    result = finish(launcher)
    assert result.status == 0, result.err
    assert result.err.count("Measured before") == 1
    assert "canaryaudit.errors" not in result.err, "no traceback of ours"
    assert measured(trained) == measured(undisturbed)


@pytest.mark.cluster
def test_parts_of_one_process_serve_several(trained: Path) -> None:
    whole = Path(shutil.copytree(trained, "WHOLE"))
    assert finish(start_tiny("measure", whole, *MANY)).status == 0
    process = start_tiny("measure", trained, *MANY)
    while not list(trained.rglob("references-0-00003.safetensors")):
        assert process.poll() is None, finish(process).err
        time.sleep(0.02)
    process.kill()
    finish(process)
    succeed_on(3, "measure", trained, *MANY)
    assert measured(trained) == measured(whole)


@pytest.mark.cluster
def test_an_error_in_measuring_is_said_once(trained: Path) -> None:
    result = canaryaudit_on(3, "measure", trained, *MEASURE, FAIL="measure:2")
    assert result.status == 1
    assert complaints(result) == ["out of memory: use fewer --samples or a smaller --budget"]
    assert not (trained / "measurements").exists()


# --- everything -----------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_unlearning_on_two_processes_needs_no_more_than_that(make_run: MakeRun) -> None:
    run = make_run("inserted")
    result = succeed_on(2, "unlearn", run, *FAST, "--max-fidelity-drop", "0.5", "--method", "retrain", "--json")
    assert json.loads(result.out)["method"] == "retrain"
    assert canaryaudit("verify", run).status == 0
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    assert {own["processes"] for own in stages if own["stage"] != "insert"} == {2}


@pytest.mark.cluster
def test_a_whole_audit_on_four_processes_is_that_of_one_but_for_the_training(workplace: Path) -> None:
    Path("audit.toml").write_text(PLAN, "utf-8")
    result = succeed_on(4, "run", "audit.toml", "--json")
    assert json.loads(result.out)["gate"] is None
    assert canaryaudit("verify", "RUN").status == 0


@pytest.mark.cluster
def test_help_needs_one_process_and_ends_all(workplace: Path) -> None:
    assert succeed_on(2, "--help").out.count("Usage:") == 1
