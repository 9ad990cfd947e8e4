"""Ctrl-C, full disks and broken pipes at any moment: no data is lost, and a rerun gives the same result."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from canaryaudit import __main__ as entry
from canaryaudit.cli.exit_status import raise_on_signals
from canaryaudit.cli.progress_bar import TerminalReporter
from canaryaudit.exposure import references, uniform_sample
from canaryaudit.progress import forget_signals
from canaryaudit.storage import files
from canaryaudit.training import loop as training
from tests.commands import FAST, INSERT, PROCESS, UNLEARN, Result, canaryaudit, essence, finish, start, tree
from tests.torchrun import start_tiny

MakeRun = Callable[..., Path]
Event = Callable[[], None]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Handle signals as the command line does, and afterwards as before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    raise_on_signals()
    yield
    forget_signals()
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def happening(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Event], Callable[[], int]]:
    """Let something happen at the n-th write or step of progress from now on; the function returned counts them."""
    sync, update = files._sync, TerminalReporter.update

    def arrange(when: int, event: Event) -> Callable[[], int]:
        moments = 0

        def at_moment() -> None:
            nonlocal moments
            moments += 1
            if moments == when:
                event()

        def eventful_sync(path: Path) -> None:
            at_moment()
            sync(path)

        def eventful_update(self: TerminalReporter, *arguments: object) -> None:
            at_moment()
            update(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(files, "_sync", eventful_sync)
        monkeypatch.setattr(TerminalReporter, "update", eventful_update)
        return lambda: moments

    return arrange


# What is there, and what is called: every stage, and the commands that run several.
STAGES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "insert": (None, ("insert", "sea.txt", "-o", "RUN", *INSERT)),
    "train": ("inserted", ("train", "RUN", "--epochs", "3", "--precision", "fp32")),
    "measure": ("trained", ("measure", "RUN", *FAST)),
    "unlearn": ("trained", ("unlearn", "RUN", *UNLEARN)),
    "retrain": ("measured", ("unlearn", "RUN", "--method", "retrain", *FAST, "--max-fidelity-drop", "0.5")),
    "attack": ("unlearned", ("attack", "RUN", "--steps", "1", *FAST)),
    "report": ("unlearned", ("report", "RUN", "-o", "RUN/../page", "--format", "json")),
}


def prepare(runs: Path, stage: str | None) -> None:
    shutil.rmtree("RUN", ignore_errors=True)
    shutil.rmtree("page", ignore_errors=True)
    if stage:
        shutil.copytree(runs / stage, "RUN")


def leftovers() -> list[str]:
    return [name for name in tree(Path()) if name.endswith(".tmp") or ".staging" in name]


def trouble(when: int, number: int) -> tuple[Event, int, str]:
    """Return one of several troubles, in turn, with the exit status and the words that it must lead to."""
    kind = (when + number) % 3
    if kind == 0:
        return lambda: os.kill(os.getpid(), signal.SIGINT), 130, "interrupted; "
    if kind == 1:
        return lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "interrupted (SIGTERM); "

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return full, 1, "no space left on the disk"


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_happens_at_any_moment_the_same_command_goes_on(
    runs: Path, happening: Callable[[int, Event], Callable[[], int]], stage: str
) -> None:
    origin, command = STAGES[stage]
    prepare(runs, origin)
    count = happening(0, lambda: None)
    assert canaryaudit(*command).status == 0
    undisturbed, moments = essence(Path("RUN")), count()
    assert moments >= 4
    stride = max(1, moments // 8)
    for when in range(1, moments + 1, stride):
        prepare(runs, origin)
        there = tree(Path("RUN"))
        event, status, words = trouble(when, when // stride)
        happening(when, event)
        result = canaryaudit(*command)
        assert (result.status, when) == (status, when), result.err
        assert words in result.complaint
        assert leftovers() == []
        if stage == "insert":
            assert not Path("RUN").exists()
        else:
            # What was there still is, but for the manifest, which may have learned of a stage, and the attacked record.
            changing = {"manifest.json": b""} | (
                {"unlearned/second-order/unlearning.json": b""} if stage == "attack" else {}
            )
            assert {**tree(Path("RUN")), **changing}.items() >= {**there, **changing}.items()
        happening(0, lambda: None)
        again = canaryaudit(*command)
        # In the very last moment all is done, and to unlearn again is refused.
        assert again.status == 0 or "already has an unlearning" in again.complaint, again.err
        assert essence(Path("RUN")) == undisturbed, when


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    make_run: MakeRun, happening: Callable[[int, Event], Callable[[], int]]
) -> None:
    run = make_run("inserted")
    event, _, _ = trouble(0, 0)
    happening(8, event)
    assert canaryaudit("train", run, "--epochs", "5").status == 130
    happening(0, lambda: None)
    assert "Resuming from a checkpoint after" in canaryaudit("train", run, "--epochs", "5").err


class Deaf:
    """Gets a signal where Python ignores what its handler raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("when", [1, 5, 8])
