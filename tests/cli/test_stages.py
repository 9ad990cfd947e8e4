"""Each command runs what it needs and says so; what is there already is not made twice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import FAST, INSERT, UNLEARN, canaryaudit, reseal, succeed, tree

MakeRun = Callable[..., Path]


def stages_of(run: Path) -> list[tuple[str, str]]:
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    return [(stage["stage"], stage["name"]) for stage in manifest["stages"]]


def in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


# --- three commands are enough --------------------------------------------------------------------------------


def test_unlearn_on_an_inserted_run_trains_and_measures_first(make_run: MakeRun) -> None:
    run = make_run("inserted")
    result = succeed("unlearn", run, *UNLEARN)
    assert in_order(
        result.err,
        "Not trained yet: training first.",
        "Trained in",
        "Not measured yet: measuring before unlearning.",
        "Measured before",
        "Left 2 canaries alone, which the model did not remember, in",
        "Measured after-second-order",
    )
    assert "Exposure, after-second-order" in result.out
    assert "Next: canaryaudit report RUN" in result.out
    assert stages_of(run) == [
        ("insert", ""),
        ("train", ""),
        ("measure", "before"),
        ("unlearn", "second-order"),
        ("measure", "after-second-order"),
    ]


def test_report_on_an_inserted_run_trains_and_measures_first(make_run: MakeRun) -> None:
    result = succeed("report", make_run("inserted"))
    assert in_order(result.err, "Not trained yet", "Trained in", "Not measured yet", "Measured before")
    assert "Report: reports/RUN/report.html" in result.out


def test_no_figure_of_held_out_text_is_told_where_none_was_held_out(workplace: Path) -> None:
    succeed("insert", "sea.txt", "-o", "RUN", *INSERT, "--holdout", "0")
    said = succeed("train", "RUN", "--epochs", "2", "--precision", "fp32").err
    assert "on training text, no text was held out, 2 epochs" in " ".join(said.split())
    assert "held-out" not in said
    shards = ("--method", "sisa", "--shards", "2", "--max-fidelity-drop", "1")
    notes = succeed("unlearn", "RUN", *shards, *FAST, "--json").document["notes"]
    assert any("the ensemble of 2 shards had accuracy" in note for note in notes)
    assert not any("held-out" in note for note in notes)


def test_report_before_anything_was_unlearned_is_about_before_only(make_run: MakeRun) -> None:
    run = make_run("measured")
    result = succeed("report", run)
    assert result.err == ""
    assert "Controls after" not in result.out
    document = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))
    assert document["unlearned"] is False
    assert all(canary["after"] is None for canary in document["canaries"])
    for name in ("report.html", "report.md"):
        assert Path("reports/RUN", name).stat().st_size > 1_000
    succeed("unlearn", run, *UNLEARN)
    assert "Controls after" in succeed("report", run).out


def test_measure_on_an_inserted_run_trains_first(make_run: MakeRun) -> None:
    assert in_order(succeed("measure", make_run("inserted"), *FAST).err, "Not trained yet", "Measured before")


def test_report_measures_an_unlearning_whose_measurement_is_missing(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    (run / "measurements/after-second-order.json").unlink()
    reseal(run)  # As an interruption before the measurement leaves it: what was there and is not, is a fault.
    result = succeed("report", run)
    assert "after-second-order is not measured yet: measuring first." in result.err
    assert "Controls after" in result.out


# --- nothing twice ----------------------------------------------------------------------------------------------


def test_train_again_says_that_it_is_trained(make_run: MakeRun) -> None:
    run = make_run("trained")
    before = tree(run)
    result = succeed("train", run)
    assert "Already trained: accuracy" in result.err
    assert "2 epochs" in result.err
    assert tree(run) == before


def test_train_again_as_before_says_so_too(make_run: MakeRun) -> None:
    run = make_run("trained")
    assert "Already trained" in succeed("train", run, "--epochs", "2", "--precision", "fp32").err
    assert "Already trained" in succeed("train", run, "--target-accuracy", "0.0001").err
    refused = canaryaudit("train", run, "--target-accuracy", "0.9999")
    assert refused.status == 1
    assert "with target accuracy none, not with --target-accuracy 0.9999" in refused.complaint


def test_a_target_that_was_reached_early_is_reached(make_run: MakeRun) -> None:
    run = make_run("inserted")
    command = ("train", run, "--epochs", "9", "--target-accuracy", "0.001")
    assert "reached after 1 epochs" in succeed(*command).err
    assert "Already trained" in succeed(*command).err


def test_train_force_trains_anew_and_makes_the_rest_stale(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    before = (run / "model.safetensors").read_bytes()
    assert "Trained in" in succeed("train", run, "--force", "--epochs", "1", "--seed", "5").err
    assert (run / "model.safetensors").read_bytes() != before
    result = succeed("report", run)
    assert "Not measured yet: measuring first." in result.err
    assert "Controls after" not in result.out
    assert "Left 2 canaries alone" in succeed("unlearn", run, *UNLEARN).err


def test_unlearn_again_asks_for_force(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    refused = canaryaudit("unlearn", run, *UNLEARN)
    assert refused.status == 1
    assert "already has an unlearning 'second-order': use --force to replace it, or another --name" in refused.complaint
    assert "Left 2 canaries alone" in succeed("unlearn", run, "--force", *UNLEARN).err
    assert "Left 1 canary alone" in succeed("unlearn", run, "--name", "one", "--canary", "canary-02", *UNLEARN).err
    assert {"second-order", "one"} == {path.name for path in (run / "unlearned").iterdir()}


def test_unlearn_that_was_stopped_before_its_measurement_only_measures(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    weights = (run / "unlearned/second-order/model.safetensors").read_bytes()
    (run / "measurements/after-second-order.json").unlink()
    result = succeed("unlearn", run, *UNLEARN)
    assert "'second-order' was already unlearned, but not measured: measuring it." in result.err
    assert "Measured after-second-order" in result.err
    assert (run / "unlearned/second-order/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--canary", "canary-01"), "canaries"),
        (("--method", "first-order", "--name", "second-order"), "method"),
        (("--scope", "final-layer"), "scope"),
        (("--retain-windows", "41"), "retain-windows"),
    ],
)
def test_an_unlearning_that_was_stopped_is_not_taken_for_another(
    make_run: MakeRun, arguments: tuple[str, ...], what: str
) -> None:
    run = make_run("unlearned")
    (run / "measurements/after-second-order.json").unlink()
    refused = canaryaudit("unlearn", run, *UNLEARN, *arguments)
    assert refused.status == 1
    assert f"already has an unlearning 'second-order' that differs in its {what}" in refused.complaint
    assert not (run / "measurements/after-second-order.json").exists()


@pytest.mark.parametrize("command", [("report",), ("measure", *FAST), ("unlearn", *UNLEARN)])
def test_a_model_whose_record_is_lost_is_not_trained_over(make_run: MakeRun, command: tuple[str, ...]) -> None:
    run = make_run("unlearned")
    (run / "model.json").unlink()
    weights = (run / "model.safetensors").read_bytes()
    refused = canaryaudit(command[0], run, *command[1:])
    assert refused.status == 1
    assert "RUN/model.json" in refused.complaint
    assert "missing" in refused.complaint
    assert "see the repair command with: canaryaudit verify RUN" in refused.complaint
    assert (run / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("command", [("report",), ("measure", *FAST)])
def test_a_model_whose_weights_are_lost_is_not_trained_by_the_defaults(
    make_run: MakeRun, command: tuple[str, ...]
) -> None:
    run = make_run("trained")
    (run / "model.safetensors").unlink()
    refused = canaryaudit(command[0], run, *command[1:])
    assert "RUN/model.safetensors" in refused.complaint
    assert "missing" in refused.complaint
    assert not (run / "model.safetensors").exists()


def test_a_printed_command_can_be_copied_whatever_the_path(make_run: MakeRun) -> None:
    shutil.move(make_run("trained"), "my run")
    refused = canaryaudit("train", "my run", "--epochs", "4")
    assert "replace it with: canaryaudit train 'my run' --epochs 4 --force" in refused.complaint
    assert (
        "run: canaryaudit unlearn 'my run' --name x" in canaryaudit("measure", "my run", "--model", "after-x").complaint
    )


def test_a_damaged_unlearning_is_done_again_by_force(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    (run / "unlearned/second-order/unlearning.json").write_text("{", "utf-8")
    succeed("unlearn", run, "--force", *UNLEARN)
    succeed("report", run)


def test_measure_all_takes_every_model_in_the_order_of_its_making(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    succeed("unlearn", run, "--name", "a-later-one", *UNLEARN)
    documents = succeed("measure", run, "--model", "all", "--json", *FAST).document
    assert [document["model"] for document in documents] == ["before", "after-second-order", "after-a-later-one"]


# --- outcomes -----------------------------------------------------------------------------------------------


def test_the_gate_decides_the_exit_status(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    assert canaryaudit("report", run, "--fail-above", "9.9").status == 0
    failed = canaryaudit("report", run, "--fail-above", "0.001", "--format", "json", "-q")
    assert failed.status == 3
    assert "canary-0" in failed.err
    assert json.loads(Path("reports/RUN/report.json").read_text("utf-8"))["gate"]["status"] == "failed"


def test_an_unlearning_over_the_fidelity_limit_is_inconclusive_and_leaves_nothing(make_run: MakeRun) -> None:
    run = make_run("measured")
    before = tree(run)
    limits = ("--max-fidelity-drop", "1e-9", "--retain-windows", "1")
    result = canaryaudit("unlearn", run, *FAST, "--scope", "final-layer", *limits)
    assert result.status == 4
    assert "nothing was saved" in result.complaint
    assert tree(run) == before


def test_controls_that_fail_are_inconclusive_where_asked(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("trained")
    calibrate = canaryaudit_calibrate()

    def failing(*arguments: object) -> object:
        return calibrate(*arguments).model_copy(update={"passed": False, "note": "the controls stand out"})

    monkeypatch.setattr("canaryaudit.exposure.measurement.calibrate", failing)
    monkeypatch.setattr("canaryaudit.exposure.measurement.confirm_calibration", lambda first, *_: first)
    lenient, strict = canaryaudit("measure", run, *FAST), canaryaudit("measure", run, "--strict", "-q", *FAST)
    assert (lenient.status, strict.status) == (0, 4)
    assert "WARNING: the controls stand out" in lenient.err
    assert "FAILED: the controls stand out" in strict.out
    assert "the controls failed calibration: do not rely on this measurement" in strict.err


def canaryaudit_calibrate() -> Callable[..., object]:
    from canaryaudit.exposure import measurement

    return measurement.calibrate  # type: ignore[attr-defined, return-value]


# --- where things go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        INSERT,
        ("-t", "The code is {digits:3}.", "--secret", "417", "-n", "1", "-r", "2", "--lowercase", "--space", "alnum"),
        ("--locate", "the {lower:6}", "--controls", "4", "--seed", "3", "--holdout", "0"),
    ],
)
def test_the_same_insert_again_finds_its_run(flags: tuple[str, ...]) -> None:
    command = ("insert", "sea.txt", "-o", "RUN", *flags)
    first = succeed(*command)
    assert "already exists" not in first.err
    there = tree(Path("RUN"))
    again = succeed(*command)
    assert "RUN already exists, made from this text with these options: nothing was written." in again.err
    assert again.out == first.out
    assert tree(Path("RUN")) == there
    assert succeed(*command, "--json").out == succeed(*command, "--json", "--force").out, "the same document"
    assert json.loads((Path("RUN") / "manifest.json").read_text("utf-8"))["stages"][0]["argv"][-1] == "--force"


def test_the_same_insert_again_leaves_what_was_made_of_its_run(make_run: MakeRun) -> None:
    run = make_run("measured")
    there = tree(run)
    assert "already exists" in succeed("insert", "sea.txt", "-o", run, *INSERT).err
    assert tree(run) == there


def test_the_same_insert_again_does_not_call_a_damaged_run_sound(make_run: MakeRun) -> None:
    run = make_run("inserted")
    path = run / "corpus.txt"
    path.write_text(path.read_text("utf-8")[:-20], "utf-8")
    result = canaryaudit("insert", "sea.txt", "-o", run, *INSERT)
    assert result.status == 1
    assert "RUN/corpus.txt was changed since canaries were inserted" in result.complaint


def test_without_an_output_the_run_bears_the_corpus_name() -> None:
    result = succeed("insert", "sea.txt", *INSERT)
    assert "Next: canaryaudit unlearn runs/sea" in result.out
    assert Path("runs/sea/manifest.json").exists()


def test_the_next_command_can_be_copied_whatever_the_name() -> None:
    result = succeed("insert", "sea.txt", "-o", "my run; rm -rf x", *INSERT)
    assert "Next: canaryaudit unlearn 'my run; rm -rf x'" in result.out


def test_a_dry_run_tells_the_plan_and_writes_nothing() -> None:
    result = succeed("insert", "sea.txt", "-o", "RUN", *INSERT, "--dry-run")
    assert "Training (small) would take about" in result.out
    assert "Nothing was written" in result.out
    assert "canary-02: 5 times, at" in result.out
    assert "places between paragraphs for 6 insertions" in result.out
    assert "10.0" in result.out
    assert sorted(path.name for path in Path().iterdir()) == ["sea.txt"]


def test_the_manifest_tells_where_a_run_comes_from(make_run: MakeRun) -> None:
    run = make_run("inserted")
    succeed("train", run, "--epochs", "1")
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    assert manifest["versions"].keys() >= {"python", "torch", "numpy", "scipy"}
    assert manifest["machine"].keys() >= {"processor", "cores", "accelerator"}
    assert len(manifest["corpus"]["sha256"]) == 64
    insert, train = manifest["stages"]
    assert insert["argv"][:3] == ["canaryaudit", "insert", "sea.txt"]
    assert train["argv"] == ["canaryaudit", "train", "RUN", "--epochs", "1"]
    assert train["device"] == "cpu"
    assert train["precision"] in ("fp32", "bf16")
    assert train["seconds"] > 0


def test_runs_of_the_same_seed_are_the_same() -> None:
    for name in ("one", "two"):
        succeed("insert", "sea.txt", "-o", name, *INSERT, "--seed", "7")
        succeed("train", name, "--epochs", "1", "--precision", "fp32")
    one, two = tree(Path("one")), tree(Path("two"))
    for name in ("corpus.txt", "canaries.json", "model.safetensors"):
        assert one[name] == two[name]
    shutil.rmtree("two")
    succeed("insert", "sea.txt", "-o", "two", *INSERT, "--seed", "8")
    assert tree(Path("two"))["canaries.json"] != one["canaries.json"]
