"""Data as people have it: each shape gives its documents, or a refusal that says what to do."""

import email.message
import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from canaryaudit.corpus.corpus import read_corpus
from canaryaudit.corpus.csv_dialect import sniff_header
from canaryaudit.corpus.json_rows import MAX_DEPTH
from canaryaudit.corpus.sources import open_source
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings

SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"


def read(source: object, **reading: object) -> tuple[list[str], str, str]:
    """Return documents, what the source was taken for, and what was left out."""
    opened = open_source(source, ReadingSettings.model_validate(reading))
    documents = ["".join(own) for own in opened.documents]
    notes, warnings = opened.account.summary()
    return documents, "; ".join(notes), "; ".join(warnings)


def refused(source: object, **reading: object) -> str:
    with pytest.raises(CorpusError) as caught:
        read(source, **reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    def file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return file


Write = Callable[[str, str | bytes], str]


def lines_of(*records: object) -> str:
    return "".join(json.dumps(own) + "\n" for own in records)


# --- delimited files ------------------------------------------------------------------------------------


def test_a_first_row_that_is_data_is_kept(write: Write) -> None:
    path = write("calls.csv", "".join(f"{n},call me at 0170 55501{n:02}.\n" for n in range(1, 30)))
    documents, taken, _ = read(path)
    assert documents == [f"call me at 0170 55501{n:02}." for n in range(1, 30)]
    assert taken == "calls.csv: cut at every comma, no header, text from column 2 (of 1, 2)"


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "vertical bar"), (",", "comma")]
)
def test_the_delimiter_is_found_and_said(write: Write, delimiter: str, name: str) -> None:
    rows = "".join(f'{n}{delimiter}"A note, number {n}; it is | long,\nand goes on."\n' for n in range(9))
    documents, taken, _ = read(write("notes.csv", f"id{delimiter}text\n{rows}"))
    assert documents[3] == "A note, number 3; it is | long,\nand goes on."
    assert taken == f"notes.csv: cut at every {name}, first row is the header, text from column text (of id, text)"


def test_quotation_marks_behind_a_backslash(write: Write) -> None:
    path = write("say.csv", 'id,text\n1,"He said \\"yes\\", and went."\n2,"C:\\\\new, ""old"""\n')
    documents, taken, _ = read(path)
    assert documents == ['He said "yes", and went.', 'C:\\new, "old"']
    assert '\\" for quotation marks' in taken
    assert "is not valid csv" in refused(path, escape="doubled")


