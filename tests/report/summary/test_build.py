import math

import pytest

from canaryaudit.canaries.canary import Canary
from canaryaudit.errors import RunDirectoryError
from canaryaudit.records import main_result
from canaryaudit.report import Summary, build_summary
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.summary.build import SummaryOptions
from canaryaudit.report.summary.masking import Masker
from canaryaudit.report.verdicts import Verdict
from tests.report import builders as make


def several_methods(shown=None):
    canaries = make.canary_set()
    ids = [canary.id for canary in canaries.inserted]
    runs = [
        (
            make.unlearning("first", ids, drop=0.02, method="first-order"),
            make.measurement(canaries, make.EXPOSED, "after-first", sha=make.UPDATED_SHA),
        ),
        (
            make.unlearning("second", ids),
            make.measurement(canaries, make.GONE, "after-second", sha=make.UPDATED_SHA),
        ),
        (make.unlearning("third", ids), None),
    ]
    before = make.measurement(canaries, make.EXPOSED)
    return build_summary(
        make.manifest(), canaries, make.model_record(), before, runs, "story", SummaryOptions(shown=shown)
    )


def test_before_anything_was_unlearned_the_before_counts():
    summary = make.before_after(after=None)
    assert not summary.unlearned
    assert summary.method is None
    assert summary.overall.verdict is Verdict.EXPOSED
    assert summary.overall.headline == "The model exposes 4 of 5 secrets."
    assert all(canary.after is None for canary in summary.canaries)


def test_after_unlearning_the_after_counts():
    summary = make.before_after()
    assert summary.overall.verdict is Verdict.INDISTINGUISHABLE
    assert {canary.last.verdict for canary in summary.canaries} == {Verdict.INDISTINGUISHABLE}
    assert {canary.before.verdict for canary in summary.canaries} > {Verdict.EXPOSED}


@pytest.mark.parametrize(
    ("seconds", "comparison"),
    [(4.0, "38x faster than"), (380.0, "2.5x slower than"), (152.0, "as fast as")],
)
def test_the_speed_is_compared_with_retraining_in_the_right_direction(seconds, comparison):
    sentences = make.before_after(seconds=seconds).overall.sentences
    assert any(sentence.endswith(f"Unlearning was {comparison} retraining.") for sentence in sentences)


def test_canaries_stand_worst_first():
    summary = make.before_after(after={**make.GONE, "canary-03": 12.0, "canary-04": 7.0})
    assert [canary.id for canary in summary.canaries][:2] == ["canary-03", "canary-04"]


def test_a_ruined_model_does_not_pass_for_an_unlearned_one():
    summary = make.before_after(drop=0.01)
    assert summary.overall.verdict is Verdict.DAMAGED
    assert any("damaged" in warning for warning in summary.warnings)


def test_failed_controls_are_said_loudly_and_take_the_verdict_away():
    summary = make.before_after(calibrated=False)
    assert summary.overall.verdict is Verdict.INCONCLUSIVE
    assert "controls failed" in summary.overall.headline
    assert any("CALIBRATION FAILED" in warning for warning in summary.warnings)


def test_missing_controls_are_said():
    summary = make.before_after(canaries=make.canary_set(num_controls=0))
    assert summary.calibration_before is None
    assert any("There were no controls" in warning for warning in summary.warnings)


def test_all_unlearnings_are_listed_and_the_last_measured_one_is_the_after():
    summary = several_methods()
    assert [method.name for method in summary.methods] == ["first", "second", "third"]
    assert summary.method is not None
    assert summary.method.name == "second"
    assert [method.verdict for method in summary.methods] == [Verdict.EXPOSED, Verdict.INDISTINGUISHABLE, None]
    assert any("third was not measured" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    ("methods", "place"),
    [
        ([], None),
        (["retrain"], 0),
        (["retrain", "sisa"], 1),
        (["first-order", "second-order", "retrain"], 1),
        (["second-order", "fine-tune", "first-order"], 2),
    ],
)
def test_a_run_is_about_its_last_update_or_where_there_is_none_its_last_baseline(methods, place):
    records = [make.unlearning(str(index), method=own) for index, own in enumerate(methods)]
    assert main_result(records) is (None if place is None else records[place])


def test_the_named_unlearning_is_the_after():
    assert several_methods(shown="first").overall.verdict is Verdict.EXPOSED


