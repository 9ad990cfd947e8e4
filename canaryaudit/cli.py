"""The command line: parse, call, print; nothing else."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import click
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.text import Text

import canaryaudit
from canaryaudit import pipeline
from canaryaudit.errors import CanaryAuditError, Inconclusive, one_line
from canaryaudit.pipeline import Pipeline
from canaryaudit.plan import (
    InsertOptions,
    MeasureOptions,
    Plan,
    PlanError,
    ReportOptions,
    TrainOptions,
    UnlearnOptions,
    describe,
    read_plan,
)
from canaryaudit.report import Summary, render_terminal
from canaryaudit.report.text import visible
from canaryaudit.report.write import render_json
from canaryaudit.rundir import RunDirectory
from canaryaudit.terminal import TerminalNarrator
from canaryaudit.views import measurement_view, plan_document, plan_view

OK, ERROR, USAGE, GATE_FAILED, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 4, 130

T = TypeVar("T", bound=BaseModel)

app = typer.Typer(
    name="canaryaudit",
    help="Measure, remove and prove the removal of secrets that a language model memorised.",
    epilog="Try it: canaryaudit run (the whole audit of the embedded corpus, in minutes)",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INSERT, _TRAIN, _MEASURE = InsertOptions(corpus=""), TrainOptions(), MeasureOptions()
_UNLEARN, _REPORT = UnlearnOptions(), ReportOptions()

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory that `insert -o` made.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say every step.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Samples = Annotated[int, typer.Option(help="References drawn from each template's space.")]


@contextmanager
def _narrator(quiet: bool, verbose: bool) -> Iterator[TerminalNarrator]:
    with TerminalNarrator(Console(stderr=True, highlight=False), quiet=quiet, verbose=verbose) as narrator:
        yield narrator


def _checked(kind: type[T], **values: object) -> T:
    """Make options from flags; what does not fit is a usage error."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise click.UsageError(describe(error)) from error


@contextmanager
def _opened(path: Path, narrator: TerminalNarrator) -> Iterator[Pipeline]:
    run = RunDirectory.open(path)
    with run.lock():
        yield Pipeline(run, _argv(), narrator)


def _argv() -> list[str]:
    return ["canaryaudit", *sys.argv[1:]]


def _print_json(value: BaseModel | dict[str, Any] | list[Any]) -> None:
    document = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    print(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))


def _out() -> Console:
    return Console(highlight=False)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"--repetitions {text!r}: expected whole numbers with commas, such as 1,4,16") from None


@app.command(
    epilog="Example: canaryaudit insert notes.txt -t 'my card is {digits:4}-{digits:4}.' -n 6 -r 1,4,16 -o runs/notes"
)
def insert(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="A .txt, .jsonl, .csv or .parquet file, the name of a corpus under corpora/, or hub:ID[:split].",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="The run directory to make.")],
    template: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--template",
            help="Text with slots {digits:N} {lower:N} {upper:N} {alnum:N} {hex:N} {any:N} {choice:a|b}; repeatable. "
            f"[default: {_INSERT.templates[0]}]",
        ),
    ] = None,
    canaries: Annotated[
        int | None,
        typer.Option("-n", "--canaries", help="Secrets to generate, in all. [default: 6, or 0 with --secret]"),
    ] = None,
    repetitions: Annotated[
        str, typer.Option("-r", "--repetitions", help="How often to insert them, dealt out in turn.")
    ] = ",".join(map(str, _INSERT.repetitions)),
    secret: Annotated[
        list[str] | None, typer.Option("--secret", help="A secret of your own; repeatable; masked in every output.")
    ] = None,
    controls: Annotated[
        int, typer.Option(help="Secrets for each template that are drawn and never inserted.")
    ] = _INSERT.controls,
    space: Annotated[
        str | None, typer.Option(help="Measure in a wider space: digits, alnum or any (to reproduce a paper).")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column that holds the text.")] = None,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Lower-case corpus and templates.")] = False,
    skip_chars: Annotated[int, typer.Option(help="Characters to drop from the corpus's start.")] = _INSERT.skip_chars,
    holdout: Annotated[float, typer.Option(help="Share of the text held out for evaluation.")] = _INSERT.holdout,
    seed: Seed = _INSERT.seed,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put canaries into a corpus: make a run directory."""
    options = _checked(
        InsertOptions,
        corpus=corpus,
        column=column,
        templates=tuple(template or _INSERT.templates),
        canaries=canaries,
        repetitions=_numbers(repetitions),
        secrets=tuple(secret or ()),
        controls=controls,
        space=space,
        lowercase=lowercase,
        skip_chars=skip_chars,
        holdout=holdout,
        seed=seed,
    )
    with _narrator(quiet, verbose) as narrator:
        if dry_run:
            made, _ = pipeline.plan(options)
            narrator.say("Timing a few training steps.")
            expected = pipeline.training_seconds(made, TrainOptions())
        else:
            _, made = pipeline.insert(output, options, _argv())
            expected = None
        for warning in made.warnings:
            narrator.say(f"WARNING: {warning}")
    if as_json:
        _print_json(plan_document(made, None if dry_run else output, expected))
    elif not quiet:
        _out().print(plan_view(made, expected), soft_wrap=True)
        if not dry_run:
            _out().print(Text(f"Next: canaryaudit unlearn {shlex.quote(visible(str(output)))}"), soft_wrap=True)


@app.command(epilog="Example: canaryaudit train runs/notes --size paper --target-accuracy 0.95")
def train(
    run: RunArgument,
    size: Annotated[str, typer.Option(help="small (1 x 512 LSTM units) or paper (2 x 512).")] = _TRAIN.size,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the text. [default: 24 for small, 40 for paper]")
    ] = None,
    target_accuracy: Annotated[
        float | None, typer.Option(help="Stop once this share of the training text is predicted.")
    ] = None,
    device: Device = _TRAIN.device,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = _TRAIN.precision,
    seed: Seed = _TRAIN.seed,
    force: Annotated[bool, typer.Option("--force", help="Train anew although there is a model.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the character LSTM on a run's text; goes on by itself after an interruption."""
    options = _checked(
        TrainOptions,
        size=size,
        epochs=epochs,
        target_accuracy=target_accuracy,
        device=device,
        precision=precision,
        seed=seed,
    )
    with _narrator(quiet, verbose) as narrator, _opened(run, narrator) as stages:
        record = stages.train(options, anew=force)
    if as_json:
        _print_json(record)


