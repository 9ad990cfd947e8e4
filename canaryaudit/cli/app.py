"""Define the command line: parse, call, print.

Commands import the stages lazily. The stages import torch, which takes seconds, and --help must not wait for it.
"""

import sys
from typing import Annotated

import typer

from canaryaudit.cli.attack import attack
from canaryaudit.cli.console import show_version
from canaryaudit.cli.exit_status import USAGE
from canaryaudit.cli.flags import example
from canaryaudit.cli.insert import insert
from canaryaudit.cli.measure import measure
from canaryaudit.cli.publish import publish
from canaryaudit.cli.report import report
from canaryaudit.cli.requests import requests
from canaryaudit.cli.run import PLAN_EXAMPLE, run
from canaryaudit.cli.train import train
from canaryaudit.cli.unlearn import unlearn
from canaryaudit.cli.verify import verify

app = typer.Typer(
    name="canaryaudit",
    help="Find secrets that a language model memorized, remove them, and verify that they are gone.",
    epilog="\b\nTry it on the embedded corpus, in minutes:\n  canaryaudit run",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command(epilog=example("canaryaudit insert notes.txt -t 'My card is {digits:4}.' -o runs/notes"))(insert)
app.command(epilog=example("canaryaudit train runs/notes --size paper --target-accuracy 0.95"))(train)
app.command(epilog=example("canaryaudit measure runs/notes --model all --samples 100000"))(measure)
app.command(epilog=example("canaryaudit requests runs/notes -o requests.jsonl"))(requests)
app.command(epilog=example("canaryaudit unlearn runs/notes --canary canary-01 --name first-request"))(unlearn)
app.command(epilog=example("canaryaudit attack runs/notes --canary canary-01 --steps 1,4,16"))(attack)
app.command(epilog=example("canaryaudit publish runs/people --certify 0.1,1e-5 -o people.skops"))(publish)
app.command(epilog=example("canaryaudit report runs/notes --fail-above 10 --fail-worse baseline.json"))(report)
app.command(epilog=PLAN_EXAMPLE + example("canaryaudit run audit.toml"))(run)
app.command(epilog=example("canaryaudit verify runs/notes"))(verify)


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
