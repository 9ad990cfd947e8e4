"""Data sets written back with canaries: every row that was there stays as it was."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from canaryaudit.corpus import export
from canaryaudit.corpus.export import export_rows
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings
from tests.commands import canaryaudit, succeed

TEXTS = ["my code is 0123.", "my code is 0123.", 'my code is 77, "x".']
ROWS = [{"id": number, "text": f"line {number}, of the sea", "kind": "ab"[number % 2]} for number in range(40)]
READING = ReadingSettings()


def frozen(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True, default=str) for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{**row, "id": int(row["id"])} for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    return [dict(row) for row in datasets.load_from_disk(path)]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ""])
def test_rows_stay_and_canaries_are_rows_of_their_own(tmp_path: Path, ending: str) -> None:
    source = write(tmp_path / f"data{ending}", ROWS)
    assert export_rows(str(source), tmp_path / f"new{ending}", TEXTS, READING, seed=1) == 43
    rows = read(tmp_path / f"new{ending}")
    added = frozen(rows) - frozen(ROWS)
    assert not frozen(ROWS) - frozen(rows)
    found = [json.loads(row) for row in added.elements()]
    assert sorted(row["text"] for row in found) == sorted(TEXTS)
    assert all({**row, "text": ROWS[row["id"]]["text"]} == ROWS[row["id"]] for row in found)
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)
    export_rows(str(source), tmp_path / f"again{ending}", TEXTS, READING, seed=1)
    export_rows(str(source), tmp_path / f"other{ending}", TEXTS, READING, seed=2)
    assert read(tmp_path / f"again{ending}") == rows != read(tmp_path / f"other{ending}")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_chat_takes_the_canary_in_the_last_message_of_the_role(tmp_path: Path, ending: str) -> None:
    chats = [
        {
            "messages": [
                {"role": role, "content": f"{role} {n}"} for role in ("system", "user", "assistant")[: 2 + n % 2]
            ]
        }
        for n in range(10)
    ]
    source = write(tmp_path / f"chats{ending}", chats)
    reading = ReadingSettings(column=("messages[].content",), role=("assistant",))
    export_rows(str(source), tmp_path / f"new{ending}", TEXTS[:1], reading, seed=0)
    (added,) = (frozen(read(tmp_path / f"new{ending}")) - frozen(chats)).elements()
    system, user, assistant = json.loads(added)["messages"]
    assert (system["role"], user["role"], assistant) == ("system", "user", {"role": "assistant", "content": TEXTS[0]})
    assert user["content"].startswith("user ")


def test_an_instruction_takes_it_in_the_last_column(tmp_path: Path) -> None:
    source = write(tmp_path / "data.jsonl", [{"instruction": "say it", "output": "no"}])
    export_rows(str(source), tmp_path / "new.jsonl", ["yes"], ReadingSettings(column=("instruction", "output")), seed=0)
    assert {"instruction": "say it", "output": "yes"} in read(tmp_path / "new.jsonl")


def exported_line(source: Path, line: str, **reading: Any) -> str:
    """Write lines of JSON; return the one that is exported besides."""
    source.write_text(f"{line}\n" * 3, "utf-8")
    target = source.with_name("new.jsonl")
    export_rows(str(source), target, TEXTS[:1], ReadingSettings(**reading), seed=0)
    (added,) = set(target.read_text("utf-8").split("\n")) - {line, ""}
    return added


def test_numbers_and_halves_of_characters_stay_as_they_are_written(tmp_path: Path) -> None:
    line = '{"text": "%s", "n": [1.10000000000000000001, 1E5, 1e999, 123456789012345678901], "s": "\\ud83d"}'
    assert exported_line(tmp_path / "data.jsonl", line % "sea") == line % TEXTS[0]


def test_a_part_of_a_message_has_the_role_of_the_message(tmp_path: Path) -> None:
    line = '{"messages": [{"role": "gpt", "content": [{"type": "text", "text": "%s"}]}]}'
    found = exported_line(tmp_path / "a.jsonl", line % "sea", column=("messages[].content[].text",), role=("gpt",))
    assert found == line % TEXTS[0]


def test_a_field_that_few_rows_have_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_TRIES", 0)
    source = write(tmp_path / "data.jsonl", [{"id": 0, "text": "sea"}, *({"id": own} for own in range(1, 9))])
    export_rows(str(source), tmp_path / "new.jsonl", TEXTS, ReadingSettings(column=("text",)), seed=0)
    assert [row["id"] for row in read(tmp_path / "new.jsonl") if row.get("text") in TEXTS] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("a,text,a\n" + "L,the sea was calm,R\n" * 9, "", "L,T,R"),
        ('1;"text, a, b, c"\n' + "2;the sea was calm\n" * 9, "text, a, b, c", "2;T"),
        ("1,the sea was calm\n" * 9, "2", "1,T"),
        ("id,text\n" + '1,"the \\"sea\\", it was calm"\n' * 9, "", "1,T"),
    ],
    ids=["same names", "commas in the head", "no header", "backslash"],
)
def test_cells_are_cut_as_they_are_read(tmp_path: Path, text: str, column: str, expected: str) -> None:
    (tmp_path / "data.csv").write_text(text, "utf-8")
    reading = ReadingSettings(column=(column,) if column else ())
    export_rows(str(tmp_path / "data.csv"), tmp_path / "new.csv", ["T"], reading, seed=0)
    lines = (tmp_path / "new.csv").read_text("utf-8").splitlines()
    assert lines.count(expected) == 1
    lines.remove(expected)
    cells = [
        list(csv.reader(own, delimiter=";" if ";" in expected else ",", escapechar="\\"))
        for own in (lines, text.splitlines())
    ]
    assert cells[0] == cells[1]


def test_columns_of_views_are_kept(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array(["the sea"] * 5, pyarrow.string_view())})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    assert export_rows(str(tmp_path / "data.parquet"), tmp_path / "new.parquet", TEXTS, READING, seed=0) == 8
    assert pyarrow.parquet.read_table(tmp_path / "new.parquet").schema == table.schema


@pytest.mark.parametrize(
    ("source", "target", "reading", "message"),
    [
        ("sea.txt", "new.txt", READING, "is no data set of rows: expected JSON Lines, CSV"),
        ("none.jsonl", "new.jsonl", READING, "is no data set of rows"),
        ("data.jsonl", "new.csv", READING, "expected a name that ends like that of"),
        ("data.jsonl", "new.jsonl.gz", READING, "is written uncompressed: leave .gz out"),
        ("data.jsonl", "data.jsonl", READING, "exists: choose another name"),
        ("data.jsonl", "new.jsonl", ReadingSettings(column=("missing",)), "has no text in the field to insert into"),
        ("two.jsonl", "new.jsonl", READING, "has 2 fields of text: choose with --column among a, b"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, source: str, target: str, reading: ReadingSettings, message: str
) -> None:
    write(tmp_path / "data.jsonl", ROWS)
    write(tmp_path / "two.jsonl", [{"a": "x", "b": "y"}])
    (tmp_path / "sea.txt").write_text("the sea", "utf-8")
    with pytest.raises(CorpusError) as caught:
        export_rows(str(tmp_path / source), tmp_path / target, TEXTS, reading, seed=0)
    assert message in str(caught.value)


def test_insert_exports_every_occurrence(tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"the sea was calm at {n} and the night was long"} for n in range(200)]
    source, target = write(tmp_path / "data.jsonl", rows), tmp_path / "new.jsonl"
    options = ("-o", tmp_path / "run", "-t", "my code is {digits:4}.", "-n", "2", "-r", "1,5", "--export", target)
    said = succeed("insert", source, *options)
    assert "Wrote 206 rows" in said.err
    canaries = json.loads((tmp_path / "run" / "canaries.json").read_text("utf-8"))["canaries"]
    texts = Counter(row["text"] for row in read(target))
    assert [texts[f"my code is {own['completion']}."] for own in canaries if not own["control"]] == [1, 5]
    assert not any(texts[f"my code is {own['completion']}."] for own in canaries if own["control"])
    assert succeed("insert", source, *options).status == 0
    assert "drop --lowercase" in canaryaudit("insert", source, *options[2:], "-o", tmp_path / "b", "--lowercase").err
