"""The benchmarks that no other test runs still work, at sizes that take seconds; what they measure is not judged."""

from pathlib import Path

import pytest

from canaryaudit.training import loop as training
from tests.benchmarks import bench_cost, bench_race, bench_retention, bench_tables
from tests.tabular.datasets import needs_data

pytestmark = pytest.mark.slow


def cells(row: str) -> list[str]:
    """Return the cells of a Markdown table's row."""
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_race_is_run_over_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SIZES, "paper", (8, 24, 1))
    monkeypatch.setitem(bench_race.EPOCHS, "paper", 20)
    monkeypatch.setattr(bench_race, "resolve_precision", lambda *_: "fp32")
    corpus = tmp_path / "text.txt"
    corpus.write_text("the tide came in, and the tide went out. " * 120, "utf-8")
    plain, ours = map(cells, bench_race.run(corpus, 0.3))
    assert plain[1] == ours[1] != "20", "both reach the target in the same epoch, before the last"
    assert plain[3] == ours[3], "in the same precision the same steps give the same accuracy"
    assert float(plain[3]) >= 0.3


def test_retention_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WINDOWS": (10,), "SEEDS": (0,), "CHARACTERS": 20_000, "EPOCHS": 4}.items():
        monkeypatch.setattr(bench_retention, name, value)
    (point,) = bench_retention.run()
    assert len(cells(point.row())) == 5
    assert point.seconds > 0
    assert 0 <= point.exposure_bits < 30


def test_cost_is_measured_against_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"COMPLETIONS": (100, 400), "WIDTHS": (16, 32), "CANARIES": (1, 6), "CHARACTERS": 20_000, "EPOCHS": 3}
    for name, value in sizes.items():
        monkeypatch.setattr(bench_cost, name, value)
    monkeypatch.setattr(bench_cost, "_corpora", lambda: iter(()))  # of megabytes, each in a process of its own
    rows = [cells(line.strip()) for line in bench_cost.run()]
    assert [row[0] for row in rows if row[0] != "--:"] == [
        *("completions", "100", "400", "*grows as*"),
        *("hidden units", "16", "32", "*grows as*"),
        *("canaries", "1", "6", "*grows as*"),
    ]


@needs_data
def test_requests_to_tables_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_tables, "ROUNDS", 1)
    monkeypatch.setattr(bench_tables, "MORE_ROUNDS", 1)
    small = [cells(row) for row in bench_tables.small()]
    assert {len(row) for row in small} == {7}
    assert all(float(row[5].removesuffix(" x")) > 0 for row in small[2:-1])
    for row in list(bench_tables.suite(("diabetes",), 5))[2:]:
        assert all(0 < float(cell) <= 1e-6 for cell in cells(row)[3:5])
    rows = [cells(row) for row in bench_tables.speed(("diabetes",))]
    assert {len(row) for row in rows} == {9}
    assert [row[2] for row in rows if row[1] == "logistic"][-2:] == ["all of these", "prepared, once"]
    assert all(float(row[7].removesuffix(" x")) > 0 for row in rows[2:] if row[7].startswith(tuple("0123456789")))
