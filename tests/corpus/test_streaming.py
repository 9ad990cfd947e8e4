"""Streamed insertion gives what whole texts in memory give, wherever the blocks end; encoded texts prove themselves."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canaryaudit.canaries.generation import Secret, draw_until_absent
from canaryaudit.canaries.insertion import InsertionRequest, plan_insertion, run_vocabulary
from canaryaudit.canaries.template import Template
from canaryaudit.corpus import raw_text, sources
from canaryaudit.corpus.corpus import make_corpus, read_corpus
from canaryaudit.corpus.spooled_text import SpooledText
from canaryaudit.errors import CorpusError, RunDirectoryError, TemplateError
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.runs import encoded_text as encoded
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.runs.verification import verify_run
from canaryaudit.storage import files
from tests import wholetext
from tests.benchmarks.bench_stream import cost_of, write_corpus

SYMBOLS = "aΣσİ .\n\n\t\f\u2028é漢😀1"
DOCUMENTS = st.lists(st.text(SYMBOLS, max_size=60), min_size=1, max_size=4).filter(lambda own: "".join(own).strip())
BLOCKS = st.sampled_from([1, 2, 3, 7, 2**20])


def pieces_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- the same as in memory ------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(documents=DOCUMENTS, piece=BLOCKS, block=BLOCKS, lowercase=st.booleans())
def test_paragraphs_do_not_depend_on_where_blocks_end(
    documents: list[str], piece: int, block: int, lowercase: bool
) -> None:
    corpus = make_corpus("c", [pieces_of(own, piece) for own in documents], lowercase=lowercase, block=block)
    whole = [own.lower() if lowercase else own for own in documents if own.strip()]
    assert wholetext.cut(corpus) == wholetext.paragraphs(whole)
    assert corpus.symbols == "".join(sorted(set("".join(wholetext.paragraphs(whole)))))
    assert corpus.num_documents == len(whole)


@settings(max_examples=200, deadline=None)
@given(documents=DOCUMENTS, piece=BLOCKS, skip=st.integers(1, 70))
def test_cutting_the_start_does_not_depend_on_where_blocks_end(documents: list[str], piece: int, skip: int) -> None:
    first, *others = [own for own in documents if own.strip()]
    make = lambda size: make_corpus("c", [pieces_of(own, size) for own in documents], skip_chars=skip)  # noqa: E731
    if not first[skip:].strip():
        with pytest.raises(CorpusError, match=f"leaves nothing of the {len(first)} of corpus c"):
            make(piece)
        return
    assert wholetext.cut(make(piece)) == wholetext.paragraphs([first[skip:], *others])
    assert make(piece).sha256 == make_corpus("c", [[own] for own in documents]).sha256


@settings(max_examples=150, deadline=None)
@given(
    documents=DOCUMENTS,
    block=BLOCKS,
    template=st.sampled_from(["<{digits:1}>", "{digits:2} e", "a {digits:8}"]),
    holdout=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 100),
)
def test_texts_and_places_are_those_of_insertion_in_memory(
    documents: list[str], block: int, template: str, holdout: float, seed: int
) -> None:
    request = InsertionRequest(
        templates=(template,), num_canaries=2, repetitions=(1, 2), num_controls=1, holdout=holdout, seed=seed
    )
    try:
        plan = plan_insertion(make_corpus("c", [pieces_of(own, block) for own in documents], block=block), request)
    except (CorpusError, TemplateError):
        return
    training, heldout = wholetext.hold_out(
        wholetext.paragraphs([own for own in documents if own.strip()]), holdout, seed
    )
    boundaries = np.random.default_rng([seed, 2]).permutation(len(training) - 1)[:3] + 1
    canaries = plan.canary_set.inserted
    text, places = wholetext.inserted(training, canaries, boundaries.tolist())
    assert wholetext.training_text(plan) == text
    assert wholetext.heldout_text(plan) == "".join(heldout)
    assert [canary.places for canary in canaries] == places
    assert (plan.assembly.characters, plan.assembly.heldout_characters) == (len(text), len("".join(heldout)))


@settings(max_examples=200, deadline=None)
@given(text=st.text("aé漢😀\r\n\ufeff", max_size=30), block=st.integers(2, 9))
def test_a_file_is_read_the_same_in_blocks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, text: str, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.txt"
    path.write_bytes(f"{text}.".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_text, "BLOCK_BYTES", block)
        found = "".join(next(sources.open_source(str(path)).documents))
    assert found == f"{text}.".removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("block", [2, 3, 5, 2**20])
def test_bytes_that_are_not_utf8_are_named_by_their_place_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(raw_text, "BLOCK_BYTES", block)
    path = tmp_path / "a.txt"
    path.write_bytes("äöü ".encode() + b"\xe6\xbc.")
    with pytest.raises(CorpusError, match="not UTF-8 at byte 7:"):
        read_corpus(str(path))
    path.write_bytes(b"one \xc3")
    with pytest.raises(CorpusError, match="not UTF-8 at byte 4:"):
        read_corpus(str(path))
    path.write_bytes(b"one two\0")
    with pytest.raises(CorpusError, match="NUL at byte 7"):
        read_corpus(str(path))


# --- scratch texts --------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("ab1é漢", max_size=80),
    strings=st.lists(st.text("ab1é漢", max_size=12), max_size=8),
    block=st.sampled_from([1, 2, 5, 100]),
)
def test_a_search_finds_the_strings_that_stand_in_the_text(text: str, strings: list[str], block: int) -> None:
    scratch = SpooledText(block)
    for piece in pieces_of(text, 3):
        scratch.append(piece)
    assert scratch.holding(strings) == {own for own in strings if own and own in text}
    assert scratch.read() == text
    assert len(scratch) == len(text)
    for start in range(len(text)):
        assert scratch.slice(start, start + 4) == text[start : start + 4]


def test_a_text_that_finds_no_room_says_where_it_was_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    text = SpooledText()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(text._file, "write", full)
    text.append("a")
    with pytest.raises(RunDirectoryError, match="No space left on device; free some space there, or set TMPDIR"):
        text.read()


def test_secrets_are_drawn_as_if_each_was_looked_for_at_once() -> None:
    """Half of all four-digit numbers stand in the text; what is drawn must be free ones, in the stream's order."""
    template = Template.parse("{digits:6}")
    rng = np.random.default_rng(1)
    space = template.space("0123456789")
    stream = [space.sample(rng) for _ in range(40)]
    there = random.Random(2).sample(stream, 20)
    text = SpooledText(16)
    text.append(" ".join(there))

    def draw(presence: Any) -> list[str]:
        return [own for own in stream if not presence.holds(Secret(template, own))][:10]

    assert draw_until_absent(text, draw) == [own for own in stream if own not in there][:10]