def test_a_backslash_before_a_closing_quotation_mark_is_no_escape(write: Write) -> None:
    documents, _, _ = read(write("paths.csv", 'id,text\n1,"C:\\temp\\"\n2,"D:\\a, b\\"\n'))
    assert documents == ["C:\\temp\\", "D:\\a, b\\"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
def test_a_german_spreadsheet(write: Write, encoding: str) -> None:
    text = 'sep=;\nNr;Kunde;Betrag;Notiz\n007;Müller;1.234,50 €;"Zahlt später, sagt er"\n008;Weiß;12,00 €;Größe L\n'
    text = text.replace("\n", "\r\n")
    path = write("export.csv", text.encode(encoding))
    reading = {"column": "Notiz"} | ({"encoding": "cp1252"} if encoding == "cp1252" else {})
    documents, taken, _ = read(path, **reading)
    assert documents == ["Zahlt später, sagt er", "Größe L"]
    assert "cut at every semicolon, first row is the header" in taken
    assert read(path, **reading | {"column": ("Nr", "Betrag")})[0] == ["007\n\n1.234,50 €", "008\n\n12,00 €"]
    if encoding == "cp1252":
        assert "not UTF-8 at byte 35: give its encoding, for instance --encoding windows-1252" in refused(path)


def test_decimal_commas_are_no_delimiters(write: Write) -> None:
    path = write("prices.csv", "".join(f"{n};{n},50\n" for n in range(9)))
    documents, taken, _ = read(path, column="2")
    assert documents == [f"{n},50" for n in range(9)]
    assert "every semicolon" in taken


def test_several_columns_are_one_document_in_the_order_given(write: Write) -> None:
    path = write("two.csv", "title,body\nOne,first\nTwo,\n,third\n,\n")
    documents, _, warnings = read(path, column=("body", "title"))
    assert documents == ["first\n\nOne", "Two", "third"]
    assert "two.csv: 2 of 4 rows have no text in body" in warnings
    assert "two.csv: skipped 1 of 4 rows, which have no text (null" in warnings
    assert "choose with --column among title, body; several are read if --column is repeated" in refused(path)
    assert "has no column 'bodi': choose with --column among title, body" in refused(path, column="bodi")


def test_columns_of_the_same_name_are_chosen_by_number(write: Write) -> None:
    path = write("twice.csv", "id,text,text\n1,left,right\n2,port,starboard\n")
    assert "2 columns called 'text': choose by number with --column, 2 and 3" in refused(path)
    assert read(path, column="3")[0] == ["right", "starboard"]
    assert read(path, column=("3", "2"))[0] == ["right\n\nleft", "starboard\n\nport"]


@pytest.mark.parametrize(
    ("content", "flags"),
    [
        ("Ann\nBob\nCid\n", "--header or --no-header"),
        ("a b;c,d\ne f;g,h\n", "--delimiter"),
        ("text\na,b\nc,d\n", "--delimiter"),
        ('text\n"a\nb\n', "--delimiter and --escape"),
        ("2019,2020\nsome,1\nother,2\n", "--header or --no-header"),
    ],
)
def test_what_is_not_certain_is_asked(write: Write, content: str, flags: str) -> None:
    message = refused(write("x.csv", content))
    assert flags in message
    assert "Ann" not in message


def test_the_user_decides_what_is_not_certain(write: Write) -> None:
    path = write("x.csv", "Ann\nBob\nCid\n")
    assert read(path, header=True)[0] == ["Bob", "Cid"]
    assert read(path, header=False)[0] == ["Ann", "Bob", "Cid"]
    path = write("y.csv", "a b;c,d\ne f;g,h\n")
    assert read(path, delimiter="semicolon", header=False, column="2")[0] == ["c,d", "g,h"]


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        ([["text"], ["0042"], ["0043"]], True),
        ([["0041"], ["0042"], ["0043"]], False),
        ([["datum", "wert"], ["01.02.2024", "3,5"]], True),
        ([["What do you like?", "Wann"], ["Ships", "2024-01-02"]], True),
        ([["comment"], ["I like the ships."], ["I do not."]], True),
        ([["Anmerkung"], ["Die Schiffe sind alt."], ["Der Hafen ist weit."]], True),
        ([["I like the harbor, and the ships in it."], ["I do not."]], False),
        ([["flag"], ["true"], ["False"]], True),
        ([["x", "5"], ["y", "6"]], False),
        ([["ab", "cd"], ["ef", "gh"]], None),
        ([["n/a", "5"], ["7", "6"]], None),
    ],
)
def test_headers(rows: list[list[str]], header: bool | None) -> None:
    assert sniff_header(rows) is header


def test_a_row_of_another_length_is_counted_from_one(write: Write) -> None:
    rows = [f'{n},"a note\nof two lines"\n' for n in range(40_000)]
    rows[30_000] = "1,2,3\n"
    message = refused(write("long.csv", "id,text\n" + "".join(rows)))
    assert "row 30001 has 3 cells, others 2, at line 60002" in message


# --- values that are no words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells", [["0381211623", "0402011508"], ["1957-10-28", "1948-05-04"], ["False", "True"], ["1e5", "12,50"]]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_columns_without_words_stay_as_they_are_written(write: Write, cells: list[str], quote: str) -> None:
    delimited = "".join(f"{quote}{own}{quote}\n" for own in ["text", *cells]).replace("12,50", "12.50")
    assert read(write("v.csv", delimited))[0] == [own.replace("12,50", "12.50") for own in cells]
    assert read(write("v.jsonl", lines_of(*({"text": own} for own in cells))))[0] == cells


