"""Which command makes again what a run directory has lost, with the options that it was made with.

They come from the command that made it, as the manifest has it, or else from the record. Secrets that
their owners gave are masked in the manifest: the user puts them back.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from canaryaudit.errors import UsageError, command
from canaryaudit.plan import Plan, read_plan
from canaryaudit.records import ClosedForm, Manifest, Measurement, ModelId, ModelRecord, Stage, UnlearningRecord

_OF_OUTPUT = {"--force", "--json", "-q", "--quiet", "-v", "--verbose", "--strict", "--dry-run"}
"""Switches that change nothing of what is made."""
_SWITCHES = {*_OF_OUTPUT, "--lowercase"}
_PASSED_ON = ("--samples", "--device")
"""What ``unlearn`` and ``attack`` measure with too."""


class Repairs:
    """The commands that make a run's files again.

    Args:
        path: The run directory.
        manifest: Its manifest.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._plan = self._plan_command()

    def insert(self, *names: str) -> str:
        """Return how to draw the same insertion again beside the run, and to take from it these files."""
        made_by = self._argv("insert", "")
        if made_by[1:2] != ["insert"]:
            again = self._plan or command("canaryaudit", "insert", "CORPUS", "-o", self.path)
            return f"{command('rm', '-rf', self.path)} && {again}"
        places, options = split_words(made_by[2:], but={"-o", "--output"})
        anew = self.path.with_name(f"{self.path.resolve().name}.anew")
        steps = (
            command("canaryaudit", "insert", *places, *options, "-o", anew, "-q"),
            command("cp", "-p", *(anew / name for name in names), self.path),
            command("rm", "-r", anew),
        )
        return " && ".join(steps)

    def train(self, record: ModelRecord | None) -> str:
        """Return how to train the model again; ``record`` is None where model.json is lost."""
        if plan := self._plan_of("train", ""):
            return plan
        if record and (training := record.training):
            options = _flags(
                {
                    "size": training.size,
                    "epochs": training.planned_epochs,
                    "target-accuracy": training.target_accuracy,
                    "device": training.device,
                    "precision": training.precision,
                    "seed": training.seed,
                }
            )
        else:
            options = self._own_options("train", "")
        return command("canaryaudit", "train", self.path, *options)

    def measure(self, model: ModelId, found: Measurement | None = None) -> str:
        """Return how to measure a model again; ``found`` is the measurement as it is, if it can be read."""
        if plan := self._plan_of("measure", str(model)):
            return plan
        made_by = self._argv("measure", str(model))
        options = split_words(made_by[2:], but={"--model"})[1] if made_by[1:2] == ["measure"] else []
        if made_by[1:2] in (["unlearn"], ["attack"]):
            options = split_words(made_by[2:], only=_PASSED_ON)[1]
        if not made_by and found:
            effort = {
                "budget": found.search_budget,
                "precision-bits": found.precision_bits,
                "max-draws": found.max_draws,
            }
            options = _flags({"samples": found.num_references, "seed": found.seed, **effort})
        return command("canaryaudit", "measure", self.path, "--model", model, *options)

    def unlearn(self, name: str, record: UnlearningRecord | None, measured: Measurement | None) -> str:
        """Return how to unlearn again, and to attack the result again where it was attacked.

        Args:
            name: What the unlearning is called.
            record: Its record, if it can be read.
            measured: Any measurement, for the number of references.
        """
        if plan := self._plan_of("unlearn", name):
            return plan
        options = self._own_options("unlearn", name, but={"--name"})
        if not options and record:
            options = _flags(_asked(record) | ({"samples": measured.num_references} if measured else {}))
        again = command("canaryaudit", "unlearn", self.path, "--name", name, *options)
        return f"{again} && {self.attack(record)}" if record and record.relearning else again

    def attack(self, record: UnlearningRecord) -> str:
        """Return how to make the attack of a record again."""
        found = record.relearning
        plan = self._plan_of("attack", record.name)
        if plan or found is None:
            return plan
        options = _flags(
            {
                "name": record.name,
                "canary": tuple(dict.fromkeys(curve.canary for curve in found.curves)),
                "steps": ",".join(map(str, found.steps)),
                "learning-rate": found.learning_rate,
                "seed": found.seed,
            }
        )
        return command("canaryaudit", "attack", self.path, *options)

    def _argv(self, stage: Stage, name: str) -> list[str]:
        """Return the command line of the last such stage; empty if there was none."""
        runs = [own.argv for own in self.manifest.stages if (own.stage, own.name) == (stage, name)]
        return list(runs[-1]) if runs else []

    def _plan_of(self, stage: Stage, name: str) -> str:
        """Return the command of the plan, where it ran the last such stage, or none is known; else nothing."""
        return self._plan if self._argv(stage, name)[1:2] in ([], ["run"]) else ""

    def _own_options(self, stage: Stage, name: str, but: set[str] | None = None) -> list[str]:
        """Return the options of the command of that stage; none where another command ran it with its defaults."""
        made_by = self._argv(stage, name)
        return split_words(made_by[2:], but=but or set())[1] if made_by[1:2] == [stage] else []

    def _plan_command(self) -> str:
        """Return the command that ran this audit from a plan; empty where none did, or the plan is not there."""
        for stage in reversed(self.manifest.stages):
            if stage.argv[1:2] != ("run",):
                continue
            places = split_words(stage.argv[2:])[0]
            try:
                plan = read_plan(Path(places[0])) if places else Plan()
            except UsageError:
                continue
            if plan.run.resolve() == self.path.resolve():
                return command("canaryaudit", "run", *places)
        return ""


def split_words(
    words: Sequence[str], *, but: set[str] | None = None, only: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Return the arguments of a command line, and its options with their values, but for those of output.

    Args:
        words: What stood after the command's name.
        but: Options to leave out.
        only: The only options to keep; None for all.
    """
    places: list[str] = []
    options: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            places.append(word)
            continue
        flag = word.partition("=")[0] if word.startswith("--") else word[:2]
        values = [] if flag in _SWITCHES or flag != word else [next(rest, "")]
        if flag not in _OF_OUTPUT | (but or set()) and (only is None or flag in only):
            options += [word, *values]
    return places, options


def _asked(record: UnlearningRecord) -> dict[str, Any]:
    """Return the flags' values that a record tells."""
    asked: dict[str, Any] = {
        "method": record.method,
        "replacement": record.replacement,
        "canary": record.canaries,
        "max-fidelity-drop": record.fidelity_limit,
        "seed": record.seed,
        "device": record.device,
    }
    if record.method in get_args(ClosedForm):
        asked |= {
            "scope": record.asked_scope,
            "solver": record.solver,
            "from": record.origin,
            "retain-windows": record.asked_windows,
            "tau": record.tau,
        }
    if record.method == "sisa":
        asked["shards"] = record.members
    return asked


def _flags(values: Mapping[str, Any]) -> list[str]:
    """Return options as words; None is left out, and of a tuple each goes with a flag of its own."""
    words: list[str] = []
    for name, value in values.items():
        for own in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [f"--{name}", str(own)]
    return words
