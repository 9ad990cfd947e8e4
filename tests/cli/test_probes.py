"""Asking for secrets in other ways, on the command line."""

import json
from pathlib import Path

from tests.commands import FAST, canaryaudit, succeed


def record(run: Path, name: str = "before") -> dict:  # type: ignore[type-arg]
    return json.loads((run / "measurements" / f"{name}.json").read_text("utf-8"))


def test_measure_asks_in_other_ways_unless_told_not_to(make_run) -> None:  # type: ignore[no-untyped-def]
    run = make_run("trained")
    result = succeed("measure", run, *FAST)
    found = record(run)
    assert found["worst_cases"]["effort"] == "default"
    assert found["worst_cases"]["references"] == 998  # all members but the two secrets
    assert {probe["family"] for probe in found["canaries"][0]["probes"]} == {
        "template", "context", "truncated", "reworded", "bare", "partial"
    }  # fmt: skip
    assert "998 references" in result.out
    succeed("measure", run, *FAST, "--probes", "none")
    assert record(run)["worst_cases"] is None


def test_a_prompt_of_the_users_is_asked_beside_the_others(make_run) -> None:  # type: ignore[no-untyped-def]
    run = make_run("trained")
    succeed("measure", run, *FAST, "--probes", "none", "--prompt", "the harbour ", "--prompt", "and then ")
    found = record(run)
    assert [prompt["id"] for prompt in found["prompts"]] == ["template", "given-1", "given-2"]
    assert found["prompts"][1]["text"] == "the harbour "


def test_a_prompt_that_holds_a_secret_is_refused_and_told_nowhere(make_run) -> None:  # type: ignore[no-untyped-def]
    run = make_run("trained")
    canaries = json.loads((run / "canaries.json").read_text("utf-8"))["canaries"]
    secret = next(canary["completion"] for canary in canaries if not canary["control"])
    result = canaryaudit("measure", run, *FAST, "--prompt", f"it is {secret[:4]}")
    assert result.status == 1
    assert "--prompt 1 holds" in result.err
    assert secret[:4] not in result.err + result.out


def test_an_effort_that_there_is_not_is_a_usage_error(make_run) -> None:  # type: ignore[no-untyped-def]
    result = canaryaudit("measure", make_run("trained"), "--probes", "some")
    assert result.status == 2
    assert "--probes" in result.err
