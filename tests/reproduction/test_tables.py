"""The page on linear models: it holds what was computed, and says whose data those were."""

import json
from pathlib import Path

import pytest

from tests.reproduction import tables
from tests.reproduction.tables import PAGE, chosen_data, loss_differences, main, page, removals, shards_hit
from tests.tabular.datasets import BUNDLED


def test_the_committed_page_says_what_its_figures_say() -> None:
    figures = json.loads((PAGE / "tables.json").read_text("utf-8"))
    committed = (PAGE / "tables.md").read_text("utf-8")
    assert committed.startswith(page(figures).rstrip("\n"))
    ours = [own for own in figures["loss_differences"] if own["method"] == "**ours**"]
    assert len(ours) == 4
    for own in ours:
        others = [line for line in figures["loss_differences"] if line["data"] == own["data"] and line is not own]
        best = min(line["loss_difference"] for line in others if line["method"] != "retrain")
        assert own["residual"] <= 1e-6
        assert own["loss_difference"] < 1e-6 < best
    for own in figures["removals"]:
        assert own["ours"] == pytest.approx(own["retrained"], abs=5e-5)


@pytest.mark.parametrize("rows", [1, 10, 150])
def test_shards_are_hit_as_often_as_probability_has_it(rows: int) -> None:
    assert shards_hit(10_000, 20, rows) == pytest.approx(20 * (1 - 0.95**rows), abs=0.2)


def test_without_the_papers_data_the_page_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "DATA", tmp_path / "nothing")
    found, sentence = chosen_data()
    assert list(found) == ["breast cancer", "digits"]
    assert sentence.startswith("**Not the paper's data**")


@pytest.mark.slow
def test_figures_are_computed_from_any_table() -> None:
    table = BUNDLED["breast cancer"]()
    lines = {line.method: line for line in loss_differences("breast cancer", table)}
    assert lines["**ours**"].largest < 1e-6 < lines["second-order"].loss_difference
    (own,) = removals("breast cancer", table, [5])
    assert own.ours == pytest.approx(own.retrained, abs=0.01)
    assert own.published_sigma > 1000 * own.ours_sigma


@pytest.mark.slow
def test_the_page_is_written_from_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "DATA", tmp_path / "nothing")
    monkeypatch.setattr(tables, "REMOVED", (1, 10))
    main(["-o", str(tmp_path / "page")])
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"tables.md", "tables.json", "tables-accuracy.svg"}
