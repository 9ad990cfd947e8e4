"""Tests of canaryaudit.canaries.detection and selection, and of insertion where it detects."""

from typing import Any

import numpy as np
import pytest

from canaryaudit.canaries.canary import expected_strings
from canaryaudit.canaries.detection import KINDS, Detector, detect, template_of
from canaryaudit.canaries.insertion import InsertionPlan, InsertionRequest, plan_insertion, run_vocabulary
from canaryaudit.canaries.selection import select
from canaryaudit.errors import CorpusError, UsageError
from tests.canaries.labelled import REGIONS, Label, iban, labelled_text, luhn
from tests.canaries.labelled_fields import REGIONS as OTHER_REGIONS
from tests.canaries.labelled_fields import labelled_fields
from tests.wholetext import corpus_of, heldout_text, training_text

FILLER = "".join(f"paragraph {chr(97 + n % 26)}{chr(97 + n // 26)} of the story\n\n" for n in range(40))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(KINDS, REGIONS)


def values(text: str, detector: Detector) -> list[str]:
    return [text[own.start : own.end] for own in detector.every(text)]


def plan_of(text: str, *kinds: str, **options: Any) -> InsertionPlan:
    request = InsertionRequest(**{"templates": (), "detect": kinds or KINDS, "num_controls": 2, **options})
    return plan_insertion(corpus_of("x", [text]), request)


def check(text: str, labels: list[Label], detector: Detector, count: int) -> None:
    """Count a finding as right only if kind, first and last character are."""
    right = {(own.kind, own.start, own.end) for own in labels}
    found = {(own.kind, own.start, own.end) for own in detector.every(text)}
    for kind in KINDS:
        expected, got = ({own for own in every if own[0] == kind} for every in (right, found))
        assert len(expected) == count
        assert len(got & expected) / len(expected) >= 0.95, (kind, [text[a:b] for _, a, b in expected - got])
        assert len(got & expected) / len(got) >= 0.95, (kind, [text[a:b] for _, a, b in got - expected])


@pytest.mark.parametrize("seed", [11, 12])
def test_recall_and_precision_are_at_least_95_percent_for_every_kind(seed: int, detector: Detector) -> None:
    check(*labelled_text(seed, 200), detector, 200)


@pytest.mark.parametrize("half", [0, 1, 2], ids=["development", "test", "later"])
def test_so_they_are_in_code_logs_and_tables_of_other_forms(half: int) -> None:
    regions = ("FR", "ZA", "IN") if half == 2 else OTHER_REGIONS
    check(*labelled_fields(half, 4, 120), Detector(KINDS, regions), 120)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"phoneNumber":"0412345678","orderId":"0412345679"}', ["0412345678"]),
        ("user_phone=0412345678, WhatsApp 0412345670, phone # 0412345671", ["0412345678", "0412345670", "0412345671"]),
        ("parcel 7181 5246 0497 8087 7966 88 and EUR 462 017 058.80", []),
        ("51 02 16 10 19, 03 12 91 12 78 and 02 9876 5432", ["02 9876 5432"]),
        ("see //host/x,\n'ann@b.org', //c.org/?q=eva@b.org", ["ann@b.org", "eva@b.org"]),
        ("clone git@b.org:a/c.git, scp ann@b.org:~/x, mail ann@b.org: now", ["ann@b.org"]),
        ("SSN#219099998 ssn 219.09.9998\nof 219.09.9998", ["219099998", "219.09.9998"]),
        ("id arn:673401687292, transaction 4111111111111111, 4111.1111.1111.1111", ["4111.1111.1111.1111"]),
        ("iban gb82west12345698765432, gb83west12345698765432", ["gb82west12345698765432"]),
    ],
)
def test_what_a_number_is_called_and_stands_beside_decides(text: str, found: list[str]) -> None:
    assert values(text, Detector(KINDS, ("AU", "US"))) == found


ADDRESSES = {
    "müller.josé@example.de": "müller.josé@example.de",
    "ann@example.xn--p1ai": "ann@example.xn--p1ai",
    "请联系ann@example.com联系我们": "ann@example.com",
    "an\u200bn@exam\u00adple.com": "an\u200bn@exam\u00adple.com",
    "\u202aann@example.com\u202c": "ann@example.com",
    "_@example.com": "_@example.com",
    "é@example.com": "é@example.com",
    "ａｎｎ＠example．com": "ａｎｎ＠example．com",
    "06\u202f12\u202f34\u202f56\u202f78": "06\u202f12\u202f34\u202f56\u202f78",
    "+33 ６ 12 34 56 78": "+33 ６ 12 34 56 78",
    "+33 ٦ 12 34 56 78": "+33 ٦ 12 34 56 78",
    "DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00": "DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00",
    "4111 1111 1111 ００００ 4111−1111−1111−1111": "4111−1111−1111−1111",
}


