"""Give every command a stranger's run directory: python -m tests.robustness.run_fuzz.

python -m tests.robustness.run_fuzz --cases 10000 --seed 0
python -m tests.robustness.run_fuzz --seed 0 --only 4711

A sound, finished run is spoiled in one to three places: files that are links, pipes, missing, truncated, swapped or
edited. A command that is then run on it must end with a status of its own and at most one line of error, must leave
everything outside the run and its report as it was, and must not let a gate pass on records that are not the run's.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import ValidationError

from canaryaudit.records import Manifest
from canaryaudit.training import loop as training
from tests.commands import FAST, INSERT, ROOT, UNLEARN, canaryaudit, succeed, tree
from tests.robustness.fuzz import VALUES, mutated, spoiled

CPU_SECONDS = 60.0
"""Processor time of one command beyond which it counts as hanging."""
GATE = ("report", "RUN", "-o", "report", "--format", "json,junit", "--fail-above", "9")
"""The sound run passes: its canaries are not remembered, and three digits have ten bits."""
COMMANDS: list[tuple[str, ...]] = [
    *[GATE] * 6,
    *[("verify", "RUN")] * 4,
    ("report", "RUN", "-o", "report", "-q"),
    ("report", "RUN", "-o", "RUN", "--format", "json"),
    ("measure", "RUN", *FAST),
    ("measure", "RUN", "--model", "after-second-order", *FAST),
    ("train", "RUN"),
    ("insert", "sea.txt", "-o", "RUN", *INSERT),
    ("insert", "sea.txt", "-o", "RUN", *INSERT, "--force"),
    ("unlearn", "RUN", *UNLEARN),
]
HARMLESS = {".lock", "curvature.safetensors"}
"""Files in which a run says nothing, or what can be made again from its model or its texts."""


class Hanging(Exception):
    """A command took too long."""


class RunFuzzer:
    """Spoils a copy of a run, and runs a command on it.

    Args:
        seed: Of all cases.
        place: An empty directory, which becomes the working directory.
    """

    def __init__(self, seed: int, place: Path) -> None:
        self.seed, self.place = seed, place
        with contextlib.chdir(place):
            text = (ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:12_000]
            Path("sea.txt").write_text(text, "utf-8")
            for name, more in (("sound", ()), ("other", ("--seed", "5"))):
                succeed("insert", "sea.txt", "-o", name, *INSERT, *more)
                succeed("train", name, "--epochs", "2", "--precision", "fp32")
                succeed("measure", name, *FAST)
                succeed("unlearn", name, *UNLEARN)
                succeed("report", name, "-o", "discarded", "--format", "json")
            shutil.rmtree("discarded")
        self.names = sorted(tree(place / "sound"))
        self.records = [name for name in self.names if name.endswith(".json")]
        self.sound = _content(place / "sound")
        with contextlib.chdir(place):
            self._lay_out()
            succeed(*GATE)  # else a gate that never passes would be found sound

    def command(self, case: int) -> tuple[str, ...]:
        """Return what is run in a case."""
        return random.Random(f"command {self.seed} {case}").choice(COMMANDS)

    def run(self, case: int) -> tuple[list[str], int]:
        """Make and try one case; return what was done to the run, and the command's exit status.

        Raises:
            AssertionError: Something happened that must not.
        """
        chance = random.Random(f"{self.seed} {case}")
        command = self.command(case)
        with contextlib.chdir(self.place):
            self._lay_out()
            done = [self._spoil(chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
            changed = self._is_changed()
            before = _outside()
            with _limited():
                result = canaryaudit(*command)
            after = _outside()
            if before != after:
                raise AssertionError(f"{done}: {command} changed {_difference(before, after)} outside the run")
            if result.status not in range(5):
                raise AssertionError(f"{done}: {command} ended with {result.status}: {result.err}")
            if result.status in (1, 2) and (command[0] != "verify" or result.err):
                lines = [line for line in result.err.splitlines() if line.startswith("canaryaudit: ")]
                if len(lines) != 1 or "Traceback" in result.err or "internal error" in result.err:
                    raise AssertionError(f"{done}: {command} said {result.err!r}")
            if command is GATE and result.status == 0 and changed and self._is_changed():
                raise AssertionError(f"{done}: the gate passed")
        return done, result.status

    def _is_changed(self) -> bool:
        """Return whether the run says anything else than the sound one; what was added says nothing."""
        content = _content(Path("RUN"))
        return any(content.get(name) != data for name, data in self.sound.items())

    def _lay_out(self) -> None:
        for name in ("RUN", "report", "outside"):
            shutil.rmtree(name, ignore_errors=True)
        shutil.copytree("sound", "RUN")
        outside = Path("outside")
        (outside / "folder").mkdir(parents=True)
        (outside / "folder" / "notes.txt").write_text("not ours\n", "utf-8")
        (outside / "victim").write_text("keep me\n", "utf-8")
        (outside / "copy").write_bytes(Path("sound", "manifest.json").read_bytes())
        os.mkfifo(outside / "pipe")

    # --- ways to spoil

    def _spoil(self, chance: random.Random) -> str:
        ways: list[Callable[[random.Random], str]] = [
            *[self._edit] * 6,
            *[self._number] * 4,
            *[self._link] * 4,
            self._garble,
            self._truncate,
            self._swap,
            self._remove,
            self._other_kind,
            self._mode,
            self._foreign,
            self._hidden_link,
        ]
        way = chance.choice(ways)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return way(chance)
        return "nothing: an earlier change is in the way"

    def _pick(self, chance: random.Random, names: list[str]) -> Path:
        path = Path("RUN", chance.choice(names))
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileNotFoundError
        return path

    def _edit(self, chance: random.Random) -> str:
        path = self._pick(chance, self.records)
        with contextlib.suppress(ValueError):
            document = spoiled(json.loads(path.read_text("utf-8")), chance)
            path.write_bytes(json.dumps(document, indent=1).encode("utf-8", "surrogatepass"))
        return f"{path} edited"

    def _number(self, chance: random.Random) -> str:
        """Edit one plausible number, truth value or name, as somebody would who wants a gate to pass."""
        path = self._pick(chance, self.records)
        with contextlib.suppress(ValueError):
            document = json.loads(path.read_text("utf-8"))
            leaves = list(_leaves(document))
            if leaves:
                holder, key = chance.choice(leaves)
                holder[key] = _plausible(holder[key], chance)
            path.write_text(json.dumps(document, indent=1), "utf-8")
        return f"a value of {path} edited"

    def _garble(self, chance: random.Random) -> str:
        path = self._pick(chance, self.names)
        path.write_bytes(mutated(path.read_bytes(), chance))
        return f"{path} garbled"

    def _truncate(self, chance: random.Random) -> str:
        path = self._pick(chance, self.names)
        data = path.read_bytes()
        path.write_bytes(data[: chance.choice([0, 1, len(data) // 2, len(data) - 1])])
        return f"{path} truncated"

    def _swap(self, chance: random.Random) -> str:
        path = self._pick(chance, self.names)
        source = Path(
            chance.choice(["other", "sound"]), chance.choice([path.relative_to("RUN").as_posix(), *self.names])
        )
        path.write_bytes(source.read_bytes())
        return f"{path} replaced by {source}"

    def _remove(self, chance: random.Random) -> str:
        path = Path(
            "RUN", chance.choice([*self.names, "measurements", "unlearned", "unlearned/second-order", ".encoded"])
        )
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return f"{path} removed"

    def _link(self, chance: random.Random) -> str:
        path = self._pick(chance, [*self.names, ".lock"])
        kind = chance.choice(["symbolic", "symbolic", "hard", "dangling", "itself", "same", "device"])
        data = path.read_bytes()
        path.unlink()
        match kind:
            case "symbolic":
                path.symlink_to(self.place / "outside" / chance.choice(["victim", "folder", "pipe", "copy"]))
            case "hard":
                os.link("outside/victim", path)
            case "dangling":
                path.symlink_to(self.place / "outside" / "new")
            case "itself":
                path.symlink_to(path.name)
            case "same":  # The right bytes, but elsewhere.
                Path("outside", "same").write_bytes(data)
                path.symlink_to(self.place / "outside" / "same")
            case _:
                path.symlink_to(chance.choice(["/dev/zero", "/dev/full"]))
        return f"{path} a link ({kind})"

    def _hidden_link(self, chance: random.Random) -> str:
        """Make a directory of the run a link to one outside."""
        path = Path("RUN", chance.choice(["measurements", "unlearned", "unlearned/second-order", ".encoded", "work"]))
        if path.is_dir() and not path.is_symlink():
            if chance.random() < 0.5:
                shutil.copytree(path, "outside/copied", symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(path)
        target = self.place / "outside" / ("copied" if Path("outside/copied").exists() else "folder")
        if not path.is_symlink():
            path.symlink_to(target, target_is_directory=True)
        return f"{path} a link to a directory"

    def _other_kind(self, chance: random.Random) -> str:
        path = self._pick(chance, [*self.names, ".lock"])
        path.unlink()
        if chance.random() < 0.5:
            path.mkdir()
            (path / "inside").write_text("x", "utf-8")
        else:
            os.mkfifo(path)
        return f"{path} a {'directory' if path.is_dir() else 'pipe'}"

    def _mode(self, chance: random.Random) -> str:
        path = self._pick(chance, self.names)
        path.chmod(chance.choice([0o000, 0o444, 0o777, 0o4755]))
        return f"{path} with another mode"

    def _foreign(self, chance: random.Random) -> str:
        name = chance.choice(
            ["notes.txt", "a\nb", "é", "unlearned/x/model.json", "measurements/after-x.json", "x" * 200]
        )
        path = Path("RUN", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.choice([b"", b"{}", b"foreign"]))
        return f"{path} added"


def _content(run: Path) -> dict[str, object]:
    """Return what a run says: its files, whether they are plain, without what says nothing."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        mode = path.lstat().st_mode
        if name in HARMLESS or name.startswith(".encoded") or (path.is_dir() and not path.is_symlink()):
            continue
        found[name] = _said(path) if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    with contextlib.suppress(KeyError, TypeError, ValidationError):  # 1 may be written as 1.0.
        found["manifest.json"] = Manifest.model_validate_json(found["manifest.json"])  # type: ignore[arg-type]
    return found


