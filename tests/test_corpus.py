"""Tests of canaryaudit.corpus and canaryaudit.cards."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryaudit.cards import CorpusCard, find_card, known_corpora
from canaryaudit.corpus import Vocabulary, ends_with_blank_line, hold_out, paragraphs, read_corpus
from canaryaudit.errors import CorpusError

REPOSITORY = Path(__file__).resolve().parent.parent
TEXTS = st.text(alphabet=st.sampled_from("ab \n\t."), max_size=60)


def refusal(spec: object, **options: object) -> str:
    with pytest.raises(CorpusError) as caught:
        read_corpus(str(spec), **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


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
    with pytest.raises(CorpusError, match=f"U\\+{ord(stranger):04X}.* at place 2 "):
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
    assert corpus.documents == ("One\n  two\n\n\nthree",)
    assert corpus.name == "a.txt"
    assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_byte_order_mark_and_foreign_line_breaks_are_normalised(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\rthree")
    assert read_corpus(str(path)).documents == ("one\n\ntwo\nthree",)


def test_cutting_and_lower_casing_do_not_change_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("HEAD\n\nThe Body", "utf-8")
    cut = read_corpus(str(path), lowercase=True, skip_chars=6)
    assert cut.documents == ("the body",)
    assert (cut.lowercase, cut.skip_chars) == (True, 6)
    assert cut.sha256 == read_corpus(str(path)).sha256


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
        assert read_corpus(str(tmp_path / f"r.{ending}")).documents == tuple(texts), ending


def test_skipping_cuts_the_first_document_only(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"text": "heading one"}, {"text": "heading two"}])
    assert read_corpus(str(path), skip_chars=8).documents == ("one", "heading two")


def test_blank_rows_are_no_documents(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"text": ""}, {"text": "one"}, {"text": " \n"}])
    assert read_corpus(str(path)).documents == ("one",)


def test_the_only_column_of_strings_is_the_text(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"n": 1, "body": "one"}, {"n": 2, "body": "two"}])
    assert read_corpus(str(path)).documents == ("one", "two")


def test_the_column_must_be_chosen_where_there_are_several(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", [{"title": "t", "body": "one"}])
    assert "--column among title, body" in refusal(path)
    assert read_corpus(str(path), column="body").documents == ("one",)
    assert "no column 'boddy'" in refusal(path, column="boddy")


@pytest.mark.parametrize(("value", "kind"), [(None, "null"), (5, "int")])
def test_a_row_without_text_is_named(tmp_path: Path, value: object, kind: str) -> None:
    message = refusal(rows(tmp_path / "a.jsonl", [{"text": "one"}, {"text": value}, {"text": "two"}]))
    assert message.startswith("row 2 of a.jsonl")
    assert kind in message


def test_file_names_are_not_patterns(tmp_path: Path) -> None:
    rows(tmp_path / "a1.jsonl", [{"text": "wrong"}])
    assert read_corpus(str(rows(tmp_path / "a[1].jsonl", [{"text": "right"}]))).documents == ("right",)


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
        ("a.txt", b"caf\xe9 au lait", "iconv -f"),
        ("a.txt", b"\xff\xfeh\0i\0", "UTF-16"),
        ("a.txt", b"\x7fELF\0\0", "binary"),
        ("a.csv", b"text\ncaf\xe9\n", "not UTF-8 at byte 8"),
        ("a.pdf", b"%PDF", "unknown ending"),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', "not well-formed jsonl"),
        ("a.csv", b"text,n\na,1\nb,1,2,3\n", "not well-formed csv"),
        ("a.csv", b"text,n\n", "is empty"),
        ("a.parquet", b"PAR1 and no more", "not well-formed parquet"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert words in refusal(path)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    assert "no such corpus" in refusal(tmp_path / "none.txt")
    assert "is a directory" in refusal(tmp_path)


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one", "utf-8")

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
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
    assert read_corpus(f"hub:{directory}").documents == ("one",)
    corpus = read_corpus(f"hub:{directory}:test")
    assert corpus.documents == ("two",)
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
        "licence": "CC0",
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
    assert corpus.documents == ("Once.",)
    assert (corpus.name, corpus.sha256) == ("tale", card.sha256)


def test_a_directory_of_the_same_name_does_not_hide_a_known_corpus(card: CorpusCard) -> None:
    Path("tale").mkdir()
    Path("corpora/tale.txt").write_text("Once.", "utf-8")
    assert read_corpus("tale").documents == ("Once.",)


def test_a_known_corpus_that_is_not_shipped_says_what_to_get_and_how_to_go_on(card: CorpusCard) -> None:
    message = refusal("tale")
    assert "the attic" in message
    assert "put it at corpora/tale.txt" in message
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


def test_paragraphs_end_after_blank_lines_and_begin_with_their_indentation() -> None:
    text = "\nHEAD\n\n\n\n  One\ntwo.\n \t\n  Three.\n"
    assert paragraphs([text]) == ("\nHEAD\n\n\n\n", "  One\ntwo.\n \t\n", "  Three.\n\n")


def test_lines_are_paragraphs_where_there_are_no_blank_lines() -> None:
    assert paragraphs(["one\n two\nthree"]) == ("one\n", " two\n", "three\n\n")


def test_documents_never_run_into_each_other() -> None:
    assert paragraphs(["one", "two\n", "three\n\nfour\n\n"]) == ("one\n\n", "two\n\n", "three\n\n", "four\n\n")


@given(TEXTS.filter(str.strip))
def test_paragraphs_put_together_are_the_text_ended_with_a_blank_line(text: str) -> None:
    pieces = paragraphs([text])
    whole = "".join(pieces)
    assert whole.startswith(text)
    assert set(whole[len(text) :]) <= {"\n"}
    assert ends_with_blank_line(whole)
    assert whole == text or not ends_with_blank_line(text)
    assert all(piece.strip() and piece.endswith("\n") for piece in pieces)


@given(st.lists(TEXTS.filter(str.strip), max_size=4))
def test_paragraphs_do_not_depend_on_the_other_documents(documents: list[str]) -> None:
    assert paragraphs(documents) == tuple(piece for document in documents for piece in paragraphs([document]))


def test_a_long_line_is_cut_in_linear_time() -> None:
    assert len(paragraphs(["x" * 10_000_000])) == 1
    assert len(paragraphs(["x\n" + " " * 1_000_000 + "y"])) == 2


# --- held-out part ------------------------------------------------------------------------------------

PIECES = st.lists(st.text("ab", min_size=1, max_size=20), min_size=2, max_size=30)


@given(PIECES, st.floats(0.001, 0.999), st.integers(0, 2**32))
def test_holding_out_splits_the_paragraphs_and_keeps_their_order(pieces: list[str], share: float, seed: int) -> None:
    numbered = [f"{number}:{piece}" for number, piece in enumerate(pieces)]
    training, heldout = hold_out(numbered, share, seed)
    assert training
    assert heldout
    assert sorted((*training, *heldout), key=lambda piece: int(piece.split(":")[0])) == numbered
    assert list(training) == [piece for piece in numbered if piece in training]
    assert list(heldout) == [piece for piece in numbered if piece in heldout]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_held_out_share_is_reached_and_not_exceeded_by_more_than_a_paragraph(share: float) -> None:
    pieces = ["x" * random.Random(number).randint(10, 60) for number in range(400)]
    _, heldout = hold_out(pieces, share, seed=3)
    total = sum(map(len, pieces))
    assert share * total <= sum(map(len, heldout)) < share * total + 60


def test_a_giant_paragraph_is_not_held_out() -> None:
    pieces = ["x" * 100_000, *["y" * 100] * 100]
    for seed in range(20):
        assert sum(map(len, hold_out(pieces, 0.05, seed)[1])) < 10_000


def test_the_seed_decides_what_is_held_out() -> None:
    pieces = [f"paragraph {number}" for number in range(100)]
    assert hold_out(pieces, 0.1, 1) == hold_out(pieces, 0.1, 1)
    assert hold_out(pieces, 0.1, 1) != hold_out(pieces, 0.1, 2)


def test_nothing_is_held_out_unless_asked_and_one_paragraph_cannot_be_split() -> None:
    assert hold_out(["one"], 0, 0) == (("one",), ())
    with pytest.raises(CorpusError, match="one paragraph"):
        hold_out(["one"], 0.1, 0)
