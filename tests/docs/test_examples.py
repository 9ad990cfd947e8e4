"""The examples of the README, of the pages and of the notebooks run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT, canaryaudit
from tests.docs.pages import NOTEBOOKS, PAGES, code_cells, examples, name_of

SHELL = tuple(page for page in PAGES if page.name in ("README.md", "tutorial.md"))
DONE = (0, 4)
"""A model as tiny as here may lose more accuracy than is allowed; the command has then run, and says so."""


def commands(page: Path) -> Iterator[list[str]]:
    """Yield a page's commands, but for those that audit the embedded corpus, which take minutes."""
    for example in examples(page, "bash"):
        yield from (words for words in example.commands if words != ["run"])


@pytest.mark.slow
@pytest.mark.parametrize("page", SHELL, ids=name_of)
def test_shell_examples_run_one_after_another(page: Path, workplace: Path) -> None:
    ran = 0
    for words in commands(page):
        result = canaryaudit(*words)
        assert result.status in DONE, (words, result.err)
        ran += 1
    assert ran >= 3
    (report,) = {canaryaudit("report", "runs/notes").status}
    assert report == 0


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page, "python")], ids=name_of)
def test_python_examples_run(page: Path, workplace: Path, report: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for example in examples(page, "python"):
        exec(compile(example.text, f"{name_of(page)}:{example.line}", "exec"), namespace)


@pytest.fixture
def report(workplace: Path) -> Path:
    """The report that ``reports/notes`` holds in examples."""
    path = workplace / "reports" / "notes" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text((ROOT / "tests" / "golden" / "files" / "report.json").read_text("utf-8"), "utf-8")
    return path


def test_the_readme_says_what_its_python_example_prints(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = examples(ROOT / "README.md", "python")
    exec(compile(example.text, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = [line.split("  # ")[1] for line in example.text.splitlines() if line.startswith("print(")]
    assert len(printed) == len(promised) > 0
    for line, promise in zip(printed, promised, strict=True):
        assert line.removesuffix(" bits") == promise.split(":")[0]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(notebook: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    cells = code_cells(notebook)
    for number, cell in enumerate(cells, 1):
        exec(compile(cell, f"{notebook.name}, cell {number}", "exec"), namespace)
    assert "bits" in capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    document = json.loads(notebook.read_text("utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    for cell in document["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
