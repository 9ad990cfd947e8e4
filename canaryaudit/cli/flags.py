"""Flags that several commands share, and how their values become checked options."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from canaryaudit.errors import UsageError
from canaryaudit.plan import MeasureOptions, Options, describe

T = TypeVar("T", bound=Options)
MEASURE = MeasureOptions()
"""The defaults of what several commands measure."""

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as `insert -o` made it.")]
RunArguments = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="A run directory; several are compared on one page.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
Samples = Annotated[int, typer.Option(metavar="N", help="References drawn from each template's space.")]
Probes = Annotated[
    str,
    typer.Option(metavar="EFFORT", help="In how many other ways to ask: none, default or thorough."),
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Ask by this text too; repeat for several.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say every step, and show every figure.")]


def checked(kind: type[T], **values: object) -> T:
    """Make options from flags.

    Raises:
        UsageError: A value does not fit.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        place, fault = describe(error)
        raise UsageError(f"--{place.split('.')[0].replace('_', '-')}: {fault}") from error


def words(text: str) -> tuple[str, ...]:
    """Return the parts of ``text`` between its commas."""
    return tuple(part.strip() for part in text.split(","))


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers in ``text`` between its commas.

    Raises:
        UsageError: Something else stands there.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text!r}: expected whole numbers with commas, such as 1,4,16") from None


def example(command: str) -> str:
    """Return an epilog that shows ``command``, unbroken, so that it can be copied."""
    return f"\b\nExample:\n  {command}"
