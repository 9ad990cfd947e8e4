"""Tests of canaryaudit.report.formats.files: a report's files are written all or none, and over nobody else's."""

import errno
import os
import signal
from pathlib import Path

import pytest

from canaryaudit.errors import Interrupted, RunDirectoryError
from canaryaudit.report import write_report
from canaryaudit.report.formats.files import write_files
from canaryaudit.storage import files
from tests.report import builders as make


def test_the_formats_of_an_earlier_report_are_written_again_and_agree(tmp_path):
    """An older page beside a newer JUnit file said something else of the same run."""
    first, second = make.before_after(run_name="earlier-xq"), make.before_after(run_name="later-xq")
    write_report(first, tmp_path)
    (tmp_path / "notes.md").write_text("mine", "utf-8")
    names = [file.name for file in write_report(second, tmp_path, ["junit"])]
    assert names[:3] == ["report.junit.xml", "report.html", "report.md"]
    for name in ("report.html", "report.md", "report.json", "report.junit.xml"):
        text = (tmp_path / name).read_text("utf-8")
        assert "later-xq" in text, name
        assert "earlier-xq" not in text, name
    assert (tmp_path / "notes.md").read_text("utf-8") == "mine"


def test_secrets_are_revealed_only_in_the_formats_asked_for_and_only_to_the_owner(tmp_path):
    write_report(make.before_after(), tmp_path, ["json", "junit"])
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} != {0}, "to be shared"
    revealing = make.before_after().model_copy(update={"reveal_secrets": True})
    write_report(revealing, tmp_path, ["json"])
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"], "the others would say something else"
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o600


def spoil_with_a_link(path):
    path.with_name("elsewhere").write_text("mine", "utf-8")
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_text("# My thesis\n", "utf-8"), spoil_with_a_link, os.mkfifo, Path.mkdir]
)
@pytest.mark.parametrize("name", ["report.md", "report.json", "exposure.svg"])
def test_a_users_own_file_is_not_overwritten_by_a_report(tmp_path, name, spoil):
    spoil(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunDirectoryError, match=f"{name} was not written by canaryaudit: move it, or choose"):
        write_files(tmp_path, {"report.junit.xml": "<a/>", name: "text"})
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("event", [OSError(errno.ENOSPC, "full"), Interrupted(signal.SIGTERM)], ids=["full", "signal"])
@pytest.mark.parametrize("function", ["_sync", "_rename"])
def test_a_report_is_written_wholly_or_not_at_all(tmp_path, monkeypatch, function, event):
    """A full disk left the new page beside the old JSON."""
    write_report(make.before_after(run_name="earlier-xq"), tmp_path, ["json", "junit"])
    names = sorted(file.name for file in tmp_path.iterdir())
    count, original = 0, getattr(files, function)

    def eventful(*arguments):
        nonlocal count
        count += 1
        if count == 2:
            raise event
        return original(*arguments)

    monkeypatch.setattr(files, function, eventful)
    with pytest.raises((RunDirectoryError, Interrupted)):
        write_report(make.before_after(run_name="later-xq"), tmp_path, ["json", "junit"])
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    texts = [file.read_text("utf-8") for file in tmp_path.iterdir()]
    assert {"earlier-xq" in text for text in texts} == {function == "_sync"}
    assert {"later-xq" in text for text in texts} == {function != "_sync"}
