"""What is in the wheel and in the source archive."""

import re
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import canaryaudit

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the source archive's files, without its folder."""
    builder = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path_factory.mktemp("archive")), versions=["standard"])
    with tarfile.open(path) as opened:
        return {name.split("/", 1)[1] for name in opened.getnames()}


def files(folder: str, pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)}


def test_the_wheel_holds_the_code_the_schemas_the_templates_and_the_corpora(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert files("canaryaudit", "*.py") <= names
    schemas, templates = files("canaryaudit/report/schemas", "*.json"), files("canaryaudit/report/templates", "*.*")
    assert len(schemas) > 1
    assert len(templates) > 1
    assert schemas | templates | {"canaryaudit/py.typed"} <= names
    cards = {f"canaryaudit/_corpora/{path.name}" for path in (ROOT / "corpora").glob("*.toml")}
    assert {name for name in names if "_corpora" in name} == {*cards, "canaryaudit/_corpora/harbour.txt"}


def test_the_wheel_holds_no_notes_and_no_tests(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert [name for name in names if name.endswith((".md", ".ipynb", ".pyc"))] == []
    assert {name.split("/")[0] for name in names} == {"canaryaudit", f"canaryaudit-{canaryaudit.__version__}.dist-info"}


def test_the_wheel_says_what_the_project_is(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    fields = message_from_string(wheel.read(metadata).decode())
    assert (fields["Name"], fields["Version"]) == ("canaryaudit", canaryaudit.__version__)
    assert fields["License-Expression"] == "MIT"
    assert set(fields.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    assert "canaryaudit.__main__:main" in wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()


def test_the_source_archive_can_be_tested_and_read(archive: set[str]) -> None:
    expected = files("canaryaudit", "*.py") | files("tests", "*.py") | files("docs/notes", "*.md")
    assert expected | {"README.md", "LICENSE", "CITATION.cff", "Makefile", "pyproject.toml"} <= archive
    assert not {name for name in archive if name.startswith("corpora/") and name.endswith(".txt")} - {
        "corpora/harbour.txt"
    }


def test_one_version_is_said_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert PROJECT["version"] == canaryaudit.__version__
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [canaryaudit.__version__]
    assert re.findall(r"^license: (.+)$", citation, re.MULTILINE) == [PROJECT["license"]]
    assert [author["name"] for author in PROJECT["authors"]] == re.findall(
        r'^  - name: "(.+)"$', citation, re.MULTILINE
    )
