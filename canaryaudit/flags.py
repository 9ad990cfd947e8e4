"""Every flag of every command, each described once, and how their values become checked options."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from canaryaudit.errors import UsageError
from canaryaudit.plan import DEFAULT_TEMPLATE, Options, describe

T = TypeVar("T", bound=Options)

# --- of several commands

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, as `insert -o` made it.")]
RunArguments = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="A run directory; several are compared on one page.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
Samples = Annotated[int, typer.Option(metavar="N", help="References drawn from each template's space.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say every step, and show every figure.")]

# --- insert

CorpusArgument = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        help="A .txt, .jsonl, .csv or .parquet file, the name of a corpus under corpora/, or hub:ID[:split].",
    ),
]
NewRun = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="RUN", help="The run directory to make. [default: runs/<corpus name>]"),
]
Templates = Annotated[
    list[str] | None,
    typer.Option(
        "-t",
        "--template",
        metavar="TEXT",
        help="Text with slots {digits:N} {lower:N} {upper:N} {alnum:N} {hex:N} {any:N} {choice:a|b}; repeatable. "
        f"[default: {DEFAULT_TEMPLATE}]",
    ),
]
Canaries = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--canaries",
        metavar="N",
        help="Secrets to generate, in all. [default: 6, or 0 with --secret or --locate]",
    ),
]
Repetitions = Annotated[
    str, typer.Option("-r", "--repetitions", metavar="N,N…", help="How often to insert them, dealt out in turn.")
]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="TEXT", help="A secret of your own; repeatable; masked in every output."),
]
Located = Annotated[
    list[str] | None,
    typer.Option(
        "--locate",
        metavar="TEXT",
        help="A template of secrets that stand in the corpus: audit them there; repeatable; masked in every output.",
    ),
]
Controls = Annotated[int, typer.Option(metavar="N", help="Secrets for each template that are drawn, never inserted.")]
WiderSpace = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Measure in a wider space: digits, alnum or any (to reproduce a paper)."),
]
Column = Annotated[str | None, typer.Option(metavar="NAME", help="The column that holds the text.")]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="Lower-case corpus and templates.")]
SkipChars = Annotated[int, typer.Option(metavar="N", help="Characters to drop from the corpus's start.")]
Holdout = Annotated[float, typer.Option(metavar="SHARE", help="Share of the text held out for evaluation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")]
ReplaceRun = Annotated[bool, typer.Option("--force", help="Replace the run that is there, and all made from it.")]

# --- train

Size = Annotated[str, typer.Option(metavar="NAME", help="small (1 x 512 LSTM units) or paper (2 x 512).")]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", help="Passes over the text. [default: 24 for small, 40 for paper]")
]
TargetAccuracy = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Stop once this share of the training text is predicted.")
]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, fp32 or bf16.")]
TrainAnew = Annotated[bool, typer.Option("--force", help="Train anew although there is a model.")]

# --- measure

ModelName = Annotated[str, typer.Option(metavar="NAME", help="before, after-NAME or all.")]
Estimators = Annotated[
    str, typer.Option(metavar="NAME,NAME…", help="Which to compute, of: exact, importance, sampled, skew-normal.")
]
Budget = Annotated[int, typer.Option(metavar="N", help="Prefixes that the search for exact ranks may expand.")]
PrecisionBits = Annotated[
    float, typer.Option(metavar="BITS", help="Draw until importance intervals reach so far to either side.")
]
MaxDraws = Annotated[int, typer.Option(metavar="N", help="Importance draws for each template, at most.")]
DraftPrecision = Annotated[
    str, typer.Option("--precision", metavar="NAME", help="Of the first look at large samples: auto, fp32 or bf16.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with status 4 if the controls fail.")]

# --- unlearn

MethodName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="second-order or first-order; to compare with: retrain, fine-tune or sisa (training by shards).",
    ),
]
ScopeName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="final-layer, all-layers or both. [default: all-layers, then final-layer where secrets still stand out; "
        "of text and sampled, final-layer]",
    ),
]
SolverChoice = Annotated[
    str,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="Steps over all layers: adam (many, preconditioned); cg, lissa or kronecker (few, Gauss-Newton; the last "
        "by a curvature that is stored).",
    ),
]
Replacing = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="decoys (fresh draws of the secret's own format), sampled (what the model would say instead), text:WORDS "
        "(repeated or cut to the secret's length), or delete (its whole sentence; first-order only).",
    ),
]
Chosen = Annotated[
    list[str] | None, typer.Option("--canary", metavar="ID", help="Which to unlearn; repeatable. [default: all]")
]
Start = Annotated[
    str,
    typer.Option(
        "--from", metavar="MODEL", help="Which model to update: before, or after-NAME to go on from an earlier request."
    ),
]
ResultName = Annotated[str | None, typer.Option(metavar="NAME", help="What to call the result. [default: the method]")]
MaxFidelityDrop = Annotated[
    float, typer.Option(metavar="SHARE", help="Largest drop of accuracy on training text outside the secrets.")
]
RetainWindows = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Windows of other text that hold the model to what it was; 0: none, but text that the model itself says.",
    ),
]
Tau = Annotated[
    float | None, typer.Option(metavar="LENGTH", help="Step of the first-order update. [default: searched]")
]
Shards = Annotated[
    int | None, typer.Option(metavar="N", help="Parts that --method sisa trains by, such as 5, 10 or 20. [default: 5]")
]
UnlearnAnew = Annotated[bool, typer.Option("--force", help="Replace an unlearning of the same name.")]

# --- attack

AttackedName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Which unlearning. [default: the last that is no baseline]"),
]
AttackedCanaries = Annotated[
    list[str] | None,
    typer.Option("--canary", metavar="ID", help="Whom to attack; repeatable. [default: the most exposed before]"),
]
AttackSteps = Annotated[
    str, typer.Option("--steps", metavar="N,N…", help="Steps of training after which exposure is taken.")
]
AttackRate = Annotated[float, typer.Option("--learning-rate", metavar="RATE", help="The attacker's, of Adam.")]

# --- report and run

Formats = Annotated[
    str,
    typer.Option("--format", metavar="NAME,NAME…", help="Which to write, of: html, md, json, junit, model-card."),
]
ReportDirectory = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where. [default: reports/<run name>]")
]
FailAbove = Annotated[
    float | None,
    typer.Option(
        metavar="BITS",
        help="Exit with status 3 if an inserted canary has more exposure than this, or the verdict exposed.",
    ),
]
FailWorse = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Exit with status 3 if anything is worse than in this earlier report.json."),
]
RevealSecrets = Annotated[
    bool, typer.Option("--reveal-secrets", help="Show secrets given or located; the page says so.")
]
PlanArgument = Annotated[
    Path | None, typer.Argument(metavar="PLAN.toml", help="What to do. [default: audit the embedded corpus]")
]


# --- from values to options


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


PLAN_EXAMPLE = (
    "A plan is a TOML file with the commands' flags as keys:\n\n"
    '\b\nrun = "runs/notes"\n[insert]\ncorpus = "notes.txt"\nrepetitions = [1, 4, 16]\n[train]\nepochs = 30\n'
    '[[unlearn]]\nmethod = "first-order"\n[report]\nfail_above = 10\n\n'
)
