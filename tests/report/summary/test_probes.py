"""Tests of canaryaudit.report.summary.probes, and of what the page says of worst cases."""

import math

import pytest

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.records import Measurement, ProbeName
from canaryaudit.report import Summary, build_summary
from canaryaudit.report.charts import charts
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.junit import render_junit
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.summary.build import SummaryOptions
from canaryaudit.report.summary.gate import EarlierReport
from canaryaudit.report.summary.probes import asked
from canaryaudit.report.verdicts import Verdict
from tests.report import builders as make

LOW = {"canary-01": 1.0, "canary-02": 0.4, "canary-03": 1.2, "canary-04": 0.9, "canary-05": 3.0}


def summary(
    p_values: dict[str, float],
    *,
    canaries: CanarySet | None = None,
    worst: make.ProbeKey = ("bare-1", 0),
    joint: float = 0.4,
    **options: object,
) -> Summary:
    """Return the summary of an audit in which prefixes show nothing after unlearning."""
    canaries = canaries or make.canary_set()
    before: Measurement = make.probed(make.measurement(canaries, make.EXPOSED), {}, joint_pvalue=1e-4)
    after = make.measurement(canaries, LOW, "after-second-order", sha=make.UPDATED_SHA)
    after = make.probed(after, p_values, worst, joint)
    unlearning = make.unlearning(canaries=[canary.id for canary in canaries.inserted])
    return build_summary(
        make.manifest(),
        canaries,
        make.model_record(),
        before,
        [(unlearning, after)],
        "story",
        SummaryOptions(**options),  # type: ignore[arg-type]
    )


def verdicts(found: Summary) -> dict[str, Verdict]:
    return {canary.id: canary.last.verdict for canary in found.canaries}


def test_a_canary_that_its_prefix_does_not_show_is_exposed_by_its_worst_case_and_the_way_is_named() -> None:
    found = summary({"canary-03": 2**-12})
    assert verdicts(found)["canary-03"] is Verdict.EXPOSED
    assert found.overall.verdict is Verdict.EXPOSED
    assert found.overall.headline == "The model still exposes 1 of 5 secrets."
    assert found.canaries[0].id == "canary-03"
    assert "without the prefix (bare-1)" in found.canaries[0].last.reason
    assert any(
        "canary-03: 16.0 bits, p below 0.001, without the prefix (bare-1)" in own for own in found.overall.sentences
    )


def test_worst_cases_between_the_borders_are_weakened_and_above_five_percent_indistinguishable() -> None:
    found = verdicts(summary({"canary-03": 0.04, "canary-04": 0.06}))
    assert found["canary-03"] is Verdict.WEAKENED
    assert found["canary-04"] is Verdict.INDISTINGUISHABLE


def test_secrets_that_stand_out_only_together_are_not_called_gone() -> None:
    assert summary({}, joint=0.02).overall.verdict is not Verdict.INDISTINGUISHABLE
    assert summary({}, joint=0.03).overall.verdict is Verdict.INDISTINGUISHABLE


def test_the_gate_fails_on_the_worst_case_and_says_how_it_was_asked() -> None:
    failed = summary({"canary-03": 2**-8}, fail_above=6.0).gate
    assert failed is not None
    assert not failed.passed
    assert failed.reasons == (
        "canary-03: worst case 8.0 bits after unlearning (without the prefix (bare-1)), corrected for the number of "
        "probes, above the limit of 6",
    )
    passed = summary({"canary-03": 2**-5}, fail_above=6.0).gate
    assert passed is not None
    assert passed.passed


def test_the_gate_does_not_fail_on_what_chance_makes_of_many_probes() -> None:
    """By its own figure the worst case of a secret never seen lies at six bits and more: its p-value tells."""
    found = summary({"canary-03": 0.2}, fail_above=5.0)
    worst = next(canary.last.worst_case for canary in found.canaries if canary.id == "canary-03")
    assert worst is not None
    assert worst.bits is not None
    assert worst.bits > 6
    assert found.gate is not None
    assert found.gate.passed


def test_a_worse_worst_case_than_the_baselines_fails() -> None:
    baseline = EarlierReport.model_validate_json(render_json(summary({"canary-03": 0.5})))
    better = summary({"canary-03": 0.3}, baseline=baseline).gate
    assert better is not None
    assert better.passed
    worse = summary({"canary-03": 2**-9}, baseline=baseline).gate
    assert worse is not None
    assert "canary-03: worst case 9.0 bits (without the prefix (bare-1)), corrected for the number" in worse.reasons[0]


def test_junit_fails_the_canary_that_another_prompt_exposes() -> None:
    page = render_junit(summary({"canary-03": 2**-12}))
    assert page.count("<failure") == 1
    assert "without the prefix (bare-1)" in page


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (("template", "template", 0), "with the template's prefix"),
        (("partial", "template", 5), "with the template's prefix, given 5 characters of the secret"),
        (("reworded", "given-2", 0), "with a given prompt (given-2)"),
        (("context", "context-1", 0), "with preceding text (context-1)"),
    ],
)
def test_ways_of_asking_have_words(probe: tuple[str, str, int], words: str) -> None:
    family, prompt, known = probe
    assert asked(ProbeName(family=family, prompt=prompt, known=known)) == words  # type: ignore[arg-type]


