"""Flags that several commands share, and their conversion to checked options."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from canaryaudit.errors import UsageError
from canaryaudit.plan import MeasureOptions, Options, TrainOptions, describe

T = TypeVar("T", bound=Options)
MEASURE = MeasureOptions()
"""Measurement defaults that several commands share."""


def option(kind: type[Options], field: str, metavar: str | None, *flags: str, more: str = "") -> Any:
    """Return the flag of an option, with the first paragraph of the option's docstring as its help.

    Args:
        kind: The options.
        field: The option's name there.
        metavar: What stands for its value in the help; None for a switch.
        flags: What the flag is called, if not as the command's parameter.
        more: To be added to the help.
    """
    text = (kind.model_fields[field].description or "").split("\n\n")[0].replace("\n", " ")
    return typer.Option(*flags, metavar=metavar, help=text + more)


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory made by `insert -o`.")]
RunArguments = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Run directory; several, or their report.json files, are compared on one page."),
]
Device = Annotated[str, option(TrainOptions, "device", "NAME")]
Seed = Annotated[int, option(TrainOptions, "seed", "N")]
Samples = Annotated[int, option(MeasureOptions, "num_references", "N")]
Probes = Annotated[str, option(MeasureOptions, "probes", "EFFORT")]
Prompts = Annotated[list[str] | None, option(MeasureOptions, "prompts", "TEXT", "--prompt")]
Json = Annotated[bool, typer.Option("--json", help="Print only one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only print results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print every step and figure.")]


def checked(kind: type[T], **values: object) -> T:
    """Make options from flags.

    Raises:
        UsageError: A value is invalid.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        field, fault = describe(error)
        raise UsageError(f"--{field.split('.')[0].replace('_', '-')}: {fault}") from error


def words(text: str) -> tuple[str, ...]:
    """Split ``text`` at its commas."""
    return tuple(part.strip() for part in text.split(","))


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of whole numbers.

    Raises:
        UsageError: A part is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text!r}: expected whole numbers separated by commas, such as 1,4,16") from None


def example(command: str) -> str:
    """Return an epilog that shows ``command`` unwrapped, ready to copy."""
    return f"\b\nExample:\n  {command}"
