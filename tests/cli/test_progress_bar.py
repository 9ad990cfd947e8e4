"""Tests of canaryaudit.cli.progress_bar."""

import io

import pytest
from rich.console import Console

from canaryaudit.cli import progress_bar as terminal
from canaryaudit.cli.progress_bar import TerminalReporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its time is changed."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def console(*, is_terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=80, highlight=False, color_system=None)


def written(progress: TerminalReporter) -> str:
    assert isinstance(progress.console.file, io.StringIO)
    return progress.console.file.getvalue()


def test_facts_come_with_the_time_since_the_start(clock: list[float]) -> None:
    progress = TerminalReporter(console())
    clock[0] += 12.34
    progress.info("Done.")
    assert written(progress) == "[  12.3 s] Done.\n"


def test_without_a_terminal_progress_is_a_line_now_and_then(clock: list[float]) -> None:
    progress = TerminalReporter(console())
    for second in range(40):
        clock[0] = 100.0 + second
        progress.update("train", second, 40, "loss 2.0")
    assert written(progress).splitlines() == [
        "[  16.0 s] train: 40 %, loss 2.0, 24 s left",
        "[  32.0 s] train: 80 %, loss 2.0, 8 s left",
    ]


def test_verbose_tells_every_stage_and_every_second(clock: list[float]) -> None:
    progress = TerminalReporter(console(is_terminal=True), verbose=True)
    for tenth in range(31):
        clock[0] = 100.0 + tenth / 10
        progress.update("train" if tenth < 5 else "measure", tenth, 30)
    assert [line[11:] for line in written(progress).splitlines()] == [
        "train: 0 %",
        "measure: 17 %",
        "measure: 53 %, 1 s left",
        "measure: 90 %, 0 s left",
    ]


def test_the_time_left_is_that_of_the_piece_of_work_at_hand(clock: list[float]) -> None:
    """A stage has several, one after another, and one that goes on from kept parts does not begin at nothing."""
    progress = TerminalReporter(console(), verbose=True)
    for second, done, total in ((0, 0, 100), (10, 50, 100), (20, 600, 1000), (30, 700, 1000)):
        clock[0] = 100.0 + second
        progress.update("measure", done, total, "")
    assert [line[11:] for line in written(progress).splitlines()] == [
        "measure: 0 %",
        "measure: 50 %, 10 s left",
        "measure: 60 %",
        "measure: 70 %, 30 s left",
    ]


def test_quiet_tells_warnings_only(clock: list[float]) -> None:
    progress = TerminalReporter(console(is_terminal=True), quiet=True)
    progress.info("Done.")
    progress.update("train", 1, 2)
    progress.warn("the controls fail")
    assert written(progress) == "[   0.0 s] WARNING: the controls fail\n"


def test_on_a_terminal_progress_is_one_line_that_goes_again() -> None:
    with TerminalReporter(console(is_terminal=True)) as progress:
        progress.update("train", 1, 4, "loss 2.0")
        progress.update("train", 2, 4, "loss 1.0")
        progress.info("Trained.")
        progress.update("measure", 1, 2)
    text = written(progress)
    assert "train" in text
    assert "Trained." in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2


def test_bar_and_figures_have_a_line_each() -> None:
    facts = "epoch 12/24, loss 4.46 bits, held-out 4.38, accuracy 0.182, 30.2k characters/s"
    with TerminalReporter(console(is_terminal=True)) as progress:
        progress.update("measure after-second-order (2/3)", 1, 4, facts)
    text = written(progress)
    assert " 25 % 0:00:00 left" in text
    assert facts in text
    assert "…" not in text


def test_the_live_line_goes_whatever_happens() -> None:
    progress = TerminalReporter(console(is_terminal=True))
    with pytest.raises(KeyboardInterrupt), progress:
        progress.update("train", 1, 4)
        raise KeyboardInterrupt
    assert written(progress).endswith(("\x1b[?25h", "\x1b[2K"))


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_text_acts_on_the_terminal(clock: list[float], is_terminal: bool) -> None:
    with TerminalReporter(console(is_terminal=is_terminal)) as progress:
        progress.info("[red]a[/red] \x1b[31m\nb")
        progress.warn("[bold]\x07")
        clock[0] += 60
        progress.update("\x1b]0;z\x07 [red]", 0, 0, "\x1b[31m [/red]")
    text = written(progress)
    assert "[red]a[/red] ⟨U+001B⟩[31m↵b" in text
    assert "\x07" not in text
    assert "\x1b[31m" not in text
    assert "\x1b]0" not in text
