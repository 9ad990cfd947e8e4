"""Feed strangers' files to everything that reads them: python -m tests.robustness.fuzz.

python -m tests.robustness.fuzz --cases 100000 --seed 0 --minutes 60
python -m tests.robustness.fuzz --seed 0 --only 4711

Every case is made from its number and the seed alone, and read by the functions that the command line reads such a
file with, in a process that may use a gigabyte beyond what it began with. It must end in a value or in a
``CanaryAuditError`` of one line: anything else, and more than some seconds of processor time, is a finding.
"""

import argparse
import copy
import io
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from safetensors.numpy import save

from canaryaudit.canaries.canary import CanarySet, expected_strings
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.corpus import hold_out, read_corpus
from canaryaudit.errors import CanaryAuditError
from canaryaudit.image_plan import read_plan
from canaryaudit.records import Manifest, Measurement, ModelRecord, UnlearningRecord
from canaryaudit.report import read_baseline
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.summary.gate import EarlierReport
from canaryaudit.storage.checkpoint import CheckpointFile
from canaryaudit.storage.json_records import read_record
from canaryaudit.storage.part_cache import DirectoryCache
from canaryaudit.storage.tensors import open_tensors
from canaryaudit.training.config import read_state
from tests.report import builders
from tests.robustness import fuzz_corpora
from tests.robustness.kills import AUDIT

CPU_SECONDS = 10.0
"""Processor time of one case beyond which it counts as hanging."""
WALL_SECONDS = 180.0
"""After which a case that no signal reaches is ended."""
MEMORY_BYTES = 2**30
CORPORA = {
    "packed": fuzz_corpora.spoil_packed,
    "table": fuzz_corpora.spoil_table,
    "fields": fuzz_corpora.spoil_fields,
    "folder": fuzz_corpora.spoil_folder,
    "mail": fuzz_corpora.spoil_mail,
    "secrets": fuzz_corpora.spoil_secrets,
    "words": fuzz_corpora.spoil_words,
}
SHARES = {"template": 18, "record": 23, "tensors": 15, "plan": 10, "txt": 4, "rows": 1, "parquet": 1} | {
    "packed": 5,
    "table": 5,
    "fields": 4,
    "folder": 3,
    "mail": 3,
    "secrets": 4,
    "words": 4,
}
"""Of a hundred cases; rows and parquet go through a library that takes a tenth of a second for each file."""

TOKENS = [
    *("{", "}", "[", "]", '"', ":", ",", "\\", "\n", "\r", "\0", "\t", "#", "=", "'", "{{", "}}", "|", "''", '"""'),
    *("{digits:3}", "{any:999}", "{choice:a|b}", "{lower:", "null", "true", "NaN", "-Infinity", "1e999", "9" * 400),
    *("-1", "0", "18446744073709551616", "\\ud800", "\\u0000", "\ufeff", "\U0001f600", "é", "\u202e", "a" * 300),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**200), 0.5, -1e308, float("inf"), float("nan")),
    *("", "x", "../../etc", "\ud800", "\0", "a" * 5_000, "{digits:3}", "after-x", [], {}, [[]], [0] * 3_000, {"a": 1}),
]


def golden() -> dict[type, str]:
    """Return a sound file's text for every kind of record."""
    canaries = builders.canary_set()
    records = (
        builders.manifest(),
        canaries,
        builders.model_record(),
        builders.measurement(canaries, builders.EXPOSED),
        builders.unlearning(canaries=[canary.id for canary in canaries.inserted]),
    )
    texts: dict[type, str] = {type(record): record.model_dump_json() for record in records}
    return texts | {EarlierReport: render_json(builders.before_after())}


