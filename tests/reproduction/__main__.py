"""Redo the published experiment, and write its page: python -m tests.reproduction, or make reproduce.

python -m tests.reproduction                         everything, in about six hours of one core; killed, it goes on
python -m tests.reproduction grid ten                some of it: grid, ten, seeds, growth
python -m tests.reproduction grid --repetitions 6,30 --methods retrain,default
python -m tests.reproduction page                    only the page, from what has been found so far

A case is run once, and its result kept under RUNS/results: delete that file, and the run's unlearned/NAME, to run it
again.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console

from canaryaudit.cli.progress_bar import TerminalReporter
from tests.reproduction.page import write_page
from tests.reproduction.results import collect
from tests.reproduction.settings import STAGES, Settings
from tests.reproduction.stages import METHODS, RUN

PAGE = Path(__file__).parents[2] / "reports" / "paper"


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for; write the page after each part."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reproduction", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "parts", nargs="*", choices=(*STAGES, "page", []), metavar="PART", help=", ".join((*STAGES, "page"))
    )
    parser.add_argument("--corpus", default="harbour", help="as for canaryaudit insert")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="where runs and results are kept")
    parser.add_argument("-o", "--output", type=Path, default=PAGE, help="where the page goes")
    parser.add_argument("--repetitions", type=_numbers, help="of the grid, such as 6,30")
    parser.add_argument("--seeds", type=_numbers, help="such as 0,1,2")
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=METHODS, help=", ".join(METHODS))
    parser.add_argument("--threads", type=int, help="of the computation; the machine's cores where not given")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.methods) - set(METHODS):
        parser.error(f"no method is called {', '.join(sorted(unknown))}: choose of {', '.join(METHODS)}")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    settings = Settings(corpus=asked.corpus, runs=asked.runs).cut()
    if asked.repetitions:
        settings = settings.with_(grid_repetitions=asked.repetitions)
    if asked.seeds:
        settings = settings.with_(seeds=asked.seeds)
    parts = asked.parts or STAGES
    with TerminalReporter(Console(stderr=True, highlight=False)) as progress:
        for part in parts:
            if part != "page":
                RUN[part](settings, progress, asked.methods)
            for path in write_page(collect(settings.runs / "results"), asked.output):
                progress.info(f"Wrote {path}.")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