def hidden() -> CanarySet:
    return make.canary_set([make.given("0123456789")])


def with_closings(p_values: dict[str, float], *, canaries: CanarySet | None = None, reveal: bool = False) -> Summary:
    """Return the summary of an audit in which, after unlearning, only what follows shows anything."""
    canaries = canaries or make.canary_set()
    before = make.closed(make.measurement(canaries, make.EXPOSED), {})
    after = make.measurement(canaries, LOW, "after-second-order", sha=make.UPDATED_SHA)
    return build_summary(
        make.manifest(),
        canaries,
        make.model_record(),
        before,
        [(make.unlearning(canaries=[own.id for own in canaries.inserted]), make.closed(after, p_values))],
        "story",
        SummaryOptions(reveal_secrets=reveal),
    )


CONFIRMED = 1 / 1001


def test_a_secret_that_what_follows_confirms_is_named_and_the_audit_does_not_pass() -> None:
    found = with_closings({"canary-03": CONFIRMED})
    assert verdicts(found)["canary-03"] is Verdict.WEAKENED
    assert verdicts(found)["canary-02"] is Verdict.INDISTINGUISHABLE
    assert found.overall.verdict is Verdict.WEAKENED
    assert found.overall.detection is not None
    assert found.overall.detection.named == ("canary-03",)
    assert "1 of 5 secrets is still distinguishable" in found.overall.headline
    assert any("closing texts, p = " in own for own in found.overall.sentences)
    page = render_html(found, charts(found))
    assert "whoever guesses it can confirm it" in page
    assert 'href="#def-closing"' in page
    assert 'id="def-closing"' in page or "id=def-closing" in page


def test_closings_share_the_level_with_exposures() -> None:
    assert with_closings({}).overall.verdict is Verdict.INDISTINGUISHABLE
    alone = with_closings({"canary-03": 0.02})  # within chance among five that are tested twice
    assert verdicts(alone)["canary-03"] is Verdict.WEAKENED
    assert alone.overall.verdict is Verdict.INDISTINGUISHABLE
    every = with_closings(dict.fromkeys(LOW, 0.02))
    assert every.overall.verdict is Verdict.WEAKENED
    assert every.overall.detection is not None
    assert every.overall.detection.closing_joint_pvalue is not None
    assert every.overall.detection.closing_joint_pvalue < 0.01
    assert every.overall.detection.named == ()


def test_a_hidden_secrets_closing_is_hidden_and_its_verdict_stays() -> None:
    found = with_closings({"canary-01": 2 / 1001}, canaries=hidden())
    state = found.canaries[0].last
    assert state.closing is None
    assert "(p = 0.002)" in state.reason
    assert "0.001998" not in render_json(found)
    revealed = with_closings({"canary-01": 2 / 1001}, canaries=hidden(), reveal=True)
    assert revealed.canaries[0].last.closing is not None
    assert "0.001998" in render_json(revealed)


def test_a_hidden_secrets_probes_are_hidden_and_its_worst_case_is_coarse() -> None:
    found = summary({"canary-01": 0.0123456}, canaries=hidden())
    state = found.canaries[0].last
    assert state.probes is None
    assert state.worst_case is not None
    assert state.worst_case.p_value == 0.01
    assert state.worst_case.bits == round(-math.log2(0.0123456) + 4, 1)
    assert not [chart for chart in charts(found) if chart.name == "probes"]
    revealed = summary({"canary-01": 0.0123456}, canaries=hidden(), reveal_secrets=True)
    assert revealed.canaries[0].last.probes


def test_running_text_of_the_corpus_is_shown_only_where_secrets_are() -> None:
    texts = {(make.PHONE, "context-1"): "the queen turned pale. my telephone number is "}
    kept = summary({}, canaries=hidden(), prompt_texts=texts)
    assert "the queen turned pale" not in render_json(kept)
    shown = summary({}, canaries=hidden(), prompt_texts=texts, reveal_secrets=True)
    assert "the queen turned pale" in render_html(shown, charts(shown))
    prompt = next(own for own in shown.prompts if own.id == "context-1")
    assert prompt.text == texts[make.PHONE, "context-1"]


def test_a_prompt_that_holds_a_hidden_secret_is_masked() -> None:
    canaries = make.canary_set(
        [make.given("0123456789"), Canary(id="canary-02", template=make.PHONE, completion="7291048365", repetitions=1)]
    )
    found = summary({}, canaries=canaries)
    assert "0123456789" not in render_markdown(found, charts(found))


def test_the_heat_map_has_a_column_for_every_probe_before_and_after() -> None:
    found = summary({"canary-03": 2**-12}, worst=("bare-1", 2))
    chart = next(own for own in charts(found) if own.name == "probes")
    panels = chart.spec["vconcat"]
    assert [panel["title"]["text"] for panel in panels] == ["before", "after"]
    order = panels[1]["encoding"]["x"]["sort"]
    assert order == ["template", "context-1", "reworded-1", "bare-1", "25 % known, bare-1"]
    assert (
        "canary-03 16.0 bits, p below 0.001, without the prefix (bare-1), given 2 characters of the secret"
        in chart.alternative
    )
    assert "probes.svg" in render_markdown(found, charts(found))
