"""What a reader decides by: the tiles, the next step, the worst secret and the commands."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.formats.model_card import render_model_card
from canaryaudit.report.formats.terminal import render_terminal
from canaryaudit.report.judgment import Gate, GateStatus
from canaryaudit.report.schema import CalibrationFigures, Summary
from canaryaudit.report.summary.decision import (
    asked,
    next_step,
    run_directory,
    section_commands,
    tiles,
    worst_secret,
)
from canaryaudit.report.verdicts import Verdict
from tests.golden import golden_summary
from tests.report import builders as make


def changed(summary: Summary, **changes: object) -> Summary:
    """Return the summary with another verdict, or other changes of its method or of itself."""
    overall = changes.pop("overall", {})
    if verdict := changes.pop("verdict", None):
        overall = {**overall, "verdict": verdict}  # type: ignore[dict-item]
    if overall:
        changes["overall"] = summary.overall.model_copy(update=overall)  # type: ignore[arg-type]
    if method := changes.pop("method", None):
        changes["methods"] = (summary.methods[0].model_copy(update=method),)  # type: ignore[arg-type]
    return summary.model_copy(update=changes)


def status(summary: Summary) -> dict[str, str]:
    return {tile.name: tile.status for tile in tiles(summary)}


def failed(calibration: CalibrationFigures | None) -> CalibrationFigures:
    assert calibration is not None
    return calibration.model_copy(update={"passed": False})


def test_the_preparation_of_an_update_is_counted_wherever_its_time_stands() -> None:
    def texts(seconds: float) -> list[str]:
        summary = make.before_after(preparation=seconds)
        file = io.StringIO()
        Console(file=file, width=200).print(render_terminal(summary))
        page, card = render_html(summary, ()), render_model_card(summary)
        figure = tiles(summary)[2].figure
        return [file.getvalue(), figure, render_markdown(summary, ()), page, card]

    assert re.search("– preparation +2 min 20 s, once", texts(140.0)[0])
    for text in texts(140.0)[1:]:
        assert "3.4 s, after 2 min 20 s of preparation, once" in text
        assert "slower with its preparation" not in text
    _, tile, markdown, *_ = texts(150.0)
    assert tile.startswith("45x faster, but slower with its preparation: 3.4 s, after 2 min 30 s of preparation, once;")
    assert "Unlearning was 45x faster than retraining, but slower with its preparation." in markdown
    for text in texts(0.01):
        assert "preparation" not in text.replace("data preparation", "")


GATE = Gate(fail_above_bits=10, status="passed", reasons=())
CLEAN = make.before_after()


def gate(result: GateStatus) -> Gate:
    return GATE.model_copy(update={"status": result})


def test_a_clean_audit_passes_everything_that_it_tested() -> None:
    assert status(CLEAN) == {
        "Efficacy": "pass",
        "Fidelity": "pass",
        "Efficiency": "pass",
        "Controls": "pass",
        "Gate": "untested",
    }
    efficacy, fidelity, efficiency, controls, _ = tiles(CLEAN)
    assert (
        efficacy.figure
        == "0 of 5 exposed; largest exposure 3.0 bits (canary-05) with the template's prefix (before: 33.2)."
    )
    assert fidelity.figure == "Accuracy −0.10 percentage points (allowed: −0.30); on held-out text −0.10."
    assert efficiency.figure == "45x faster: 3.4 s; retraining 2 min 32 s."
    assert controls.figure.endswith("(expected: 1.44).")


@pytest.mark.parametrize(
    ("changes", "tile", "expected"),
    [
        ({"verdict": Verdict.EXPOSED}, "Efficacy", "fail"),
        ({"verdict": Verdict.WEAKENED}, "Efficacy", "fail"),
        ({"verdict": Verdict.RESIDUAL}, "Efficacy", "fail"),
        ({"verdict": Verdict.DAMAGED}, "Efficacy", "pass"),
        ({"verdict": Verdict.INCONCLUSIVE}, "Efficacy", "inconclusive"),
        ({"method": {"accuracy_change": -0.0031}}, "Fidelity", "fail"),
        ({"method": {"accuracy_change": -0.003}}, "Fidelity", "pass"),
        ({"method": {"accuracy_change": None}}, "Fidelity", "inconclusive"),
        ({"method": {"speedup": 0.28}}, "Efficiency", "fail"),
        ({"method": {"speedup": 1.0}}, "Efficiency", "fail"),
        ({"method": {"preparation_seconds": 140.0}}, "Efficiency", "pass"),
        ({"method": {"preparation_seconds": 150.0}}, "Efficiency", "check"),
        ({"method": {"speedup": None}}, "Efficiency", "untested"),
        ({"calibration_after": failed(CLEAN.calibration_after)}, "Controls", "fail"),
        ({"calibration_before": failed(CLEAN.calibration_before)}, "Controls", "fail"),
        ({"calibration_after": None}, "Controls", "untested"),
        ({"gate": GATE}, "Gate", "pass"),
        ({"gate": gate("failed")}, "Gate", "fail"),
        ({"gate": gate("inconclusive")}, "Gate", "inconclusive"),
        ({"overall": {"shows_little": ("The model learned nothing.",)}}, "Efficacy", "untested"),
    ],
)
def test_a_tile_follows_its_own_figures_only(changes: dict[str, object], tile: str, expected: str) -> None:
    found = status(changed(CLEAN, **dict(changes)))
    assert found.pop(tile) == expected
    rest = status(CLEAN)
    del rest[tile]
    assert found == rest


def test_of_equal_exposures_the_tile_names_the_secret_that_the_page_calls_the_worst() -> None:
    summary = make.before_after(after={**make.GONE, "canary-03": 21.0, "canary-02": 21.0, "canary-04": 21.0})
    alike = [own.id for own in summary.canaries if own.last.exposure.bits == summary.canaries[0].last.exposure.bits]
    assert len(alike) > 1
    assert f"({alike[0]})" in tiles(summary)[0].figure


def test_a_loss_of_quality_on_held_out_text_is_not_passed_over() -> None:
    fidelity = tuple(
        line.model_copy(update={"after": 0.42}) if line.key == "heldout_accuracy" else line
        for line in CLEAN.methods[0].fidelity
    )
    summary = changed(CLEAN, method={"fidelity": fidelity})
    assert status(summary)["Fidelity"] == "check"
    assert tiles(summary)[1].figure.endswith("on held-out text −5.10: more than the limit.")


def test_without_an_unlearning_its_tiles_are_not_tested() -> None:
    summary = make.before_after(after=None)
    assert status(summary) == {
        "Exposure": "fail",
        "Fidelity": "untested",
        "Efficiency": "untested",
        "Controls": "pass",
        "Gate": "untested",
    }


def relearning(*, comes_back: bool) -> dict[str, object]:
    """Return the change by an attack, of which a decision reads no more than this."""
    return {"relearning": SimpleNamespace(comes_back=comes_back)}


BEFORE = make.before_after(after=None)
UNMEASURED = {"verdict": Verdict.INCONCLUSIVE, "calibration_after": failed(CLEAN.calibration_after)}


@pytest.mark.parametrize(
    ("summary", "begins", "command"),
    [
        (BEFORE, "Do not release this model: remove", "canaryaudit unlearn runs/story"),
        (changed(BEFORE, verdict=Verdict.RESIDUAL), "Do not release this model yet", "canaryaudit unlearn runs/story"),
        (
            changed(BEFORE, verdict=Verdict.INDISTINGUISHABLE),
            "This audit found no reason",
            "canaryaudit report runs/story",
        ),
        (
            changed(CLEAN, verdict=Verdict.EXPOSED),
            "Do not release this model: the secrets are still",
            "--method retrain",
        ),
        (changed(CLEAN, verdict=Verdict.WEAKENED), "Do not release this model: traces", "--method retrain"),
        (
            changed(CLEAN, verdict=Verdict.RESIDUAL, method={"method": "retrain"}),
            "Do not release this model: traces of the secrets are detectable even after retraining",
            "canaryaudit verify runs/story",
        ),
        (changed(CLEAN, verdict=Verdict.DAMAGED), "Do not release this model: it lost too much", "--method retrain"),
        (changed(CLEAN, **UNMEASURED), "Do not decide by these figures", "canaryaudit measure runs/story --model all"),
        (changed(CLEAN, verdict=Verdict.INCONCLUSIVE), "Do not decide yet", "--budget 500000"),
        (
            changed(CLEAN, calibration_after=failed(CLEAN.calibration_after)),
            "Do not decide by these figures",
            "measure",
        ),
        (
            changed(CLEAN, gate=gate("failed")),
            "Do not release this model: the gate failed",
            "canaryaudit verify runs/story",
        ),
        (
            changed(CLEAN, gate=gate("inconclusive")),
            "Do not release this model: the gate is inconclusive",
            "canaryaudit verify runs/story",
        ),
        (
            changed(CLEAN, verdict=Verdict.INCONCLUSIVE, overall={"faults": ("model.json is damaged",)}),
            "Do not decide by these figures: the run directory is not as it was written",
            "canaryaudit verify runs/story",
        ),
        (
            changed(CLEAN, overall={"shows_little": ("The model learned nothing.",)}),
            "Do not rely on this audit: there was nothing to detect",
            "canaryaudit train",
        ),
        (
            changed(CLEAN, method=relearning(comes_back=True)),
            "Do not release this model where others can train it",
            "--method retrain",
        ),
        (CLEAN, "This audit found no reason against a release. One test is open", "canaryaudit attack runs/story"),
        (
            changed(CLEAN, warnings=("a", "b")),
            "This audit found no reason against a release, but read its warnings. One test is open",
            "canaryaudit attack runs/story",
        ),
        (
            changed(CLEAN, method={"predicted": "token", **relearning(comes_back=True)}),
            "Do not release this model where others can train it",
            "--method retrain --model hf:PATH",
        ),
        (
            changed(CLEAN, method=relearning(comes_back=False)),
            "This audit found no reason against a release. Read its limitations",
            "canaryaudit report runs/story --fail-above 10",
        ),
    ],
)
def test_the_next_step_follows_the_worst_that_was_found(summary: Summary, begins: str, command: str) -> None:
    step = next_step(summary)
    assert step.sentence.startswith(begins)
    assert command in step.command


def test_an_exposed_secret_is_exposed_even_where_the_controls_failed() -> None:
    summary = changed(BEFORE, calibration_before=failed(BEFORE.calibration_before))
    assert next_step(summary).sentence == "Do not release this model: remove the secrets from it first."


def test_secrets_that_come_back_are_not_simply_gone() -> None:
    assert status(changed(CLEAN, method=relearning(comes_back=True)))["Efficacy"] == "check"


def test_the_run_is_named_as_its_commands_name_it() -> None:
    assert run_directory(CLEAN) == "runs/story"
    provenance = CLEAN.provenance.model_copy(update={"commands": ("canaryaudit train '/data/my runs/story'",)})
    assert run_directory(CLEAN.model_copy(update={"provenance": provenance})) == "'/data/my runs/story'"
    assert run_directory(make.before_after(run_name="it's; rm -rf")) == "'runs/it'\"'\"'s; rm -rf'"


def test_each_stage_has_the_command_that_ran_it() -> None:
    commands = section_commands(CLEAN)
    assert commands["train"] == "canaryaudit train runs/story"
    assert commands["insert"].startswith("canaryaudit insert story.txt -t ")
    assert "attack" not in commands
    whole = CLEAN.provenance.model_copy(update={"commands": ("canaryaudit run audit.toml",)})
    assert set(section_commands(CLEAN.model_copy(update={"provenance": whole})).values()) == {
        "canaryaudit run audit.toml"
    }


def test_the_worst_secret_is_named_with_its_worst_prompt() -> None:
    golden = golden_summary()
    assert golden.canaries[0].id == "canary-02"
    assert worst_secret(golden) == (
        "in the worst case of all probes 12.0 of 33.2 bits (0.4 % of unseen secrets, asked in all the same ways, score "
        "at least as high), asked without the prefix (bare-1): “↵”; 6.4 of 33.2 bits with the template's prefix"
    )
    assert worst_secret(CLEAN) == "exposure 3.0 of 27.4 bits with the template's prefix"
    assert worst_secret(CLEAN.model_copy(update={"canaries": ()})) == ""


def test_what_was_asked_names_model_secrets_probes_and_controls() -> None:
    facts = {fact.name: fact.value for fact in asked(golden_summary())}
    assert facts["Model"].startswith("character LSTM")
    assert facts["Secrets"].startswith("3 secrets from 2 templates")
    assert facts["Asked"] == (
        "with the text before the secret (the template's prefix) and 4 other probes, compared with 12 controls that "
        "the model never saw"
    )