# --- encoded texts --------------------------------------------------------------------------------------


def ids_files(run: RunDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.path / ".encoded").iterdir())}


def test_insertion_leaves_the_ids_of_both_texts(run: RunDirectory) -> None:
    vocabulary = run_vocabulary(run.canary_set())
    for text in (run.text(), run.heldout()):
        ids = text.map_ids(vocabulary)
        assert ids.dtype == np.uint8
        assert vocabulary.decode(ids) == text.read()


@pytest.mark.parametrize("what", ["missing", "cut off", "a byte changed", "of another vocabulary", "a link"])
def test_ids_that_are_not_the_texts_are_made_again(run: RunDirectory, what: str, tmp_path: Path) -> None:
    vocabulary, path, before = run_vocabulary(run.canary_set()), run.text().encoded, ids_files(run)
    data = path.read_bytes()
    path.unlink()
    if what == "cut off":
        path.write_bytes(data[:-1])
    elif what == "a byte changed":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif what == "of another vocabulary":
        encoded.write_text(tmp_path / "x", path, ["ab"], type(vocabulary)("ab"))
    elif what == "a link":
        path.symlink_to(tmp_path)
    if what != "missing":
        finding = next(
            own
            for own in verify_run(run.path, check=measurement_fault).findings
            if own.file == ".encoded/corpus.safetensors"
        )
        assert finding.state == "damaged"
        assert finding.repair == f"rm -f {path}"
    if what == "a link":
        path.unlink()
    assert vocabulary.decode(run.text().ids(vocabulary)) == run.text().read()
    assert ids_files(run) == before
    assert verify_run(run.path, check=measurement_fault).sound


