"""The command line: parse, call, print; nothing else.

The stages are imported where a command needs them: they bring torch along, which takes seconds, and help
and wrong commands must not wait for it.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from canaryaudit import commands, environment, flags
from canaryaudit.console import (
    argv_of,
    narrating,
    opened,
    print_json,
    quoted,
    show,
    show_version,
)
from canaryaudit.errors import Inconclusive, Interrupted
from canaryaudit.newrun import make_run, plan_run
from canaryaudit.outcome import (
    USAGE,
    end_on_signals,
    ignore_signals,
    outcome_of,
    prepare_streams,
    raise_on_signals,
    silence_standard_output,
)
from canaryaudit.plan import (
    InsertOptions,
    MeasureOptions,
    TrainOptions,
    UnlearnOptions,
    default_run,
)
from canaryaudit.text import visible
from canaryaudit.views import measurement_view, plan_document, plan_view

app = typer.Typer(
    name="canaryaudit",
    help="Measure, remove and prove the removal of secrets that a language model memorised.",
    epilog="\b\nTry it on the embedded corpus, in minutes:\n  canaryaudit run",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INSERT, _TRAIN, _MEASURE = InsertOptions(corpus=""), TrainOptions(), MeasureOptions()
_UNLEARN = UnlearnOptions()
_REPETITIONS = ",".join(map(str, _INSERT.repetitions))
_ESTIMATORS = ",".join(_MEASURE.estimators)


@app.command(epilog=flags.example("canaryaudit insert notes.txt -t 'My card is {digits:4}.' -o runs/notes"))
def insert(
    context: typer.Context,
    corpus: flags.CorpusArgument,
    output: flags.NewRun = None,
    template: flags.Templates = None,
    canaries: flags.Canaries = None,
    repetitions: flags.Repetitions = _REPETITIONS,
    secret: flags.Secrets = None,
    locate: flags.Located = None,
    controls: flags.Controls = _INSERT.controls,
    space: flags.WiderSpace = None,
    column: flags.Column = None,
    lowercase: flags.Lowercase = False,
    skip_chars: flags.SkipChars = _INSERT.skip_chars,
    holdout: flags.Holdout = _INSERT.holdout,
    seed: flags.Seed = _INSERT.seed,
    dry_run: flags.DryRun = False,
    force: flags.ReplaceRun = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Put canaries into a corpus, or find secrets in it."""
    options = flags.checked(
        InsertOptions,
        corpus=corpus,
        column=column,
        template=tuple(template) if template else None,
        canaries=canaries,
        repetitions=flags.numbers("--repetitions", repetitions),
        secret=tuple(secret or ()),
        locate=tuple(locate or ()),
        controls=controls,
        space=space,
        lowercase=lowercase,
        skip_chars=skip_chars,
        holdout=holdout,
        seed=seed,
    )
    path = output or default_run(corpus)
    expected = None
    with narrating(quiet, verbose) as narrator:
        if dry_run:
            made, _ = plan_run(options)
            narrator.say("Timing a few training steps.")
            from canaryaudit.pipeline import training_seconds

            expected = training_seconds(made, TrainOptions())
        else:
            _, made = make_run(path, options, argv_of(context), replace=force)
        for warning in made.warnings:
            narrator.warn(warning)
    if as_json:
        print_json(plan_document(made, None if dry_run else path, expected))
        return
    show(plan_view(made, expected, every=verbose))
    if not dry_run and not quiet:
        show(Text(f"Next: canaryaudit unlearn {quoted(path)}"))


