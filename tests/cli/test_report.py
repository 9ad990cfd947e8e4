"""``report``: its formats, its gate's exit statuses, and several runs on one page."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from canaryaudit.report import schema_path
from tests.cli.test_output import COLOR, on_a_terminal
from tests.commands import canaryaudit, reseal, succeed

MakeRun = Callable[..., Path]


def exposures(path: Path, state: str) -> list[float]:
    canaries = json.loads(path.read_text("utf-8"))["canaries"]
    return [canary[state]["exposure"]["bits"] for canary in canaries]


def test_every_format_is_written_and_valid(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    result = succeed("report", run, "--format", "html,md,json,junit,model-card")
    folder = Path("reports/RUN")
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "report.md", "report.json", "report.junit.xml", "model-card.md", "exposure.svg"} <= names
    schema = json.loads(schema_path().read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads((folder / "report.json").read_text("utf-8")))
    assert ElementTree.parse(folder / "report.junit.xml").getroot().tag == "testsuites"
    assert (folder / "model-card.md").read_text("utf-8").startswith("## Memorization audit")
    assert "Report: reports/RUN/report.html" in result.out


def test_json_on_standard_output_is_valid_too(make_run: MakeRun) -> None:
    schema = json.loads(schema_path().read_text("utf-8"))
    document = succeed("report", make_run("unlearned"), "--json").document
    jsonschema.Draft202012Validator(schema).validate(document)


def test_the_gate_above_a_limit_passes_with_0_and_fails_with_3_and_reasons(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    succeed("report", run, "-o", "first")
    largest = max(exposures(Path("first/report.json"), "after"))
    canaries = json.loads(Path("first/report.json").read_text("utf-8"))["canaries"]
    worst = max(canary["after"]["worst_case"]["calibrated_bits"] for canary in canaries)
    assert canaryaudit("report", run, "--fail-above", str(max(largest, worst) + 0.01)).status == 0
    result = canaryaudit("report", run, "--fail-above", str(largest - 0.01))
    assert result.status == 3
    assert re.search(r"^canary-0\d: \d+\.\d\d bits after unlearning, above the limit of ", result.err, re.MULTILINE)
    assert "FAILED" in result.out


def test_the_gate_fails_on_a_worst_case_though_every_prefix_passes(make_run: MakeRun) -> None:
    """A tiny model's second measurement, its worst case made worse than its exposures are."""
    run = make_run("unlearned")
    path = run / "measurements" / "after-second-order.json"
    record = json.loads(path.read_text("utf-8"))
    worst = record["canaries"][0]["worst_case"]
    worst["p_value"] = 2**-9
    path.write_text(json.dumps(record), "utf-8")
    reseal(run)
    result = canaryaudit("report", run, "--fail-above", "8")
    assert result.status == 3
    assert re.search(r"^canary-01: worst case 9\.0 bits after unlearning \(", result.err, re.MULTILINE)


def test_the_gate_against_a_baseline_passes_with_0_and_fails_with_3_and_reasons(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    succeed("report", run, "-o", "first")
    result = succeed("report", run, "--fail-worse", "first/report.json")
    assert "Gate, no worse than the report of RUN: passed" in result.out
    better = json.loads(Path("first/report.json").read_text("utf-8"))
    better["canaries"].append(better["canaries"][0] | {"id": "canary-99"})
    Path("better.json").write_text(json.dumps(better), "utf-8")
    result = canaryaudit("report", run, "--fail-worse", "better.json", "--format", "junit,json")
    assert result.status == 3
    assert "canary-99: in the baseline, but not in this run" in result.err
    gate = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))["gate"]
    assert (gate["status"], gate["baseline"], gate["fail_above_bits"]) == ("failed", "RUN", None)
    assert 'name="gate: no worse than the report of RUN"' in Path("reports/RUN/report.junit.xml").read_text("utf-8")


@pytest.mark.parametrize("baseline", ["missing.json", "sea.txt", "reports/RUN/report.json"])
def test_a_bad_baseline_is_refused_before_anything_is_trained(make_run: MakeRun, baseline: str) -> None:
    result = canaryaudit("report", make_run("inserted"), "--fail-worse", baseline)
    assert result.status == 2
    assert result.complaint.startswith(f"--fail-worse {baseline}: ")
    assert not Path("RUN/model.safetensors").exists()


def test_a_plans_baseline_is_read_before_anything_is_trained() -> None:
    Path("audit.toml").write_text('[insert]\ncorpus = "sea.txt"\n[report]\nfail_worse = "missing.json"\n', "utf-8")
    assert "--fail-worse missing.json" in canaryaudit("run", "audit.toml").complaint
    assert not Path("runs/audit/model.safetensors").exists()


def test_several_runs_stand_on_one_page(make_run: MakeRun) -> None:
    first, second = make_run("unlearned", "one"), make_run("measured", "two")
    result = succeed("report", first, second)
    assert "Report: reports/one-two/comparison.html" in result.out
    assert max(len(line) for line in result.out.splitlines() if not line.startswith("! ")) <= 80
    names = {path.name for path in Path("reports/one-two").iterdir()}
    assert names == {"comparison.html", "comparison.md", "comparison.svg", "comparison.json"}
    document = succeed("report", first, second, "--json", "-o", "page").document
    assert [run["name"] for run in document["runs"]] == ["one", "two"]
    assert [run["method"] is None for run in document["runs"]] == [False, True]
    assert Path("page/comparison.html").exists()


