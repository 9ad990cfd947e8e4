"""Run benchmarks and print them as the tables of RESULTS.md: all with `make bench`, or those that are named.

`python -m tests.benchmarks retention` gives fidelity against the number of retained windows.
"""

import sys

from canaryaudit import environment
from tests.benchmarks import bench_retention, bench_scoring, bench_training

_SPEEDS = {"training": bench_training, "scoring": bench_scoring}


def main(names: list[str]) -> None:
    """Print the machine's facts, then one table for speeds and one for retention."""
    chosen = names or [*_SPEEDS, "retention"]
    if unknown := set(chosen) - {*_SPEEDS, "retention"}:
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}: choose of {', '.join(_SPEEDS)}, retention")
    facts = environment.machine() | {f"{name} version": value for name, value in environment.versions().items()}
    print("; ".join(f"{name}: {value}" for name, value in facts.items()))
    if speeds := [benchmark for name, benchmark in _SPEEDS.items() if name in chosen]:
        print("\n| what | ours | baseline | ratio | spread | note |\n| --- | --- | --- | --- | --- | --- |")
        for benchmark in speeds:
            for comparison in benchmark.run():
                print(comparison.row(), flush=True)
    if "retention" in chosen:
        print("\n| windows | accuracy, points | held-out loss, bits | mean exposure, bits | seconds |")
        print("| --: | --: | --: | --: | --: |")
        for point in bench_retention.run():
            print(point.row(), flush=True)


main(sys.argv[1:])
