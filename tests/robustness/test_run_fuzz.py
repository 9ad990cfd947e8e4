"""A handful of spoiled run directories, and that the fuzzer finds what it looks for; the program tries many."""

from pathlib import Path
from unittest import mock

import pytest

from canaryaudit.training import loop as training
from tests.robustness.run_fuzz import GATE, RunFuzzer, fuzz


@pytest.mark.slow
def test_spoiled_runs_reach_nothing_outside_and_pass_no_gate(tmp_path: Path) -> None:
    outcome = fuzz(range(400), 7, tmp_path)
    assert not outcome.findings
    assert outcome.statuses["report", 4] > 20, "edited runs must reach the gate"
    assert outcome.statuses["report", 0] > 5, "some changes say nothing, and pass"


@pytest.mark.slow
def test_a_gate_that_passes_anything_and_a_write_outside_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Passing:
        status, out, err = 0, "", ""

    with mock.patch.dict(training.SIZES, {"small": (8, 24, 1)}):
        fuzzer = RunFuzzer(3, tmp_path)
    monkeypatch.setattr("tests.robustness.run_fuzz.canaryaudit", lambda *_: Passing)
    gates = [case for case in range(60) if fuzzer.command(case) is GATE]
    passed = 0
    for case in gates:
        try:
            fuzzer.run(case)
        except AssertionError as error:
            assert "the gate passed" in str(error)  # noqa: PT017 - some of the cases change nothing
            passed += 1
    assert passed > len(gates) // 2

    def write(*_: object) -> type[Passing]:
        Path("outside/victim").chmod(0o600)
        return Passing

    monkeypatch.setattr("tests.robustness.run_fuzz.canaryaudit", write)
    with pytest.raises(AssertionError, match="outside the run"):
        fuzzer.run(next(case for case in range(60) if fuzzer.command(case)[0] == "verify"))
