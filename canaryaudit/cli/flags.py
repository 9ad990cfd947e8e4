"""Flags that several commands share, and their conversion to checked options."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from canaryaudit.errors import UsageError
from canaryaudit.plan import MeasureOptions, Options, describe

T = TypeVar("T", bound=Options)
MEASURE = MeasureOptions()
"""Measurement defaults that several commands share."""

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory made by `insert -o`.")]
RunArguments = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Run directory; several are compared on one page.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Device: auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed.")]
Samples = Annotated[int, typer.Option(metavar="N", help="References to draw from each template's space.")]
Probes = Annotated[
    str, typer.Option(metavar="EFFORT", help="How many other prompts to ask with: none, default or thorough.")
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Also ask after this text; repeatable.")
]
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
