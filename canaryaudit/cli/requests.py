"""The `requests` command: write what a model behind an API is to be asked."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from canaryaudit.cli import flags
from canaryaudit.cli.console import print_json, progress_reporter, shell_quote, show
from canaryaudit.plan import RequestOptions

Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="JSON Lines file to write.")]
References = Annotated[int, flags.option(RequestOptions, "num_references", "N", "--samples")]
DEFAULTS = RequestOptions()


def requests(
    run: flags.RunArgument,
    output: Output,
    samples: References = DEFAULTS.num_references,
    seed: flags.Seed = DEFAULTS.seed,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
) -> None:
    """Write requests to a model behind an API.

    Each holds a text whose log-probabilities the model is to return. Canaries, controls and random strings of the same
    formats are shuffled, and no request says which it is. Send each text as it is, without another token before it.

    Write the answers as JSON Lines with the request's id: an echo of OpenAI's completions (echo=true, logprobs=1),
    vLLM's prompt_logprobs, samples of lm-evaluation-harness, or {"id": ..., "logprob": ...} with the natural logarithm
    of the completion's probability. Then run: canaryaudit measure RUN --scores FILE
    """
    options = flags.checked(RequestOptions, samples=samples, seed=seed)
    from canaryaudit.pipeline.scores import write_requests
    from canaryaudit.runs.run_directory import RunDirectory

    directory = RunDirectory.open(run)
    with progress_reporter(quiet, verbose) as progress, directory.lock(reading=True):
        count = write_requests(directory, output, options)
        progress.info(f"Wrote {count:,} requests to {output}. They hold the secrets among random strings.")
    if as_json:
        print_json({"requests": count, "file": str(output)})
    elif not quiet:
        show(Text(f"Next: canaryaudit measure {shell_quote(run)} --scores ANSWERS"))
