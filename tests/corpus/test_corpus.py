"""Tests of canaryaudit.corpus.corpus and canaryaudit.corpus.cards."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.corpus.cards import CorpusCard, find_card, known_corpora
from canaryaudit.corpus.corpus import Corpus, ends_with_blank_line, hold_out, read_corpus
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import CorpusError
from canaryaudit.plan import ReadingSettings
from tests import wholetext
from tests.wholetext import corpus_of, cut

REPOSITORY = Path(__file__).resolve().parents[2]
TEXTS = st.text(alphabet=st.sampled_from("ab \n\t."), max_size=60)


def refusal(spec: object, *reading: ReadingSettings, **options: object) -> str:
    with pytest.raises(CorpusError) as caught:
        read_corpus(str(spec), *reading, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def texts_of(corpus: Corpus) -> tuple[str, ...]:
    """Return a corpus's paragraphs without the line breaks after them."""
    return tuple(piece.rstrip("\n") for piece in cut(corpus))


def rows(path: Path, values: list[object]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


# --- symbols ------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_vocabulary_round_trips_any_text(text: str) -> None:
    vocabulary = Vocabulary.of([text])
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64
    assert ids.shape == (len(text),)
    assert len(vocabulary) == len(set(text)) == int(ids.max()) + 1
    assert vocabulary.decode(ids) == text


def test_vocabulary_ids_follow_the_order_of_the_symbols() -> None:
    assert Vocabulary("abz").encode("zab").tolist() == [2, 0, 1]


@pytest.mark.parametrize("stranger", ["c", "€", "\U0001f600", "\0"])
def test_encoding_names_the_character_that_is_not_in_the_vocabulary(stranger: str) -> None:
    with pytest.raises(CorpusError, match=f"U\\+{ord(stranger):04X}.* at index 2 "):
        Vocabulary("abd").encode(f"ab{stranger}d")


@pytest.mark.parametrize("symbols", ["", "ba", "aab"])
def test_vocabulary_refuses_symbols_that_are_not_sorted_and_unique(symbols: str) -> None:
    with pytest.raises(CorpusError, match="sorted"):
        Vocabulary(symbols)


# --- reading ------------------------------------------------------------------------------------------


def test_plain_text_keeps_its_line_breaks_and_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One\n  two\n\n\nthree", "utf-8")
    corpus = read_corpus(str(path))
    assert corpus.text.read() == "One\n  two\n\n\nthree\n\n"
    assert corpus.name == "a.txt"
    assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_byte_order_mark_and_foreign_line_breaks_are_normalized(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\rthree")
    assert read_corpus(str(path)).text.read() == "one\n\ntwo\nthree\n\n"


def test_cutting_and_lower_casing_do_not_change_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("HEAD\n\nThe Body", "utf-8")
    corpus = read_corpus(str(path), lowercase=True, skip_chars=6)
    assert corpus.text.read() == "the body\n\n"
    assert (corpus.lowercase, corpus.skip_chars) == (True, 6)
    assert corpus.sha256 == read_corpus(str(path)).sha256


def test_rows_are_documents_whatever_the_format(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = ["first\n\n  line", 'a "quoted", NA', "NA"]
    records = [{"n": index, "text": text} for index, text in enumerate(texts)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "r.parquet")
    rows(tmp_path / "r.jsonl", list(records))
    (tmp_path / "r.json").write_text(json.dumps(records), "utf-8")
    cells = ['"' + text.replace('"', '""') + '"' for text in texts]
    (tmp_path / "r.csv").write_text("n,text\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)), "utf-8")
    for ending in ("parquet", "jsonl", "json", "csv"):
        corpus = read_corpus(str(tmp_path / f"r.{ending}"))
        assert corpus.text.read() == "".join(f"{text}\n\n" for text in texts), ending
        assert corpus.num_documents == 3


def test_skipping_cuts_the_first_document_only(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"text": "heading one"}, {"text": "heading two"}])
    assert texts_of(read_corpus(str(path), skip_chars=8)) == ("one", "heading two")


def test_blank_rows_are_no_documents(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"text": ""}, {"text": "one"}, {"text": " \n"}])
    assert texts_of(read_corpus(str(path))) == ("one",)


def test_plain_text_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words", "utf-8")
    with pytest.raises(CorpusError, match="a.txt is plain text, which has no columns: drop --column body"):
        read_corpus(str(tmp_path / "a.txt"), ReadingSettings(column="body"))


def test_the_only_column_of_strings_is_the_text(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"n": 1, "body": "one"}, {"n": 2, "body": "two"}])
    assert texts_of(read_corpus(str(path))) == ("one", "two")


def test_the_column_must_be_chosen_where_there_are_several(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"title": "t", "body": "one"}])
    assert "--column among title, body" in refusal(path)
    assert texts_of(read_corpus(str(path), ReadingSettings(column="body"))) == ("one",)
    assert "no field 'boddy': choose with --column among title, body" in refusal(path, ReadingSettings(column="boddy"))