def test_a_trend_is_drawn_of_runs_and_earlier_reports(make_run: MakeRun) -> None:
    first, second = make_run("unlearned", "one"), make_run("measured", "two")
    succeed("report", first, "--format", "json")
    result = succeed("report", second, "reports/one/report.json", "--trend", "-o", "page", "--json")
    runs = result.document["runs"]
    assert [run["measured"] for run in runs] == sorted(run["measured"] for run in runs)
    assert result.document["trend"]
    assert {"trend.svg", "comparison.html"} <= {path.name for path in Path("page").iterdir()}
    refused = canaryaudit("report", second, "reports/one/report.json", "--fail-above", "9")
    assert (refused.status, "cannot be verified" in refused.complaint) == (2, True)
    assert canaryaudit("report", second, "--trend").status == 2
    Path("other.json").write_text("[]", "utf-8")
    assert "other.json: expected a run directory, or" in canaryaudit("report", second, "other.json").complaint


def test_the_gate_holds_for_each_of_several_runs(make_run: MakeRun) -> None:
    first, second = make_run("unlearned", "one"), make_run("measured", "two")
    assert canaryaudit("report", first, second, "--fail-above", "10").status == 0
    result = canaryaudit("report", first, second, "--fail-above", "0", "-q")
    assert result.status == 3
    assert {line.split(": ")[0] for line in result.err.splitlines()} == {"one", "two"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("one", "one"), "one is given twice"),
        (("one", "two", "--fail-worse", "x.json"), "several runs have no common baseline"),
        (("one", "two", "--format", "html,junit"), "--format junit: only available for one run"),
    ],
)
def test_what_only_one_runs_report_has_is_a_usage_error(
    make_run: MakeRun, arguments: tuple[str, ...], message: str
) -> None:
    make_run("measured", "one")
    make_run("measured", "two")
    result = canaryaudit("report", *arguments)
    assert result.status == 2
    assert message in result.complaint


def test_a_run_that_is_not_there_is_said_before_another_is_measured(make_run: MakeRun) -> None:
    run = make_run("trained")
    assert "nowhere" in canaryaudit("report", run, "nowhere").complaint
    assert not Path("RUN/measurements/before.json").exists()


@pytest.mark.parametrize("plain", [False, True])
def test_the_report_on_a_terminal_is_colored_unless_told_otherwise(make_run: MakeRun, plain: bool) -> None:
    text = on_a_terminal("report", make_run("unlearned"), "--format", "json", **({"NO_COLOR": "1"} if plain else {}))
    assert bool(COLOR.search(text)) is not plain
    assert "canary-01" in text


def test_the_commands_to_reproduce_a_run_do_not_replace_one(make_run: MakeRun) -> None:
    run = make_run("trained")
    succeed("train", run, "--epochs", "1", "--precision", "fp32", "--force")
    succeed("measure", run, "--samples", "200")
    succeed("report", run, "--format", "md,json")
    assert json.loads((run / "manifest.json").read_text("utf-8"))["stages"][-3]["argv"][-1] == "--force"
    commands = json.loads(Path("reports/RUN/report.json").read_text("utf-8"))["provenance"]["commands"]
    assert "canaryaudit train RUN --epochs 1 --precision fp32" in commands
    assert "--force" not in Path("reports/RUN/report.md").read_text("utf-8")


def test_a_report_is_not_written_into_the_run_that_holds_the_secrets(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    for output in ("RUN", "RUN/reports", "RUN/../RUN"):
        for runs in ((run,), (run, make_run("unlearned", f"OTHER{len(output)}"))):
            result = canaryaudit("report", *runs, "-o", output)
            assert result.status == 2
            assert "is in the run directory, which holds secrets" in result.complaint
    assert succeed("verify", run, "-q").out == ""


def test_a_pipelines_summary_is_not_added_to_a_file_of_the_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("measured")
    Path("link").symlink_to(run / "model.json")
    for name in ("RUN/model.json", "RUN/new.md", "link"):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", name)
        result = canaryaudit("report", run, "--step-summary")
        assert (result.status, "is in the run directory" in result.complaint) == (2, True)
    assert succeed("verify", run, "-q").out == ""
    (run / "canaries.json").write_text("{", "utf-8")
    for gate in ((), ("--fail-above", "10")):
        assert canaryaudit("report", run, "--step-summary", *gate).status == 2
    assert "Gate" not in (run / "model.json").read_text("utf-8")


def test_a_users_own_file_is_noticed_before_anything_is_measured(make_run: MakeRun) -> None:
    run = make_run("trained")
    Path("page").mkdir()
    Path("page/report.md").write_text("# My thesis", "utf-8")
    assert "page/report.md was not written by canaryaudit" in canaryaudit("report", run, "-o", "page").complaint
    assert not (run / "measurements").exists()
    assert [own.name for own in Path("page").iterdir()] == ["report.md"]