def _said(path: Path) -> object:
    """Return a file's bytes, or a record's value, in which spaces between words say nothing."""
    data = path.read_bytes()
    if path.suffix == ".json":
        with contextlib.suppress(ValueError, RecursionError):
            return json.dumps(json.loads(data))
    return data


def _outside() -> dict[str, object]:
    """Return everything of the working directory but the run and the report: kinds, modes, bytes and targets."""
    found: dict[str, object] = {}
    for top in sorted(Path().iterdir()):
        if top.name in ("RUN", "report"):
            continue
        for path in (top, *sorted(top.rglob("*"))):
            facts = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(facts.st_mode) else None
            found[str(path)] = (facts.st_mode, facts.st_ino, facts.st_mtime_ns if data is not None else 0, data)
    return found


def _difference(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _leaves(item)
        else:
            yield value, key


def _plausible(value: object, chance: random.Random) -> object:
    match value:
        case bool():
            return not value
        case int():
            return chance.choice([0, 1, value + 1, max(0, value - 1), 2 * value + 1])
        case float():
            return chance.choice([0.0, 0.5, value / 2, -value - 1.0, value + 1.0])
        case str():
            return chance.choice(["", value + "x", value[::-1] + "!", "canary-01"])
    return chance.choice([value if value is not None else 0, *VALUES[:8], 0.25])


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Hanging(f"more than {CPU_SECONDS:.0f} s of processor time")

    previous = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


@dataclass
class Outcome:
    """What was found.

    Attributes:
        statuses: How often each command ended with each status.
        findings: Case and what happened.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)

    def summary(self) -> str:
        """Return the outcome in a line."""
        shares = ", ".join(f"{name} {status}: {number:,}" for (name, status), number in sorted(self.statuses.items()))
        return f"{self.statuses.total():,} ended ({shares}), {len(self.findings)} findings"


def fuzz(cases: range, seed: int, place: Path, tell: Callable[[str], object] = print) -> Outcome:
    """Try cases one after another, with models of 24 units.

    Args:
        cases: Their numbers.
        seed: Of all cases.
        place: An empty directory.
        tell: Called with every finding.
    """
    outcome = Outcome()
    with mock.patch.dict(training.SIZES, {"small": (8, 24, 1)}):
        fuzzer = RunFuzzer(seed, place)
        for case in cases:
            try:
                _, status = fuzzer.run(case)
            except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                what = traceback.format_exc(limit=-3)
                outcome.findings.append((case, what))
                tell(f"case {case}, seed {seed}: replay it with --seed {seed} --only {case}\n{what}")
            else:
                outcome.statuses[fuzzer.command(case)[0], status] += 1
    return outcome


def main() -> None:
    """Fuzz, and exit with status 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.run_fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case again; its files are kept, and their place is printed")
    arguments = parser.parse_args()
    if arguments.only is not None:
        place = Path(tempfile.mkdtemp())
        print(place)
        with mock.patch.dict(training.SIZES, {"small": (8, 24, 1)}):
            fuzzer = RunFuzzer(arguments.seed, place)
            print(fuzzer.command(arguments.only))
            print(fuzzer.run(arguments.only))
        return
    with tempfile.TemporaryDirectory() as place:
        cases = range(arguments.first, arguments.first + arguments.cases)
        outcome = fuzz(cases, arguments.seed, Path(place), lambda text: print(text, flush=True))
    print(outcome.summary())
    sys.exit(bool(outcome.findings))


if __name__ == "__main__":
    main()
