"""Tests of canaryaudit.pipeline.insert."""

import hashlib
from pathlib import Path

import pytest

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.masking import mask_arguments
from canaryaudit.canaries.template import Template
from canaryaudit.errors import UsageError
from canaryaudit.pipeline.insert import make_run, plan_run
from canaryaudit.plan import InsertOptions
from tests.wholetext import heldout_text, training_text


def given(template: str, completion: str) -> CanarySet:
    assert completion in Template.parse(template).space("abc")
    canary = Canary(id="canary-01", template=template, completion=completion, repetitions=0, origin="given")
    return CanarySet(corpus_symbols="abc", canaries=(canary,))


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (("--secret", "12-345"), ("--secret", "•••")),
        (("--secret=12-345",), ("--secret=•••",)),
        (("--secret", "12345"), ("--secret", "•••")),
        (("--secret", "another"), ("--secret", "•••")),
        (("-o", "runs/12345"), ("-o", "runs/•••")),
        (("text:12-345!",), ("text:•••!",)),
        (("-n", "123", "-r", "1,2"), ("-n", "123", "-r", "1,2")),
        ((), ()),
    ],
)
def test_a_command_line_is_kept_without_its_secrets(argv: tuple[str, ...], masked: tuple[str, ...]) -> None:
    assert mask_arguments(argv, given("pin {digits:2}-{digits:3}.", "12-345")) == masked


def test_letters_are_masked_in_either_case() -> None:
    assert mask_arguments(("Say QZVKX",), given("{lower:5}", "qzvkx")) == ("Say •••",)


def test_a_chosen_word_stays_where_the_template_names_it() -> None:
    argv = ("-t", "{choice:amber|green}", "--secret", "green")
    assert mask_arguments(argv, given("{choice:amber|green}", "green")) == (
        "-t",
        "{choice:amber|green}",
        "--secret",
        "•••",
    )


def test_a_short_secret_is_not_given_away_by_masking_it_everywhere() -> None:
    argv = ("-n", "7", "-r", "17", "--secret", "7")
    assert mask_arguments(argv, given("{digits:1}", "7")) == ("-n", "7", "-r", "17", "--secret", "•••")


def test_what_was_generated_is_no_users_secret() -> None:
    canary_set = given("{digits:5}", "12345")
    drawn = canary_set.canaries[0].model_copy(update={"origin": "generated"})
    assert mask_arguments(("x12345",), canary_set.model_copy(update={"canaries": (drawn,)})) == ("x12345",)


def test_six_canaries_are_generated_unless_secrets_are_given(tmp_path: Path) -> None:
    corpus = tmp_path / "x.txt"
    corpus.write_text("".join(f"line {number}.\n\n" for number in range(100)), "utf-8")
    made, _ = plan_run(InsertOptions(corpus=str(corpus), repetitions=(1,)))
    assert len(made.canary_set.inserted) == 6
    made, _ = plan_run(InsertOptions(corpus=str(corpus), secret=("0123456789",)))
    assert [canary.origin for canary in made.canary_set.inserted] == ["given"]
    made, _ = plan_run(InsertOptions(corpus=str(corpus), secret=("0123456789",), canaries=2, repetitions=(1,)))
    assert [canary.origin for canary in made.canary_set.inserted] == ["given", "generated", "generated"]


def test_a_run_holds_its_plan_and_facts(tmp_path: Path) -> None:
    corpus = tmp_path / "x.txt"
    corpus.write_text("".join(f"line {number}.\n\n" for number in range(100)), "utf-8")
    options = InsertOptions(corpus=str(corpus), seed=3)
    run, made = make_run(tmp_path / "run", options, ("canaryaudit", "insert"))
    again, facts = plan_run(options)
    assert made.canary_set == again.canary_set
    assert training_text(made) == training_text(again)
    found = run.manifest.corpus
    assert found.model_copy(update={"audited_sha256": "", "heldout_sha256": ""}) == facts
    assert found.audited_sha256 == hashlib.sha256(training_text(made).encode()).hexdigest()
    assert found.heldout_sha256 == hashlib.sha256(heldout_text(made).encode()).hexdigest()
    assert run.canary_set() == made.canary_set
    assert run.manifest.stages[0].seed == 3


def test_a_secret_is_masked_as_a_warning_quotes_it() -> None:
    canary_set = CanarySet(
        corpus_symbols="ab\\",
        canaries=(Canary(id="canary-01", template="x{any:4}", completion="a\\bb", repetitions=0, origin="given"),),
    )
    template = "say a\\bb or {any:4}"
    assert mask_arguments((f"template {template!r}: no canary",), canary_set) == (
        "template 'say ••• or {any:4}': no canary",
    )


def test_a_python_object_is_audited_under_the_name_that_is_given() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": range(90), "note": [f"note {number}" for number in range(89)] + [None]})
    options = InsertOptions(corpus="notes", column="note", canaries=1, repetitions=(1,))
    made, facts = plan_run(options, data=frame)
    assert (facts.name, facts.documents) == ("notes", 89)
    assert facts.reading == ("DataFrame: text from column note (of n, note)",)
    assert any("skipped 1 of 90 rows" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("secret", "lowercase", "fault"),
    [
        ("", False, "is blank"),
        (" ", False, "is blank"),
        ("one\nqzx", False, "holds a line break"),
        ("qzx\udcff", False, "is not valid UTF-8"),
        ("Qzx", True, "has upper-case letters"),
    ],
)
def test_a_secret_that_can_be_no_line_of_the_references_is_refused_unseen(
    tmp_path: Path, secret: str, lowercase: bool, fault: str
) -> None:
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree\n", "utf-8")
    (tmp_path / "list.txt").write_text("one\ntwo\n", "utf-8")
    options = InsertOptions(
        corpus=str(tmp_path / "text.txt"),
        references=str(tmp_path / "list.txt"),
        secret=("two", secret),
        lowercase=lowercase,
    )
    with pytest.raises(UsageError, match=f"secret number 2 {fault}") as caught:
        plan_run(options)
    assert "qzx" not in str(caught.value).lower()
