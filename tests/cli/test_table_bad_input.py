"""What a user can get wrong with a table: each a line with the next step, and nothing half-written."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_bad_input import refuse
from tests.cli.test_table_runs import people, write
from tests.commands import PROCESS, canaryaudit, succeed

INSERT = ("insert", "people.csv", "--target", "income", "--id", "key", "-o", "RUN2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a run of it, from which a column was removed."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(folder / "people.csv", people()[:120])
        succeed("insert", *INSERT[1:-1], "RUN", "--drop", "hours")
        succeed("unlearn", "RUN", "--columns", "city", "--name", "first")
    return folder


@pytest.fixture(autouse=True)
def copied(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def table(**changes: list[object]) -> str:
    """Return 30 rows of CSV with columns changed or added."""
    columns: dict[str, list[object]] = {
        "age": [20 + number for number in range(30)],
        "city": ["Bern", "Oslo"] * 15,
        "y": [0, 1, 1] * 10,
    } | changes
    return "".join(",".join(map(str, row)) + "\n" for row in [[*columns], *zip(*columns.values(), strict=True)])


TABLES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "no target": (table(), ("--target", "income"), "no column of this name among age, city, y"),
    "target empty": (table(y=["", *[0, 1] * 14, 0]), (), "row 1 has no 'y'"),
    "one class": (table(y=[1] * 30), (), "'y' has 1 class ('1'): expected two or more"),
    "amounts": (table(y=[own + 0.5 for own in range(30)]), (), "'y' holds 0.5, which is no whole number: expected"),
    "names as classes": (
        table(y=[f"n{own}" for own in range(101)], age=[*range(101)], city=["a"] * 50 + ["b"] * 51),
        (),
        "'y' has 101 classes ('n0', 'n1', 'n10', …): expected at most 100",
    ),
    "a class held out": (
        table(y=[0, 1] * 14 + [2, 0]),
        ("--seed", "0", "--holdout", "0.5"),
        "no training row has the label '2'",
    ),
    "constant column": (
        table(age=[7] * 30),
        (),
        "has the same value everywhere: leave it out with --drop 'age'",
    ),
    "column all missing": (
        table(age=[""] * 30),
        (),
        "column 'age' of table.csv is empty: leave it out",
    ),
    "number missing": (table(age=["", *range(29)]), (), "lacks 1 numbers, the first in row 1"),
    "not a number": (table(age=["nan", *range(29)]), (), "has a number that is not finite in row 1"),
    "infinite": (table(age=[*range(29), "inf"]), (), "has a number that is not finite in row 30"),
    "too large": (table(age=[*range(28), 1e308, -1e308]), (), "has a number above 1e+100 in row 29"),
    "plant too large": (table(), ("--plant", "age=1e200:6"), "--plant age: expected a number up to 1e+100"),
    "unknown sensitive column": (table(), ("--columns", "name_*"), "no column is called 'name_*'"),
    "unknown dropped column": (table(), ("--drop", "size"), "--drop size: table.csv has no column of this name"),
    "unknown id": (table(), ("--id", "key"), "--id key: table.csv has no column of this name"),
    "ids twice": (table(key=[1, 1, *range(28)]), ("--id", "key"), "rows 1 and 2 have the same 'key'"),
    "id is the target": (table(), ("--id", "y"), "cannot be both the target and the row's id"),
    "names of people": (
        table(
            **{"name": [f"n{number}" for number in range(1200)]}
            | {"age": list(range(1200)), "city": ["Bern", "Oslo"] * 600, "y": [0, 1] * 600}
        ),
        (),
        "has 1,200 different texts, more than 1,000: leave it out with --drop 'name'",
    ),
    "nothing but the target": (table(), ("--drop", "age", "--drop", "city"), "there is nothing to learn from"),
    "ragged": (table() + "1,2,3,4\n", (), "table.csv"),
    "too many canaries": (table(), ("--flip-labels", "20"), "20 canaries need twice as many training rows"),
    "too few canaries": (table(), ("--flip-labels", "3"), "--flip-labels 3: expected at least 6 rows"),
    "plant without a number": (table(), ("--plant", "age=3"), "--plant 'age=3': expected COLUMN=VALUE:N"),
    "plant a text among numbers": (table(), ("--plant", "age=old:6"), "--plant age: expected a number, got 'old'"),
    "plant in an unknown column": (table(), ("--plant", "size=1:6"), "--plant: no column is called 'size'"),
    "too few rows": ("a,y\n1,0\n2,1\n3,0\n", (), "has 3 rows: expected at least 10"),
    "all held out but one class": (table(y=[1] + [0] * 29), ("--holdout", "0.9", "--seed", "1"), "the same label"),
    "names for cells": (table(), ("--names", "x.txt"), "--names is for a matrix in an .npz file"),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_cannot_be_used(what: str) -> None:
    data, more, expected = TABLES[what]
    Path("table.csv").write_text(data, "utf-8")
    arguments = more if "--target" in more else ("--target", "y", *more)
    status = 2 if what in ("too few canaries", "plant without a number") else 1
    refuse(status, expected, "insert", "table.csv", *arguments, "-o", "NEW")


GOOD = np.eye(20)
MATRICES: dict[str, tuple[dict[str, object], str]] = {
    "no labels": ({"X": GOOD}, "has no array of this name among X"),
    "labels too few": ({"X": GOOD, "y": [0, 1] * 9}, "has 20 rows and labels of shape (18,)"),
    "NaN": ({"X": GOOD * np.nan, "y": [0, 1] * 10}, "has values that are missing or not finite"),
    "label NaN": ({"X": GOOD, "y": [np.nan, *[0.0, 1.0] * 9, 0.0]}, "row 1 of table.npz has no label"),
    "objects": ({"X": np.array([{}] * 20, dtype=object), "y": [0, 1] * 10}, "is not a plain .npz file"),
    "too large": ({"X": GOOD * 1e200, "y": [0, 1] * 10}, "has values above 1e+100"),
    "no columns": ({"X": GOOD[:, :0], "y": [0, 1] * 10}, "has a matrix without columns"),
    "three dimensions": ({"X": np.ones((20, 2, 2)), "y": [0, 1] * 10}, "0 matrices of numbers"),
    "indices out of range": (
        {"indices": [9], "indptr": [0, 1, 1], "shape": [2, 3], "y": [0, 1]},
        "holds no matrix that can be used",
    ),
    "names too few": ({"X": GOOD, "y": [0, 1] * 10, "columns": ["a"]}, "1 names of columns for a matrix of 20 columns"),
}


@pytest.mark.parametrize("what", MATRICES)
def test_a_matrix_that_cannot_be_used(what: str) -> None:
    arrays, expected = MATRICES[what]
    np.savez("table.npz", **{name: np.asarray(own) for name, own in arrays.items()})
    refuse(1, expected, "insert", "table.npz", "--target", "y", "-o", "NEW")


FILES = {
    "twice.txt": "k001\nk002\nk001\n",
    "nobody.txt": "k001\nk999\n",
    "none.txt": "\n",
    "unknown.csv": "k001,rich\n",
    "cells.csv": "k001,high,x\n",
    "every.csv": "".join(f"{row['key']},low\n" for row in people()[:120]),
    "low.txt": "".join(f"{row['key']}\n" for row in people()[:120] if row["income"] == "low"),
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--rows", "twice.txt"), "twice.txt: entries 1 and 3 have the same id"),
        (("--rows", "nobody.txt"), "nobody.txt: entry 2 is no row of the table: expected a id in 'key'"),
        (("--rows", "none.txt"), "expected an id on each line, got none"),
        (("--rows", "nowhere.txt"), "--rows nowhere.txt: no such file"),
        (("--rows", "low.txt"), "all rows have the same label"),
        (("--relabel", "unknown.csv"), "unknown.csv: entry 1 has an unknown label: expected high or low"),
        (("--relabel", "cells.csv"), "entry 1 has 3 cells: expected an id and a label"),
        (("--relabel", "every.csv"), "all rows have the same label"),
        (("--columns", "size"), "no column is called 'size'"),
        (("--columns", "age,city"), "the request removes every column"),
        (("--columns", "city", "--from", "after-first"), "was removed before"),
        (("--replace", "age"), "--replace 'age': expected COLUMN=VALUE"),
        (("--replace", "age=old"), "--replace age: expected a number, got 'old'"),
        (("--replace", "city=Rome"), "--replace city: 'Rome' is not one of its values; expected one of 'Bern'"),
        (("--replace", "size=1"), "--replace: no column is called 'size'"),
        (("--replace", "age=0", "--where", "age"), "--where 'age': expected a column, < <= > >= = or !=, and a value"),
        (("--replace", "age=0", "--where", "city<Bern"), "compare with = or != only"),
        (("--replace", "age=0", "--where", "age>1000"), "no training row is so"),
        (("--where", "age<18"), "--where says in which rows --replace puts a value"),
        (("--canary", "canary-01"), "--canary canary-01: no canary is called so"),
        (("--from", "after-nothing"), "has no model 'after-nothing' to start from"),
        (("--name", "First!"), "invalid name"),
        (("--name", "first", "--columns", "age"), "already has an unlearning 'first': use --force"),
        ((), "nothing to unlearn: give --columns"),
        (("--method", "sisa"), "--method: "),
        (("--samples", "500"), "--samples is for runs on text, not on a table"),
        (("--scope", "both"), "--scope is for runs on text, not on a table"),
    ],
    ids=lambda own: " ".join(own) if isinstance(own, tuple) else "",
)
def test_a_request_that_cannot_be_carried_out(arguments: tuple[str, ...], expected: str) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text, "utf-8")
    usage = ("--replace 'age'", "--where '", "--where says", "--name", "invalid", "--method", "is for runs")
    status = 2 if expected.startswith(usage) or "is for runs" in expected or arguments[:1] == ("--where",) else 1
    refuse(status, expected, "unlearn", "RUN", *arguments)


def test_a_message_names_no_id() -> None:
    Path("ids.txt").write_text("secret.person@example.org\n", "utf-8")
    result = canaryaudit("unlearn", "RUN", "--rows", "ids.txt")
    assert "secret.person" not in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("insert", "people.csv", "--flip-labels", "20"),
            "--flip-labels is for runs on tables and images: name",
        ),
        (("insert", "people.csv", "--target", "income", "-t", "x {digits:3}"), "--template is for runs on text"),
        (("train", "RUN", "--size", "paper"), "--size is for runs on text, not on a table"),
        (("measure", "RUN", "--probes", "none"), "--probes is for runs on text, not on a table"),
        (("report", "RUN", "--fail-above", "3"), "--fail-above is for runs on text, not on a table"),
        (("report", "RUN", "--certify", "0.1"), "--certify 0.1: expected EPSILON,DELTA"),
        (("publish", "RUN", "--certify", "0.1,2", "-o", "x.skops"), "--certify 0.1,2: expected an epsilon above 0"),
        (("publish", "RUN", "--certify", "0.1,1e-5", "-o", "RUN/x.skops"), "is in the run directory"),
        (("report", "RUN", "--format", "model-card"), "--format"),
    ],
)
def test_flags_of_the_other_kind_of_run(arguments: tuple[str, ...], expected: str) -> None:
    refuse(2, expected, *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("attack", "RUN"), "is a run on a table, and this takes a run on text"),
        (("report", "RUN", "--against", "magic"), "no method is called 'magic'"),
        (("insert", "sea.txt", "-o", "RUN"), "is a run on a table, and this takes a run on text"),
        (("train", "RUN", "--force", "--model", "people.csv"), "not an estimator in a skops file"),
        (("train", "RUN", "--force", "--model", "no.skops"), "--model no.skops: no such file"),
        (("insert", "nowhere.csv", "--target", "y"), "no such table: nowhere.csv"),
        (("insert", ".", "--target", "y"), "without a saved data set"),
        (("insert", "RUN/model.json", "--target", "y"), "is no table that can be read"),
    ],
)
def test_other_mistakes(arguments: tuple[str, ...], expected: str) -> None:
    if "--model" in arguments:
        pytest.importorskip("skops.io")
    refuse(1, expected, *arguments)


def test_flags_of_tables_on_a_run_on_text() -> None:
    succeed("insert", "sea.txt", "-o", "TEXT", "-t", "The code is {digits:3}.", "-n", "2", "-r", "1", "--controls", "4")
    refuse(2, "--columns is for runs on tables, not on text", "unlearn", "TEXT", "--columns", "age")
    refuse(2, "--loss is for runs on tables, not on text", "train", "TEXT", "--loss", "logistic")
    refuse(1, "TEXT is a run on text, and this takes a run on a table", "report", "TEXT", "RUN")
    refuse(2, "--fail-residual is for runs on tables", "report", "TEXT", "--fail-residual", "1e-6")


def test_an_interrupted_insertion_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("canaryaudit.runs.rows_directory.arrays_bytes", fail)
    result = canaryaudit(*INSERT)
    assert result.status == 1
    assert "no space left" in result.complaint
    assert not Path("RUN2").exists()


def test_without_scikit_learn_a_line_says_how_to_install_it() -> None:
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from canaryaudit.cli.main import run_command\n"
        f"sys.exit(run_command({[*INSERT]!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**PROCESS}, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "canaryaudit: tables need scikit-learn: pip install 'canaryaudit[tabular]'\n"
    assert not Path("RUN2").exists()


@pytest.mark.parametrize("flag", ["--id", "--names"])
def test_an_empty_name_is_refused_and_not_left_out(flag: str) -> None:
    result = canaryaudit(*INSERT, flag, "")
    assert (result.status, result.complaint) == (2, f"{flag}: expected at least 1 character, got none")
    assert not Path("RUN2").exists()
