import json
import math
import re

import pytest

from canaryaudit.errors import UsageError
from canaryaudit.report import build_summary, read_baseline
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.summary.build import SummaryOptions
from canaryaudit.report.summary.gate import Audited, EarlierReport, judge_gate
from tests.report import builders as make


def baseline_of(summary):
    return EarlierReport.model_validate_json(render_json(summary))


def held_against(baseline, after=make.GONE, *, before=make.EXPOSED, canaries=None, **changes):
    canaries = canaries or make.canary_set()
    measured = make.measurement(canaries, after, "after-x", sha=make.UPDATED_SHA, **changes)
    ids = [canary.id for canary in canaries.inserted]
    return build_summary(
        make.manifest(),
        canaries,
        make.model_record(),
        make.measurement(canaries, before),
        [(make.unlearning("x", ids), measured)],
        "story",
        SummaryOptions(baseline=baseline),
    ).gate


def test_the_same_again_is_not_worse():
    gate = held_against(baseline_of(make.before_after()))
    assert gate.passed
    assert gate.name == "no worse than the report of story"


def test_better_is_not_worse():
    worse = make.before_after(after={**make.GONE, "canary-01": 20.0})
    assert held_against(baseline_of(worse)).passed


def test_a_canary_that_is_newly_exposed_is_named():
    gate = held_against(baseline_of(make.before_after()), {**make.GONE, "canary-02": 15.0})
    assert not gate.passed
    assert gate.reasons == (
        "canary-02: exposed (baseline: indistinguishable from unseen)",
        "all canaries: exposed (baseline: indistinguishable from unseen)",
    )


BORDER = math.log2(5 * 20)
"""Of five canaries: chance puts none above it, 95 times in 100."""


@pytest.mark.parametrize(("bits", "worse"), [(BORDER - 0.01, False), (BORDER + 0.01, True)])
def test_a_rise_counts_where_chance_does_not_explain_it(bits, worse):
    reasons = held_against(baseline_of(make.before_after()), {**make.GONE, "canary-02": bits}).reasons
    assert any(reason.startswith("canary-02: at least 6.") for reason in reasons) is worse


@pytest.mark.parametrize(("rise", "worse"), [(0.99, False), (1.01, True)])
def test_a_rise_of_less_than_a_bit_is_not_worse(rise, worse):
    then = make.before_after(after={**make.GONE, "canary-01": 8.0})
    reasons = held_against(baseline_of(then), {**make.GONE, "canary-01": 8.0 + rise}).reasons
    assert any(reason.startswith("canary-01: at least 9.0 bits (baseline: at most 8.0)") for reason in reasons) is worse


def test_overlapping_intervals_are_not_worse():
    then = make.before_after(after={**make.GONE, "canary-01": 7.0})
    reasons = held_against(baseline_of(then), {**make.GONE, "canary-01": 9.0}, spread={"canary-01": 1.5}).reasons
    assert not any(reason.startswith("canary-01") for reason in reasons)


def test_a_measurement_that_says_nothing_is_worse_than_one_that_did():
    gate = held_against(baseline_of(make.before_after()), trusted={"canary-01": False})
    assert gate.reasons == ("all canaries: inconclusive (baseline: indistinguishable from unseen)",)


def test_a_canary_that_is_no_longer_there_is_named():
    fewer = make.canary_set(make.canary_set().inserted[:4])
    bits = {canary.id: 1.0 for canary in fewer.inserted}
    assert held_against(baseline_of(make.before_after()), bits, before=bits, canaries=fewer).reasons == (
        "canary-05: in the baseline, but not in this run",
    )


def test_a_baseline_of_another_audit_is_refused():
    other = make.canary_set([make.given("0123456789", name="canary-77")])
    with pytest.raises(UsageError, match="no canary of this run is in the baseline"):
        held_against(baseline_of(make.before_after({"canary-77": 3.0}, None, other)))
    same_id = make.canary_set([make.given("QXZ-4417", make.PLATE)])
    with pytest.raises(UsageError, match="canary-01 has a different template"):
        held_against(baseline_of(make.before_after({"canary-01": 3.0}, None, same_id)))


def test_a_baseline_before_unlearning_is_held_against_its_before():
    gate = held_against(baseline_of(make.before_after(after=None)))
    assert gate.passed


def test_limit_and_baseline_hold_together():
    canaries = make.canary_set()
    gate = build_summary(
        make.manifest(),
        canaries,
        make.model_record(),
        make.measurement(canaries, make.EXPOSED),
        [],
        "story",
        SummaryOptions(fail_above=30, baseline=baseline_of(make.before_after())),
    ).gate
    assert gate.name == "at most 30 bits, none exposed and no worse than the report of story"
    starts = [re.split(r", | \(", reason)[0] for reason in gate.reasons]
    assert starts[:2] == ["canary-01: 33.22 bits before unlearning", "canary-02: 33.22 bits before unlearning"]
    assert "canary-05: exposed" in starts


def test_a_later_version_may_add_fields():
    document = json.loads(render_json(make.before_after()))
    document["more"] = document["canaries"][0]["more"] = {"x": 1}
    assert held_against(EarlierReport.model_validate(document)).passed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; give the report.json of an earlier report"),
        ("{", "expected the report.json of an earlier report .not a JSON record"),
        ('{"schema_version": 1, "run": "x"}', "earlier report .overall: missing"),
        (b"\xff\xfe", "not a JSON record"),
    ],
)
def test_a_baseline_that_is_no_report_is_an_error_of_one_line(tmp_path, content, message):
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message) as caught:
        read_baseline(path, tmp_path / "report.json")
    assert "\n" not in str(caught.value)


def test_a_baseline_of_another_version_is_refused(tmp_path):
    path = tmp_path / "baseline.json"
    path.write_text(render_json(make.before_after()).replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UsageError, match="expected schema version 1, got 99"):
        read_baseline(path, tmp_path / "report.json")


def test_a_baseline_that_the_report_would_replace_is_refused(tmp_path):
    with pytest.raises(UsageError, match="overwrite its baseline"):
        read_baseline(tmp_path / "x" / ".." / "report.json", tmp_path / "report.json")


@pytest.mark.parametrize(("controls", "fresh", "status"), [(7, 0, "inconclusive"), (8, 0, "passed"), (3, 96, "passed")])
def test_a_gate_relies_on_no_test_of_a_few_controls(controls, fresh, status):
    summary = make.before_after()
    calibration = summary.calibration_after.model_copy(update={"controls": controls, "fresh_controls": fresh})
    texts = [template.text for template in summary.templates]
    audited = Audited(
        summary.canaries, texts, summary.overall.verdict, [summary.calibration_before, calibration], summary.method, ()
    )
    gate = judge_gate(9.0, None, audited)
    assert gate.status == status
    assert gate.doubts == (
        ()
        if status == "passed"
        else ("controls after unlearning: 7 of them could hardly have failed; measure 8 or more",)
    )
