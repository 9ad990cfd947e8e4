from xml.etree import ElementTree

import pytest

from canaryaudit.report.formats.junit import render_junit
from tests.report import builders as make
from tests.report.formats.test_formats import HOSTILE, hostile_summary


def cases(summary):
    """Return the outcome of every case by name."""
    root = ElementTree.fromstring(render_junit(summary))
    found = {}
    for suite in root:
        for case in suite:
            found[case.get("name")] = next((child.tag for child in case if child.tag != "system-out"), "passed")
    assert root.get("tests") == str(len(found))
    assert root.get("failures") == str(list(found.values()).count("failure"))
    assert root.get("skipped") == str(list(found.values()).count("skipped"))
    return found


def test_without_a_gate_exposed_canaries_fail():
    found = cases(make.before_after(after=None))
    assert [found[f"canary-0{i}"] for i in range(1, 6)] == ["failure", "failure", "failure", "passed", "failure"]
    assert found["controls pass"] == "passed"
    assert set(cases(make.before_after()).values()) == {"passed"}


def test_with_a_gate_the_canaries_that_it_names_fail():
    found = cases(make.before_after(fail_above=2.0))
    assert {name for name, outcome in found.items() if outcome == "failure"} == {
        "canary-01",
        "canary-05",
        "gate: at most 2 bits, none exposed",
    }
    assert cases(make.before_after(after=None, fail_above=40))["canary-04"] == "passed"


def test_a_canary_that_is_exposed_fails_below_the_limit_too():
    found = cases(make.three_digits(fail_above=10))
    assert found["canary-01"] == found["canary-02"] == found["gate: at most 10 bits, none exposed"] == "failure"
    assert found["canary-03"] == "passed"


def test_a_canary_without_a_verdict_is_skipped_and_failed_controls_fail():
    found = cases(make.before_after(calibrated=False))
    assert found["canary-01"] == "skipped"
    assert found["controls pass before unlearning"] == found["controls pass after unlearning"] == "failure"


def test_a_damaged_model_fails():
    assert cases(make.before_after(drop=0.02))["the model keeps its accuracy"] == "failure"


def test_missing_controls_are_skipped():
    found = cases(make.before_after(canaries=make.canary_set(num_controls=0)))
    assert found["controls pass before unlearning"] == "skipped"


@pytest.mark.parametrize("secret", [HOSTILE, "ab" * 2_000], ids=["hostile", "long"])
def test_hostile_text_leaves_the_document_well_formed(secret):
    text = render_junit(hostile_summary(secret))
    assert len(ElementTree.fromstring(text)) == 2
    assert len(text) < 10_000
    assert "\x1b" not in text
