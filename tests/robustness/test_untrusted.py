"""Templates, records and corpora from strangers: an error of one line, or a value; nothing else."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canaryaudit.canaries.canary import Canary, CanarySet, expected_strings
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import hold_out, read_corpus
from canaryaudit.errors import CanaryAuditError, CorpusError, RunDirectoryError, TemplateError
from canaryaudit.exposure.consistency import measurement_fault
from canaryaudit.records import Manifest, Measurement, ModelRecord, UnlearningRecord
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.runs.verification import verify_run
from canaryaudit.storage.json_records import MAX_JSON_BYTES, MAX_JSON_VALUES, read_record
from tests.robustness.fuzz import limits

KINDS = (Manifest, CanarySet, ModelRecord, Measurement, UnlearningRecord)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
PIECES = st.sampled_from(
    [
        "{",
        "}",
        "{{",
        "}}",
        "{digits:",
        "{any:999}",
        "{choice:",
        "|",
        ":",
        "0",
        "9" * 30,
        "-1",
        "a",
        "\n",
        "\0",
        "\ud800",
    ]
)


@settings(max_examples=500, deadline=2000)
@given(st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_is_a_template_or_a_template_error(text: str) -> None:
    try:
        template = Template.parse(text)
        assert template.space("ab \n").bits >= 0
    except TemplateError:
        return


@settings(max_examples=300, deadline=2000)
@given(document=JSON, kind=st.sampled_from(KINDS))
def test_any_json_is_a_record_or_a_damaged_one(
    tmp_path_factory: pytest.TempPathFactory, document: Any, kind: type[Manifest]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(RunDirectoryError, match="is damaged|newer canaryaudit"):
        read_record(path, kind, "make it again")


@settings(max_examples=200, deadline=5000)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_corpus_or_a_corpus_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        corpus = read_corpus(str(path))
        assert corpus.lengths.sum() == len(corpus.text)
        assert not hold_out(corpus.lengths, 0.2, 0).all()
    except CorpusError:
        return


HOSTILE = {
    "a million objects of no kind": b'{"canaries":[' + b'{"a":0},' * 900_000 + b"{}]}",
    "thousands of objects with too many keys": (
        b'{"canaries":[' + (b"{" + b",".join(b'"%d":0' % key for key in range(999)) + b"},") * 1_900 + b"{}]}"
    ),
    "an object with millions of keys": b"{" + b",".join(b'"%d":0' % key for key in range(1_900_000)) + b"}",
    "a wide string": b'{"model":"' + b"x" * (MAX_JSON_BYTES - 100) + "\U0001f600".encode() + b'"}',
    "nothing but brackets": b"[" * 1_900_000,
    "more values than any record": b"[" + b"0," * MAX_JSON_VALUES + b"0]",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_costs_less_than_a_gigabyte(tmp_path: Path, kind: str) -> None:
    """Pydantic's own JSON parser copies the whole document for every missing field: 3.6 GB for a file of 38 MB."""
    path = tmp_path / "before.json"
    path.write_bytes(HOSTILE[kind])
    started = time.process_time()
    with limits(), pytest.raises(RunDirectoryError) as caught:
        read_record(path, Measurement, "make it again")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.process_time() - started < 10


def test_a_lone_surrogate_is_no_record(tmp_path: Path) -> None:
    """It could not be written or printed again."""
    path = tmp_path / "manifest.json"
    path.write_text('{"commit": "\\ud800"}', "utf-8")
    with pytest.raises(RunDirectoryError, match="not a JSON record"):
        read_record(path, Manifest, "make it again")


@pytest.mark.parametrize(
    "text", ["{{" * 2_000_000 + "{digits:2}", "{digits:999}" * 200, "{any:999}" * 9, "x" * 20_000 + "{any:2}"]
)
def test_a_monstrous_template_is_refused_in_a_moment(text: str) -> None:
    started = time.process_time()
    with limits(), pytest.raises(TemplateError, match="shorten it|shorter slots") as caught:
        Template.parse(text).space("".join(map(chr, range(300, 3_300))))
    assert len(str(caught.value)) < 300
    assert time.process_time() - started < 5


def test_a_slot_with_a_line_break_is_refused_in_one_line() -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse("is {x\ny}")
    assert "\n" not in str(caught.value)


def test_templates_that_are_monstrous_together_do_not_agree() -> None:
    texts = [f"number {n} is {{any:900}}" for n in range(20)]
    canaries = [Canary(id=text, template=text, completion="a" * 900, repetitions=0, control=True) for text in texts]
    symbols = "a" + "".join(map(chr, range(300, 1_300)))
    assert expected_strings(CanarySet(corpus_symbols=symbols, canaries=tuple(canaries[:2]))) == []
    assert expected_strings(CanarySet(corpus_symbols=symbols, canaries=tuple(canaries))) is None


def spoil(document: Any, where: int, value: Any) -> Any:
    """Return a JSON document with one of its values, counted in order, replaced."""
    count = -1

    def walk(own: Any) -> Any:
        nonlocal count
        count += 1
        if count == where:
            return value
        if isinstance(own, dict):
            return {key: walk(item) for key, item in own.items()}
        return [walk(item) for item in own] if isinstance(own, list) else own

    return walk(document)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@settings(max_examples=200, deadline=5000)
@given(name=st.sampled_from(["manifest.json", "canaries.json"]), where=st.integers(0, 150), value=JSON)
def test_a_run_with_any_value_anywhere_is_sound_or_told_damaged(
    stranger: Path, tmp_path_factory: pytest.TempPathFactory, name: str, where: int, value: Any
) -> None:
    run = stranger / "RUN"
    if not run.exists():
        make(run)
    path = run / name
    original = path.read_text("utf-8")
    try:
        path.write_text(json.dumps(spoil(json.loads(original), where, value)), "utf-8")
        try:
            found = verify_run(run, check=measurement_fault)
            RunDirectory.open(run).canary_set()
        except CanaryAuditError:
            return
        assert found.findings
    finally:
        path.write_text(original, "utf-8")


def make(run: Path) -> None:
    """Insert canaries into a small text."""
    from tests.commands import INSERT, ROOT, succeed

    text = run.parent / "sea.txt"
    text.write_text((ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:6_000], "utf-8")
    succeed("insert", text, "-o", run, *INSERT)
