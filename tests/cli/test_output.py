"""What a person sees: tables that fit 80 columns, no escape codes in a pipe, quiet and verbose as they say."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import FAST, INSERT, PROCESS, UNLEARN, canaryaudit, succeed

MakeRun = Callable[..., Path]

COLOR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7])[0-9;]*m")


def test_tables_read_well_at_80_columns(make_run: MakeRun) -> None:
    run = make_run("unlearned")
    for flags in ((), ("-v",)):
        text = succeed("measure", run, *FAST, *flags).out
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in text
        heading = next(line for line in lines if "exposure" in line)
        columns = ["canary", "times", "exposure,", "bits", "95", "%", "interval", "greedy", "worst", "p"]
        assert heading.split() == columns
        rows = [line.split() for line in lines if line.strip().startswith("canary-")]
        assert {row[0] for row in rows} == {"canary-01", "canary-02"}
        assert "Controls: 8, mean" in text
    headings = [line.split() for line in lines if line.startswith(" canary") and "skew-normal" in line]
    assert headings == [["canary", "exact", "importance", "sampled", "skew-normal"]]
    report = succeed("report", run).out
    # Headline and warnings are sentences, which a terminal wraps; tables it would break.
    assert [line for line in report.splitlines()[1:] if len(line) > 80 and not line.startswith("! ")] == []


def test_a_wide_template_is_folded_and_not_cut() -> None:
    template = "The quick brown fox said, " * 5 + "{digits:3}-{lower:2}."
    text = succeed("insert", "sea.txt", "-t", template, "--controls", "2").out
    assert max(map(len, text.splitlines())) <= 80
    assert "{digits:3}-{lower:2}." in re.sub(r"\s+", "", text)


def test_many_canaries_are_counted_and_shown_when_asked() -> None:
    arguments = ("sea.txt", "-t", "{digits:4}", "-n", "30", "-r", "1", "--controls", "2", "--force")
    text = succeed("insert", *arguments).out
    assert "canary-20: once" in text
    assert "canary-21" not in text
    assert "and 10 more; use -v to show them" in text
    assert "canary-30: once" in succeed("insert", *arguments, "-v").out
    succeed("train", "runs/sea", "--epochs", "1")
    text = succeed("measure", "runs/sea", *FAST).out
    assert len(re.findall(r"canary-\d\d ", text)) == 20
    assert "and 10 more" in text


def test_quiet_says_results_and_errors_only(make_run: MakeRun) -> None:
    run = make_run("inserted")
    result = succeed("train", run, "--epochs", "1", "-q")
    assert (result.out, result.err) == ("", "")
    result = succeed("measure", run, *FAST, "-q")
    assert "canary-01" in result.out
    assert result.err == ""
    result = succeed("unlearn", run, *UNLEARN, "-q")
    assert "canary-01" in result.out
    assert "Next:" not in result.out
    assert result.err == ""
    assert canaryaudit("unlearn", run, "-q").complaint
    result = succeed("insert", "sea.txt", *INSERT, "-t", "{hex:4}", "-n", "1", "-q")
    assert "WARNING: template '{hex:4}' has no canary" in result.err


def test_verbose_says_every_step(make_run: MakeRun) -> None:
    run = make_run("inserted")
    usual, verbose = succeed("unlearn", run, *UNLEARN), succeed("measure", run, *FAST, "-v")
    assert "%" not in usual.err
    assert re.search(r"measure before: +\d+ %, references", verbose.err)
    assert re.search(r"train: +\d+ %, epoch 1/1, loss", succeed("train", run, "--force", "--epochs", "1", "-v").err)


def test_a_pipe_gets_no_escape_codes(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    run = make_run("unlearned")
    for arguments in (("measure", run, *FAST), ("report", run), ("insert", "sea.txt", *INSERT), ("unlearn", run)):
        result = canaryaudit(*arguments)
        assert "\x1b" not in result.out + result.err


def on_a_terminal(*arguments: str | Path, **environment: str) -> str:
    """Run a command on a pseudo-terminal and return everything that it wrote there."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, **PROCESS, "TERM": "xterm-256color", **environment}
    command = [sys.executable, "-m", "canaryaudit", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings)
    os.close(theirs)
    data, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                data += os.read(ours, 65536)
            except OSError:  # The other side was closed.
                break
        elif process.poll() is not None:
            break
    assert process.wait(timeout=10) == 0, data
    os.close(ours)
    return data.decode("utf-8")


@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_gets_a_live_line_and_color_unless_told_otherwise(make_run: MakeRun, plain: bool) -> None:
    text = on_a_terminal("measure", make_run("trained"), *FAST, **({"NO_COLOR": "1"} if plain else {}))
    assert "measure before" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0  # The cursor comes back.
    assert bool(COLOR.search(text)) is not plain
    assert "canary-01" in text
