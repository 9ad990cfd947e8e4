"""Tests of canaryaudit.plan."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from canaryaudit.errors import UsageError
from canaryaudit.image_plan import read_plan
from canaryaudit.plan import (
    DEFAULT_TEMPLATE,
    InsertOptions,
    MeasureOptions,
    Plan,
    TrainOptions,
    UnlearnOptions,
    default_run,
)


@pytest.mark.parametrize(
    ("corpus", "run"),
    [
        ("notes.txt", "runs/notes"),
        ("/a/b/my notes.v2.jsonl", "runs/my-notes.v2"),
        ("harbour", "runs/harbour"),
        ("hub:org/name", "runs/name"),
        ("hub:org/name:train", "runs/name"),
        ("../..", "runs/audit"),
        ("", "runs/audit"),
        ("a\x1b[31m\n.txt", "runs/a-31m"),
        ("Größe.txt", "runs/Größe"),
    ],
)
def test_a_run_bears_the_name_of_its_corpus(corpus: str, run: str) -> None:
    assert default_run(corpus) == Path(run)


def test_an_empty_plan_is_the_embedded_audit_under_the_plans_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("", "utf-8")
    assert read_plan(tmp_path / "mine.toml") == Plan().model_copy(update={"run": Path("runs/mine")})
    assert Plan().run == Path("runs/embedded")


def test_a_plan_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'run = "here"\n[insert]\ncorpus = "x.txt"\nrepetitions = [2, 3]\nlocate = ["pin {digits:4}"]\n'
        '[train]\nsize = "paper"\n'
        '[[unlearn]]\n[[unlearn]]\nname = "b"\nmethod = "first-order"\n[report]\nformat = ["json"]\n',
        "utf-8",
    )
    plan = read_plan(path)
    assert plan.run == Path("here")
    assert plan.insert == InsertOptions(corpus="x.txt", repetitions=(2, 3), locate=("pin {digits:4}",))
    assert plan.train == TrainOptions(size="paper")
    assert plan.measure == MeasureOptions()
    assert [unlearn.resolved_name for unlearn in plan.unlearn] == ["second-order", "b"]
    assert plan.report.format == ("json",)


def test_nothing_is_inserted_where_secrets_are_located_unless_asked_for() -> None:
    assert (InsertOptions(corpus="x").templates, InsertOptions(corpus="x").num_canaries) == ((DEFAULT_TEMPLATE,), 6)
    located = InsertOptions(corpus="x", locate=("pin {digits:4}",))
    assert (located.templates, located.num_canaries) == ((), 0)
    both = located.model_copy(update={"canaries": 2})
    assert (both.templates, both.num_canaries) == ((DEFAULT_TEMPLATE,), 2)
    assert located.model_copy(update={"template": ("a {digits:2}",)}).templates == ("a {digits:2}",)


def test_a_fault_is_told_with_its_place_and_what_came(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[measure]\nsamples = 7\n", "utf-8")
    with pytest.raises(
        UsageError, match=r"mine\.toml: measure\.samples: expected at least 100, got 7; see canaryaudit"
    ):
        read_plan(path)


@pytest.mark.parametrize("secrets", ["[731946]", '"731946"', "731946", '[["731946"]]'])
def test_a_secret_of_a_wrong_type_is_not_told(tmp_path: Path, secrets: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[insert]\ncorpus = "x.txt"\nsecret = {secrets}\n', "utf-8")
    with pytest.raises(UsageError, match=r"insert\.secret") as refused:
        read_plan(path)
    assert "731946" not in str(refused.value)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        UnlearnOptions().seed = 1  # type: ignore[misc]
