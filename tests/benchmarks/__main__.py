"""Run all benchmarks and print them as the table of RESULTS.md: `make bench`."""

from canaryaudit import environment
from tests.benchmarks import bench_scoring, bench_training


def main() -> None:
    """Print the machine's facts, then one line for each comparison."""
    facts = environment.machine() | {f"{name} version": value for name, value in environment.versions().items()}
    print("; ".join(f"{name}: {value}" for name, value in facts.items()), "\n")
    print("| what | ours | baseline | ratio | spread | note |\n| --- | --- | --- | --- | --- | --- |")
    for benchmark in (bench_training, bench_scoring):
        for comparison in benchmark.run():
            print(comparison.row(), flush=True)


main()
