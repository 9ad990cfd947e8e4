"""The report on relearning attacks: verdict in words, curves, table, and what must not be shown."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from canaryaudit.attacks.relearning import compare
from canaryaudit.canaries.canary import Canary
from canaryaudit.records import Headline, Relearning, RelearningAttack, RelearningCurve, RelearningPoint
from canaryaudit.report import Summary, build_summary, render_terminal
from canaryaudit.report.charts.relearning import relearning_charts
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.summary.build import SummaryOptions
from canaryaudit.report.summary.relearning import relearning_sentences
from tests.report.builders import (
    EXPOSED,
    GONE,
    PHONE,
    UPDATED_SHA,
    canary_set,
    manifest,
    measurement,
    model_record,
    unlearning,
)

STEPS = (1, 2, 4)


def curve(
    attack: RelearningAttack, mine: list[float], theirs: list[float], canary: str = "canary-01"
) -> RelearningCurve:
    def points(figures: list[float]) -> list[RelearningPoint]:
        return [
            RelearningPoint(
                step=step,
                log_perplexity_bits=30 - own,
                exposure=Headline(bits=own, low=own - 0.1, high=own + 0.1, method="importance"),
            )
            for step, own in zip((0, *STEPS), figures, strict=True)
        ]

    return compare(canary, attack, points(mine), points(theirs))


def relearning(*curves: RelearningCurve, **changes: Any) -> Relearning:
    return Relearning(
        retrained_name="retrain",
        retrained_sha256="c" * 64,
        optimizer="Adam",
        learning_rate=1e-3,
        batch_size=8,
        window=100,
        steps=STEPS,
        seed=0,
        batches_sha256="d" * 64,
        other_text_margin_bits=1.0,
        canary_window_margin_bits=2.0,
        curves=curves,
        seconds=60.0,
    ).model_copy(update=changes)


BACK = relearning(
    curve("other-text", [1.0, 1.2, 1.1, 1.4], [1.3, 1.2, 1.1, 1.0]),
    curve("canary-window", [1.0, 12.0, 30.0, 33.2], [1.3, 3.0, 8.0, 14.0]),
)
GONE_FOR_GOOD = relearning(
    curve("other-text", [1.0, 1.2, 1.1, 1.4], [1.3, 1.2, 1.1, 1.0]),
    curve("canary-window", [1.0, 3.5, 8.0, 14.5], [1.3, 3.0, 8.0, 14.0]),
)


def summary(found: Relearning | None, *, seconds: float = 3.4, **changes: Any) -> Summary:
    canaries = changes.pop("canaries", canary_set())
    ids = [canary.id for canary in canaries.inserted]
    bits = {canary.id: GONE.get(canary.id, 1.0) for canary in canaries.inserted}
    record = unlearning(canaries=ids, seconds=seconds, relearning=found)
    retrained = unlearning("retrain", ids, seconds=160.0, method="retrain", scope="all-layers", updates=())
    before = measurement(canaries, {canary.id: EXPOSED.get(canary.id, 30.0) for canary in canaries.inserted})
    return build_summary(
        manifest(),
        canaries,
        model_record(),
        before,
        [(own, measurement(canaries, bits, f"after-{own.name}", sha=UPDATED_SHA)) for own in (record, retrained)],
        "story",
        SummaryOptions(**changes),
    )


def terminal(made: Summary) -> str:
    stream = io.StringIO()
    Console(width=80, file=stream).print(render_terminal(made))
    return stream.getvalue()


def test_a_result_that_is_fast_but_comes_back_is_called_so_everywhere() -> None:
    made = summary(BACK)
    drawn = relearning_charts(made)
    page, text = render_html(made, drawn), render_markdown(made, drawn)
    assert made.overall.headline.endswith("Fast but comes back: further training restores a secret.")
    said = (
        "canary-01 reaches 30.0 bits after 2 steps, from 1.0 before (retrained model: 8.0, from 1.3). "
        "It first exceeds the limit after 1 step."
    )
    assert any(said in sentence for sentence in made.overall.sentences)
    for shown in (page, text):
        assert said in shown
        assert "fast but comes back" in shown
        assert "Relearning attacks" in shown
    assert 'class="verdict indistinguishable returns"' in page, "not in the color of a good end"
    assert "Relearning           fast but comes back" in terminal(made)
    assert json.loads(render_json(made))["methods"][0]["relearning"]["curves"][1]["comes_back_at"] == 1


def test_a_slow_result_is_not_called_fast() -> None:
    made = summary(BACK, seconds=500.0)
    assert made.overall.headline.endswith("But further training restores a secret.")
    assert relearning_sentences(BACK, 0.3)[0].startswith("Comes back: after training on one window")


def test_a_result_that_stays_gone_says_by_how_much() -> None:
    made = summary(GONE_FOR_GOOD)
    assert "comes back" not in made.overall.headline
    assert 'class="verdict indistinguishable"' in render_html(made, relearning_charts(made))
    window, other = relearning_sentences(GONE_FOR_GOOD, 40.0)
    assert window == (
        "Comes back no faster than in the retrained model: after training on one window of the canary's text in every "
        "batch, canary-01 is at most 0.5 bits above it, after 1 step (limit: 2)."
    )
    assert other == (
        "Training on other text brings nothing back: canary-01 gains at most 0.4 bits more than in the retrained model."
    )
    assert "comes back no faster than in the retrained model" in terminal(made)


def test_a_gain_above_the_margin_is_not_called_nothing_because_its_intervals_overlap() -> None:
    def wide(points: tuple[RelearningPoint, ...]) -> tuple[RelearningPoint, ...]:
        spread = {"low": 0.0, "high": 9.0}
        return tuple(p.model_copy(update={"exposure": p.exposure.model_copy(update=spread)}) for p in points)

    narrow = curve("other-text", [1.0, 1.2, 5.5, 1.4], [1.3, 1.2, 1.1, 1.0])
    assert narrow.comes_back_at == 2
    unsure = compare("canary-01", "other-text", wide(narrow.unlearned), wide(narrow.retrained))
    assert unsure.comes_back_at is None
    (said,) = relearning_sentences(relearning(unsure), 40.0)
    assert said == (
        "Not shown to come back: after training on other text only, canary-01 gains at most 4.5 bits more than in the "
        "retrained model, after 2 steps (overlaps with the interval at step 0)."
    )


def test_the_worst_of_several_curves_is_told() -> None:
    both = relearning(GONE_FOR_GOOD.curves[1], BACK.curves[1].model_copy(update={"canary": "canary-03"}))
    assert relearning_sentences(both, 40.0) == relearning_sentences(relearning(both.curves[1]), 40.0)
    assert "canary-03" in relearning_sentences(both, 40.0)[0]


def test_without_an_attack_there_is_no_section() -> None:
    made = summary(None)
    assert relearning_charts(made) == ()
    assert "Relearning attacks" not in render_html(made, ())
    assert "Relearning attacks" not in render_markdown(made, ())
    assert any("relearns a secret was not measured. Run canaryaudit attack" in limit for limit in made.limits)
    assert not any("relearns a secret was not measured" in limit for limit in summary(BACK).limits)


def test_the_picture_has_both_models_at_every_step() -> None:
    (chart,) = relearning_charts(summary(BACK))
    assert chart.name == "relearning-1"
    values = [row for panel in chart.spec["hconcat"] for row in _rows(panel)]
    found = {(row["model"], row["step"], row["bits"]) for row in values}
    assert {("unlearned", 1, 12.0), ("retrained", 1, 3.0), ("unlearned", 0, 1.0), ("retrained", 4, 14.0)} <= found
    assert len(values) == 16
    assert (
        "canary-01, one window of the canary's text in every batch: 1.0 bits at step 0, 33.2 after 4 steps"
        in chart.alternative
    )
    assert chart.svg().startswith("<svg")


def _rows(panel: dict[str, Any]) -> list[dict[str, Any]]:
    found = [layer["data"]["values"] for layer in panel["layer"] if "step" in layer["data"]["values"][0]]
    assert found[0] == found[-1]
    rows: list[dict[str, Any]] = found[0]
    return rows


@pytest.mark.parametrize("reveal", [False, True])
def test_a_name_that_tells_a_given_secret_is_masked(reveal: bool) -> None:
    given = Canary(id="canary-01", template=PHONE, completion="7291048365", repetitions=4, origin="given")
    found = BACK.model_copy(update={"retrained_name": "without-7291048365"})
    made = summary(found, canaries=canary_set([given]), reveal_secrets=reveal)
    drawn = relearning_charts(made)
    for shown in (render_html(made, drawn), render_markdown(made, drawn), render_json(made), terminal(made)):
        assert ("7291048365" in shown) is reveal


def test_ranks_of_a_hidden_secret_are_rounded_under_attack_too() -> None:
    """With the model at hand, an exact rank would tell which string the secret is."""
    given = Canary(id="canary-01", template=PHONE, completion="7291048365", repetitions=4, origin="given")
    exact = relearning(curve("canary-window", [1.04567, 12.34567, 30.0, 33.21928], [1.3, 3.0, 8.0, 14.0]))
    for hidden, shown in ((True, (1.0, 12.3, 30.0, 33.2)), (False, (1.04567, 12.34567, 30.0, 33.21928))):
        made = summary(exact, canaries=canary_set([given]), reveal_secrets=not hidden)
        found = made.methods[0].relearning
        assert found is not None
        assert tuple(point.exposure.bits for point in found.curves[0].unlearned) == shown
        costs = [point.log_perplexity_bits for point in found.curves[0].unlearned]
        assert (costs == [round(bits, 1) for bits in costs]) is hidden


def test_the_page_is_about_the_update_and_not_about_the_baseline_run_after_it() -> None:
    made = summary(None)
    assert made.method is not None
    assert made.method.name == "second-order"
    assert [own.shown for own in made.methods] == [True, False]
    named = summary(None, shown="retrain")
    assert named.method is not None
    assert named.method.name == "retrain"
