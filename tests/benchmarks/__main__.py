"""Run the benchmarks and print them as the tables of RESULTS.md: `make bench`.

python -m tests.benchmarks                   all comparisons of speed
python -m tests.benchmarks training          some of them: training, scoring, large
python -m tests.benchmarks exposure RUN      the estimators on a trained run
"""

import sys
from pathlib import Path

from canaryaudit import environment
from tests.benchmarks import bench_exposure, bench_large, bench_scoring, bench_training

SPEED = {"training": bench_training, "scoring": bench_scoring, "large": bench_large}


def main(arguments: list[str]) -> None:
    """Print the machine's facts, then one line for each comparison."""
    facts = environment.machine() | {f"{name} version": value for name, value in environment.versions().items()}
    print("; ".join(f"{name}: {value}" for name, value in facts.items()), "\n")
    if arguments[:1] == ["exposure"]:
        bench_exposure.run(Path(arguments[1]))
        return
    print("| what | ours | baseline | ratio | spread | note |\n| --- | --- | --- | --- | --- | --- |")
    for name in arguments or SPEED:
        for comparison in SPEED[name].run():
            print(comparison.row(), flush=True)


main(sys.argv[1:])
