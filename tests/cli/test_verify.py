"""`canaryaudit verify`: every kind of damage is found, and the repair that is told repairs it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.runs.seals import resealed
from canaryaudit.storage.files import exclusive_lock
from canaryaudit.storage.json_records import record_json
from tests.commands import (
    INSERT,
    PROCESS,
    UNLEARN,
    Result,
    canaryaudit,
    essence,
    finish,
    reseal,
    start,
    succeed,
    tree,
)

MakeRun = Callable[..., Path]
UNLEARNED = "unlearned/second-order"


def findings(result: Result) -> dict[str, tuple[str, str]]:
    """Return state and detail of every file that is not sound."""
    found = result.document["findings"]
    return {own["file"]: (own["state"], own["detail"]) for own in found if own["state"] != "sound"}


def carry_out(commands: list[str]) -> None:
    """Do what was told: shell commands as they are, our own in this process, where the model is a tiny one."""
    for line in commands:
        for step in line.split(" && "):
            words = shlex.split(step.replace("insert CORPUS", f"insert sea.txt {shlex.join(INSERT)}"))
            if words[0] == "canaryaudit":
                succeed(*words[1:])
            else:
                subprocess.run(words, check=True)


@pytest.mark.parametrize("stage", ["inserted", "trained", "measured", "unlearned"])
def test_what_the_commands_wrote_is_sound(make_run: MakeRun, stage: str) -> None:
    run = make_run(stage)
    before = tree(run)
    result = succeed("verify", run, "--json")
    assert findings(result) == {}
    assert result.document["sound"] is True
    assert result.document["repairs"] == []
    assert {own["file"] for own in result.document["findings"]} == set(before)
    assert tree(run) == before
    assert succeed("verify", run).out == f"All sound: {len(before)} files checked.\n"
    assert succeed("verify", run, "-q").out == ""


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(path: Path) -> None:
    path.unlink()


def put_a_directory_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


RECORDS = ("model.json", "measurements/before.json", f"{UNLEARNED}/unlearning.json")
OTHERS = ("corpus.txt", "heldout.txt", "model.safetensors", f"{UNLEARNED}/model.safetensors")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in (*RECORDS, *OTHERS, "canaries.json") for damage in (truncate, lose)),
        *((name, flip) for name in OTHERS),
        *((name, put_a_directory_there) for name in ("model.safetensors", "canaries.json", "corpus.txt", RECORDS[1])),
        *((name, empty) for name in ("manifest.json", "model.safetensors", *RECORDS)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_repair_that_is_told_repairs(make_run: MakeRun, name: str, damage: Callable[[Path], None]) -> None:
    run = make_run("unlearned")
    undamaged = essence(run)
    damage(run / name)
    result = canaryaudit("verify", run, "--json")
    assert result.status == 1
    assert result.err == ""
    found = findings(result)
    assert set(found) == {name}
    assert found[name][0] == ("missing" if damage is lose else "damaged")
    told = [own["repair"] for own in result.document["findings"] if own["file"] == name]
    carry_out(result.document["repairs"])
    again = canaryaudit("verify", run, "--json")
    assert findings(again) == {}, again.out
    assert again.status == 0
    if name != "manifest.json":
        assert essence(run) == undamaged, "made with the same options, it is the same"
        damage(run / name)
        carry_out(told)  # Each on its own repairs too.
        assert canaryaudit("verify", run).status == 0


def test_much_damage_at_once_is_repaired_in_the_order_told(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    undamaged = essence(run)
    for name in (*OTHERS, *RECORDS, "canaries.json", "measurements/after-second-order.json"):
        truncate(run / name)
    result = canaryaudit("verify", run, "--json")
    assert len(findings(result)) == 6, "what a damaged record vouches for is made again with it"
    carry_out(result.document["repairs"])
    for _ in range(2):  # What could not be looked at behind another damage shows now.
        result = canaryaudit("verify", run, "--json")
        carry_out(result.document["repairs"])
    assert canaryaudit("verify", run).status == 0
    assert essence(run) == undamaged


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


@pytest.mark.parametrize(
    ("name", "changes", "state", "detail"),
    [
        (
            "measurements/before.json",
            {"model_sha256": "0" * 64},
            "stale",
            "the model was replaced after it was measured",
        ),
        ("measurements/before.json", {"model": "after-x"}, "damaged", "the measurement of another model"),
        ("measurements/before.json", {"canaries": []}, "stale", "measured with other canaries"),
        (f"{UNLEARNED}/unlearning.json", {"origin_sha256": "0" * 64}, "stale", "which it started from, was recreated"),
        (f"{UNLEARNED}/unlearning.json", {"origin": "after-second-order"}, "damaged", "its origin depends on itself"),
        (f"{UNLEARNED}/unlearning.json", {"name": "other"}, "damaged", "the record of another unlearning"),
        (f"{UNLEARNED}/unlearning.json", {"canaries": ["canary-77"]}, "stale", "canaries that the run does not have"),
        (f"{UNLEARNED}/unlearning.json", {"members": 10**9}, "damaged", "members"),
        ("model.json", {"members": 5}, "damaged", "do not match the architecture"),
    ],
)
def test_records_that_do_not_agree_are_found_and_repaired(
    make_run: MakeRun, name: str, changes: dict[str, Any], state: str, detail: str
) -> None:
    run = make_run("unlearned")
    edit(run / name, **changes)
    changed = findings(canaryaudit("verify", run, "--json"))
    assert changed[name][0] == "damaged"
    if name != "model.json" and "members" not in changes:
        assert changed[name][1] == "it was changed: it does not match its checksum"
    reseal(run)  # Whoever changes the checksums too is found by what the records say of each other.
    result = canaryaudit("verify", run, "--json")
    assert result.status == 1
    found = findings(result)
    where = "model.safetensors" if name == "model.json" else name
    assert found[where][0] == state
    assert detail in found[where][1]
    if name != "model.json":  # A forged record tells forged options: its model is made again from what it says.
        carry_out(result.document["repairs"])
        assert canaryaudit("verify", run).status == 0, canaryaudit("verify", run).out


def test_a_model_trained_anew_makes_stale_what_was_made_from_the_old_one(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    succeed("train", run, "--epochs", "1", "--seed", "1", "--precision", "fp32", "--force")
    result = canaryaudit("verify", run, "--json")
    assert {name: state for name, (state, _) in findings(result).items()} == {
        "measurements/before.json": "stale",
        f"{UNLEARNED}/unlearning.json": "stale",
        "curvature.safetensors": "stale",
    }
    carry_out(result.document["repairs"])
    assert findings(succeed("verify", run, "--json")) == {}


def test_what_is_unfinished_or_left_over_is_told_and_no_damage(make_run: MakeRun) -> None:
    run = make_run("trained")
    for place in (".staging/corpus.txt", "unlearned/x/.model.safetensors.0123abcd.tmp", "notes.txt"):
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).write_text("half", "utf-8")
    (run / "elsewhere").symlink_to("/etc")
    shutil.copy(run / "model.safetensors", run / "unlearned" / "x" / "model.safetensors")
    states = {name: state for name, (state, _) in findings(succeed("verify", run, "--json")).items()}
    assert states == {
        ".staging": "left over",
        "unlearned/x/.model.safetensors.0123abcd.tmp": "left over",
        "notes.txt": "foreign",
        "elsewhere": "foreign",
        "unlearned/x/unlearning.json": "unfinished",
    }


def test_damaged_work_in_hand_is_found_and_repaired(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    for place in ("checkpoint.safetensors", "unlearned/x/shards/00.safetensors", ".parts/ab/references-0.safetensors"):
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).write_bytes(b"\xff" * 100)
    (run / "measurements" / "after-gone.json").write_text("{}", "utf-8")
    result = canaryaudit("verify", run, "--json")
    assert {state for state, _ in findings(result).values()} == {"damaged", "stale"}
    assert len(findings(result)) == 4
    carry_out(result.document["repairs"])
    assert findings(succeed("verify", run, "--json")) == {}


@pytest.mark.slow
def test_a_checkpoint_of_a_killed_training_is_unfinished_and_its_damage_is_noticed(workplace: Path) -> None:
    succeed("insert", "sea.txt", "-o", "RUN", *INSERT)
    process = start("train", "RUN", "--epochs", "400")
    checkpoint = Path("RUN/checkpoint.safetensors")
    while process.poll() is None and not checkpoint.exists():
        pass
    process.kill()
    finish(process)
    assert findings(succeed("verify", "RUN", "--json"))["checkpoint.safetensors"][0] == "unfinished"
    flip(checkpoint)
    result = canaryaudit("verify", "RUN", "--json")
    assert findings(result)["checkpoint.safetensors"] == ("damaged", "its contents do not match its checksum")
    carry_out(result.document["repairs"])
    assert not checkpoint.exists()


def test_a_run_from_a_newer_version_is_to_be_read_by_one(make_run: MakeRun) -> None:
    run = make_run("measured")
    edit(run / "measurements" / "before.json", schema_version=9)
    result = canaryaudit("verify", run, "--json")
    assert result.status == 1
    assert findings(result)["measurements/before.json"][1].startswith("was written by a newer canaryaudit (schema 9")
    assert result.document["repairs"] == ["upgrade canaryaudit"]


def test_a_pipe_in_a_files_place_is_not_waited_for(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    for name in ("corpus.txt", "canaries.json", "model.json", f"{UNLEARNED}/model.safetensors"):
        (run / name).unlink()
        os.mkfifo(run / name)
    result = finish(start("verify", run, "--json"))
    assert result.status == 1
    assert findings(result)["corpus.txt"] == ("damaged", "not a plain file")


def test_a_run_in_use_and_a_directory_without_a_run(make_run: MakeRun, workplace: Path) -> None:
    run = make_run("trained")
    with exclusive_lock(run / ".lock", "it"):
        assert "RUN is in use by another command" in canaryaudit("verify", run).complaint
    assert "is not a run directory" in canaryaudit("verify", workplace).complaint
    assert "no such run directory" in canaryaudit("verify", "nowhere").complaint


def test_the_table_names_every_fault_and_its_repair(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    truncate(run / "measurements" / "before.json")
    result = canaryaudit("verify", run)
    assert result.status == 1
    assert "measurements/before.json" in result.out
    assert "damaged" in result.out
    assert "Run these repairs in order, then verify again:\n  rm -f RUN/measurements/before.json\n" in result.out
    assert "canaryaudit measure RUN --model before --samples 200" in result.out
    assert "corpus.txt" not in result.out
    assert "corpus.txt" in canaryaudit("verify", run, "-v").out


def test_a_secret_that_the_user_gave_is_never_told(workplace: Path) -> None:
    succeed("insert", "sea.txt", "-o", "RUN", "-t", "{digits:6}", "--secret", "918273", "--controls", "8")
    for name in ("corpus.txt", "canaries.json"):
        truncate(Path("RUN", name))
        for flags in ((), ("--json",), ("-v",)):
            result = canaryaudit("verify", "RUN", *flags)
            assert result.status == 1
            assert "918273" not in result.out + result.err


def test_no_torch_is_waited_for_where_neither_training_nor_curvature_is_stored(make_run: MakeRun) -> None:
    script = (
        "import sys; from canaryaudit.cli.main import run_command; run_command(['verify', 'RUN']); "
        "print(sorted({'torch', 'datasets'} & set(sys.modules)))"
    )
    (make_run("unlearned") / "curvature.safetensors").unlink()
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **PROCESS},
        check=True,
        timeout=60,
    )
    assert done.stdout.endswith("[]\n"), done.stdout


def test_a_run_made_from_a_plan_is_repaired_by_the_plan(workplace: Path) -> None:
    Path("audit.toml").write_text(
        'run = "RUN"\n[insert]\ncorpus = "sea.txt"\ntemplate = ["The code is {digits:3}."]\ncontrols = 8\n'
        'canaries = 2\nrepetitions = [1, 5]\n[train]\nepochs = 2\nprecision = "fp32"\n[measure]\nsamples = 200\n'
        "[[unlearn]]\nmax_fidelity_drop = 0.5\nretain_windows = 40\n",
        "utf-8",
    )
    succeed("run", "audit.toml")
    succeed("unlearn", "RUN", "--name", "by-hand", "--canary", "canary-02", *UNLEARN)
    truncate(Path("RUN/unlearned/by-hand/model.safetensors"))
    (removal, again) = canaryaudit("verify", "RUN", "--json").document["repairs"]
    assert again.startswith("canaryaudit unlearn RUN --name by-hand --canary canary-02 "), "the plan has it not"
    carry_out([removal, again])
    undamaged = essence(Path("RUN"))
    for name in ("model.safetensors", f"{UNLEARNED}/unlearning.json", "measurements/before.json"):
        truncate(Path("RUN", name))
    result = canaryaudit("verify", "RUN", "--json")
    assert [line.split(" RUN")[0] for line in result.document["repairs"]] == ["rm -f", "canaryaudit run audit.toml"]
    carry_out(result.document["repairs"])
    assert findings(succeed("verify", "RUN", "--json")) == {}
    assert essence(Path("RUN")) == undamaged


# --- signatures


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", "a key of the tests, long enough")
    monkeypatch.setenv("OTHER_KEY", "another key of the tests")


def test_a_signed_run_is_verified_with_its_key(make_run: MakeRun, keys: None) -> None:
    run = make_run("unlearned")
    assert canaryaudit("verify", run, "--key", "env:AUDIT_KEY").status == 1, "it is not signed yet"
    assert succeed("verify", run, "--sign", "env:AUDIT_KEY", "--json").document["signature"] == "valid"
    assert succeed("verify", run, "--json").document["signature"] == "not checked"
    succeed("report", run, "--format", "json", "--key", "env:AUDIT_KEY", "--fail-above", "9.9")
    assert succeed("verify", run, "--key", "env:AUDIT_KEY", "--json").document["signature"] == "valid"
    wrong = canaryaudit("verify", run, "--key", "env:OTHER_KEY", "--json")
    assert (wrong.status, wrong.document["signature"]) == (1, "invalid")
    succeed("measure", run, "--samples", "200", "--probes", "none")
    assert canaryaudit("verify", run, "--key", "env:AUDIT_KEY").status == 1, "it was measured after it was signed"


def test_only_a_sound_run_is_signed(make_run: MakeRun, keys: None) -> None:
    run = make_run("measured")
    (run / "model.json").write_text((run / "model.json").read_text("utf-8") + " ", "utf-8")
    assert canaryaudit("verify", run, "--sign", "env:AUDIT_KEY").status == 1
    assert not (run / "signature.json").exists()


def test_a_key_is_used_to_check_or_to_sign(make_run: MakeRun, keys: None) -> None:
    run = make_run("measured")
    both = canaryaudit("verify", run, "--sign", "env:AUDIT_KEY", "--key", "env:AUDIT_KEY")
    assert both.status == 2
    assert "give one of them" in both.complaint
    assert canaryaudit("verify", run, "--key", "missing").status == 2
    assert not (run / "signature.json").exists()


def test_records_without_a_checksum_are_named_until_they_are_written_again(make_run: MakeRun, keys: None) -> None:
    run = make_run("measured")
    manifest = RunDirectory(run).manifest
    kept = manifest.model_copy(update={"records": {"canaries.json": manifest.records["canaries.json"]}})
    (run / "manifest.json").write_text(record_json(resealed(None, kept)), "utf-8")
    assert set(findings(canaryaudit("verify", run, "--json"))) == {"model.json", "measurements/before.json"}
    (run / "corpus.txt").write_text("other", "utf-8")
    assert canaryaudit("verify", run, "--reseal").status == 1, "only a run that is sound otherwise"
    assert not RunDirectory(run).manifest.unproven
    shutil.copy(make_run("measured", "OTHER") / "corpus.txt", run / "corpus.txt")
    succeed("verify", run, "--reseal")
    assert RunDirectory(run).manifest.unproven == ("measurements/before.json", "model.json")
    report = succeed("report", run, "--format", "json", "--json").document
    assert any("were recorded anew" in warning for warning in report["warnings"])
    succeed("measure", run, "--samples", "200", "--probes", "none")
    assert RunDirectory(run).manifest.unproven == ("model.json",)
