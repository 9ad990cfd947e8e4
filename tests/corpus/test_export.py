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


@pytest.mark.parametrize(
    ("source", "target", "reading", "message"),
    [
        ("sea.txt", "new.txt", READING, "is no data set of rows: expected JSON Lines, CSV"),
        ("none.jsonl", "new.jsonl", READING, "is no data set of rows"),
        ("data.jsonl", "new.csv", READING, "expected a name that ends like that of"),
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