@pytest.mark.parametrize("shown", ADDRESSES)
def test_other_scripts_spaces_and_invisible_signs_hide_nothing_and_nothing_of_a_secret_is_quoted(shown: str) -> None:
    text = f"to {shown} now"
    (found,), (context,) = detect(text, Detector(KINDS, ("FR",)))
    assert text[found.start : found.end] == ADDRESSES[shown]
    template, completion, start = template_of(text, found, context)
    assert text.startswith(template.fill(completion), start)
    assert completion in template.space("")
    quoted = {c for c in template.fixed_text.removeprefix("to ").removeprefix("请联系") if c.isalnum()}
    known = {"email": "examplecomdexnp1ai", "phone": "33", "iban": "DE", "card": ""}[found.kind]
    assert quoted <= {*known}


def test_an_addresss_value_is_the_same_with_and_without_invisible_signs() -> None:
    text = "an\u200bn@b.org ann@b.org ＡＮＮ@b.org"
    assert {own.value for own in Detector(["email"]).every(text)} == {"ann@b.org"}


def test_the_labelled_set_itself_has_the_check_digits_that_are_published() -> None:
    assert luhn("411111111111111") == "4111111111111111"
    assert luhn("37828224631000") == "378282246310005"
    assert iban("DE", "370400440532013000") == "DE89370400440532013000"
    assert iban("GB", "WEST12345698765432") == "GB82WEST12345698765432"


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112, account DE88 3704 0044 0532 0130 00",
        "SSN 000-12-3456 and 666-12-3456 and 987-65-4320",
        "lodash@4.17.21, logo@2x.png, git@host:a/b, https://ann:pw@example.com/x, @ann",
        "AKIAXXXXXXXXXXXXXXXX, ghp_short, eyJhbGciOi",
        "order 4155552671, 2024-01-05 12:30, 192.168.100.200, 1.10.15.7891, commit 4155552671abcdef",
    ],
)
def test_what_only_looks_like_it_is_not_found(text: str, detector: Detector) -> None:
    assert values(text, detector) == []


def test_several_numbers_in_a_row_are_told_apart(detector: Detector) -> None:
    text = "on 2024-01-05 call 415-555-2671 2 times or +44 20 7946 0958 4111 1111 1111 1111"
    assert values(text, detector) == ["415-555-2671", "+44 20 7946 0958", "4111 1111 1111 1111"]


# --- canaries of findings --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["{", "}", "user={", "x}y{"])
def test_a_brace_before_an_address_is_no_part_of_it(before: str, detector: Detector) -> None:
    text = f"write to {before}qxz.wvk@example.org now"
    (found, *_), (context, *_) = detect(text, Detector(("email",), REGIONS))
    template, completion, _ = template_of(text, found, context)
    assert completion in template.space("")
    assert text[found.start : found.end] == "qxz.wvk@example.org"


def test_every_finding_is_a_member_of_its_templates_space_where_it_stands(detector: Detector) -> None:
    text = labelled_text(3, 40)[0] + "".join(labelled_fields(half, 3, 40)[0] for half in range(3))
    for finding, context in zip(*detect(text, detector), strict=True):
        template, completion, start = template_of(text, finding, context)
        assert text.startswith(template.fill(completion), start)
        assert completion in template.space("")
        assert start + len(template.prefix) <= finding.end
        assert text[finding.secret : finding.secret_end].strip() not in template.text


def test_no_template_quotes_another_finding(detector: Detector) -> None:
    text = "ann.lee@a.org bob@b.org SSN 219-09-9998 tel 415-555-2671 and 12345 to carla@c.org, eva@a.org\n"
    wanted, contexts = detect(text, Detector(["email"], REGIONS))
    templates = [template_of(text, *own)[0].text for own in zip(wanted, contexts, strict=True)]
    assert contexts == ["", " ", " to ", ", "]
    for secret in ("ann", "lee", "bob", "b.", "219", "9998", "415", "2671", "12345", "carla", "c.", "eva"):
        assert not any(secret in template for template in templates)
    assert templates[0].endswith("@a.org")  # two addresses share it


def test_the_most_repeated_become_canaries_and_all_are_counted() -> None:
    text = (
        "mail ann@a.org or bob@a.org\n\ncall 415-555-2671\n\nANN@a.org again\n\nTel. (415) 555-2671 x\n\nme@c.org\n\n"
    )
    plan = plan_of(text + FILLER, max_detected=2, holdout=0)
    first, second = plan.canary_set.inserted
    assert [(own.kind, own.repetitions) for own in (first, second)] == [("email", 2), ("phone", 2)]
    counts = [(own.kind, own.occurrences, own.distinct, own.canaries) for own in plan.detected]
    assert counts == [("email", 4, 3, 1), ("phone", 2, 1, 1)]
    assert "2 of 4 detected values become canaries, the most repeated first" in " ".join(plan.warnings)
    assert all(own.masked for own in (first, second))


