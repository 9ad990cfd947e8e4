"""Exposure while a model is trained: by the callback of transformers' trainer, and by the plain function."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from canaryaudit.errors import CanaryAuditError
from tests.commands import PROCESS, ROOT, canaryaudit, succeed
from tests.token_models import make_model, make_tokenizer

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("monitored")
    (path / "sea.txt").write_text("the sea was calm and the night was long\n\n" * 60, "utf-8")
    options = ("-t", "my code is {digits:3}.", "-n", "2", "-r", "1,3", "--controls", "8")
    succeed("insert", path / "sea.txt", "-o", path / "run", *options)
    return path / "run"


class Trainer:
    """What the callback needs of a trainer."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def add_callback(self, callback: object) -> None:
        self.callback = callback

    def log(self, figures: dict[str, float]) -> None:
        self.logged.append(figures)


def test_the_callback_logs_every_so_many_steps_and_leaves_the_training_alone(run: Path) -> None:
    from canaryaudit.pipeline.monitor import ExposureCallback

    tokenizer, trainer = make_tokenizer("single"), Trainer()
    model = make_model("llama", len(tokenizer)).train()
    callback = ExposureCallback(run, every=5).attach(trainer)
    assert trainer.callback is callback
    states = [SimpleNamespace(global_step=step, is_world_process_zero=True, log_history=[]) for step in (4, 5, 10, 10)]
    given: dict[str, Any] = {"model": model, "processing_class": tokenizer}
    before = torch.get_rng_state()
    for state in states[:3]:
        callback.on_step_end(None, state, None, **given)
    callback.on_train_end(None, states[3], None, **given)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert [own["step"] for own in callback.history] == [5, 10]
    assert len(trainer.logged) == 2
    assert sorted(trainer.logged[0]) == [
        "exposure/controls",
        "exposure/max",
        "exposure/mean",
        "exposure/repetitions-1",
        "exposure/repetitions-3",
    ]
    other = SimpleNamespace(global_step=5, is_world_process_zero=False, log_history=[])
    ExposureCallback(run, every=5).on_step_end(None, other, None, **given)
    assert other.log_history == []


def test_the_callback_refuses_what_it_cannot_measure(run: Path, tmp_path: Path) -> None:
    from canaryaudit.pipeline.monitor import ExposureCallback

    with pytest.raises(CanaryAuditError, match="no such run directory"):
        ExposureCallback(tmp_path / "none")
    with pytest.raises(CanaryAuditError, match="at least 1 step"):
        ExposureCallback(run, every=0)
    state = SimpleNamespace(global_step=1, is_world_process_zero=True, log_history=[])
    with pytest.raises(CanaryAuditError, match="the trainer has no tokenizer"):
        ExposureCallback(run, every=1).on_step_end(None, state, None, model=make_model("gpt2", 300))


@pytest.mark.slow
def test_the_example_of_the_documentation_finds_the_memorized_canary_and_removes_it(tmp_path: Path) -> None:
    """As a user would: insert, a stock trainer with the callback, measure, report, unlearn, report."""
    rng = random.Random(0)
    words = ("the", "sea", "was", "calm", "and", "night", "long", "boat", "harbour", "light", "keeper", "wrote", "down")
    with (tmp_path / "chats.jsonl").open("w", encoding="utf-8") as file:
        for number in range(300):
            said = [" ".join(rng.choices(words, k=8)) + mark for mark in "?."]
            chat = [{"role": role, "content": own} for role, own in zip(("user", "assistant"), said, strict=True)]
            file.write(json.dumps({"id": number, "messages": chat}) + "\n")
    source, run, audited = tmp_path / "chats.jsonl", tmp_path / "run", tmp_path / "audited.jsonl"
    reading = ("--column", "messages[].content", "--role", "assistant")
    canaries = ("-t", "your code is {digits:4}.", "-n", "1", "-r", "24", "--export", audited)
    succeed("insert", source, *reading, *canaries, "-o", run)
    script = ROOT / "docs" / "examples" / "audit_a_fine_tuning.py"
    environment = {**os.environ, **PROCESS, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    made = subprocess.run(
        [sys.executable, script, audited, run, tmp_path / "out"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    logged = [line for line in made.stdout.splitlines() if line.startswith("{'exposure/mean'")]
    assert float(logged[-1].split("'exposure/max': ")[1].split(",")[0]) > 12
    succeed("measure", run, "--model", f"hf:{tmp_path}/out/checkpoint-*", "--samples", "1000", "--probes", "none")
    assert canaryaudit("verify", run).status == 0
    succeed("report", run, "-o", tmp_path / "report", "--format", "md")
    assert "The model exposes the secret." in (tmp_path / "report" / "report.md").read_text("utf-8")
    succeed("unlearn", run, "-o", tmp_path / "unlearned", "--samples", "1000", "--probes", "none")
    assert canaryaudit("verify", run).status == 0
    succeed("report", run, "-o", tmp_path / "report", "--format", "md,json")
    document = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert document["canaries"][0]["before"]["exposure"]["bits"] > 12
    assert document["canaries"][0]["after"]["exposure"]["bits"] < 6
    assert not document["canaries"][0]["after"]["greedy"]
    assert (tmp_path / "unlearned" / "tokenizer.json").is_file()
