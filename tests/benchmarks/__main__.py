"""Run the benchmarks and print them as the tables of RESULTS.md: `make bench`.

python -m tests.benchmarks                   all comparisons of speed, and retention
python -m tests.benchmarks training          some of them: training, scoring, large, tokens, retention
python -m tests.benchmarks exposure RUN      the estimators on a trained run
python -m tests.benchmarks race CORPUS       time to 95 % accuracy on a text file, against a plain loop
python -m tests.benchmarks cost              cost against size: corpus, canaries, completions, width of the model
python -m tests.benchmarks tables [PART …]   requests to linear models: suite, speed, small, certificate
python -m tests.benchmarks unlearn-tokens FOLDER   unlearning from models of transformers, trained into a folder
python -m tests.benchmarks stream [--gigabytes 1]   a corpus that does not fit in the memory that is used
"""

import sys
from pathlib import Path

from canaryaudit import environment
from tests.benchmarks import (
    bench_cost,
    bench_exposure,
    bench_large,
    bench_race,
    bench_retention,
    bench_scoring,
    bench_stream,
    bench_tables,
    bench_tokens,
    bench_training,
    bench_unlearn_tokens,
)

SPEED = {"training": bench_training, "scoring": bench_scoring, "large": bench_large, "tokens": bench_tokens}


def main(arguments: list[str]) -> None:
    """Print the machine's facts, then one table for speeds and one for retention."""
    facts = environment.machine() | {f"{name} version": value for name, value in environment.versions().items()}
    print("; ".join(f"{name}: {value}" for name, value in facts.items()))
    if arguments[:1] == ["exposure"] and len(arguments) == 2:
        bench_exposure.run(Path(arguments[1]))
        return
    if arguments[:1] == ["race"] and len(arguments) == 2:
        print("\n| training | epochs | time | accuracy | share of the time |\n| --- | --: | --: | --: | --: |")
        for line in bench_race.run(Path(arguments[1]), 0.95):
            print(line, flush=True)
        return
    if arguments == ["cost"]:
        for line in bench_cost.run():
            print(line, flush=True)
        return
    if arguments[:1] == ["unlearn-tokens"] and len(arguments) == 2:
        for line in bench_unlearn_tokens.run(Path(arguments[1])):
            print(line, flush=True)
        return
    if arguments[:1] == ["tables"] and set(arguments[1:]) <= set(bench_tables.PARTS):
        for line in bench_tables.run(arguments[1:]):
            print(line, flush=True)
        return
    if arguments[:1] == ["stream"] and (len(arguments) == 1 or arguments[1:2] == ["--gigabytes"]):
        print("\n| what | corpus | time | processor time | throughput of the processor | peak memory |")
        print("| --- | --: | --: | --: | --: | --: |")
        for line in bench_stream.run(float(arguments[2]) if len(arguments) > 2 else 1.0):
            print(line, flush=True)
        return
    chosen = arguments or [*SPEED, "retention"]
    if unknown := set(chosen) - {*SPEED, "retention"}:
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}: choose of {', '.join(SPEED)}, retention")
    if speeds := [benchmark for name, benchmark in SPEED.items() if name in chosen]:
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