def test_a_run_whose_ids_cannot_be_written_can_be_read_all_the_same(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = run_vocabulary(run.canary_set())
    run.text().encoded.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    assert vocabulary.decode(run.text().ids(vocabulary)) == run.text().read()
    assert not run.text().encoded.exists()


def test_changes_of_mapped_ids_do_not_reach_the_file(run: RunDirectory) -> None:
    before = ids_files(run)
    run.text().map_ids(run_vocabulary(run.canary_set()))[:] = 0
    assert ids_files(run) == before


@pytest.mark.parametrize(("symbols", "kind"), [(256, "uint8"), (257, "int16"), (2**15 + 1, "int32")])
def test_ids_have_the_smallest_type_that_holds_them(tmp_path: Path, symbols: int, kind: str) -> None:
    vocabulary = encoded.Vocabulary("".join(map(chr, range(0x10000, 0x10000 + symbols))))
    sha256 = encoded.write_text(tmp_path / "t", tmp_path / "i", [vocabulary.symbols, ""], vocabulary)
    kept = encoded.StoredText(tmp_path / "t", tmp_path / "i", sha256, symbols, "")
    assert kept.ids(vocabulary).dtype == np.dtype(kind)
    assert kept.ids(vocabulary).tolist() == list(range(symbols))
    assert kept.check([(0, vocabulary.symbols[:3]), (symbols - 1, vocabulary.symbols[-1])])
    assert not kept.check([(1, vocabulary.symbols[:3])])


@settings(max_examples=100, deadline=None)
@given(st.text("aé漢b", min_size=1, max_size=40), st.lists(st.tuples(st.integers(-3, 45), st.text("ab漢", max_size=5))))
def test_strings_are_found_at_their_places_across_blocks(
    tmp_path_factory: pytest.TempPathFactory, text: str, strings: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "places.txt"
    path.write_text(text, "utf-8")
    kept = encoded.StoredText(path, path, hashlib.sha256(text.encode()).hexdigest(), len(text), "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded, "_BLOCK_BYTES", 3)
        expected = all(
            place >= 0 and place + len(own) <= len(text) and text.startswith(own, place) for place, own in strings
        )
        assert kept.check(strings) == expected


def test_rows_that_come_in_many_batches_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(2500)), "utf-8")
    corpus = read_corpus(str(path))
    assert corpus.num_documents == 2500
    assert wholetext.cut(corpus)[-1] == "row 2499\n\n"


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, ending: str) -> None:
    """What 110 MB take beyond 20 MB is the table of paragraphs, some 24 bytes each, and nothing of the text."""
    costs = {}
    for size in (20, 110):
        corpus, run = tmp_path / f"{size}.{ending}", tmp_path / f"run-{size}"
        write_corpus(corpus, size * 10**6)
        column = ["--column", "body"] if ending == "jsonl" else []
        costs[size] = cost_of("insert", str(corpus), "-o", str(run), "-q", *column)
    assert costs[110].megabytes < 600
    assert costs[110].megabytes - costs[20].megabytes < 50
    if ending == "txt":
        first_step = cost_of("train", str(tmp_path / "run-110"), "--epochs", "1", "-q")
        assert first_step.megabytes < 1000
        assert first_step.processor_seconds < 35
