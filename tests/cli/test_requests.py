"""One unlearning request after another: where each starts from, what is checked, and what the report says of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import UNLEARN, canaryaudit, succeed

MakeRun = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("short_search")


def request(run: Path, name: str, *more: str) -> dict[str, Any]:
    succeed("unlearn", run, *UNLEARN, "--name", name, *more)
    return json.loads((run / "unlearned" / name / "unlearning.json").read_text("utf-8"))


@pytest.fixture
def chain(make_run: MakeRun) -> Path:
    """A run on which one request followed another."""
    run = make_run("measured")
    request(run, "first", "--canary", "canary-01")
    request(run, "second", "--canary", "canary-02", "--from", "after-first")
    return run


def test_a_later_request_starts_where_the_earlier_one_ended(chain: Path) -> None:
    first, second = (
        json.loads((chain / "unlearned" / name / "unlearning.json").read_text("utf-8")) for name in ("first", "second")
    )
    assert (first["origin"], second["origin"]) == ("before", "after-first")
    assert second["origin_sha256"] == first["model_sha256"]
    assert (first["canaries"], second["canaries"]) == (["canary-01"], ["canary-02"])
    assert second["affected_windows"] > first["affected_windows"], "what was forgotten is forgotten again"
    befores = [{k: v for k, v in own["fidelity"].items() if k.endswith("before")} for own in (first, second)]
    assert befores[0] == befores[1], "losses are counted from the model as trained"


def test_the_report_tells_the_lineage(chain: Path) -> None:
    summary = succeed("report", chain, "--json").document
    methods = {method["name"]: (method["lineage"], method["targeted"]) for method in summary["methods"]}
    assert methods == {"first": ([], 1), "second": (["first"], 2)}
    assert all(canary["targeted"] for canary in summary["canaries"])
    assert not any("different weights" in warning for warning in summary["warnings"])
    facts = [fact["name"] for fact in summary["provenance"]["facts"]]
    assert "SHA-256 of after-first, the model that was updated" in facts
    assert "Started from | the result of `first`" in Path("reports/RUN/report.md").read_text("utf-8")
    assert "the result of “first”" in Path("reports/RUN/report.html").read_text("utf-8")
    assert ", after first" in succeed("report", chain).out


def test_making_an_earlier_request_anew_undoes_the_later_ones_and_says_so(chain: Path) -> None:
    # Other weights: of a secret that was hardly learned the default update may leave the model as it is.
    anew = ("--name", "first", "--canary", "canary-01", "--scope", "final-layer", "--force")
    result = succeed("unlearn", chain, *UNLEARN, *anew)
    assert "second started from after-first, which is being replaced: unlearn them again" in result.err.replace(
        "\n", " "
    )
    refused = canaryaudit("unlearn", chain, *UNLEARN, "--from", "after-second", "--name", "x").complaint
    assert "no model 'after-second' to start from: choose one of before, after-first with --from" in refused
    assert [m["name"] for m in succeed("report", chain, "--json").document["methods"]] == ["first"]


@pytest.mark.parametrize("name", ["first", "second"])
def test_no_request_can_replace_what_it_starts_from(chain: Path, name: str) -> None:
    result = canaryaudit("unlearn", chain, *UNLEARN, "--from", "after-second", "--name", name, "--force")
    assert result.status == 1
    assert "choose another --name" in result.complaint


@pytest.mark.parametrize("start", ["after-third", "after-../first"])
def test_a_model_that_is_not_there_is_named_with_those_that_are(chain: Path, start: str) -> None:
    message = canaryaudit("unlearn", chain, *UNLEARN, "--from", start, "--name", "x").complaint
    assert f"no model {start!r} to start from: choose one of before, after-first, after-second" in message


@pytest.mark.parametrize("start", ["third", "../before", "after-", ""])
def test_what_cannot_name_a_model_is_refused(chain: Path, start: str) -> None:
    result = canaryaudit("unlearn", chain, *UNLEARN, "--from", start, "--name", "x")
    assert (result.status, result.complaint) == (2, "--from: expected before or after-NAME")


def test_changed_weights_of_an_earlier_request_are_noticed(chain: Path) -> None:
    path = chain / "unlearned" / "first" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert (
        "is damaged (SHA-256"
        in canaryaudit("unlearn", chain, *UNLEARN, "--from", "after-first", "--name", "x").complaint
    )


def test_a_plan_can_hold_requests_that_follow_each_other(workplace: Path) -> None:
    Path("audit.toml").write_text(
        'run = "RUN"\n[insert]\ncorpus = "sea.txt"\ntemplate = ["The code is {digits:3}."]\ncanaries = 2\n'
        "repetitions = [5]\ncontrols = 8\n[train]\nepochs = 2\n[measure]\nsamples = 200\n"
        '[[unlearn]]\nname = "a"\ncanary = ["canary-01"]\nmax_fidelity_drop = 0.5\nretain_windows = 0\n'
        '[[unlearn]]\nname = "b"\nfrom = "after-a"\ncanary = ["canary-02"]\nmax_fidelity_drop = 0.5\n',
        "utf-8",
    )
    summary = succeed("run", "audit.toml", "--json").document
    assert [method["lineage"] for method in summary["methods"]] == [[], ["a"]]
    record = json.loads(Path("RUN/unlearned/a/unlearning.json").read_text("utf-8"))
    assert (record["retention_source"], record["retention_windows"]) == ("model", 1000)
    assert "'b' was already unlearned" in succeed("run", "audit.toml").err
    text = Path("audit.toml").read_text("utf-8").replace('from = "after-a"', 'from = "before"')
    Path("audit.toml").write_text(text, "utf-8")
    assert "differs in its from" in canaryaudit("run", "audit.toml").complaint