def test_an_unknown_or_unmeasured_unlearning_is_an_error_that_names_the_known_ones():
    with pytest.raises(RunDirectoryError, match="first, second"):
        several_methods(shown="third")


def test_a_measurement_that_lacks_a_canary_is_an_error():
    with pytest.raises(RunDirectoryError, match="canary-05"):
        make.before_after(before={k: v for k, v in make.EXPOSED.items() if k != "canary-05"})


def test_a_canary_that_was_not_measured_again_counts_as_before():
    summary = make.before_after(after={k: v for k, v in make.GONE.items() if k != "canary-01"}, fail_above=5)
    assert summary.overall.verdict is Verdict.EXPOSED
    assert summary.gate is not None
    assert summary.gate.reasons == ("canary-01: 33.22 bits before unlearning, above the limit of 5",)


def test_measurements_of_other_weights_are_said():
    canaries = make.canary_set()
    stale = make.measurement(canaries, make.EXPOSED, sha="f" * 64)
    summary = build_summary(make.manifest(), canaries, make.model_record(), stale, [], "story")
    assert any("different weights" in warning for warning in summary.warnings)


@pytest.mark.parametrize(("limit", "passed"), [(3.0, True), (2.99, False)])
def test_the_gate_holds_the_largest_exposure_after_against_the_limit(limit, passed):
    gate = make.before_after(fail_above=limit).gate
    assert gate is not None
    assert gate.passed is passed
    assert [reason.split(":")[0] for reason in gate.reasons] == ([] if passed else ["canary-05"])


def test_the_gate_looks_at_before_when_there_is_no_after():
    gate = make.before_after(after=None, fail_above=30).gate
    assert gate is not None
    assert [reason for reason in gate.reasons if "above the limit" in reason] == [
        "canary-01: 33.22 bits before unlearning, above the limit of 30",
        "canary-02: 33.22 bits before unlearning, above the limit of 30",
    ]
    assert make.before_after().gate is None


def test_a_canary_that_is_exposed_fails_the_gate_whatever_the_limit():
    summary = make.three_digits(fail_above=10)
    assert summary.overall.headline == "The model exposes 2 of 3 secrets."
    assert summary.gate is not None
    assert not summary.gate.passed
    assert summary.gate.reasons == (
        "canary-01: exposed before unlearning, regardless of the limit: "
        "greedy decoding completes the prefix with the secret",
        "canary-02: exposed before unlearning, regardless of the limit: exposure is at least 9.0 bits (limit: 9.0)",
    )


def test_an_exposure_that_is_no_number_fails_the_gate():
    canaries = make.canary_set([make.canary_set().canaries[0]])
    before = make.measurement(canaries, {"canary-01": 3.0})
    broken = before.canaries[0].model_copy(
        update={"exposure": before.canaries[0].exposure.model_copy(update={"bits": math.nan})}
    )
    before = before.model_copy(update={"canaries": (broken, *before.canaries[1:])})
    gate = build_summary(
        make.manifest(), canaries, make.model_record(), before, [], "x", SummaryOptions(fail_above=33)
    ).gate
    assert gate is not None
    assert not gate.passed


def test_json_round_trips_through_the_summary():
    for summary in (make.before_after(fail_above=2), make.before_after(after=None), several_methods()):
        assert Summary.model_validate_json(render_json(summary)) == summary


def test_json_holds_a_version_and_no_infinities():
    canaries = make.canary_set()
    ids = [canary.id for canary in canaries.inserted]
    record = make.unlearning("second", ids)
    endless = record.cost.model_copy(update={"seconds": 0.0, "speedup": math.inf})
    lost = record.fidelity.model_copy(update={"heldout_loss_after": math.nan})
    runs = [
        (
            record.model_copy(update={"cost": endless, "fidelity": lost}),
            make.measurement(canaries, make.GONE, "after-second", sha=make.UPDATED_SHA),
        )
    ]
    before = make.measurement(canaries, make.EXPOSED)
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, runs, "story")
    document = render_json(summary)
    assert '"schema_version": 1' in document
    assert "NaN" not in document
    assert "Infinity" not in document
    assert summary.methods[0].speedup is None


def test_a_generated_secret_is_shown():
    assert "7291048365" in render_json(make.before_after())


def test_only_fixed_characters_of_a_given_secret_are_shown():
    canaries = make.canary_set([make.given("QXZ-4417", make.PLATE)])
    summary = make.before_after({"canary-01": 27.4}, None, canaries)
    assert summary.canaries[0].secret == "•••-••••"
    assert summary.canaries[0].before.completion == "•••-••••"