@pytest.mark.parametrize(("value", "kind"), [({"a": "b"}, "a record"), (["b"], "a list")])
def test_a_row_whose_text_is_no_text_is_named(tmp_path: Path, value: object, kind: str) -> None:
    message = refusal(rows(tmp_path / "a.jsonl", [{"text": "one"}, {"text": value}, {"text": "two"}]))
    assert message.startswith(f"row 2 of a.jsonl holds {kind} in field 'text'")


def test_file_names_are_not_patterns(tmp_path: Path) -> None:
    rows(tmp_path / "a1.jsonl", [{"text": "wrong"}])
    assert texts_of(read_corpus(str(rows(tmp_path / "a[1].jsonl", [{"text": "right"}])))) == ("right",)


def test_reading_rows_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    read_corpus(str(rows(tmp_path / "a.jsonl", [{"text": "one"}])))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\n\t", "is empty"),
        ("a.txt", b"caf\xe9 au lait", "not UTF-8 at byte 3"),
        ("a.txt", b"caf\xe9 au lait", "--encoding windows-1252"),
        ("a.txt", b"\xff\xfeh\0i\0", "UTF-16"),
        ("a.txt", b"\x7fELF\0\0", "binary"),
        ("a.csv", b"text\ncaf\xe9\n", "not UTF-8 at byte 8"),
        ("a.pdf", b"%PDF-1.7", "is a PDF: extract its text first"),
        ("a.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
        ("a.dat", b"words", "unknown extension"),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', "not valid jsonl"),
        ("a.csv", b"text,n\na,1\nb,1,2,3\n", "not valid csv"),
        ("a.csv", b"text,n\n", "is empty"),
        ("a.parquet", b"PAR1 and no more", "not valid parquet"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert words in refusal(path)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    assert "no such corpus" in refusal(tmp_path / "none.txt")
    assert "has no file that can be read (it is empty)" in refusal(tmp_path)


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one", "utf-8")

    def denied(_: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied; check the path and its permissions" in refusal(path)


def test_skipping_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("short", "utf-8")
    assert "skipping 5 characters leaves nothing of the 5" in refusal(path, skip_chars=5)
    assert "0 or more" in refusal(path, skip_chars=-1)


# --- hub ----------------------------------------------------------------------------------------------


def test_hub_data_sets_take_a_split_or_their_train_split(tmp_path: Path) -> None:
    directory = tmp_path / "set"
    directory.mkdir()
    rows(directory / "train.jsonl", [{"text": "one"}])
    rows(directory / "test.jsonl", [{"text": "two"}])
    assert texts_of(read_corpus(f"hub:{directory}")) == ("one",)
    corpus = read_corpus(f"hub:{directory}:test")
    assert texts_of(corpus) == ("two",)
    assert corpus.name == f"{directory}:test"
    assert "nope" in refusal(f"hub:{directory}:nope")


def test_hub_splits_are_listed_where_none_is_called_train(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"left": [{"text": "a"}], "right": [{"text": "b"}]})
    assert "splits left, right" in refusal("hub:some/set")


def test_a_missing_network_is_said_in_one_line() -> None:
    message = refusal("hub:some-owner/some-data-set")
    assert message.startswith("cannot read hub:some-owner/some-data-set")
    assert "network" in message


def test_a_hub_id_is_needed() -> None:
    assert "hub:ID" in refusal("hub:")


# --- known corpora ------------------------------------------------------------------------------------


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusCard:
    """A corpus ``tale`` whose text says "Once.", known in an otherwise empty directory."""
    monkeypatch.chdir(tmp_path)
    facts = {
        "name": "tale",
        "title": "A Tale",
        "author": "Unknown",
        "license": "CC0",
        "language": "en",
        "characters": 5,
        "sha256": hashlib.sha256(b"Once.").hexdigest(),
        "source": "the attic",
        "file": "tale.txt",
        "experiment": "--skip-chars 1",
    }
    Path("corpora").mkdir()
    Path("corpora/tale.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in facts.items()), "utf-8")
    return CorpusCard.model_validate(facts)


def test_a_known_corpus_is_read_by_its_name(card: CorpusCard) -> None:
    Path("corpora/tale.txt").write_text("Once.", "utf-8")
    corpus = read_corpus("tale")
    assert texts_of(corpus) == ("Once.",)
    assert (corpus.name, corpus.sha256) == ("tale", card.sha256)


def test_a_directory_of_the_same_name_does_not_hide_a_known_corpus(card: CorpusCard) -> None:
    Path("tale").mkdir()
    Path("corpora/tale.txt").write_text("Once.", "utf-8")
    assert texts_of(read_corpus("tale")) == ("Once.",)


def test_a_known_corpus_that_is_not_shipped_says_what_to_get_and_how_to_go_on(card: CorpusCard) -> None:
    message = refusal("tale")
    assert "the attic" in message
    assert "save it as corpora/tale.txt" in message
    assert "canaryaudit insert tale --skip-chars 1 -o RUN" in message


def test_a_known_corpus_with_another_text_is_refused(card: CorpusCard) -> None:
    Path("corpora/tale.txt").write_text("Twice.", "utf-8")
    assert "is not the text that the card" in refusal("tale")


def test_an_unknown_name_lists_the_known_corpora(card: CorpusCard) -> None:
    assert "tale" in known_corpora()
    assert ", ".join(known_corpora()) in refusal("tail")


def test_a_damaged_card_is_refused(card: CorpusCard) -> None:
    Path("corpora/tale.toml").write_text("name = tale", "utf-8")
    assert "card corpora/tale.toml is damaged" in refusal("tale")


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("corpora/*.toml")), ids=lambda path: path.stem)
def test_shipped_cards_agree_with_their_names_and_texts(path: Path) -> None:
    card = find_card(path.stem)
    assert card is not None
    assert card.name == path.stem
    text = path.with_name(card.file)
    if text.exists():
        corpus = read_corpus(card.name)
        assert card.sha256 == corpus.sha256 == hashlib.sha256(text.read_bytes()).hexdigest()
        assert card.characters == len(text.read_text("utf-8"))


# --- paragraphs ---------------------------------------------------------------------------------------


def pieces_of(documents: list[str]) -> tuple[str, ...]:
    return cut(corpus_of("c", documents))


def test_paragraphs_end_after_blank_lines_and_begin_with_their_indentation() -> None:
    text = "\nHEAD\n\n\n\n  One\ntwo.\n \t\n  Three.\n"
    assert pieces_of([text]) == ("\nHEAD\n\n\n\n", "  One\ntwo.\n \t\n", "  Three.\n\n")


def test_lines_are_paragraphs_where_there_are_no_blank_lines() -> None:
    assert pieces_of(["one\n two\nthree"]) == ("one\n", " two\n", "three\n\n")


def test_documents_never_run_into_each_other() -> None:
    assert pieces_of(["one", "two\n", "three\n\nfour\n\n"]) == ("one\n\n", "two\n\n", "three\n\n", "four\n\n")


@given(TEXTS.filter(str.strip))
def test_paragraphs_put_together_are_the_text_ended_with_a_blank_line(text: str) -> None:
    pieces = pieces_of([text])
    whole = "".join(pieces)
    assert whole.startswith(text)
    assert set(whole[len(text) :]) <= {"\n"}
    assert ends_with_blank_line(whole)
    assert whole == text or not ends_with_blank_line(text)
    assert all(piece.strip() and piece.endswith("\n") for piece in pieces)


@given(st.lists(TEXTS.filter(str.strip), min_size=1, max_size=4))
def test_paragraphs_do_not_depend_on_the_other_documents(documents: list[str]) -> None:
    assert pieces_of(documents) == tuple(piece for document in documents for piece in pieces_of([document]))


def test_a_long_line_is_cut_in_linear_time() -> None:
    assert len(pieces_of(["x" * 10_000_000])) == 1
    assert len(pieces_of(["x\n" + " " * 1_000_000 + "y"])) == 2


# --- held-out part ------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 20), min_size=2, max_size=30).map(np.array)


@given(LENGTHS, st.floats(0.001, 0.999), st.integers(0, 2**32))
def test_something_is_held_out_and_something_is_left(lengths: np.ndarray, share: float, seed: int) -> None:
    held = hold_out(lengths, share, seed)
    assert held.shape == lengths.shape
    assert held.any()
    assert not held.all()


@given(LENGTHS, st.floats(0.001, 0.999), st.integers(0, 2**32), st.sets(st.integers(0, 29), max_size=3))
def test_paragraphs_are_held_out_as_if_one_after_another(
    lengths: np.ndarray, share: float, seed: int, keep: set[int]
) -> None:
    if keep >= set(range(len(lengths))):
        return
    pieces = [chr(0x4E00 + number) * length for number, length in enumerate(lengths.tolist())]
    _, heldout = wholetext.hold_out(pieces, share, seed, keep)
    held = hold_out(lengths, share, seed, keep)
    assert tuple(piece for piece, out in zip(pieces, held, strict=True) if out) == heldout


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_held_out_share_is_reached_and_not_exceeded_by_more_than_a_paragraph(share: float) -> None:
    lengths = np.array([random.Random(number).randint(10, 60) for number in range(400)])
    held = lengths[hold_out(lengths, share, seed=3)].sum()
    assert share * lengths.sum() <= held < share * lengths.sum() + 60


def test_a_giant_paragraph_is_not_held_out() -> None:
    lengths = np.array([100_000, *[100] * 100])
    for seed in range(20):
        assert lengths[hold_out(lengths, 0.05, seed)].sum() < 10_000


def test_the_seed_decides_what_is_held_out() -> None:
    lengths = np.full(100, 12)
    assert hold_out(lengths, 0.1, 1).tolist() == hold_out(lengths, 0.1, 1).tolist()
    assert hold_out(lengths, 0.1, 1).tolist() != hold_out(lengths, 0.1, 2).tolist()


def test_nothing_is_held_out_unless_asked_and_one_paragraph_cannot_be_split() -> None:
    assert not hold_out(np.array([3]), 0, 0).any()
    with pytest.raises(CorpusError, match="one paragraph"):
        hold_out(np.array([3]), 0.1, 0)
