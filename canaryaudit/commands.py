"""The commands that come after unlearning: attack it, report it, and run all of it from a plan.

``cli`` registers them; like those there, they parse, call and print.
"""

import typer
from rich.text import Text

from canaryaudit import flags
from canaryaudit.console import argv_of, narrating, opened, print_json, quoted, show, show_comparison, show_report
from canaryaudit.errors import Inconclusive
from canaryaudit.outcome import ERROR
from canaryaudit.plan import AttackOptions, MeasureOptions, Plan, ReportOptions, read_plan
from canaryaudit.views import relearning_view, verification_view

_MEASURE, _ATTACK = MeasureOptions(), AttackOptions()
_STEPS = ",".join(map(str, _ATTACK.steps))
_FORMATS = ",".join(ReportOptions().format)


def attack(
    context: typer.Context,
    run: flags.RunArgument,
    name: flags.AttackedName = None,
    canary: flags.AttackedCanaries = None,
    steps: flags.AttackSteps = _STEPS,
    learning_rate: flags.AttackRate = _ATTACK.learning_rate,
    samples: flags.Samples = _MEASURE.samples,
    device: flags.Device = _ATTACK.device,
    seed: flags.Seed = _ATTACK.seed,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Attack what was unlearned by training it further.

    Once on other text only, and once with one window of the secret's own text in every batch; each beside the same
    on a model retrained without the secret, which is trained first where there is none.
    """
    options = flags.checked(
        AttackOptions,
        name=name,
        canary=tuple(canary or ()),
        steps=flags.numbers("--steps", steps),
        learning_rate=learning_rate,
        device=device,
        seed=seed,
    )
    measuring = flags.checked(MeasureOptions, samples=samples, device=device)
    with narrating(quiet, verbose) as narrator, opened(run, context, narrator) as stages:
        record = stages.attack(options, measuring)
    if as_json:
        print_json(record)
        return
    show(relearning_view(record))
    if not quiet:
        show(Text(f"Next: canaryaudit report {quoted(run)}"))


def report(
    context: typer.Context,
    run: flags.RunArguments,
    formats: flags.Formats = _FORMATS,
    output: flags.ReportDirectory = None,
    fail_above: flags.FailAbove = None,
    fail_worse: flags.FailWorse = None,
    reveal_secrets: flags.RevealSecrets = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Write a run's report, or compare several runs on one page.

    Trains and measures first where that has not been done. Beside HTML, Markdown and JSON there are JUnit XML for
    pipelines (junit) and a section to paste into a model card (model-card).
    """
    options = flags.checked(
        ReportOptions,
        format=flags.words(formats),
        output=output,
        fail_above=fail_above,
        fail_worse=fail_worse,
        reveal_secrets=reveal_secrets,
    )
    if len(run) > 1:
        from canaryaudit.comparing import compare_runs

        with narrating(quiet, verbose) as narrator:
            comparison, written = compare_runs(run, options, argv_of(context), narrator)
        show_comparison(comparison, written, as_json)
        return
    with narrating(quiet, verbose) as narrator, opened(run[0], context, narrator) as stages:
        summary, written = stages.report(options, MeasureOptions())
    show_report(summary, written, as_json)


def run(
    context: typer.Context,
    plan: flags.PlanArgument = None,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Run a whole audit, from insert to report.

    It goes on where it was stopped. What is there already must be what the plan asks for.
    """
    audit = read_plan(plan) if plan else Plan()
    from canaryaudit.audit import run_audit

    with narrating(quiet, verbose) as narrator:
        summary, written, failures = run_audit(audit, argv_of(context), narrator)
    show_report(summary, written, as_json)
    if failures:
        raise Inconclusive(f"the report is without {', '.join(failures)}, which came to nothing: see the warning above")


def verify(
    run: flags.RunArgument,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Tell what in a run directory is damaged, missing or stale.

    Every file is checked against what vouches for it, and each fault is told with the command that repairs it. Nothing
    is changed. Exit status: 0 all is sound, 1 something is to be repaired.
    """
    from canaryaudit.verification import verify_run

    found = verify_run(run)
    if as_json:
        print_json(found)
    elif not (quiet and found.sound):
        show(verification_view(found, every=verbose))
    if not found.sound:
        raise typer.Exit(ERROR)