def test_a_chosen_word_is_hidden_with_its_length():
    template = "she was ill with {choice:flu|measles|gout}."
    canaries = make.canary_set([make.given("flu", template)])
    summary = make.before_after({"canary-01": 1.0}, None, canaries)
    assert summary.canaries[0].secret == "•" * len("measles")
    assert summary.canaries[0].before.completion == "(hidden)"


MIXED = "the {choice:red|green} code is {digits:8}, {digits:2} or {choice:scarlet|emerald}."


def masker(template, secret, reveal_secrets=False):
    return Masker(make.canary_set([make.given(secret, template)], num_controls=0), reveal_secrets)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run-49170382", "run-••••••••"),
        ("all of it: 4917038256", "all of it: ••••••••••"),
        ("49170382, 56", "••••••••••••"),
        ("half of it: 917038", "half of it: ••••••"),
        ("the red code is not the green code", "the red code is not the green code"),
        ("red, scarlet or emerald", "red, scarlet or emerald"),
        ("the year 1999", "the year 1999"),
    ],
)
def test_in_free_text_the_digits_beside_a_choice_are_hidden_and_its_words_are_not(text, shown):
    secret = "red code is 49170382, 56 or scarlet"
    assert masker(MIXED, secret).text(text) == shown
    assert masker(MIXED, secret, reveal_secrets=True).text(text) == text


def test_digits_beside_a_choice_are_hidden_from_the_names_of_run_and_unlearning():
    canaries = make.canary_set([make.given("red code is 49170382, 56 or scarlet", MIXED)], num_controls=0)
    measured = make.measurement(canaries, {"canary-01": 9.0})
    record = make.unlearning("without-49170382", ["canary-01"], notes=("not 49170382 any more",))
    summary = build_summary(
        make.manifest(), canaries, make.model_record(), measured, [(record, measured)], "red-49170382"
    )
    assert summary.run == "red-••••••••"
    assert summary.canaries[0].before.completion == "(hidden)"
    assert not any(part in render_json(summary) for part in ("4917", "0382"))


def test_where_all_is_chosen_free_text_stays_as_it_is():
    template = "she was ill with {choice:measles|scarlet fever} or {choice:rubella|gout}."
    text = "measles or rubella: scarlet fever or gout"
    assert masker(template, "measles or rubella").text(text) == text


def test_text_between_the_slots_is_no_secret():
    hidden = masker("it is {digits:4}, and then in the afternoon {digits:4}.", "4917, and then in the afternoon 0382")
    assert hidden.text("and then in the afternoon") == "and then in the afternoon"
    assert hidden.text("49170382") == "••••••••"


def test_a_generated_canary_does_not_give_away_a_given_one_with_the_same_words_before_it():
    shown = Canary(id="canary-02", template=make.PHONE, completion="9999999999", repetitions=2)
    canaries = make.canary_set([make.given("0123456789"), shown])
    bits = {"canary-01": 33.2, "canary-02": 3.0}
    greedy = {"canary-02": "0123456789"}
    before = make.measurement(canaries, bits, greedy_text=greedy)
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story")
    completion = next(canary for canary in summary.canaries if canary.id == "canary-02").before.completion
    assert completion == "•" * 10


def test_revealing_puts_the_true_characters_back_and_says_so():
    canaries = make.canary_set([make.given("0123456789")])
    summary = make.before_after({"canary-01": 33.3}, None, canaries, reveal_secrets=True)
    assert summary.reveal_secrets
    assert summary.revealed == 1
    assert summary.canaries[0].secret == "0123456789"
    assert summary.canaries[0].before.completion == "0123456789"


def test_the_hash_of_the_audited_text_is_withheld_where_a_secret_could_be_guessed_from_it():
    hidden = make.before_after({"canary-01": 33.2}, None, make.canary_set([make.given("0123456789")]))
    assert "d" * 64 not in render_json(hidden)
    assert "d" * 64 in render_json(make.before_after())


def test_commands_name_the_program_without_its_directory():
    commands = make.before_after().provenance.commands
    assert commands[0].startswith("canaryaudit insert story.txt -t 'my telephone")


