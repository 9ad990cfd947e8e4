"""The command line explains itself: every command and option has help, and wrong ones point to it."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer

import canaryaudit as package
from canaryaudit.cli.app import app
from canaryaudit.image_plan import ImageInsertOptions, ImageReportOptions, ImageTrainOptions, ImageUnlearnOptions
from canaryaudit.plan import (
    AttackOptions,
    InsertOptions,
    MeasureOptions,
    Options,
    ReportOptions,
    TrainOptions,
    UnlearnOptions,
)
from canaryaudit.table_plan import TableInsertOptions, TableReportOptions, TableTrainOptions, TableUnlearnOptions
from tests.commands import PROCESS, canaryaudit, succeed

GROUP: Any = typer.main.get_command(app)
COMMANDS = ("insert", "train", "measure", "requests", "unlearn", "attack", "publish", "report", "run", "verify")


def test_these_are_the_commands() -> None:
    assert tuple(GROUP.commands) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = GROUP.commands[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
    names = {option for parameter in command.params for option in parameter.opts}
    assert names >= {"--json", "-q", "-v"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_holds_an_example_that_can_be_copied(name: str) -> None:
    for flag in ("--help", "-h"):
        text = succeed(name, flag).out
        assert max(map(len, text.splitlines())) <= 80
        found = re.search(r"Example:\n +(canaryaudit .*)\n", text)
        assert found, text
    words = shlex.split(found[1])
    assert words[:2] == ["canaryaudit", name]
    known = {option for parameter in GROUP.commands[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_first_help_names_every_command_in_a_whole_sentence() -> None:
    text = succeed("--help").out
    assert "..." not in text.replace("[ARGS]...", "")
    assert "canaryaudit run" in text
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*\.$", text, re.MULTILINE), name


def test_no_arguments_give_help_and_the_status_of_a_wrong_usage() -> None:
    result = canaryaudit()
    assert result.status == 2
    assert result.err == succeed("--help").out
    assert result.out == ""


def test_version() -> None:
    assert succeed("--version").out == f"canaryaudit {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("unlern",), "No such command 'unlern'. Did you mean 'unlearn'?: see canaryaudit --help"),
        (("insert",), "Missing argument 'CORPUS': see canaryaudit insert --help"),
        (("train",), "Missing argument 'RUN': see canaryaudit train --help"),
        (("train", "RUN", "more"), "see canaryaudit train --help"),
        (("train", "RUN", "--epoch", "3"), "--epochs"),
        (("train", "RUN", "--epochs"), "requires an argument"),
        (("--no-such",), "No such option"),
    ],
)
def test_wrong_usage_points_to_help(arguments: tuple[str, ...], expected: str) -> None:
    result = canaryaudit(*arguments)
    assert result.status == 2
    assert expected in result.complaint


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("insert", (InsertOptions, TableInsertOptions, ImageInsertOptions)),
        ("train", (TrainOptions, TableTrainOptions, ImageTrainOptions)),
        ("measure", (MeasureOptions,)),
        ("unlearn", (UnlearnOptions, TableUnlearnOptions, ImageUnlearnOptions)),
        ("attack", (AttackOptions,)),
        ("report", (ReportOptions, TableReportOptions, ImageReportOptions)),
    ],
)
def test_options_have_the_flags_as_keys(name: str, options: tuple[type[Options], ...]) -> None:
    elsewhere = {"output", "run", "dry_run", "force", "json", "quiet", "verbose", "strict", "help"}
    elsewhere |= {"model", "adapter", "dtype", "device_map", "scores"}
    flags = [opt for parameter in GROUP.commands[name].params for opt in parameter.opts if opt.startswith("--")]
    known = {flag[2:].replace("-", "_") for flag in flags}
    known |= {"corpus"} if name == "insert" else set()
    known -= {"field"}  # another name of --column
    # The measurement's, which has a table of its own.
    known -= {"samples", "probes", "prompt"} if name in ("unlearn", "attack") else set()
    fields = {field.alias or name for own in options for name, field in own.model_fields.items()}
    assert known - elsewhere == fields - elsewhere


def test_help_waits_for_no_heavy_module() -> None:
    script = "import canaryaudit.cli.app, sys; print(*(set(sys.modules) & {'torch', 'scipy', 'altair', 'datasets'}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**PROCESS}, check=True, timeout=60
    )
    assert done.stdout == "\n"


def test_only_the_command_line_prints() -> None:
    """Results go through one door: no command prints by itself what --json must not be mixed with."""
    source = ast.parse(inspect.getsource(sys.modules["canaryaudit.cli.app"]))
    printing = {
        function.name
        for function in ast.walk(source)
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"
    }
    assert printing <= {"_root", "_status_of"}
