"""Pages keep to what a reader relies on: links that lead somewhere, lines that fit, commands that exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from canaryaudit.cli.app import app
from canaryaudit.image_plan import read_plan
from tests.commands import ROOT
from tests.docs import cli_reference
from tests.docs.pages import NOTEBOOKS, PAGES, Example, examples, name_of
from tests.test_architecture import ORDER

LINKED = (*PAGES, ROOT / "CHANGELOG.md", ROOT / "corpora" / "README.md", *sorted((ROOT / "reports").rglob("*.md")))
LINK = re.compile(r"\]\((?!https?:|mailto:|data:)([^)\s#]*)(?:#([^)\s]*))?\)")
GROUP: Any = typer.main.get_command(app)

pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files or headings that are not there."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    broken = []
    for match in LINK.finditer(text):
        target = (page.parent / match[1]).resolve() if match[1] else page
        if not target.exists() or (match[2] and match[2] not in anchors(target)):
            broken.append(match[0])
    return broken


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_and_a_missing_heading_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n\n[x](page.md#a-title) [y](page.md#nothing) [z](gone.md) [w](#a-title)\n", "utf-8")
    assert broken_links(page) == ["](page.md#nothing)", "](gone.md)"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "notes"], ids=name_of)
def test_lines_of_prose_fit(page: Path) -> None:
    lines = [line for line in page.read_text("utf-8").splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 120] == []


def test_the_order_of_the_package_is_the_one_that_is_checked() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (listed,) = re.findall(r"^`errors`.*?\.$", text, re.M | re.S)
    assert tuple(re.findall(r"`(\w+)`", listed)) == ORDER


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_every_page_and_notebook_is_in_the_overview_or_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    overview = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in menu
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        assert f"notebooks/{notebook.name}" in overview


def test_the_page_of_commands_is_what_help_prints() -> None:
    """Run `make golden` after a change that is meant."""
    assert cli_reference.PAGE.read_text("utf-8") == cli_reference.page()


@pages
def test_commands_have_only_flags_that_exist(page: Path) -> None:
    for example in examples(page, "bash", "toml", "yaml", ""):
        for words in example.commands:
            assert unknown_words(words) == [], f"{name_of(page)}:{example.line}"


def unknown_words(words: list[str]) -> list[str]:
    """Return what of a command line is no command or flag."""
    if words[0] not in GROUP.commands:
        return words[:1]
    parameters = GROUP.commands[words[0]].params
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words[1:] if re.match(r"--?[a-z]", word) and word not in {*known, "--help", "-h"}]


def test_unknown_commands_and_flags_are_noticed() -> None:
    assert unknown_words(["unlern", "RUN"]) == ["unlern"]
    assert unknown_words(["train", "RUN", "--epoch", "3", "--seed", "-1"]) == ["--epoch"]


@pytest.mark.parametrize("plan", [plan for page in PAGES for plan in examples(page, "toml")], ids=lambda e: str(e.line))
def test_plans_are_plans(plan: Example, tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_text(plan.text, "utf-8")
    assert read_plan(path).run in (Path("runs/notes"), Path("runs/people"), Path("runs/images"))


def test_the_slurm_script_is_a_shell_script() -> None:
    script = next(e for e in examples(ROOT / "docs" / "distributed.md", "bash") if "#SBATCH" in e.text)
    subprocess.run(["bash", "-n"], input=script.text, text=True, check=True)