@app.command(epilog=flags.example("canaryaudit train runs/notes --size paper --target-accuracy 0.95"))
def train(
    context: typer.Context,
    run: flags.RunArgument,
    size: flags.Size = _TRAIN.size,
    epochs: flags.Epochs = None,
    target_accuracy: flags.TargetAccuracy = None,
    device: flags.Device = _TRAIN.device,
    precision: flags.Precision = _TRAIN.precision,
    seed: flags.Seed = _TRAIN.seed,
    force: flags.TrainAnew = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Train the character LSTM on a run's text.

    After an interruption, the same command goes on.
    """
    options = flags.checked(
        TrainOptions,
        size=size,
        epochs=epochs,
        target_accuracy=target_accuracy,
        device=device,
        precision=precision,
        seed=seed,
    )
    with narrating(quiet, verbose) as narrator, opened(run, context, narrator) as stages:
        record = stages.train(options, anew=force)
    if as_json:
        print_json(record)
    elif not quiet:
        show(Text(f"Next: canaryaudit unlearn {quoted(run)}"))


@app.command(epilog=flags.example("canaryaudit measure runs/notes --model all --samples 100000"))
def measure(
    context: typer.Context,
    run: flags.RunArgument,
    model: flags.ModelName = "before",
    samples: flags.Samples = _MEASURE.samples,
    estimators: flags.Estimators = _ESTIMATORS,
    budget: flags.Budget = _MEASURE.budget,
    precision_bits: flags.PrecisionBits = _MEASURE.precision_bits,
    max_draws: flags.MaxDraws = _MEASURE.max_draws,
    precision: flags.DraftPrecision = _MEASURE.precision,
    strict: flags.Strict = False,
    device: flags.Device = _MEASURE.device,
    seed: flags.Seed = _MEASURE.seed,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Measure every secret's exposure under a model.

    The references are taken afresh from that model. Which figure to trust: "exact" is the rank itself, and
    always right. "importance" is an unbiased estimate with an interval; trust it where its effective sample size
    is large, which the tool checks. "sampled" is right up to about log2 of the number of references; beyond, it
    gives only a lower bound. "skew-normal" is the literature's extrapolation, shown for comparison and never used
    as the headline. Look at the controls first: secrets that were never inserted must average 1.44 bits, or no
    figure of the measurement is to be trusted. Where canaries were inserted in several numbers of repetitions, a
    second table says how often a secret must occur to be remembered; -v adds what guessing and sampling cost an
    attacker. Large samplings keep what is done: after an interruption, the same command goes on.
    """
    options = flags.checked(
        MeasureOptions,
        samples=samples,
        estimators=flags.words(estimators),
        budget=budget,
        precision_bits=precision_bits,
        max_draws=max_draws,
        precision=precision,
        device=device,
        seed=seed,
    )
    with narrating(quiet, verbose) as narrator, opened(run, context, narrator) as stages:
        models = stages.models() if model == "all" else [model]
        measurements = [stages.measure(name, options) for name in models]
    if as_json:
        print_json([m.model_dump(mode="json") for m in measurements] if model == "all" else measurements[0])
    else:
        show(*(measurement_view(measurement, every=verbose) for measurement in measurements))
    if strict and any(m.calibration and not m.calibration.passed for m in measurements):
        raise Inconclusive("the controls fail: this measurement must not be relied on; see its calibration")


@app.command(epilog=flags.example("canaryaudit unlearn runs/notes --canary canary-01 --name first-request"))
def unlearn(
    context: typer.Context,
    run: flags.RunArgument,
    method: flags.MethodName = _UNLEARN.method,
    scope: flags.ScopeName = None,
    solver: flags.SolverChoice = _UNLEARN.solver,
    replacement: flags.Replacing = _UNLEARN.replacement,
    canary: flags.Chosen = None,
    start: flags.Start = _UNLEARN.start,
    name: flags.ResultName = None,
    max_fidelity_drop: flags.MaxFidelityDrop = _UNLEARN.max_fidelity_drop,
    retain_windows: flags.RetainWindows = _UNLEARN.retain_windows,
    tau: flags.Tau = None,
    shards: flags.Shards = None,
    samples: flags.Samples = _MEASURE.samples,
    device: flags.Device = _UNLEARN.device,
    seed: flags.Seed = _UNLEARN.seed,
    force: flags.UnlearnAnew = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Make a copy of the model that has forgotten secrets.

    Trains and measures first where that has not been done, and measures the copy afresh. The original model is
    never changed. An update that would cost more accuracy than is allowed is scaled back, or refused with status 4.
    """
    options = flags.checked(
        UnlearnOptions,
        name=name,
        method=method,
        scope=scope,
        solver=solver,
        replacement=replacement,
        canary=tuple(canary or ()),
        start=start,
        retain_windows=retain_windows,
        max_fidelity_drop=max_fidelity_drop,
        tau=tau,
        shards=shards,
        device=device,
        seed=seed,
    )
    measuring = flags.checked(MeasureOptions, samples=samples, device=device)
    with narrating(quiet, verbose) as narrator, opened(run, context, narrator) as stages:
        record = stages.unlearn(options, measuring, anew=force)
        measurement = stages.run.measurement(f"after-{record.name}")
    if as_json:
        print_json(record)
        return
    show(measurement_view(measurement, every=verbose))
    if not quiet:
        show(Text(f"Next: canaryaudit report {quoted(run)}"))


app.command(epilog=flags.example("canaryaudit attack runs/notes --canary canary-01 --steps 1,4,16"))(commands.attack)
app.command(epilog=flags.example("canaryaudit report runs/notes --fail-above 10 --fail-worse baseline.json"))(
    commands.report
)
app.command(epilog=flags.PLAN_EXAMPLE + flags.example("canaryaudit run audit.toml"))(commands.run)
app.command(epilog=flags.example("canaryaudit verify runs/notes"))(commands.verify)


@app.callback()
def _root(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)


# --- the way in and out


def run_command(arguments: Sequence[str], may_speak: Callable[[], bool] = lambda: True) -> int:
    """Run one command line and return its exit status; an error is said in one line on standard error.

    Args:
        arguments: The command line, without the program.
        may_speak: Asked before an error is said.
    """

    def command() -> object:
        result = app(list(arguments), standalone_mode=False, prog_name="canaryaudit", obj=arguments)
        sys.stdout.flush()
        return result

    return _said(command, may_speak)


def main() -> NoReturn:
    """Run the command line, or a process's part in what another one was told, and exit with its status."""
    prepare_streams()
    if environment.rank() > 0:
        sys.exit(_follow())
    raise_on_signals()
    status = run_command(sys.argv[1:]) if environment.num_processes() == 1 else _lead()
    try:
        sys.stdout.flush()
    except OSError:
        silence_standard_output()
    sys.exit(status)


def _said(command: Callable[[], object], may_speak: Callable[[], bool]) -> int:
    status, message = outcome_of(command)
    if message and may_speak():
        print(f"canaryaudit: {visible(message.strip())}", file=sys.stderr)
    return status


def _lead() -> int:
    """Run the command line as the first of several processes."""
    from canaryaudit import ranks

    job = ranks.of_job()

    def may_speak() -> bool:
        ignore_signals()
        return job.speaks()

    try:
        status = run_command(sys.argv[1:], may_speak)
        # After a failure nobody is waited for: torchrun ends the others.
        return status or _said(job.dismiss, may_speak)
    except Interrupted as error:  # torchrun ends all when one has ended, while this one is about to say so
        return 128 + error.number
    finally:
        ignore_signals()


def _follow() -> int:
    """Do this process's part, in silence."""
    end_on_signals()
    from canaryaudit import ranks
    from canaryaudit.following import follow

    job = ranks.of_job()
    return _said(lambda: follow(job), job.speaks)