def test_numbers_of_json_stay_as_they_are_written(write: Write) -> None:
    numbers = ["1.50", "-0", "1E400", "123456789012345678901234567890", "true"]
    rows = "".join(f'{{"text": {own}}}\n' for own in numbers)
    assert read(write("n.jsonl", rows))[0] == numbers
    assert read(write("n.json", f"[{','.join(rows.split(chr(10))[:-1])}]"))[0] == numbers


def test_a_type_may_change_late(write: Write) -> None:
    values = [*range(12_000), "a word", *range(9_000)]
    documents, _, _ = read(write("late.jsonl", lines_of(*({"text": own} for own in values))))
    assert documents == [str(own) for own in values]
    rows = "".join(f"{own}\n" for own in values)
    assert read(write("late.csv", f"text\n{rows}"))[0] == [str(own) for own in values]


# --- records --------------------------------------------------------------------------------------------

CHATS = [
    {"id": "a", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Ahoy!"}]},
    {"id": "b", "messages": []},
    {"id": "c", "messages": [{"role": "assistant", "content": None}, {"role": "user", "content": "Where?\r\nHere?"}]},
]


def test_a_choice_of_columns_comes_with_the_flags_for_all_of_them(write: Write) -> None:
    path = write("kunden.csv", "Nr.;Straße;Notiz vom Tag\n007;am Markt;ruft an\n008;am Wall;schreibt\n")
    with pytest.raises(CorpusError, match="all of them with --column 'Straße' --column 'Notiz vom Tag'"):
        read(path)


def test_the_field_with_most_text_is_named_as_a_shell_takes_it(write: Write) -> None:
    path = write("chat.jsonl", lines_of(*CHATS))
    with pytest.raises(CorpusError, match=r"and most text is in --column 'messages\[\]\.content'"):
        read(path)


def test_chats_are_documents_of_all_their_messages(write: Write) -> None:
    path = write("chat.jsonl", lines_of(*CHATS))
    documents, taken, warnings = read(path, column="messages[].content")
    assert documents == ["Be kind.\n\nAhoy!", "Where?\nHere?"]
    assert taken == "chat.jsonl: text from field messages[].content (of id, messages[].role, messages[].content)"
    assert warnings.startswith("chat.jsonl: skipped 1 item without text in messages[].content (null or missing); ")
    assert "chat.jsonl: skipped 1 of 3 rows, which have no text in messages[].content (null" in warnings
    message = refused(path)
    assert "among id, messages[].role, messages[].content; several are read if --column is repeated" in message
    assert "holds a list in field 'messages': choose with --column among messages[].role" in refused(
        path, column="messages"
    )


def test_roles(write: Write) -> None:
    path = write("chat.jsonl", lines_of(*CHATS))
    documents, _, warnings = read(path, column="messages[].content", role="user")
    assert documents == ["Ahoy!", "Where?\nHere?"]
    assert "left out the items of other roles (1 of system, 1 of assistant)" in warnings
    assert "no text of role pilot: its roles are system, user, assistant" in refused(
        path, column="messages[].content", role="pilot"
    )
    other = write(
        "share.jsonl", lines_of({"conversations": [{"from": "human", "value": "Ahoy"}, {"from": "gpt", "value": "x"}]})
    )
    assert read(other, column="conversations[].value", role=("human",))[0] == ["Ahoy"]
    assert "has no roles in text: drop --role" in refused(write("t.jsonl", lines_of({"text": "a"})), role="user")


def test_a_text_may_stand_where_others_have_a_list_of_parts(write: Write) -> None:
    parts = [{"content": "plain"}, {"content": [{"type": "text", "text": "one"}, {"type": "image"}, {"text": "two"}]}]
    path = write("parts.jsonl", lines_of({"messages": parts}))
    assert read(path, column="messages[].content[].text")[0] == ["plain\n\none\n\ntwo"]
    assert "holds a list in field 'messages[].content': choose with --column among messages[].content[]" in refused(
        path, column="messages[].content"
    )


def test_instructions_and_answers(write: Write) -> None:
    path = write("i.jsonl", lines_of({"instruction": "Go.", "output": "Gone."}, {"instruction": "Stay.", "output": ""}))
    documents, _, warnings = read(path, column=("instruction", "output"))
    assert documents == ["Go.\n\nGone.", "Stay."]
    assert warnings == "i.jsonl: 1 of 2 rows have no text in output"
    assert "among instruction, output" in refused(path)


def test_nulls_missing_fields_and_blank_texts_are_skipped_and_counted(write: Write) -> None:
    path = write("n.jsonl", lines_of({"text": None}, {"text": "one"}, {}, {"text": " \n"}, {"text": "two"}))
    documents, _, warnings = read(path)
    assert documents == ["one", "two"]
    assert "n.jsonl: skipped 3 of 5 rows, which have no text in text" in warnings
    assert read_corpus(path).warnings == (warnings,)
    assert "has no text in text" in refused(write("none.jsonl", lines_of({"text": None, "a": "b"})))


def test_a_name_with_dots_is_a_name(write: Write) -> None:
    assert read(write("d.jsonl", lines_of({"a.b": "c", "a": {"b": "d"}})), column="a.b")[0] == ["c"]
    assert read(write("e.jsonl", lines_of({"a": {"b": "d"}})), column="a.b")[0] == ["d"]
    assert "expected a name or a path" in refused(write("f.jsonl", lines_of({"a": "d"})), column="a[].")


def test_identifiers_are_not_taken_for_the_text_of_nested_records(write: Write) -> None:
    assert "choose with --column among id, turns[].words" in refused(
        write("x.jsonl", lines_of({"id": "abc", "turns": [{"words": "Ahoy"}]}))
    )


def test_a_field_given_twice_in_a_record_is_refused(write: Write) -> None:
    path = write("twice.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n')
    assert "not valid jsonl (line 2: a record has two fields of the same name)" in refused(path)


def test_a_lone_surrogate_is_named_by_its_row(write: Write) -> None:
    path = write("s.jsonl", '{"text": "fine \\ud83d\\ude00"}\n\n{"text": "half \\ud83d"}\n')
    message = refused(path)
    assert message.startswith("row 3 of s.jsonl holds half of a character in field 'text' (the lone surrogate \\ud83d)")
    assert "replace it by \\ufffd" in message
    assert read(write("t.jsonl", '{"text": "half \\ufffd"}\n'))[0] == ["half \ufffd"]


@pytest.mark.parametrize("name", ["deep.jsonl", "deep.json"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_deep_nesting_is_one_line(write: Write, name: str, depth: int, brackets: str) -> None:
    inner = "[" * depth + "]" * depth if brackets == "[]" else '{"a":' * depth + "1" + "}" * depth
    message = refused(write(name, f'{{"text": {inner}}}\n'))
    assert "row 1 of" in message
    assert len(message) < 400


def test_brackets_in_strings_are_no_nesting(write: Write) -> None:
    text = "[" * 5_000 + '"{' * 5_000
    assert read(write("b.jsonl", lines_of({"text": text})))[0] == [text]


def test_json_in_all_layouts(write: Write) -> None:
    records = [{"text": f"number {n}", "n": [{"m": n}]} for n in range(3)]
    for layout in (
        json.dumps(records),
        json.dumps(records, indent=2),
        lines_of(*records),
        "".join(json.dumps(own, indent=1) + "\n" for own in records),
    ):
        assert read(write("a.json", layout), column="text")[0] == ["number 0", "number 1", "number 2"]
    assert read(write("one.json", json.dumps({"chats": records})), column="chats[].text")[0] == [
        "number 0\n\nnumber 1\n\nnumber 2"
    ]
    for broken in ('[{"text": "a"}', '[{"text": "a"} {"text": "b"}]', '[{"text": "a"}] x', '[{"text": "a"},]'):
        assert "is not valid json" in refused(write("b.json", broken)), broken
    assert "row 2 of b.json is not a record" in refused(write("b.json", '[{"text": "a"}, [1]]'))
    assert "is empty" in refused(write("b.json", "[ ]"))


# --- other files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_the_advice_for_other_encodings_works(write: Write, encoding: str) -> None:
    path = write("wide.txt", "größer\n\n😀".encode(encoding))
    message = refused(path)
    assert f"wide.txt is {encoding.upper()}: add --encoding {encoding}" in message
    assert read(path, encoding=encoding)[0] == ["größer\n\n😀"]
    bare = write("bare.txt", "ahoy, ship".encode(f"{encoding}-le"))
    assert refused(bare).endswith(f"add --encoding {encoding}-le")
    assert read(bare, encoding=f"{encoding}-le")[0] == ["ahoy, ship"]


@pytest.mark.parametrize("encoding", ["nope", "rot13", "base64", "", "undefined"])
def test_encodings_that_are_none(write: Write, encoding: str) -> None:
    message = refused(write("a.txt", "a"), encoding=encoding or "hex")
    assert "unknown encoding" in message or "is not undefined" in message


def test_compressed_files_of_rows(write: Write) -> None:
    assert read(write("a.jsonl.gz", gzip.compress(lines_of({"text": "one"}).encode())))[0] == ["one"]
    assert "not valid gzip" in refused(write("b.txt.gz", gzip.compress(b"one two three" * 9)[:-9]))
    assert "not valid zstd" in refused(write("c.txt.zst", b"\x28\xb5\x2f\xfd and more"))


def test_a_folder_is_read_in_the_order_of_its_names_and_says_what_it_skips(write: Write, tmp_path: Path) -> None:
    for name, content in {
        "logs/b.log": "two",
        "logs/a/z.txt": "one",
        "logs/c.log.1": "three",
        "logs/d.log.2024-01-01.gz": gzip.compress(b"four"),
        "logs/messages": "five",
        "logs/rows.jsonl": lines_of({"text": "six"}, {"text": "seven"}),
        "logs/picture.png": "\0",
        "logs/empty.log": "",
        "logs/.hidden.txt": "no",
        "logs/run/manifest.json": "{}",
        "logs/run/canaries.json": "{}",
    }.items():
        write(name, content)
    (tmp_path / "logs" / "loop").symlink_to(tmp_path / "logs")
    documents, taken, warnings = read(tmp_path / "logs")
    assert documents == ["one", "two", "three", "four", "five", "six", "seven"]
    assert taken.startswith("6 files, from")
    assert warnings.endswith("skipped 2 of 8 files (1 .png, 1 empty)")
    assert read(str(tmp_path / "logs" / "*.log*"))[0] == ["two", "three", "four"]
    assert read(str(tmp_path / "**" / "*.txt"))[0] == ["one"]
    assert "no file matches" in refused(str(tmp_path / "*.none"))
    assert "is a run directory" in refused(tmp_path / "logs" / "run")
    assert "1 .png" in refused(str(tmp_path / "logs" / "*.png"))


def test_links_in_a_folder_repeat_no_file_and_hide_none(write: Write, tmp_path: Path) -> None:
    write("logs/b.log", "one")
    (tmp_path / "logs" / "a.log").symlink_to("b.log")
    (tmp_path / "logs" / "gone.log").symlink_to("nothing.log")
    os.mkfifo(tmp_path / "logs" / "pipe.log")
    for source in (tmp_path / "logs", str(tmp_path / "logs" / "*.log")):
        documents, taken, warnings = read(source)
        assert documents == ["one"]
        assert taken.startswith(str(tmp_path / "logs" / "b.log"))
        assert warnings.endswith("skipped 2 of 3 files (1 broken link, 1 no regular file)")


def test_a_file_without_an_ending_is_plain_text_unless_it_looks_like_records(write: Write) -> None:
    assert read(write("NOTES", "one\n\ntwo"))[0] == ["one\n\ntwo"]
    path = write("records", lines_of({"text": "one"}))
    assert "looks like JSON Lines: add --format jsonl, or --format text" in refused(path)
    assert read(path, format="jsonl")[0] == ["one"]
    assert read(write("page.html", "<p>one"), format="text")[0] == ["<p>one"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(b"one\r\n\r\ntwo")
    assert read("-")[0] == ["one\n\ntwo"]
    given(b"id;text\n1;one\n2;two\n")
    assert read("-", format="csv")[0] == ["one", "two"]
    given(gzip.compress(b"one"))
    assert "standard input is compressed (gzip)" in refused("-")
    given(b"")
    with pytest.raises(CorpusError, match="is empty"):
        read_corpus("-")


def test_mail(write: Write) -> None:
    first = email.message.EmailMessage()
    first["From"], first["To"], first["Subject"] = "Zoë <zoe@example.org>", "yan@example.org", "Straße 5"
    first.set_content("Hello,\n\nFrom here on it is öde.\n")
    first.add_alternative("<p>Hello</p>", subtype="html")
    first.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="x.bin")
    second = email.message.EmailMessage()
    second["Subject"] = "Page"
    second.set_content("<head><title>T</title></head><body><p>One&amp;<b>two</b></p>three</body>", subtype="html")
    expected = [
        "From: Zoë <zoe@example.org>\nTo: yan@example.org\nSubject: Straße 5\n\nHello,\n\nFrom here on it is öde.\n",
        "Subject: Page\n\nOne&two\nthree",
    ]
    documents, _, warnings = read(write("a.eml", first.as_bytes()))
    assert documents == expected[:1]
    assert warnings == "left out 1 attachment"
    box = b"".join(
        b"From MAILER Thu Jan  1 00:00:00 1970\n" + own.as_bytes().replace(b"\nFrom here", b"\n>From here") + b"\n"
        for own in (first, second)
    )
    documents, taken, _ = read(write("b.mbox", box))
    assert documents == expected
    assert "2 messages" in taken
    assert "holds no message" in refused(write("c.mbox", "words\n"))
    odd = f"Date: Mon, 1 Jan {'9' * 30} 10:00:00 +0000\nSubject: odd\n\nbody"
    assert read(write("d.eml", odd))[0] == [f"Subject: odd\nDate: Mon, 1 Jan {'9' * 30} 10:00:00 +0000\n\nbody"]


PARTS = {
    "a page and a plain footer": ("mixed", [("html", "<p>Call 555"), ("plain", "Sent from here")]),
    "a page whose plain text is blank": ("alternative", [("plain", " \n"), ("html", "<p>Call 555")]),
    "another text": ("mixed", [("plain", "Hi"), ("calendar", "SUMMARY:Call 555")]),
    "a page's cells": ("mixed", [("html", "<table><tr><td>Call</td><td>555</td></tr></table>")]),
    "a page whose head is not closed": ("mixed", [("html", "<html><head><title>T</title><body>Call 555")]),
    "a forwarded message": ("mixed", [("plain", "Hi"), ("rfc822", "Subject: b\n\nCall 555")]),
}


@pytest.mark.parametrize("case", PARTS)
def test_no_text_of_a_message_is_left_out(write: Write, case: str) -> None:
    kind, parts = PARTS[case]
    inner = "".join(
        f"--B\nContent-Type: {'message' if own == 'rfc822' else 'text'}/{own}\n\n{text}\n" for own, text in parts
    )
    documents, _, warnings = read(write("a.eml", f"Content-Type: multipart/{kind}; boundary=B\n\n{inner}--B--\n"))
    assert "Call 555" in documents[0]
    assert "<" not in documents[0]
    assert not warnings
    broken = f"Content-Type: multipart/{kind}; boundary=C\n\n{inner}--B--\n"
    assert "555" in read(write("b.eml", broken))[0][0]


@pytest.mark.parametrize("repeated", ["flat", "nested"])
def test_parquet_that_expands_is_read_in_bounded_batches(tmp_path: Path, repeated: str) -> None:
    """A few kilobytes that stand for a gigabyte or more: only what is read is ever in memory."""
    path = tmp_path / "bomb.parquet"
    long = "x" * 20_000
    if repeated == "flat":
        texts = pyarrow.DictionaryArray.from_arrays(
            pyarrow.array([0] * 300_000, pyarrow.int32()), pyarrow.array([long])
        )
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    else:
        table = pyarrow.table({"text": [[long] * 5] * 200})
        with pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd") as writer:
            for _ in range(50):
                writer.write_table(table)
    assert path.stat().st_size < 50_000
    before = peak = pyarrow.total_allocated_bytes()
    documents = open_source(path, ReadingSettings(column="text" if repeated == "flat" else "text[]")).documents
    for _, document in zip(range(3_000), documents, strict=False):
        assert len("".join(document)) >= len(long)
        peak = max(peak, pyarrow.total_allocated_bytes())
    assert peak - before < 64_000_000


def test_parquet_columns_of_all_types(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pyarrow.table(
        {"n": [7, None], "b": [True, False], "x": [b"raw", b"bytes"], "m": [[{"role": "user", "content": "Ahoy"}], []]}
    )
    pyarrow.parquet.write_table(table, path)
    assert read(path, column=("n", "b", "x", "m[].content"))[0] == ["7\n\ntrue\n\nraw\n\nAhoy", "false\n\nbytes"]
    assert "holds a list in field 'm': choose with --column among m[].role, m[].content" in refused(path)


# --- Python objects -------------------------------------------------------------------------------------


def test_frames_series_and_data_sets() -> None:
    datasets = pytest.importorskip("datasets")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3], "note": ["one", None, "three"]}, index=[9, 9, 9])
    documents, taken, warnings = read(frame)
    assert documents == ["one", "three"]
    assert taken == "DataFrame: text from column note (of n, note)"
    assert "skipped 1 of 3 rows" in warnings
    assert read(frame, column=("n", "note"))[0] == ["1\n\none", "2", "3\n\nthree"]
    assert read(frame["note"])[0] == ["one", "three"]
    chats = pandas.DataFrame({"messages": [own["messages"] for own in CHATS]})
    assert read(chats, column="messages[].content", role="user")[0] == ["Ahoy!", "Where?\nHere?"]
    data = datasets.Dataset.from_dict({"text": ["one", "two"], "n": [1, 2]})
    assert read(data)[0] == ["one", "two"]
    assert read(data.select([1]))[0] == ["two"]
    assert "splits train, test: give one, such as data['train']" in refused(datasets.DatasetDict(train=data, test=data))
    assert read(data.to_iterable_dataset())[0] == ["one", "two"]
    assert read(pyarrow.table({"text": ["one"]}))[0] == ["one"]


def test_iterables_of_texts_and_records() -> None:
    assert read(text for text in ("one", "two"))[0] == ["one", "two"]
    assert read([{"a": "one"}, {"a": "two"}])[0] == ["one", "two"]
    assert "is empty" in refused([])
    assert "row 1 of list is not a record" in refused([5])
    assert "cannot read a corpus from a int" in refused(5)
    assert "cannot read a corpus from a bytes" in refused(b"text")


def test_a_saved_data_set_of_several_splits_names_them(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict({"text": ["one"]})
    datasets.DatasetDict(train=data, test=data).save_to_disk(str(tmp_path / "all"))
    assert f"has the splits test, train: choose one, such as {tmp_path / 'all' / 'test'}" in refused(tmp_path / "all")
    assert read(tmp_path / "all" / "train")[0] == ["one"]


def test_types_that_the_hubs_readers_guessed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("text\n007\n008\n", "utf-8")
    assert "holds a value of type int in field 'text', whose text may have been another" in refused(
        f"hub:{tmp_path / 'set'}"
    )


# --- the files that were reported -----------------------------------------------------------------------

REPORTED: Mapping[str, tuple[dict[str, object], int]] = {
    "nohead2.csv": ({}, 449),
    "phone.csv": ({}, 3000),
    "quotednum.csv": ({}, 2000),
    "dates.jsonl": ({}, 2000),
    "bool.csv": ({}, 1000),
    "two.csv": ({"column": ("title", "body")}, 398),
    "chat.jsonl": ({"column": "messages[].content"}, 398),
    "instr.jsonl": ({"column": ("instruction", "output")}, 398),
    "null.jsonl": ({}, 318),
    "semi.csv": ({}, 398),
    "semi2.csv": ({}, 300),
    "utf32.txt": ({"encoding": "utf-32"}, 1),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reported files are not here")
@pytest.mark.parametrize("name", REPORTED)
def test_reported_files(name: str) -> None:
    reading, number = REPORTED[name]
    assert read_corpus(SHARED / name, ReadingSettings.model_validate(reading)).num_documents == number