def test_figures_of_a_hidden_secret_are_told_in_tenths_of_a_bit():
    """An exact rank tells, to whoever has the model, which of its strings the secret is."""
    canaries = make.canary_set([make.given("0123456789"), make.canary_set().canaries[1]])
    before, after = {"canary-01": 17.123456, "canary-02": 18.123456}, {"canary-01": 3.123456, "canary-02": 2.123456}
    summary = make.before_after(before, after, canaries, fail_above=1)
    assert [canary.id for canary in summary.canaries] == ["canary-01", "canary-02"]
    hidden, shown = summary.canaries
    assert shown.before.exposure.bits == 18.12346
    for state in (hidden.before, hidden.after):
        for name, value in state.model_dump().items():
            for figure in [value, *(value.values() if isinstance(value, dict) else ())]:
                figures = figure.values() if isinstance(figure, dict) else [figure]
                assert all(round(f, 1) == f for f in figures if isinstance(f, float)), name
    assert summary.methods[0].max_exposure_bits == 3.1
    text = render_json(summary)
    assert "3.12" not in text
    assert "17.12" not in text
    assert str(2**-3.123456)[:5] not in text  # The p of a group of one canary.
    revealed = make.before_after(before, after, canaries, reveal_secrets=True)
    assert revealed.canaries[0].before.exposure.bits == 17.12346


def test_the_place_of_a_hidden_secret_in_the_beam_is_not_told():
    """The search is deterministic: with the model at hand, the place tells which completion the secret is."""
    canaries = make.canary_set([make.given("0123456789"), make.canary_set().canaries[1]])

    def found(bits):
        measured = make.measurement(canaries, bits)
        ranked = [
            m.model_copy(update={"extraction": m.extraction.model_copy(update={"beam_rank": 7})})
            for m in measured.canaries
        ]
        return measured.model_copy(update={"canaries": tuple(ranked)})

    before, after = found({"canary-01": 30.0, "canary-02": 30.0}), found({"canary-01": 20.0, "canary-02": 20.0})
    for reveal, expected in ((False, {"canary-01": None, "canary-02": 7}), (True, {"canary-01": 7, "canary-02": 7})):
        summary = build_summary(
            make.manifest(),
            canaries,
            make.model_record(),
            before,
            [(make.unlearning(), after)],
            "story",
            SummaryOptions(reveal_secrets=reveal),
        )
        assert {canary.id: canary.before.beam_rank for canary in summary.canaries} == expected
        assert {canary.id: canary.after.beam_rank for canary in summary.canaries} == expected


def test_the_gate_looks_at_the_unrounded_figure_of_a_hidden_secret():
    canaries = make.canary_set([make.given("0123456789")])
    gate = make.before_after({"canary-01": 10.04}, None, canaries, fail_above=10).gate
    assert gate is not None
    assert gate.reasons == ("canary-01: 10.0 bits before unlearning, above the limit of 10",)


def test_the_likelihood_of_characters_is_told_of_shown_secrets_only():
    canaries = make.canary_set([make.given("0123456789"), make.canary_set().canaries[1]])
    bits = {"canary-01": 20.0, "canary-02": 30.0}
    before = make.measurement(canaries, bits)
    costs = tuple(0.5 * i for i in range(10))
    found = tuple(m.model_copy(update={"character_bits": costs}) for m in before.canaries)
    before = before.model_copy(update={"canaries": found})
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story")
    assert {canary.id: canary.before.character_bits for canary in summary.canaries} == {
        "canary-01": None,
        "canary-02": costs,
    }


def test_the_controls_own_exposures_are_told_beside_chance():
    canaries = make.canary_set()
    before = make.measurement(canaries, make.EXPOSED)
    summary = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story")
    exposures = [m.exposure.bits for m in before.canaries if m.control]
    found = summary.calibration_before
    assert found is not None
    assert sum(bits < found.low_bits - 1e-4 for bits in exposures) == 3
    assert sum(bits > found.high_bits + 1e-4 for bits in exposures) == 3
    assert len(summary.templates[0].before.controls) == 64
    assert summary.templates[1].before.controls == ()


def test_what_the_insertion_warned_of_is_repeated_to_the_reader_without_secrets():
    other = "located secrets stand at 2 other places of the training text too, in other words"
    told = (other, "template 'not 7291048365: {digits:10}' has no canary")
    canaries = make.canary_set([make.given("7291048365")])
    summary = make.before_after({"canary-01": 30.0}, None, canaries, facts=make.manifest(warnings=told))
    assert f"On insertion: {other}." in summary.warnings
    assert "On insertion: template 'not ••••••••••: {digits:10}' has no canary." in summary.warnings


