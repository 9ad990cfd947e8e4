"""Kill a whole audit at random instants, again and again, and compare what it ends with.

python -m tests.robustness.kills --kills 50 --seed 0

An undisturbed `canaryaudit run PLAN` of a tiny audit comes first. Then the same command is started and killed with
SIGKILL at a random instant, and started again until it comes to its end, which must be the undisturbed one: the same
texts, weights, measurements, unlearnings and report, but for times. When it is over before its kill, all begins
anew in an empty directory. After every kill `canaryaudit verify` must call the run sound.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.commands import PLAN, ROOT, essence, finish, start

AUDIT = (
    PLAN
    + """\
[train]
epochs = 3
precision = "fp32"
[measure]
samples = 1000
probes = "none"
[[unlearn]]
max_fidelity_drop = 0.5
retain_windows = 40
[[unlearn]]
method = "retrain"
max_fidelity_drop = 0.5
[[attack]]
steps = [1]
[report]
output = "report"
format = ["json"]
"""
)
COMMAND = ("run", "audit.toml", "-q")
_TIMES = re.compile(
    r"\d[\d.,]* (?:s\b|min(?:utes?)?\b|h\b)|(?:\d[\d.,]*x (?:faster|slower)(?: than)?|equally fast|as fast as)"
    r"(?: retraining(?:, but slower with its preparation)?)?"
)
_STAGES = {
    "insert": "RUN/manifest.json",
    "train": "RUN/model.json",
    "measure": "RUN/measurements/before.json",
    "unlearn": "RUN/measurements/after-second-order.json",
    "retrain": "RUN/measurements/after-retrain.json",
}


@dataclass
class Outcome:
    """What the kills did.

    Attributes:
        seconds: What the undisturbed audit took.
        kills: How many commands were killed.
        audits: How many audits were brought to their end and compared.
        stages: Kills by the stage that they fell into.
        failures: What was not as it must be.
    """

    seconds: float
    kills: int = 0
    audits: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return the outcome in a few lines."""
        stages = ", ".join(f"{name} {self.stages[name]}" for name in (*_STAGES, "attack and report"))
        verdict = "; ".join(self.failures) or "every end as undisturbed, every run sound after every kill"
        return (
            f"undisturbed: {self.seconds:.1f} s; {self.kills} kills ({stages}) in {self.audits} audits\n"
            f"{'FAILED' if self.failures else 'passed'}: {verdict}"
        )


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a directory with a plan and a corpus, away from everything."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        yield Path(name)


def begin(place: Path) -> None:
    """Empty the directory but for the plan and its corpus."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "audit.toml").write_text(AUDIT, "utf-8")
    text = (ROOT / "corpora" / "harbour.txt").read_text("utf-8")[:12_000]
    (place / "sea.txt").write_text(text, "utf-8")


def result_of(place: Path) -> dict[str, Any]:
    """Return all that an audit left, without what differs from one run to the next."""
    # A stage that was killed between its work and its record stands in the manifest twice: essence compares sets.
    run, report = timeless(essence(place / "RUN")), timeless(essence(place / "report"))
    if isinstance(report.get("report.json"), dict):
        stages = report["report.json"]["provenance"]["stages"]
        # So it does in the report, where a killed writing of that report is told too.
        known = {(own["stage"], own["name"]) for own in stages} - {("report", "")}
        report["report.json"]["provenance"]["stages"] = sorted(known)
    return {"run": run, "report": report}


def timeless(value: Any) -> Any:
    """Return a value with the times in its sentences blotted out."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(timeless(item) for item in value)
    return _TIMES.sub("…", value) if isinstance(value, str) else value


def difference(found: Any, expected: Any, place: str = "") -> str:
    """Return where two results differ first; empty if they do not."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys(), key=str):
            if key not in found or key not in expected:
                return f"{place}/{key} is {'missing' if key not in found else 'too much'}"
            if said := difference(found[key], expected[key], f"{place}/{key}"):
                return said
        return ""
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple) and len(found) == len(expected):
        pairs = zip(found, expected, strict=True)
        parts = (difference(one, other, f"{place}/{i}") for i, (one, other) in enumerate(pairs))
        return next((said for said in parts if said), "")
    return "" if found == expected else f"{place}: {str(found)[:80]} instead of {str(expected)[:80]}"


def stage_of(place: Path) -> str:
    """Return the stage that an audit has not ended yet."""
    return next((stage for stage, file in _STAGES.items() if not (place / file).exists()), "attack and report")


def kill_audits(kills: int, seed: int, tell: Callable[[str], object] = lambda line: None) -> Outcome:
    """Kill audits ``kills`` times at instants drawn from ``seed``, and check everything.

    Args:
        kills: How many commands to kill.
        seed: Of the instants.
        tell: Called with a line after every kill.
    """
    instants = random.Random(seed)
    with workplace() as place:
        work = place / "work"
        begin(work)
        started = time.monotonic()
        first = finish(start(*COMMAND, cwd=work))
        outcome = Outcome(time.monotonic() - started)
        if first.status != 0:
            outcome.failures.append(f"the undisturbed audit ended with {first.status}: {first.err.strip()}")
            return outcome
        expected = result_of(work)
        begin(work)
        while outcome.kills < kills and not outcome.failures:
            process = start(*COMMAND, cwd=work)
            deadline = time.monotonic() + instants.uniform(0, outcome.seconds)
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            if process.poll() is None:
                process.kill()
                finish(process)
                outcome.kills += 1
                outcome.stages[stage_of(work)] += 1
                tell(f"kill {outcome.kills} at {stage_of(work)}")
                _verify(work, outcome)
            else:
                _compare(work, finish(process).status, expected, outcome)
                begin(work)
        last = finish(start(*COMMAND, cwd=work))
        if last.status:
            outcome.failures.append(last.err.strip())
        _compare(work, last.status, expected, outcome)
    return outcome


def _verify(work: Path, outcome: Outcome) -> None:
    if not (work / "RUN" / "manifest.json").exists():
        return  # The insertion was killed: there is no run yet.
    found = finish(start("verify", "RUN", cwd=work))
    if found.status or found.err:
        outcome.failures.append(f"after kill {outcome.kills}: {found.out}{found.err}".strip())


def _compare(work: Path, status: int, expected: dict[str, Any], outcome: Outcome) -> None:
    outcome.audits += 1
    if status:
        outcome.failures.append(f"after kill {outcome.kills}: the same command ended with {status}")
    elif said := difference(result_of(work), expected):
        outcome.failures.append(f"after kill {outcome.kills}: {said}")


def main() -> None:
    """Kill, and exit with status 1 if anything is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcome = kill_audits(arguments.kills, arguments.seed, lambda line: print(line, file=sys.stderr, flush=True))
    print(outcome.summary())
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