class Fuzzer:
    """Makes cases and reads them.

    Args:
        seed: Of all cases.
        place: Where to write their files.
    """

    def __init__(self, seed: int, place: Path) -> None:
        self.seed, self.place, self.golden = seed, place, golden()
        self.targets = [name for name, share in SHARES.items() for _ in range(share)]
        random.Random(0).shuffle(self.targets)

    def target(self, case: int) -> str:
        """Return what a case is read as."""
        return self.targets[case % len(self.targets)]

    def run(self, case: int) -> bool:
        """Make and read one case; return whether it was taken, where it was not refused.

        Raises:
            BaseException: What must not be.
        """
        chance = random.Random(f"{self.seed} {case}")
        try:
            if make := CORPORA.get(self.target(case)):
                make(self.place, chance, mutated)
            else:
                getattr(self, f"_{self.target(case)}")(chance)
        except CanaryAuditError as error:
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from error
            return False
        return True

    # --- what is read

    def _template(self, chance: random.Random) -> None:
        text = "".join(chance.choice(TOKENS) for _ in range(chance.randint(0, 9)))
        if chance.random() < 0.5:
            text = "is " + chance.choice(["{digits:4}", "{any:3}-{hex:2}", "{choice:red|green} {upper:2}"]) + text
        template = Template.parse(text)
        space = template.space("ab \n")
        assert space.bits >= 0
        member = space.sample(np.random.default_rng(0))
        assert member in space
        assert template.completion_of(template.secret_of(member), "ab \n") in space
        template.lowercased().space("ab")
        template.widened("any").space("ab")

    def _record(self, chance: random.Random) -> None:
        kind = chance.choice([Manifest, CanarySet, ModelRecord, Measurement, UnlearningRecord, EarlierReport])
        text = self.golden[kind]
        if chance.random() < 0.7:
            document = json.loads(text)
            for _ in range(chance.randint(1, 3)):
                document = spoiled(document, chance)
            text = json.dumps(document, ensure_ascii=chance.random() < 0.5)
        data = text.encode("utf-8", "surrogatepass")
        path = self._write(data if chance.random() < 0.6 else mutated(data, chance), "record.json")
        if kind is EarlierReport:
            read_baseline(path, self.place / "other.json")
        elif issubclass(kind, CanarySet):
            expected_strings(read_record(path, kind, "make it again"))
        else:
            json.dumps(read_record(path, kind, "make it again").model_dump(mode="json")).encode()

    def _tensors(self, chance: random.Random) -> None:
        types = [np.float32, np.float64, np.int64, np.uint8, np.float16, bool]
        arrays = {
            name: np.zeros([chance.randint(0, 4) for _ in range(chance.randint(0, 3))], chance.choice(types))
            for name in chance.sample(["a", "b", "optimizer.0.step", "é", "x" * 200], chance.randint(0, 4))
        }
        data = save(arrays, chance.choice([None, {"key": "k", "facts": "{}", "sha256": "0"}, {"facts": "[" * 900}]))
        if chance.random() < 0.6:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            for _ in range(chance.randint(0, 3)):
                header = spoiled(header, chance)
            for dtype in ("BF16", "F8_E4M3", "F4", "C64", "I16"):
                if chance.random() < 0.1:
                    header = json.loads(json.dumps(header).replace("F32", dtype).replace("F16", dtype))
            text = json.dumps(header).encode("utf-8", "surrogatepass")
            data = len(text).to_bytes(8, "little") + text + data[8 + length :]
        path = self._write(data if chance.random() < 0.5 else mutated(data, chance), "x.safetensors")
        read_state(path)
        DirectoryCache(self.place).get("x")
        with suppress(CanaryAuditError):
            self._open()
        CheckpointFile(path, "k").load()

    def _open(self) -> None:
        with open_tensors(self.place / "x.safetensors") as file:
            for name in file.keys():
                own = file.get_slice(name)
                own.get_dtype()
                own.get_shape()

    def _plan(self, chance: random.Random) -> None:
        data = AUDIT.encode()
        if chance.random() < 0.5:
            lines = AUDIT.splitlines()
            for _ in range(chance.randint(1, 4)):
                place, value = chance.randrange(len(lines)), chance.choice(VALUES)
                lines[place] = f"{lines[place].split('=')[0]}= {json.dumps(value)}".lower()
                if chance.random() < 0.1:
                    chance.shuffle(lines)
            data = "\n".join(lines).encode("utf-8", "surrogatepass")
        if chance.random() < 0.05:
            data += b"x = " + chance.choice([b"[", b"{a=", b"["]) * 50_000
        read_plan(self._write(data if chance.random() < 0.5 else mutated(data, chance), "plan.toml"))

    def _txt(self, chance: random.Random) -> None:
        text = "".join(chance.choice([*TOKENS, "one two. ", "\n\n", " \n"]) for _ in range(chance.randint(0, 60)))
        data = text.encode("utf-8", "surrogatepass")
        path = self._write(mutated(data, chance) if chance.random() < 0.4 else data, chance.choice(["c.txt", "c.md"]))
        corpus = read_corpus(str(path), lowercase=chance.random() < 0.5)
        assert corpus.lengths.sum() == corpus.ends[-1]
        assert not hold_out(corpus.lengths, 0.2, 0).all()

    def _rows(self, chance: random.Random) -> None:
        ending = chance.choice(["jsonl", "csv", "json"])
        if ending == "csv":
            text = "id,text\n" + "".join(f"{n},{chance.choice(TOKENS)} word\n" for n in range(9))
        else:
            rows: list[Any] = [{"id": n, "text": f"{chance.choice(TOKENS)} word"} for n in range(9)]
            text = "\n".join(json.dumps(spoiled(own, chance) if chance.random() < 0.3 else own) for own in rows)
        if chance.random() < 0.1:
            text += chance.choice(["[", '{"text":']) * 20_000
        data = text.encode("utf-8", "surrogatepass")
        path = self._write(mutated(data, chance) if chance.random() < 0.4 else data, f"c.{ending}")
        read_corpus(str(path))

    def _parquet(self, chance: random.Random) -> None:
        columns: dict[str, pyarrow.Array] = {
            name: pyarrow.array([f"{token} word" if kind is str else kind(n) for n in range(9)])
            for name in chance.sample(["text", "id", "é", ""], chance.randint(1, 3))
            for token, kind in [(chance.choice(["one", "\0", "é" * 300]), chance.choice([str, str, int, float, bytes]))]
        }
        if chance.random() < 0.2:
            columns["text"] = pyarrow.array([chance.choice([None, [], ["a"], ["b", None]]) for _ in range(9)])
        sink = io.BytesIO()
        pyarrow.parquet.write_table(
            pyarrow.table(columns),
            sink,
            compression=chance.choice(["none", "snappy", "gzip", "zstd"]),
            use_dictionary=chance.random() < 0.5,
            row_group_size=chance.choice([1, 4, 100]),
        )
        data = sink.getvalue()
        read_corpus(str(self._write(mutated(data, chance) if chance.random() < 0.7 else data, "c.parquet")))

    def _write(self, data: bytes, name: str) -> Path:
        path = self.place / name
        path.write_bytes(data)
        return path


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few changes: flipped, cut, doubled, or with a token put in."""
    own = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        place, end = sorted(chance.randint(0, len(own)) for _ in range(2))
        end = min(end, place + chance.choice([1, 4, 50, 10**9]))
        match chance.randrange(5):
            case 0 if own:
                own[chance.randrange(len(own))] = chance.randrange(256)
            case 1:
                del own[place:end]
            case 2:
                own[place:place] = own[place:end] * chance.choice([1, 2, 30])
            case 3:
                own[place:place] = chance.choice(TOKENS).encode("utf-8", "surrogatepass")
            case _:
                own = own[:place] if chance.random() < 0.2 else own
    return bytes(own)


def spoiled(document: Any, chance: random.Random) -> Any:
    """Return a JSON document with one value replaced, left out, doubled, or put under another name."""
    place, parent, key = document, None, None
    while isinstance(place, dict | list) and place and (parent is None or chance.random() < 0.8):
        parent, key = place, chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        place = place[key]
    value: Any = copy.deepcopy(chance.choice(VALUES))
    if parent is None:
        return value
    for _ in range(chance.choice([0, 0, 0, 1, 300])):
        value = [value] if chance.random() < 0.5 else {"a": value}
    match chance.randrange(5):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent.extend([copy.deepcopy(place)] * chance.choice([1, 500]))
        case 2 if isinstance(parent, dict):
            parent[chance.choice(["", "x", "\ud800", *map(str, parent)])] = copy.deepcopy(place)
        case 3 if isinstance(parent, dict):
            parent.update({str(number): 0 for number in range(chance.choice([3, 2_000]))})
        case _:
            parent[key] = value
    return document


class Hanging(BaseException):
    """A case took too long."""


def _hanging(*_: object) -> None:
    raise Hanging(f"more than {CPU_SECONDS:.0f} s of processor time")


@contextmanager
def limits() -> Iterator[None]:
    """Give this process a gigabyte beyond what it has, and a signal where a case takes too long."""
    used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, before[1]))
    handler = signal.signal(signal.SIGPROF, _hanging)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _work(seed: int, cases: range, current: Any, findings: Any, taken: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        fuzzer = Fuzzer(seed, Path(place))
        import datasets  # noqa: F401 - counted before the limit is set
        import torch

        torch.set_num_threads(1)
        with limits():
            for case in cases:
                current.value = case
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                try:
                    taken.value += fuzzer.run(case)
                except BaseException:  # noqa: BLE001 - that is what is looked for
                    findings.put((case, fuzzer.target(case), traceback.format_exc(limit=-6)))
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
    current.value = -1


@dataclass
class Outcome:
    """What a fuzzing came to.

    Attributes:
        cases: How many were read, by target.
        taken: How many of them were sound enough to be taken.
        findings: Case, target, and what happened.
    """

    cases: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    findings: list[tuple[int, str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """Return the outcome in a line."""
        shares = ", ".join(f"{name} {number:,}" for name, number in sorted(self.cases.items()))
        return f"{self.cases.total():,} cases ({shares}), {self.taken:,} taken, {len(self.findings)} findings"


def fuzz(cases: range, seed: int, minutes: float = 1e9, tell: Callable[[str], object] = print) -> Outcome:
    """Read cases in a process of their own, which is begun anew after one that killed it.

    Args:
        cases: Their numbers.
        seed: Of all cases.
        minutes: After which no more are read.
        tell: Called with every finding.
    """
    outcome, deadline = Outcome(), time.monotonic() + 60 * minutes
    processes = multiprocessing.get_context("spawn")
    names = Fuzzer(seed, Path()).target
    left = cases
    while left and time.monotonic() < deadline:
        current, taken, queue = processes.Value("q", -2), processes.Value("q", 0), processes.Queue()
        process = processes.Process(target=_work, args=(seed, left, current, queue, taken), daemon=True)
        process.start()
        seen, since = -2, time.monotonic()
        while process.is_alive() and time.monotonic() < deadline:
            process.join(0.2)
            if current.value != seen:
                seen, since = current.value, time.monotonic()
            elif time.monotonic() - since > WALL_SECONDS:
                break
        last, died = current.value, not process.is_alive() and current.value != -1
        hung = process.is_alive() and time.monotonic() < deadline
        if process.is_alive():
            process.kill()
            process.join()
        while not queue.empty():
            outcome.findings.append(queue.get())
        if last >= 0 and (died or hung):
            what = "no signal reached it" if hung else f"the process ended with {process.exitcode}"
            outcome.findings.append((last, names(last), what))
        done = left if last == -1 else range(left.start, max(left.start, last + 1))
        outcome.cases.update(names(case) for case in done)
        outcome.taken += taken.value
        left = range(done.stop, left.stop)
        if last == -2:
            raise RuntimeError(f"the fuzzing process did not start: exit code {process.exitcode}")
    for case, target, what in outcome.findings:
        tell(f"case {case} ({target}), seed {seed}: replay it with --seed {seed} --only {case}\n{what}")
    return outcome


def main() -> None:
    """Fuzz, and exit with status 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--only", type=int, help="one case again, its files kept in the working directory")
    arguments = parser.parse_args()
    if arguments.only is not None:
        fuzzer = Fuzzer(arguments.seed, Path())
        with limits():
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            print(fuzzer.target(arguments.only), "taken" if fuzzer.run(arguments.only) else "refused")
        return
    outcome = fuzz(range(arguments.cases), arguments.seed, arguments.minutes)
    print(outcome.summary())
    sys.exit(bool(outcome.findings))


if __name__ == "__main__":
    main()