@pytest.mark.parametrize("seed", range(4))
def test_detected_canaries_stand_where_they_are_said_to_beside_inserted_and_located_ones(seed: int) -> None:
    text = FILLER + "mail ann@a.org now\n\nmy pin is 4711.\n\n" + FILLER + "ANN@a.org, card 4111 1111 1111 1111\n\n"
    plan = plan_of(
        text,
        located=("my pin is {digits:4}.",),
        templates=("code {lower:8}.",),
        num_canaries=3,
        repetitions=(2,),
        holdout=0.2,
        seed=seed,
    )
    training = training_text(plan)
    strings = expected_strings(plan.canary_set)
    assert strings is not None
    assert all(training.startswith(string, place) for place, string in strings)
    assert len(strings) == 3 * 2 + 1 + 2 + 1
    assert "ann" not in heldout_text(plan).lower()
    assert len(heldout_text(plan)) > 100
    run_vocabulary(plan.canary_set).encode(training)


def test_what_is_located_is_not_detected_again() -> None:
    text = "my phone is 415-555-2671.\n\ncall 415-555-2671 or (415) 555 2671\n\n" + FILLER
    plan = plan_of(text, "phone", located=("my phone is {digits:3}-{digits:3}-{digits:4}.",), holdout=0)
    (canary,) = plan.canary_set.inserted
    assert (canary.repetitions, len(canary.wordings)) == (3, 3)


def test_nothing_detected_is_an_error_and_so_are_unknown_kinds_and_regions() -> None:
    with pytest.raises(CorpusError, match="no card, ssn detected in"):
        plan_of(FILLER, "ssn", "card")
    with pytest.raises(UsageError, match="--detect face: expected one or more of email, phone"):
        plan_of(FILLER, "face")
    with pytest.raises(UsageError, match="--detect-regions XX: expected ISO codes"):
        plan_of(FILLER, detect_regions=("us", "XX"))


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "phonenumbers", None)
    with pytest.raises(UsageError, match=r"pip install 'canaryaudit\[detect\]'"):
        Detector(["email"])


def test_words_that_differ_from_place_to_place_are_no_part_of_a_template() -> None:
    lines = [f"{'abcdefgh'[n % 8]}x says {'mnop'[n % 4]}z; user=ann.lee{n % 3 + 1}@b.org" for n in range(24)]
    lines += ["write to eva@b.org", "my pin: Ann wrote to ida@c.org", "Tom wrote to ida@c.org"]
    plan = plan_of("\n\n".join(lines) + "\n\n" + FILLER, holdout=0)
    assert [(own.template, own.repetitions) for own in plan.canary_set.inserted] == [
        *[("user={[a-z0-9.]:8}@b.org", 8)] * 3,
        ("wrote to {[a-z]:3}@{[a-z]:1}.org", 2),
        ("to {[a-z]:3}@b.org", 1),
    ]
    assert not any(own.other_wordings for own in plan.canary_set.inserted)
    text = training_text(plan)
    for canary in plan.canary_set.inserted:
        assert all(text.startswith(canary.text, place) for place in canary.places)


def test_numbers_of_other_countries_are_counted_where_words_call_them_so() -> None:
    text = (
        "Tel: 030 901820, 030 90182077\n\nfax 030/90182011 on 2024-01-05, order phone 1234567\n\ncall 415-555-2671\n\n"
    )
    warnings = " ".join(plan_of(text + FILLER, "phone").warnings)
    assert "skipped 4 numbers after words such as 'phone', not valid in US: add other countries" in warnings
    german = " ".join(plan_of(text + FILLER, "phone", detect_regions=("DE", "US")).warnings)
    assert "skipped 1 number after words such as 'phone', not valid in DE, US" in german
    assert "skipped" not in " ".join(plan_of(text + "ann@b.org\n\n" + FILLER, "email").warnings)


def test_numbers_that_begin_alike_are_said_to_rank_high_by_that() -> None:
    for second, warned in (("415-555-2672", True), ("212-555-2672", False)):
        text = f"call 415-555-2671 now\n\ncall 415-555-2671 or {second}\n\n"
        warnings = plan_of(text + FILLER, "phone").warnings
        assert any("some begin alike, as with an area or bank code" in own for own in warnings) == warned


def test_a_limit_beyond_what_there_is_takes_all(detector: Detector) -> None:
    text, labels = labelled_text(5, 10)
    detected = select(text, detector, 10_000, np.empty((0, 2), dtype=np.int64))
    assert sum(own.canaries for own in detected.kinds) == sum(own.distinct for own in detected.kinds)
    assert sum(own.occurrences for own in detected.kinds) >= len(labels)
