"""The summary on a pipeline's page."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from canaryaudit.errors import RunDirectoryError, UsageError
from canaryaudit.report.formats.step_summary import VARIABLE, append_step_summary, render_step_summary
from tests.golden import golden_summary
from tests.report import builders as make
from tests.report.formats.test_formats import hostile_summary


def test_it_says_verdict_gate_reasons_and_worst_canaries() -> None:
    text = render_step_summary(golden_summary())
    assert "1 of 3 secrets is still distinguishable" in text
    assert "Gate, at most 5 bits, none exposed and no worse than the report of nightly: **failed**" in text
    assert "- canary-02: 6.40 bits after unlearning, above the limit of 5" in text
    assert "| `canary-02` |" in text
    assert "0123456789" not in text
    passed = render_step_summary(make.before_after(fail_above=10))
    assert "none exposed: **passed**" in passed
    inconclusive = render_step_summary(make.before_after(fail_above=10, calibrated=False))
    assert "none exposed: **inconclusive**" in inconclusive
    assert "- controls after unlearning: they failed" in inconclusive


def test_nothing_in_a_run_is_markup_there() -> None:
    page = MarkdownIt("commonmark").enable("table").render(render_step_summary(hostile_summary()))
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page


def test_it_is_appended_to_what_other_steps_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary.md"
    file.write_text("## Another step\n", "utf-8")
    monkeypatch.setenv(VARIABLE, str(file))
    append_step_summary(make.before_after())
    append_step_summary(make.before_after())
    text = file.read_text("utf-8")
    assert text.startswith("## Another step\n")
    assert text.count("## Memorization audit of `story`") == 2


def test_without_a_file_to_write_to_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UsageError, match="--step-summary: GITHUB_STEP_SUMMARY is not set"):
        append_step_summary(make.before_after())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(RunDirectoryError):
        append_step_summary(make.before_after())
