"""A corpus larger than what is kept of it: memory and time to insert, encode and begin to train, each in a process."""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS = """the of and a to in he was that it his her with as had for she on at by which have be from not they one café
naïve Größe “quoted” — résumé straße œuvre ship harbour mast rope sail tide wind keel lantern"""

# Run in a process of its own, whose memory and time are then the command's.
_CHILD = """
import os, sys, time
from tests.benchmarks.harness import peak_megabytes
began = time.perf_counter()
def told():
    os.write(3, f"{time.perf_counter() - began} {time.process_time()} {peak_megabytes()}".encode())
if sys.argv[1] == "train":
    from canaryaudit.training import loop as training
    step = training._Loop._step
    def first(*arguments):
        step(*arguments)
        told()
        os._exit(0)
    training._Loop._step = first
from canaryaudit.cli.main import main
try:
    main()
finally:
    told()
"""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: On the clock.
        processor_seconds: Of work, which other processes on the machine do not lengthen.
        megabytes: Resident memory at its highest.
    """

    seconds: float
    processor_seconds: float
    megabytes: float


def run(gigabytes: float) -> Iterator[str]:
    """Yield a table's lines: inserting into a corpus of that size, as text and as rows, and beginning to train."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        for ending in ("txt", "jsonl"):
            corpus, made = directory / f"corpus.{ending}", directory / f"run-{ending}"
            size = write_corpus(corpus, int(gigabytes * 10**9))
            column = ["--column", "body"] if ending == "jsonl" else []
            yield _row(f"`insert`, .{ending}", size, cost_of("insert", str(corpus), "-o", str(made), "-q", *column))
            corpus.unlink()
        cost = cost_of("train", str(directory / "run-txt"), "--epochs", "1", "-q")
        yield _row("`train`, to the end of its first step", size, cost)


def write_corpus(path: Path, size: int, paragraphs: int = 20_000) -> int:
    """Write paragraphs of made-up text, none like another, and return their bytes.

    Args:
        path: A .txt file, or a .jsonl one with the columns ``id`` and ``body``.
        size: Bytes to reach.
        paragraphs: How many different ones, before each is numbered.
    """
    rng = random.Random(1)
    kinds = [" ".join(rng.choices(WORDS.split(), k=rng.randint(10, 90))).capitalize() for _ in range(paragraphs)]
    written = number = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        while written < size:
            texts = [f"{kind} {number + index}." for index, kind in enumerate(rng.choices(kinds, k=1000))]
            number += len(texts)
            if path.suffix == ".jsonl":
                rows = [json.dumps({"id": index, "body": text}, ensure_ascii=False) for index, text in enumerate(texts)]
                block = "".join(f"{row}\n" for row in rows)
            else:
                block = "".join(f"{text}\n\n" for text in texts)
            written += len(block.encode("utf-8"))
            file.write(block)
    return written


def cost_of(*arguments: str) -> Cost:
    """Run a command in a process of its own and return what it took; of ``train`` only the first step."""
    with tempfile.TemporaryFile() as told:
        words = [sys.executable, "-c", f"import os; os.dup2({told.fileno()}, 3)\n{_CHILD}", *arguments]
        root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(words, check=True, pass_fds=[told.fileno()], stdout=subprocess.DEVNULL, env=root)
        told.seek(0)
        return Cost(*map(float, told.read().split()))


def _row(what: str, size: int, cost: Cost) -> str:
    return (
        f"| {what} | {size / 1e9:.2f} GB | {cost.seconds:.0f} s | {cost.processor_seconds:.0f} s | "
        f"{size / 1e6 / cost.processor_seconds:.0f} MB/s | {cost.megabytes:.0f} MB |"
    )