def test_a_signal_ends_training_at_the_next_step_even_if_its_exception_is_lost(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """And the message says what was lost: some steps, before or since a checkpoint."""
    run, steps, step = make_run("inserted"), 0, training._Loop._step

    def counted(self: training._Loop, *arguments: Any) -> None:
        nonlocal steps
        step(self, *arguments)
        steps += 1
        if steps == when:
            signal_in_a_destructor = Deaf(signal.SIGTERM)
            del signal_in_a_destructor

    monkeypatch.setattr(training._Loop, "_step", counted)
    result = canaryaudit("train", run, "--epochs", "5")
    assert (result.status, steps) == (143, when), result.err
    per_epoch = 4
    lost = (when - 1) % per_epoch + 1
    since = "since the last checkpoint" if when > per_epoch else "before its first checkpoint"
    words = (
        f"{lost} step{'s' if lost > 1 else ''} of the training {since} will be repeated, rerun the command to resume"
    )
    assert result.complaint == f"interrupted (SIGTERM); {words}"


def test_an_interrupted_training_is_neither_lost_nor_mixed_up_with_another(
    make_run: MakeRun, happening: Callable[[int, Event], Callable[[], int]]
) -> None:
    run = make_run("inserted")
    event, _, _ = trouble(0, 0)
    happening(8, event)
    assert canaryaudit("train", run, "--epochs", "5", "--seed", "3", "--precision", "fp32").status == 130
    happening(0, lambda: None)
    refused = canaryaudit("train", run, "--epochs", "6")
    assert refused.status == 1
    assert "RUN has an interrupted training with epochs 5, not with --epochs 6" in refused.complaint
    # A command that needs a model and asks for no training of its own ends the one that was begun.
    result = canaryaudit("report", run)
    assert result.status == 0
    assert "Not trained yet: training first." in result.err
    assert "Resuming from a checkpoint" in result.err
    assert "seed: 3" not in result.out
    assert '"seed": 3' in (run / "model.json").read_text("utf-8")
    assert '"epochs": 5' in (run / "model.json").read_text("utf-8")


def test_what_a_killed_command_left_is_cleared_away(make_run: MakeRun) -> None:
    run = make_run("trained")
    rubbish = run / "unlearned" / "x" / ".model.safetensors.0123abcd.tmp"
    rubbish.parent.mkdir(parents=True)
    rubbish.write_bytes(b"half")
    (run / ".notes.tmp").write_text("mine", "utf-8")
    assert canaryaudit("measure", run, *FAST).status == 0
    assert not rubbish.exists()
    assert (run / ".notes.tmp").exists()


def test_two_commands_at_once(make_run: MakeRun) -> None:
    run = make_run("trained")
    with files.exclusive_lock(run / ".lock", "it"):
        for command in ("train", "measure", "unlearn", "report"):
            result = canaryaudit(command, run)
            assert result.status == 1
            assert f"RUN is in use by another command (process {os.getpid()}): wait" in result.complaint
        assert canaryaudit("insert", "sea.txt", "-o", run, "--force").status == 1
    assert canaryaudit("measure", run, *FAST).status == 0


# --- processes -------------------------------------------------------------------------------------------


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read a process's standard error until ``words`` come."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"{words!r} never came")


def test_a_real_interrupt_of_a_real_training(workplace: Path) -> None:
    assert canaryaudit("insert", "sea.txt", "-o", "RUN", *INSERT).status == 0
    process = start("train", "RUN", "--epochs", "400", "-v")
    wait_for(process, "train: ")
    blocked = canaryaudit("train", "RUN")
    assert f"in use by another command (process {process.pid})" in blocked.complaint
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.status == 130
    assert "Traceback" not in result.err
    assert re.fullmatch(
        r"canaryaudit: interrupted; (finished work is kept|\d+ steps? of the training "
        r"(since the last|before its first) checkpoint will be repeated), rerun the command to resume",
        result.err.splitlines()[-1],
    )
    assert leftovers() == []


def test_a_measurement_of_a_million_samples_is_kept_in_several_blocks() -> None:
    assert references.KEEP_FROM <= 1_000_000
    assert references._BLOCK * uniform_sample.PART <= 1_000_000 / 1.9


@pytest.mark.slow
def test_a_measurement_of_many_samples_survives_a_kill(workplace: Path) -> None:
    """With the small parts and blocks of ``start_tiny``."""
    assert canaryaudit("insert", "sea.txt", "-o", "RUN", "-t", "Call {digits:9}.", "--controls", "8").status == 0
    assert canaryaudit("train", "RUN", "--epochs", "1", "--precision", "fp32").status == 0
    shutil.copytree("RUN", "OTHER")
    options = ("--samples", "6000", "--precision", "bf16", "--budget", "50", "--probes", "none", "-v")
    process = start_tiny("measure", "RUN", *options)
    while process.poll() is None and not list(Path("RUN").rglob("references-*.safetensors")):
        time.sleep(0.01)
    process.kill()
    killed = finish(process)
    assert list(Path("RUN").rglob("references-*.safetensors")), killed
    assert not Path("RUN/measurements").exists()
    again = finish(start_tiny("measure", "RUN", *options))
    assert again.status == 0, again.err
    assert ", references" in again.err, "it tells how far it is"
    assert not list(Path("RUN").rglob("references-*.safetensors"))
    assert finish(start_tiny("measure", "OTHER", *options)).status == 0
    assert essence(Path("RUN"))["measurements/before.json"] == essence(Path("OTHER"))["measurements/before.json"]


def test_an_interrupt_while_modules_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interruption:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "canaryaudit.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "canaryaudit.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interruption(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capfd.readouterr() == ("", "canaryaudit: interrupted; finished work is kept, rerun the command to resume\n")


def test_nobody_reads_the_output(make_run: MakeRun) -> None:
    read, write = os.pipe()
    os.close(read)
    result = finish(start("report", make_run("unlearned"), "--json", "--format", "json", stdout=write))
    os.close(write)
    assert result.status == 1
    assert "Traceback" not in result.err
    assert "Exception ignored" not in result.err
    assert "canaryaudit: " not in result.err


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams(make_run: MakeRun, closed: str) -> None:
    run = make_run("unlearned")
    intact = tree(run)
    command = f'"{sys.executable}" -m canaryaudit report {run} --format json {closed}'
    result = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, **PROCESS},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert {**tree(run), "manifest.json": b""} == {**intact, "manifest.json": b""}


def test_an_output_encoding_without_the_characters(make_run: MakeRun) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("report", make_run("unlearned"), "--format", "json", env=ascii_only)
    result = finish(process)
    assert result.status == 0, result.err
    assert "Report: reports/RUN/report.json" in result.out


# --- file systems of a few kilobytes, and such as cannot be written ----------------------------------------------


def in_namespace(script: str) -> Result:
    """Run a shell script in a mount namespace of its own, where it may mount what it wants."""
    can = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if can.returncode:
        pytest.skip("this system lets nobody mount a file system of their own")
    environment = {**os.environ, **PROCESS, "PYTHON": sys.executable}
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, env=environment, timeout=120
    )
    return Result(done.returncode, done.stdout, done.stderr)


