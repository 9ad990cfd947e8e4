"""Baselines and attacks from the command line: what is run first, what is said, kept and refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from canaryaudit.pipeline.attack import name_of_retraining
from canaryaudit.runs.layout import check_name
from tests.commands import FAST, canaryaudit, succeed, tree

MakeRun = Callable[..., Path]
LIMIT = ("--max-fidelity-drop", "0.5")
STEPS = ("--steps", "1,4")


def record_of(run: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "unlearned" / name / "unlearning.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("method", ["retrain", "fine-tune", "sisa"])
def test_every_baseline_is_recorded_measured_and_compared(make_run: MakeRun, method: str) -> None:
    run = make_run("unlearned")
    before = tree(run)
    shards = ("--shards", "2") if method == "sisa" else ()
    document = succeed("unlearn", run, "--method", method, *shards, *FAST, *LIMIT, "--json").document
    assert (document["method"], document["scope"], document["name"]) == (method, "all-layers", method)
    assert document["cost"]["gradients"] > 0
    assert document["cost"]["retraining_gradients"] > 0
    assert document["members"] == (2 if method == "sisa" else 1)
    assert (document["cost"]["preparation_seconds"] > 0) is (method == "sisa")
    assert (run / f"measurements/after-{method}.json").exists()
    after = tree(run)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    result = succeed("report", run)
    # The page is about the update; the baseline stands beside it.
    assert "Method               second-order" in result.out
    methods = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))["methods"]
    assert {(own["method"], own["shown"]) for own in methods} == {("second-order", True), (method, False)}
    assert f"`{method}`" in Path("reports/RUN/report.md").read_text("utf-8")


def test_a_baseline_alone_is_what_the_page_is_about(make_run: MakeRun) -> None:
    run = make_run("measured")
    succeed("unlearn", run, "--method", "retrain", *FAST, *LIMIT)
    assert "Method               retrain" in succeed("report", run).out


def test_retraining_leaves_no_checkpoint_and_the_second_request_for_shards_finds_the_first_ones(
    make_run: MakeRun,
) -> None:
    run = make_run("measured")
    succeed("unlearn", run, "--method", "retrain", *FAST, *LIMIT)
    assert sorted(path.name for path in (run / "unlearned/retrain").iterdir()) == [
        "model.safetensors",
        "unlearning.json",
    ]
    command = ("unlearn", run, "--method", "sisa", "--shards", "2", "--canary", "canary-01", *FAST, *LIMIT)
    assert "Training shard 1." in succeed(*command).err
    kept = tree(run / "unlearned/sisa/shards")
    assert set(kept) == {"00.safetensors", "01.safetensors"}
    again = succeed(*command, "--force", "--seed", "4")
    assert "Training shard 1." not in again.err
    assert "again, without the secrets." in again.err
    assert tree(run / "unlearned/sisa/shards") == kept


def test_shards_over_the_fidelity_limit_are_refused_and_serve_the_next_try(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("measured")
    command = ("unlearn", run, "--method", "sisa", "--shards", "3", *FAST)
    refused = canaryaudit(*command, "--max-fidelity-drop", "1e-9")
    assert refused.status == 4
    assert "exceeds the limit of 1e-09, so nothing was saved; allow it with --max-fidelity-drop 0." in refused.complaint
    assert not (run / "unlearned/sisa/unlearning.json").exists()
    assert not (run / "unlearned/sisa/model.safetensors").exists()
    assert "Training shard 1." not in succeed(*command, *LIMIT).err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--shards", "5"), "--shards only applies to --method sisa"),
        (("--method", "retrain", "--shards", "5"), "--shards only applies to --method sisa"),
        (("--method", "retrain", "--scope", "final-layer"), "--method retrain trains all layers: drop --scope"),
        (("--method", "fine-tune", "--tau", "1e-3"), "--tau only applies to --method first-order"),
        (("--method", "retrain", "--scope", "both"), "--method retrain trains all layers: drop --scope both"),
        (("--method", "retrain", "--solver", "cg"), "not to retrain: drop --solver cg"),
        (
            ("--method", "sisa", "--retain-windows", "0"),
            "--method sisa trains on the whole text: drop --retain-windows",
        ),
        (("--method", "first-order", "--solver", "lissa"), "not to first-order: drop --solver lissa"),
        (
            ("--scope", "final-layer", "--solver", "lissa"),
            "not to the final layer's update: drop --solver",
        ),
        (("--replacement", "sampled", "--solver", "cg"), "not to the final layer's update: drop --solver"),
        (("--tau", "0.5"), "--tau only applies to --method first-order, not to second-order: drop --tau"),
        (("--method", "sisa", "--shards", "90"), "use fewer --shards"),
        (("--method", "retrain", "--canary", "canary-99"), "no inserted canary is called 'canary-99'"),
    ],
)
def test_options_that_do_not_go_together_are_errors_before_anything_is_trained(
    make_run: MakeRun, arguments: tuple[str, ...], expected: str
) -> None:
    run = make_run("measured")
    before = tree(run)
    result = canaryaudit("unlearn", run, *arguments, *FAST)
    # What the run cannot serve ends with 1, options that contradict each other with 2.
    assert result.status == (1 if {"90", "canary-99"} & {*arguments} else 2)
    assert expected in result.complaint
    assert tree(run) == before


def test_an_unknown_replacement_is_wrong_usage_before_anything_is_trained(make_run: MakeRun) -> None:
    run = make_run("inserted")
    before = tree(run)
    result = canaryaudit("unlearn", run, "--replacement", "nothing")
    assert result.status == 2
    assert "unknown replacement 'nothing': expected decoys, sampled, delete or text:WORDS" in result.complaint
    assert tree(run) == before


@pytest.mark.parametrize("arguments", [("--method", "forget"), ("--method", "sisa", "--shards", "1")])
def test_values_that_do_not_fit_are_wrong_usage(make_run: MakeRun, arguments: tuple[str, ...]) -> None:
    result = canaryaudit("unlearn", make_run("measured"), *arguments)
    assert result.status == 2
    assert arguments[-2] in result.complaint


# --- attacks


def test_an_attack_retrains_first_and_says_so(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    before = tree(run)
    result = succeed("attack", run, *STEPS, *FAST)
    assert "No model retrained without these canaries yet: retraining first, as 'retrain'." in result.err
    assert "Exposure of canary-0" in result.out
    assert "under further training: second-order vs. retrain" in result.out.replace("\n", " ")
    found = record_of(run, "second-order")["relearning"]
    assert isinstance(found, dict)
    assert found["retrained_sha256"] == record_of(run, "retrain")["model_sha256"]
    assert found["steps"] == [1, 4]
    assert [point["step"] for point in found["curves"][0]["unlearned"]] == [0, 1, 4]
    for name in ("model.safetensors", "unlearned/second-order/model.safetensors", "canaries.json"):
        assert tree(run)[name] == before[name]
    again = succeed("attack", run, *STEPS, *FAST)
    assert "retraining first" not in again.err
    assert record_of(run, "second-order")["relearning"] == {
        **found,
        "seconds": record_of(run, "second-order")["relearning"]["seconds"],
    }  # type: ignore[index]


def test_the_report_shows_the_attack_with_its_verdict(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    assert "How fast the model relearns a secret was not measured" in _markdown(run)
    succeed("attack", run, *STEPS, *FAST, "-q")
    result = succeed("report", run)
    assert "Relearning  " in result.out
    text = Path("reports/RUN/report.md").read_text("utf-8")
    assert "## Relearning attacks" in text
    assert "(relearning-1.svg)" in text
    assert "How fast the model relearns a secret was not measured" not in text
    page = Path("reports/RUN/report.html").read_text("utf-8")
    assert 'id="relearning"' in page
    assert "retrained" in page
    assert Path("reports/RUN/relearning-1.svg").stat().st_size > 1000
    methods = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))["methods"]
    assert [own["relearning"] is not None for own in methods] == [True, False]


def _markdown(run: Path) -> str:
    succeed("report", run)
    return Path("reports/RUN/report.md").read_text("utf-8")


def test_an_attack_on_a_measured_run_unlearns_first(make_run: MakeRun, short_search: None) -> None:
    run = make_run("measured")
    result = canaryaudit("attack", run, *STEPS, *FAST, "--canary", "canary-02")
    assert "No unlearned model yet: unlearning first." in result.err
    if result.status == 0:  # so small a model may lose more accuracy than the default allows
        assert record_of(run, "second-order")["canaries"] == ["canary-02"]
    else:
        assert result.status == 4


def test_attacked_is_whom_one_asks_for(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    both = ("--canary", "canary-02", "--canary", "canary-01")
    document = succeed("attack", run, *STEPS, *FAST, *both, "--name", "second-order", "--seed", "3", "--json").document
    curves = document["relearning"]["curves"]
    assert [curve["canary"] for curve in curves if curve["probe"] is None] == ["canary-02"] * 2 + ["canary-01"] * 2
    assert {curve["canary"] for curve in curves} == {"canary-02", "canary-01"}
    assert document["relearning"]["seed"] == 3


def test_a_model_retrained_for_other_canaries_is_no_measure(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    succeed("unlearn", run, "--method", "retrain", "--canary", "canary-01", *FAST, *LIMIT)
    result = succeed("attack", run, *STEPS, *FAST, "--canary", "canary-02")
    assert "retraining first, as 'retrain-for-second-order'." in result.err


def test_what_is_retrained_for_an_attack_gets_a_name_that_is_free() -> None:
    named = name_of_retraining
    assert named("x", {"x"}) == "retrain"
    assert named("x", {"x", "retrain"}) == "retrain-for-x"
    assert named("x", {"x", "retrain", "retrain-for-x"}) == "retrain-for-x-2"
    taken = {"retrain"}
    for _ in range(11):
        taken.add(check_name(named("x" * 100, taken)))
    assert len(taken) == 12


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("--name", "third"), 1, "no unlearning is called 'third': this run has second-order"),
        (("--canary", "canary-99"), 1, "unlearning 'second-order' does not include 'canary-99': choose from canary-01"),
        (("--canary", "control-001"), 1, "does not include 'control-001'"),
        (("--steps", "0,1"), 2, "--steps: expected numbers from 1 to 10,000"),
        (("--steps", "1,ten"), 2, "--steps '1,ten': expected whole numbers separated by commas"),
        (("--learning-rate", "0"), 2, "--learning-rate: "),
    ],
)
def test_attacks_that_cannot_be_made_are_errors(
    make_run: MakeRun, arguments: tuple[str, ...], status: int, expected: str
) -> None:
    run = make_run("unlearned")
    before = tree(run)
    result = canaryaudit("attack", run, *arguments)
    assert result.status == status
    assert expected in result.complaint
    assert tree(run) == before


def test_a_retrained_model_itself_is_not_attacked(make_run: MakeRun) -> None:
    run = make_run("measured")
    succeed("unlearn", run, "--method", "retrain", *FAST, *LIMIT)
    result = canaryaudit("attack", run, "--name", "retrain")
    assert result.status == 1
    assert "'retrain' is a retrained model, which attacks are compared with" in result.complaint


def test_a_plan_may_attack_and_goes_on_where_it_was_stopped(short_search: None) -> None:
    plan = (
        'run = "RUN"\n[insert]\ncorpus = "sea.txt"\ntemplate = ["The code is {digits:3}."]\ncanaries = 2\n'
        "repetitions = [1, 5]\ncontrols = 8\n[train]\nepochs = 2\n[measure]\nsamples = 200\n"
        "[[unlearn]]\nmax_fidelity_drop = 0.5\nretain_windows = 40\n[[attack]]\nsteps = [1, 2]\n"
        '[report]\nformat = ["json"]\n'
    )
    Path("plan.toml").write_text(plan, "utf-8")
    succeed("run", "plan.toml")
    assert record_of(Path("RUN"), "second-order")["relearning"] is not None
    assert "'second-order' was already attacked." in succeed("run", "plan.toml").err
