"""A whole audit from a plan: made once, gone on with, and never mixed up with another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from canaryaudit.plan import Plan
from tests.commands import PLAN, canaryaudit, essence, succeed, tree

AUDIT = (
    PLAN
    + """\
[train]
epochs = 1
precision = "fp32"
[measure]
samples = 200
[[unlearn]]
max_fidelity_drop = 0.5
retain_windows = 40
[[unlearn]]
name = "one"
canary = ["canary-02"]
max_fidelity_drop = 0.5
retain_windows = 40
[report]
format = ["json", "md"]
output = "page"
"""
)


@pytest.fixture
def audit() -> Callable[..., Path]:
    """Write the plan, with replacements."""

    def write(*replacements: tuple[str, str]) -> Path:
        text = AUDIT
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        Path("audit.toml").write_text(text, "utf-8")
        return Path("audit.toml")

    return write


Audit = Callable[..., Path]


@pytest.fixture(scope="module")
def audited(runs: Path) -> Path:
    """A finished run of the plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs)
        Path("audit.toml").write_text(AUDIT.replace('"RUN"', '"audited"'), "utf-8")
        succeed("run", "audit.toml")
    return runs / "audited"


def test_a_plan_runs_every_stage(audit: Audit) -> None:
    result = succeed("run", audit())
    parts = (
        "Inserted 2 canaries at 6 places in",
        "Trained in",
        "Measured before:",
        "Left 2 canaries alone, which the model did not remember, in",
        "Measured after-second-order:",
        "Left 1 canary alone, which the model did not remember, in",
        "Measured after-one:",
    )
    places = [result.err.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)
    assert "Report: page/report.md" in result.out
    names = {path.name for path in Path("page").iterdir()}
    assert {"report.md", "report.json"} <= names
    assert "report.html" not in names


def test_a_second_run_says_what_it_found_and_makes_nothing_twice(audit: Audit, audited: Path) -> None:
    shutil.copytree(audited, "RUN")
    before = essence(Path("RUN"))
    result = succeed("run", audit())
    for part in (
        "Resuming RUN, started",
        "Already trained",
        "before was already measured.",
        "'one' was already unlearned.",
    ):
        assert part in result.err
    assert essence(Path("RUN")) == before


@pytest.mark.parametrize(
    "missing",
    ["model.json", "measurements/before.json", "measurements/after-one.json", "unlearned/one/unlearning.json"],
)
def test_a_run_that_was_stopped_goes_on(audit: Audit, audited: Path, missing: str) -> None:
    shutil.copytree(audited, "RUN")
    before = essence(Path("RUN"))
    Path("RUN", missing).unlink()
    succeed("run", audit())
    assert essence(Path("RUN")) == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("canaries = 2", "canaries = 3"), "RUN differs from the plan in its canaries or controls: choose another"),
        (("controls = 8", "controls = 9"), "in its canaries or controls"),
        (("[1, 5]", "[1, 6]"), "in its canaries or controls"),
        (("digits:3", "digits:4"), "in its canaries or controls"),
        (("controls = 8", "seed = 1"), "RUN differs from the plan in its seed (0)"),
        (("controls = 8", "lowercase = true"), "RUN differs from the plan in its lowercase (False)"),
        (("controls = 8", "holdout = 0.1"), "RUN differs from the plan in its holdout (0.05)"),
        (('corpus = "sea.txt"', 'corpus = "other.txt"'), "RUN differs from the plan in its corpus (sea.txt)"),
        (("epochs = 1", "epochs = 2"), "with epochs 1, not with --epochs 2"),
        (("epochs = 1", 'size = "paper"'), "with size small, not with --size paper"),
        (
            ('name = "one"', 'name = "one"\nmethod = "first-order"'),
            "an unlearning 'one' that differs in its method",
        ),
        (('["canary-02"]', '["canary-01"]'), "an unlearning 'one' that differs in its canaries"),
        (('name = "one"', 'name = "one"\nseed = 3'), "an unlearning 'one' that differs in its seed"),
        (('name = "one"', 'name = "one"\nscope = "final-layer"'), "differs in its scope"),
        (("retain_windows = 40", "retain_windows = 0"), "differs in its retain-windows"),
    ],
)
def test_a_run_made_otherwise_is_not_touched(
    audit: Audit, audited: Path, change: tuple[str, str], expected: str
) -> None:
    text = Path("sea.txt").read_text("utf-8")
    Path("other.txt").write_text(text + "\n\nAnother end.\n", "utf-8")
    shutil.copytree(audited, "RUN")
    before = tree(Path("RUN"))
    result = canaryaudit("run", audit(change))
    assert result.status == 1
    assert expected in result.complaint
    assert tree(Path("RUN")) == before


def test_a_measurement_with_other_options_is_taken_again(audit: Audit, audited: Path) -> None:
    shutil.copytree(audited, "RUN")
    result = succeed("run", audit(("samples = 200", 'samples = 300\nestimators = ["exact", "sampled"]')))
    assert "before was measured with other options: measuring again." in result.err
    measurement = json.loads(Path("RUN/measurements/before.json").read_text("utf-8"))
    assert measurement["num_references"] == 300
    assert measurement["canaries"][0]["estimates"].keys() == {"exact", "sampled"}
    assert "measuring again" not in succeed("run", "audit.toml").err
    result = succeed("run", audit(("samples = 200", 'samples = 300\nestimators = ["exact", "sampled"]\nbudget = 900')))
    assert "before was measured with other options: measuring again." in result.err
    assert json.loads(Path("RUN/measurements/before.json").read_text("utf-8"))["search_budget"] == 900


def test_an_unlearning_that_comes_to_nothing_does_not_keep_the_report(audit: Audit) -> None:
    hopeless = '1e-9\nretain_windows = 1\nscope = "final-layer"\n[report]'
    result = canaryaudit("run", audit(("0.5\nretain_windows = 40\n[report]", hopeless)))
    assert result.status == 4
    assert "WARNING: unlearning 'one' gave no result" in result.err
    assert "the report lacks one, which gave no result" in result.complaint
    assert Path("page/report.json").exists()


def test_a_gate_in_a_plan(audit: Audit) -> None:
    result = canaryaudit("run", audit(('output = "page"', 'output = "page"\nfail_above = 0.001')))
    assert result.status == 3


def test_a_plan_without_a_run_directory_gives_its_own_name(audit: Audit) -> None:
    succeed("run", audit(('run = "RUN"\n', "")))
    assert Path("runs/audit/manifest.json").exists()


@pytest.mark.usefixtures("short_search")
def test_a_secret_in_a_plan_is_masked(audit: Audit) -> None:
    secret = ("canaries = 2", 'secret = ["qzvkxw"]'), ("{digits:3}", "{lower:6}"), ("canary-02", "canary-01")
    result = succeed("run", audit(*secret))
    assert "qzvk" not in result.out + result.err
    assert "qzvk" not in Path("RUN/manifest.json").read_text("utf-8")


def test_a_slip_in_a_plan_shows_before_training(audit: Audit) -> None:
    result = canaryaudit("run", audit(("canary-02", "canary-99")))
    assert result.status == 1
    assert "no inserted canary is called 'canary-99'" in result.complaint
    assert "Trained" not in result.err


def test_the_plan_without_a_file_is_the_embedded_audit() -> None:
    plan = Plan()
    assert plan.run == Path("runs/embedded")
    assert plan.insert.corpus == "harbour"
    made = canaryaudit("insert", "harbour", "--dry-run", *(word for t in plan.insert.template for word in ("-t", t)))
    assert made.status == 0