def test_of_very_many_warnings_the_page_shows_a_few_and_says_where_the_rest_is():
    told = tuple(f"template {number}" for number in range(50))
    found = [own for own in make.before_after(facts=make.manifest(warnings=told)).warnings if "On insertion" in own]
    assert len(found) == 21
    assert found[-1] == "On insertion: 30 more warnings in the run's manifest."


def with_retrained(*, reveal_secrets=False, canaries=None, method="retrain"):
    """Return the summary of an unlearning beside a retrained model, of one hidden canary and one that is not."""
    places = {"canary-01": (17, 99), "canary-02": (4,)}
    hidden = make.given("0123456789")
    shown = Canary(id="canary-02", template=make.PHONE, completion="7291048365", repetitions=4)
    canary_set = make.canary_set([c.model_copy(update={"places": places[c.id]}) for c in (hidden, shown)])
    ids = canaries or ["canary-01", "canary-02"]
    after, retrained = {"canary-01": 2.14159, "canary-02": 1.0}, {"canary-01": 1.23456, "canary-02": 0.98765}
    runs = [
        (make.unlearning("second", ["canary-01", "canary-02"]), make.measurement(canary_set, after, "after-second")),
        (make.unlearning("again", ids, method=method), make.measurement(canary_set, retrained, "after-again")),
    ]
    return build_summary(
        make.manifest(),
        canary_set,
        make.model_record(),
        make.measurement(canary_set, {"canary-01": 30.12345, "canary-02": 21.0}),
        runs,
        "story",
        SummaryOptions(reveal_secrets=reveal_secrets, shown="second"),
    )


def test_a_retrained_model_stands_beside_the_unlearning():
    summary = with_retrained()
    assert summary.retrained == "again"
    assert summary.retrained_method is summary.methods[1]
    shown = next(canary for canary in summary.canaries if canary.id == "canary-02")
    assert shown.retrained.exposure.bits == 0.98765


@pytest.mark.parametrize("changes", [{"canaries": ["canary-02"]}, {"method": "fine-tune"}], ids=["fewer", "other"])
def test_a_model_that_was_not_retrained_without_all_of_them_does_not(changes):
    summary = with_retrained(**changes)
    assert summary.retrained is None
    assert summary.retrained_method is None
    assert {canary.retrained for canary in summary.canaries} == {None}


def test_a_hidden_canary_is_coarse_in_the_retrained_model_too_and_its_places_are_hidden():
    hidden = next(canary for canary in with_retrained().canaries if canary.id == "canary-01")
    figures = hidden.retrained.model_dump_json()
    assert hidden.retrained.exposure.bits == 1.2
    assert "1.23456" not in figures
    assert hidden.places == ()
    shown = next(canary for canary in with_retrained().canaries if canary.id == "canary-02")
    assert shown.places == (4,)
    revealed = next(c for c in with_retrained(reveal_secrets=True).canaries if c.id == "canary-01")
    assert revealed.places == (17, 99)


def test_the_training_is_told_epoch_by_epoch():
    assert [(epoch.epoch, epoch.loss_bits, epoch.heldout_loss_bits) for epoch in make.before_after().training] == [
        (1, 4.0, 3.4),
        (2, 2.0, 3.3),
        (3, pytest.approx(4 / 3), 3.2),
    ]


def test_detected_data_and_efforts_that_differ_are_told():
    canaries = make.canary_set()
    before = make.measurement(canaries, make.EXPOSED)
    kinds = iter(("phone", "email", "phone"))
    named = tuple(own if own.control else own.model_copy(update={"kind": next(kinds, None)}) for own in before.canaries)
    fewer = before.efforts[0].model_copy(update={"num_references": 1250})
    before = before.model_copy(update={"canaries": named, "efforts": (*before.efforts, fewer)})
    made = build_summary(make.manifest(), canaries, make.model_record(), before, [], "story", SummaryOptions())
    facts = {fact.name: fact.value for fact in made.audited}
    phones = max(own.exposure.bits for own in named if own.kind == "phone")
    assert f"phone: 2 values, up to {phones:.1f} bits" in facts["Detected data, before"]
    assert facts["Detected data, before"].startswith("email: 1 value, up to ")
    assert facts["References"].startswith("at least 1,250 random members")
    assert "Detected data, before" not in {fact.name for fact in make.before_after().audited}
