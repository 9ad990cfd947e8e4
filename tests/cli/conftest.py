"""Runs at every stage, made once; a tiny model, since what it learns is not the question here."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from canaryaudit.exposure import MeasurementConfig
from canaryaudit.pipeline.measure import measurement_config
from canaryaudit.plan import MeasureOptions
from canaryaudit.training import loop as training
from tests.commands import FAST, INSERT, ROOT, UNLEARN, succeed

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True, scope="module")
def tiny_model() -> Iterator[None]:
    """Give ``--size small`` 24 hidden units, to the tests of this folder only."""
    with pytest.MonkeyPatch.context() as patch:
        _make_tiny(patch)
        yield


def _make_tiny(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(training.SIZES, "small", (8, 24, 1))
    patch.setenv("COLUMNS", "80")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, but for a corpus."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:12_000]
    (tmp_path / "sea.txt").write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search and draw little: large spaces are then measured in a moment."""

    def config(options: MeasureOptions) -> MeasurementConfig:
        return measurement_config(options).model_copy(update={"search_budget": 300, "max_draws": 2000})

    monkeypatch.setattr("canaryaudit.pipeline.measure.measurement_config", config)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run at every stage, named after it."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        _make_tiny(patch)
        patch.chdir(place)
        text = (ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:12_000]
        (place / "sea.txt").write_text(text, "utf-8")
        succeed("insert", "sea.txt", "-o", "inserted", *INSERT)
        shutil.copytree("inserted", "trained")
        succeed("train", "trained", "--epochs", "2", "--precision", "fp32")
        shutil.copytree("trained", "measured")
        succeed("measure", "measured", *FAST)
        shutil.copytree("measured", "unlearned")
        succeed("unlearn", "unlearned", *UNLEARN)
    return place


@pytest.fixture
def make_run(runs: Path, workplace: Path) -> MakeRun:
    """Copy a run of the given stage into the working directory, and return its relative path."""

    def make(stage: str, name: str = "RUN") -> Path:
        shutil.copytree(runs / stage, workplace / name)
        return Path(name)

    return make
