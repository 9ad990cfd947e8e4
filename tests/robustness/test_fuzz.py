"""A handful of the fuzzer's cases, and that it finds what it looks for; the program reads many."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.robustness.fuzz import SHARES, Fuzzer, Hanging, limits, mutated, signal


def test_a_handful_of_strangers_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    fuzzer = Fuzzer(3, tmp_path)
    cases = [case for case in range(250) if fuzzer.target(case) not in ("rows", "parquet")]
    taken = sum(fuzzer.run(case) for case in cases)
    assert len(cases) // 20 < taken < len(cases), "some must be sound, or nothing behind the first check is tried"


def test_every_target_has_its_share() -> None:
    fuzzer = Fuzzer(0, Path())
    assert {fuzzer.target(case) for case in range(100)} == set(SHARES)
    assert sum(SHARES.values()) == 100


def test_a_case_depends_on_its_number_and_the_seed_alone(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        fuzzer = Fuzzer(5, tmp_path)
        case = next(case for case in range(100) if fuzzer.target(case) == "txt")
        fuzzer.run(case)
        made.append(sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()))
    assert made[0] == made[1]


def test_errors_of_several_lines_and_tracebacks_are_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("config")

    monkeypatch.setattr("tests.robustness.fuzz.read_plan", fail)
    fuzzer = Fuzzer(0, tmp_path)
    with pytest.raises(KeyError):
        fuzzer.run(next(case for case in range(100) if fuzzer.target(case) == "plan"))


def test_memory_and_time_are_limited() -> None:
    with limits():
        with pytest.raises(MemoryError):
            np.ones(2**31, dtype=np.uint8)
        signal.setitimer(signal.ITIMER_PROF, 0.05)
        with pytest.raises(Hanging):
            while True:
                time.process_time()
    assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
    np.ones(2**20)


def test_mutations_change_something() -> None:
    import random

    data = os.urandom(50)
    assert sum(mutated(data, random.Random(seed)) != data for seed in range(50)) > 40
