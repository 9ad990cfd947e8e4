"""The stored curvature from the command line: made once, used again, and refused where it is not what was stored."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from canaryaudit.storage.checkpoint import CheckpointFile
from tests.commands import UNLEARN, Result, canaryaudit, succeed

MakeRun = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("short_search")
KRONECKER = (*UNLEARN, "--scope", "both", "--solver", "kronecker")


def request(run: Path, name: str, *more: str) -> tuple[dict[str, Any], Result]:
    result = succeed("unlearn", run, *KRONECKER, "--name", name, *more)
    return json.loads((run / "unlearned" / name / "unlearning.json").read_text("utf-8")), result


def stored(run: Path) -> CheckpointFile:
    """Return the stored curvature's file, with the key that it has."""
    with safe_open(run / "curvature.safetensors", "pt") as file:
        return CheckpointFile(run / "curvature.safetensors", file.metadata()["key"])


@pytest.fixture(scope="module")
def made(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A run whose first request stored a curvature, that request's record, and what was told."""
    run = tmp_path_factory.mktemp("curvature") / "RUN"
    shutil.copytree(runs / "measured", run)
    record, result = request(run, "first", "--canary", "canary-01")
    return run, record, result.err


@pytest.fixture
def run(made: tuple[Path, dict[str, Any], str], workplace: Path) -> Path:
    shutil.copytree(made[0], workplace / "RUN")
    return Path("RUN")


def test_the_first_request_stores_what_later_ones_use(made: tuple[Path, dict[str, Any], str], run: Path) -> None:
    _, first, told = made
    data = (run / "curvature.safetensors").read_bytes()
    second, told_again = request(run, "second", "--canary", "canary-02", "--from", "after-first")
    assert (run / "curvature.safetensors").read_bytes() == data
    assert re.search(r"Computed the model's curvature in [\d.]+ s and stored it", told)
    assert "Using the curvature stored in" in told_again.err
    assert "Computed the model's curvature" not in told_again.err
    assert first["notes"][0] == second["notes"][0], "the record does not depend on which request computed it"
    assert first["solver"] == second["solver"] == "kronecker"
    assert first["cost"]["preparation_seconds"] == second["cost"]["preparation_seconds"] > 0
    windows = int(re.search(r"computed once for all requests, from (\d+) windows", first["notes"][0])[1])
    assert first["cost"]["preparation_gradients"] == 2 * windows
    assert any(step["step_norm"] for step in first["updates"])
    assert succeed("verify", run).status == 0


def test_a_stored_curvature_gives_what_a_new_one_did(made: tuple[Path, dict[str, Any], str], run: Path) -> None:
    again, _ = request(run, "again", "--canary", "canary-01")
    assert again["model_sha256"] == made[1]["model_sha256"]


def test_a_model_trained_anew_has_its_own(run: Path) -> None:
    old = stored(run).key
    succeed("train", run, "--epochs", "1", "--seed", "1", "--precision", "fp32", "--force")
    (found,) = (own for own in canaryaudit("verify", run, "--json").document["findings"] if "curvature" in own["file"])
    assert (found["state"], found["detail"]) == ("stale", "it is the curvature of a replaced model")
    assert found["repair"] == f"rm -f {run}/curvature.safetensors"
    _, told = request(run, "second")
    assert "Computed the model's curvature" in told.err
    assert stored(run).key == json.loads((run / "model.json").read_text("utf-8"))["sha256"] != old


def test_a_damaged_one_is_refused_and_told_of(run: Path) -> None:
    path = run / "curvature.safetensors"
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], b""):
        path.write_bytes(damaged)
        refused = canaryaudit("unlearn", run, *KRONECKER, "--name", "second")
        assert refused.status == 1
        assert re.search(r"curvature\.safetensors is damaged \(.*\): remove it", refused.complaint)
        (found,) = (own for own in canaryaudit("verify", run, "--json").document["findings"] if own["state"] != "sound")
        assert (found["file"], found["state"]) == ("curvature.safetensors", "damaged")


@pytest.mark.parametrize("fault", ["sizes", "facts"])
def test_one_that_does_not_fit_is_refused(run: Path, fault: str) -> None:
    file = stored(run)
    tensors, facts = file.load() or ({}, b"{}")
    if fault == "sizes":
        tensors["output.values"] = tensors["output.values"][:, 1:].contiguous()
    file.save(tensors, json.loads(facts) if fault == "sizes" else {})
    complaint = canaryaudit("unlearn", run, *KRONECKER, "--name", "second").complaint
    said = "output.values is of shape" if fault == "sizes" else "its metadata is invalid"
    assert said in complaint
    assert complaint.endswith("; remove it")


def test_other_solvers_store_none(make_run: MakeRun) -> None:
    run = make_run("measured")
    succeed("unlearn", run, *UNLEARN, "--scope", "final-layer")
    assert not (run / "curvature.safetensors").exists()