@app.command(epilog="Example: canaryaudit measure runs/notes --model all --samples 100000")
def measure(
    run: RunArgument,
    model: Annotated[str, typer.Option(help="before, after-NAME or all.")] = "before",
    samples: Samples = _MEASURE.samples,
    estimators: Annotated[
        str, typer.Option(help="Which to compute, with commas: exact, importance, sampled, skew-normal.")
    ] = ",".join(_MEASURE.estimators),
    budget: Annotated[int, typer.Option(help="Prefixes that the search for exact ranks may expand.")] = _MEASURE.budget,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 4 if the controls fail.")] = False,
    device: Device = _MEASURE.device,
    seed: Seed = _MEASURE.seed,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure every secret's exposure under a model, against references taken afresh from that model.

    Which figure to trust: "exact" is the rank itself, and always right. "importance" is an unbiased estimate
    with an interval; trust it where its effective sample size is large, which the tool checks. "sampled" is
    right up to about log2 of the number of references; beyond, it gives only a lower bound. "skew-normal" is
    the literature's extrapolation, shown for comparison and never used as the headline. Look at the controls
    first: secrets that were never inserted must average 1.44 bits, or no figure of the measurement is to be
    trusted.
    """
    options = _checked(
        MeasureOptions,
        samples=samples,
        estimators=tuple(part.strip() for part in estimators.split(",")),
        budget=budget,
        device=device,
        seed=seed,
    )
    with _narrator(quiet, verbose) as narrator, _opened(run, narrator) as stages:
        models = stages.models() if model == "all" else [model]
        measurements = [stages.measure(name, options) for name in models]
    if as_json:
        _print_json([m.model_dump(mode="json") for m in measurements] if model == "all" else measurements[0])
    elif not quiet:
        for measurement in measurements:
            _out().print(measurement_view(measurement), soft_wrap=True)
    if strict and any(m.calibration and not m.calibration.passed for m in measurements):
        raise Inconclusive("the controls fail: this measurement must not be relied on; see its calibration")


@app.command(epilog="Example: canaryaudit unlearn runs/notes --canary canary-01 --name first-request")
def unlearn(
    run: RunArgument,
    method: Annotated[str, typer.Option(help="second-order or first-order.")] = _UNLEARN.method,
    scope: Annotated[str | None, typer.Option(help="final-layer or all-layers. [default: the method's own]")] = None,
    replacement: Annotated[
        str, typer.Option(help="decoys (fresh draws of the secret's own format) or text:WORDS.")
    ] = _UNLEARN.replacement,
    canary: Annotated[
        list[str] | None, typer.Option("--canary", metavar="ID", help="Which to unlearn; repeatable. [default: all]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the result. [default: the method]")] = None,
    max_fidelity_drop: Annotated[
        float, typer.Option(help="Largest drop of accuracy on training text outside the secrets, as a share.")
    ] = _UNLEARN.max_fidelity_drop,
    retain_windows: Annotated[
        int, typer.Option(help="Windows of other text that hold the model to what it was.")
    ] = _UNLEARN.retain_windows,
    tau: Annotated[float | None, typer.Option(help="Step of the first-order update. [default: searched]")] = None,
    samples: Samples = _MEASURE.samples,
    device: Device = _UNLEARN.device,
    seed: Seed = _UNLEARN.seed,
    force: Annotated[bool, typer.Option("--force", help="Replace an unlearning of the same name.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a copy of the model that has forgotten secrets, and measure it afresh.

    Trains and measures first where that has not been done. The original model is never changed.
    """
    options = _checked(
        UnlearnOptions,
        name=name,
        method=method,
        scope=scope,
        replacement=replacement,
        canary=tuple(canary or ()),
        retain_windows=retain_windows,
        max_fidelity_drop=max_fidelity_drop,
        tau=tau,
        device=device,
        seed=seed,
    )
    measuring = _checked(MeasureOptions, samples=samples, device=device)
    with _narrator(quiet, verbose) as narrator, _opened(run, narrator) as stages:
        record = stages.unlearn(options, measuring, anew=force)
        measurement = stages.run.measurement(f"after-{record.name}")
    if as_json:
        _print_json(record)
    elif not quiet:
        _out().print(measurement_view(measurement), soft_wrap=True)
        _out().print(Text(f"Next: canaryaudit report {shlex.quote(visible(str(run)))}"), soft_wrap=True)


@app.command(epilog="Example: canaryaudit report runs/notes --fail-above 10")
def report(
    run: RunArgument,
    formats: Annotated[str, typer.Option("--format", help="Which, with commas: html, md, json.")] = ",".join(
        _REPORT.formats
    ),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Directory. [default: reports/<run name>]")
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="Exit with status 3 if an inserted canary's exposure is above this."),
    ] = None,
    reveal_secrets: Annotated[
        bool, typer.Option("--reveal-secrets", help="Show the secrets that you gave; the page says so.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the report, before and after: HTML, Markdown and JSON."""
    options = _checked(
        ReportOptions,
        formats=tuple(part.strip() for part in formats.split(",")),
        output=output,
        fail_above=fail_above,
        reveal_secrets=reveal_secrets,
    )
    with _narrator(quiet, verbose) as narrator, _opened(run, narrator) as stages:
        summary, written = stages.report(options, MeasureOptions())
    _print_report(summary, written, as_json=as_json, quiet=quiet)


@app.command(
    epilog='A plan is a TOML file: run = "runs/mine", and tables [insert] (with corpus = ...), [train], [measure], '
    "[[unlearn]], [report], with the commands' flags as keys. Example: canaryaudit run audit.toml"
)
def run(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.toml]", help="What to do. [default: audit the embedded corpus]")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a whole audit: insert, train, measure, unlearn, measure again, report; goes on where it was stopped."""
    audit = read_plan(plan) if plan else Plan()
    with _narrator(quiet, verbose) as narrator:
        summary, written = pipeline.run_plan(audit, _argv(), narrator)
    _print_report(summary, written, as_json=as_json, quiet=quiet)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"canaryaudit {canaryaudit.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# --- what the commands print


def _print_report(summary: Summary, written: list[Path], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print(render_json(summary), end="")
    elif not quiet:
        console = _out()
        console.print(render_terminal(summary))
        console.print(Text("Report: " + visible(str(written[0]))), soft_wrap=True)
    if summary.gate and not summary.gate.passed:
        for reason in summary.gate.reasons:
            print(visible(reason), file=sys.stderr)
        raise typer.Exit(GATE_FAILED)


# --- errors, caught once


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    sys.exit(_status(lambda: app(standalone_mode=False)))


def _status(command: Callable[[], object]) -> int:
    try:
        result = command()
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted; the same command goes on from here")
        return INTERRUPTED
    except Inconclusive as error:
        _complain(str(error))
        return INCONCLUSIVE
    except PlanError as error:
        _complain(str(error))
        return USAGE
    except CanaryAuditError as error:
        _complain(str(error))
        return ERROR
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except MemoryError:
        _complain("out of memory; use fewer --samples or a smaller --budget")
        return ERROR
    except Exception as error:
        if os.environ.get("CANARYAUDIT_DEBUG"):
            raise
        _complain(f"internal error, {type(error).__name__}: {one_line(error)}; set CANARYAUDIT_DEBUG=1 for the details")
        return ERROR


def _complain(message: str) -> None:
    print(f"canaryaudit: {visible(message.strip())}", file=sys.stderr)
