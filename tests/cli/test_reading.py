"""Corpora as people have them, on the command line: what is said, and what is asked."""

import json
from pathlib import Path

import pytest

from tests.commands import INSERT, canaryaudit, succeed


def chats() -> str:
    rows = [
        {"id": n, "messages": [{"role": "user", "content": f"Where is ship {n}?"}, {"role": "bot", "content": "Here."}]}
        for n in range(60)
    ]
    return "".join(json.dumps(own) + "\n" for own in rows)


def test_what_a_corpus_was_taken_for_is_said_and_kept(workplace: Path) -> None:
    Path("chat.jsonl").write_text(chats(), "utf-8")
    result = succeed("insert", "chat.jsonl", "--field", "messages[].content", "--role", "user", "-o", "RUN", *INSERT)
    taken = "chat.jsonl: text from field messages[].content (of id, messages[].role, messages[].content)"
    left_out = "chat.jsonl: left out the items of other roles (60 of bot)"
    said = " ".join(result.err.split())
    assert f"Read {taken}." in said
    assert f"WARNING: {left_out}" in said
    manifest = json.loads(Path("RUN/manifest.json").read_text("utf-8"))
    assert manifest["corpus"]["reading"] == [taken]
    assert left_out in manifest["warnings"]
    assert "Here." not in Path("RUN/corpus.txt").read_text("utf-8")


def test_warnings_about_what_is_left_out_are_shown_even_in_quiet_mode(workplace: Path) -> None:
    Path("n.jsonl").write_text(chats() + '{"id": 7, "messages": null}\n', "utf-8")
    result = succeed("insert", "n.jsonl", "--column", "messages[].content", "-o", "RUN", "-q", *INSERT)
    assert "skipped 1 of 61 rows" in " ".join(result.err.split())


@pytest.mark.parametrize(
    ("flags", "status", "expected"),
    [
        ((), 1, "--column among messages[].role, messages[].content; several are read if --column is repeated"),
        (("--delimiter", "both"), 2, "--delimiter 'both': expected one character, or comma, semicolon, tab or bar"),
        (("--format", "doc"), 2, "--format: expected 'text', 'csv'"),
        (("--escape", "none"), 2, "--escape: expected 'doubled' or 'backslash'"),
        (("more.jsonl",), 2, "to read several files, give their folder, or a pattern in quotation marks"),
    ],
)
def test_refusals_say_what_to_give(workplace: Path, flags: tuple[str, ...], status: int, expected: str) -> None:
    Path("chat.jsonl").write_text(chats(), "utf-8")
    result = canaryaudit("insert", "chat.jsonl", "-o", "RUN", *flags)
    assert result.status == status, result.err
    assert expected in result.complaint
    assert not Path("RUN").exists()


def test_a_spreadsheet_with_all_flags_and_in_a_plan(workplace: Path) -> None:
    rows = "".join(f"{n};Zahlt später, Nr. {n};x\n" for n in range(60))
    Path("list.csv").write_bytes(f"Nr;Notiz;Notiz\n{rows}".encode("cp1252"))
    flags = ("--encoding", "cp1252", "--delimiter", "semicolon", "--header", "--escape", "doubled", "--column", "2")
    succeed("insert", "list.csv", *flags, "-o", "RUN", *INSERT)
    text = Path("RUN/corpus.txt").read_text("utf-8")
    assert "Zahlt später, Nr. 7\n" in text
    assert "Notiz" not in text
    again = succeed("insert", "list.csv", *flags, "-o", "RUN", *INSERT)
    assert "nothing was written" in " ".join(again.err.split())
