"""The action for pipelines: its file is as the host requires, and its scripts do what they say."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import PROCESS, ROOT

MakeRun = Callable[..., Path]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]


def inputs_of(text: str) -> set[str]:
    """Return the inputs that expressions in a text name."""
    return {name for used in re.findall(r"\$\{\{(.*?)\}\}", text) for name in re.findall(r"inputs\.([\w-]+)", used)}


def test_every_step_names_its_shell_and_runs_no_input_as_code() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs"} <= set(ACTION)
    for step in STEPS:
        assert ("uses" in step) != ("run" in step)
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"]


def test_every_input_is_used_and_every_used_one_is_described() -> None:
    conditions = " ".join(f"${{{{ {step.get('if', '')} }}}}" for step in STEPS)
    used = inputs_of(str(STEPS) + conditions)
    assert used == set(ACTION["inputs"])
    assert all(entry["description"].endswith(".") for entry in ACTION["inputs"].values())
    steps = {step["id"] for step in STEPS if "id" in step}
    assert all(output["value"].split(".")[1] in steps for output in ACTION["outputs"].values())


def test_the_examples_of_the_pages_give_it_inputs_that_it_has() -> None:
    page = (ROOT / "docs" / "ci.md").read_text("utf-8")
    jobs = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    given = [
        step["with"]
        for job in jobs
        for each in job["jobs"].values()
        for step in each["steps"]
        if "canaryaudit" in step.get("uses", "")
    ]
    assert given
    for inputs in given:
        assert set(inputs) <= set(ACTION["inputs"])
        assert {name for name, entry in ACTION["inputs"].items() if entry.get("required")} <= set(inputs)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "status", "word"), [("9.9", 0, "passed"), ("0", 3, "failed"), ("nan", 2, "error")])
def test_the_gates_step_ends_as_the_gate_does(
    make_run: MakeRun, tmp_path: Path, limit: str, status: int, word: str
) -> None:
    make_run("unlearned")
    tool = tmp_path / "bin" / "canaryaudit"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m canaryaudit "$@"\n', "utf-8")
    tool.chmod(0o755)
    (step,) = (step for step in STEPS if step.get("id") == "gate")
    values = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()}
    values |= {"run": "RUN", "fail-above": limit, "output": "the report", "format": "json,sarif"}
    given = {name: values[inputs_of(text).pop()] for name, text in step["env"].items()}
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    path = {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}
    # As the host runs it.
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    ended = subprocess.run(command, env={**os.environ, **PROCESS, **given, **files, **path}, timeout=120, check=False)
    assert ended.returncode == status
    outputs = dict(line.split("=", 1) for line in Path(files["GITHUB_OUTPUT"]).read_text("utf-8").splitlines())
    written = {"sarif": "the report/report.sarif"} if status != 2 else {}
    assert outputs == {"status": word, "report": "the report", **written}
    if written:
        assert f"none exposed: **{word}**" in Path(files["GITHUB_STEP_SUMMARY"]).read_text("utf-8")