CANARYAUDIT = '"$PYTHON" -m canaryaudit'


def test_a_disk_that_is_full_at_insertion(workplace: Path) -> None:
    Path("disk").mkdir()
    result = in_namespace(
        f"mount -t tmpfs -o size=16k none disk; {CANARYAUDIT} insert sea.txt -o disk/RUN; s=$?; ls -A disk; exit $s"
    )
    assert result.status == 1
    assert "no space left on the disk; free some space and rerun the command" in result.complaint
    assert result.out == ""


def test_a_disk_that_fills_up_in_training(make_run: MakeRun) -> None:
    make_run("inserted")
    Path("disk").mkdir()
    result = in_namespace(
        f"mount -t tmpfs -o size=1m none disk; cp -r RUN disk; {CANARYAUDIT} train disk/RUN --epochs 1 -q; s=$?; "
        "ls -A disk/RUN; exit $s"
    )
    assert result.status == 1
    assert "no space left on the disk" in result.complaint
    assert result.out.split() == [".encoded", ".lock", "canaries.json", "corpus.txt", "heldout.txt", "manifest.json"]


WRITING = """\
import contextlib, io, subprocess
from canaryaudit.cli.main import run_command

def call(*arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        status = run_command([*arguments])
    print(status, flush=True)

call("measure", "RUN")
call("insert", "sea.txt", "-o", "RUN/new")
call("report", "RUN", "-q", "--format", "json", "-o", "page")
subprocess.run("rm -r page; mkdir page; mount -t tmpfs -o size=16k none page", shell=True, check=True)
call("report", "RUN", "-q", "-o", "page")
"""


def test_a_directory_that_cannot_be_written(make_run: MakeRun) -> None:
    make_run("unlearned")
    Path("writing.py").write_text(WRITING, "utf-8")
    result = in_namespace('mount --bind RUN RUN; mount -o remount,ro,bind RUN; "$PYTHON" writing.py; ls -A page')
    assert result.err.splitlines() == [
        "canaryaudit: RUN is read-only: make it writable, or work on a copy: cp -r RUN RUN.copy",
        "canaryaudit: cannot write RUN/new: the file system is read-only; choose another directory",
        "canaryaudit: cannot write page/report.html: no space left on the disk; free some space and rerun the command",
    ]
    assert result.out.split() == ["1", "1", "0", "1"], (
        "a read-only run can be reported elsewhere; half a report is none"
    )


def test_an_output_on_a_full_disk(make_run: MakeRun) -> None:
    make_run("unlearned")
    Path("disk").mkdir()
    result = in_namespace(
        f"mount -t tmpfs -o size=8k none disk; {CANARYAUDIT} report RUN --json --format json > disk/out.json; echo $?"
    )
    assert result.out == "1\n"
    assert "no space left on the disk" in result.complaint
