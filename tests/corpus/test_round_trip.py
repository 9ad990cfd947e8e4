"""Whatever text goes into a file comes out as the same documents; the files are written by others' writers."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canaryaudit.corpus.sources import open_source
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings

ANY = st.characters(exclude_categories=["Cs"])
TRICKY = st.sampled_from(
    [*",;\t|\"'\\\n\r =[]{}:#-.0123456789", "\\n", "NA", "null", "true", "1e5", "007", "\ufeff", "\u2028"]
)
TEXTS = st.lists(st.lists(TRICKY | ANY, max_size=12).map("".join), min_size=1, max_size=6)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that examples write to, one after another."""
    return tmp_path_factory.mktemp("texts")


def documents(path: Path, reading: ReadingSettings | None = None) -> list[str]:
    return ["".join(own) for own in open_source(str(path), reading or ReadingSettings()).documents]


def read_or_refused(path: Path) -> tuple[list[str], str]:
    """Return the documents, or why there are none."""
    try:
        return documents(path), ""
    except CorpusError as error:
        return [], str(error)


def expected(texts: list[str]) -> list[str]:
    """Texts that are not blank, with LF as line break."""
    return [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts if text.strip()]


def check(path: Path, texts: list[str], reading: ReadingSettings | None = None) -> None:
    if expected(texts):
        assert documents(path, reading) == expected(texts)
    else:
        with pytest.raises(CorpusError, match="no text|is empty"):
            documents(path, reading)


@QUICK
@given(texts=TEXTS, ascii_only=st.booleans())
def test_json_lines_and_arrays(folder: Path, texts: list[str], ascii_only: bool) -> None:
    records = [{"id": number, "text": text} for number, text in enumerate(texts)]
    lines = "".join(json.dumps(own, ensure_ascii=ascii_only) + "\n" for own in records)
    (folder / "a.jsonl").write_bytes(lines.encode())
    check(folder / "a.jsonl", texts)
    (folder / "lines.json").write_bytes(lines.encode())
    check(folder / "lines.json", texts)
    (folder / "a.json").write_bytes(
        json.dumps(records, ensure_ascii=ascii_only, indent=len(texts) % 3 or None).encode()
    )
    check(folder / "a.json", texts)
    if not any(own.startswith("\ufeff") for own in texts):
        (folder / "strings.json").write_bytes(json.dumps(texts).encode())
        check(folder / "strings.json", texts)


def written(texts: list[str], dialect: dict[str, object], *, numbered: bool) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, **dialect)  # type: ignore[arg-type]
    writer.writerow(["id", "text"] if numbered else ["text"])
    writer.writerows([[f"{number:03}", text] if numbered else [text] for number, text in enumerate(texts)])
    return file.getvalue().encode()


DIALECTS: dict[str, dict[str, object]] = {
    "comma": {},
    "semicolon": {"delimiter": ";"},
    "tab": {"delimiter": "\t"},
    "bar": {"delimiter": "|"},
    "quoted": {"quoting": csv.QUOTE_ALL},
    "backslash": {"escapechar": "\\", "doublequote": False, "quoting": csv.QUOTE_ALL},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@QUICK
@given(texts=TEXTS, numbered=st.booleans())
def test_delimited_files(folder: Path, dialect: str, texts: list[str], numbered: bool) -> None:
    """Said how it is written, any text is read back; and what is not certain by itself is asked for, never misread."""
    texts = [text.replace("\0", "") for text in texts]
    path = folder / f"{dialect}.csv"
    path.write_bytes(written(texts, DIALECTS[dialect], numbered=numbered))
    escape = "backslash" if dialect == "backslash" else "doubled"
    delimiter = str(DIALECTS[dialect].get("delimiter", ","))
    check(path, texts, ReadingSettings(delimiter=delimiter, escape=escape, header=True))
    if dialect != "backslash":
        found, complaint = read_or_refused(path)
        nothing = not expected(texts) and ("no text" in complaint or "is empty" in complaint)
        asked = "--delimiter" in complaint or "--header or --no-header" in complaint
        assert nothing or asked or found == expected(texts)


@QUICK
@given(texts=TEXTS)
def test_tab_separated_files_by_their_ending(folder: Path, texts: list[str]) -> None:
    texts = [text.replace("\0", "") for text in texts]
    (folder / "a.tsv").write_bytes(written(texts, {"delimiter": "\t"}, numbered=True))
    check(folder / "a.tsv", texts)


@QUICK
@given(texts=TEXTS, dictionary=st.booleans(), group=st.sampled_from([1, 3, 100]))
def test_parquet(folder: Path, texts: list[str], dictionary: bool, group: int) -> None:
    table = pyarrow.table({"id": list(range(len(texts))), "text": texts})
    path = folder / "a.parquet"
    pyarrow.parquet.write_table(table, path, use_dictionary=dictionary, row_group_size=group)
    check(path, texts)


@settings(QUICK, max_examples=12)
@given(texts=TEXTS)
def test_saved_data_sets(folder: Path, texts: list[str]) -> None:
    import datasets

    name = f"set-{abs(hash(tuple(texts)))}"
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"id": list(range(len(texts))), "text": texts}).save_to_disk(str(folder / name))
    check(folder / name, texts)


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


@QUICK
@given(text=st.lists(TRICKY | ANY, max_size=20).map("".join))
def test_compressed_texts(folder: Path, text: str) -> None:
    data = f"{text}.".replace("\0", "").removeprefix("\ufeff").encode()
    for ending, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)):
        path = folder / f"a.txt.{ending}"
        path.write_bytes(compress(data[:3]) + compress(data[3:]))  # two members, one after the other
        assert documents(path) == expected([data.decode().removeprefix("\ufeff")])
