"""Commands that recreate lost files of a run directory with their original options: every message quotes them.

No command removes a directory or a sound file. An insertion is repeated in a new directory and files are copied from
it, so a trained model is kept. The options come from the command line in the manifest, or else from the record. Given
and located secrets are masked in the manifest, so the user must fill them in.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from canaryaudit.canaries.canary import MASK
from canaryaudit.errors import UsageError, command
from canaryaudit.image_plan import read_plan
from canaryaudit.plan import InsertOptions, Plan
from canaryaudit.records import (
    ClosedForm,
    Manifest,
    Measurement,
    ModelId,
    ModelRecord,
    Stage,
    UnlearningRecord,
)
from canaryaudit.runs.layout import MANIFEST

_OF_OUTPUT = {"--force", "--json", "-q", "--quiet", "-v", "--verbose", "--strict", "--dry-run"}
"""Switches that do not affect the results."""
_SWITCHES = {
    *_OF_OUTPUT,
    "--lowercase",
    "--coin",
    "--extend-vocabulary",
    "--header",
    "--no-header",
    "--intercept",
    "--no-intercept",
}
_PASSED_ON = ("--samples", "--probes", "--prompt", "--device")
"""Options that ``unlearn`` and ``attack`` pass to their measurements."""


class Repairs:
    """The commands that recreate a run's files.

    Args:
        path: The run directory.
        manifest: Its manifest; None if it is lost.
    """

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        self.path, self.manifest = path, manifest
        self._plan, self._planned = self._plan_command()

    def insert(self, *names: str) -> str:
        """Return a command that repeats the insertion in a new directory and copies these files from it."""
        made_by = self._argv("insert", "")
        if made_by[1:2] == ["insert"]:
            arguments, options = split_words(made_by[2:], but={"-o", "--output"})
        elif self._planned:
            arguments, options = self._planned[:1], self._planned[1:]
        else:
            arguments, options = ["CORPUS"], self._known_flags()
        copy = free_name(self.path, "new")
        steps = (
            command("canaryaudit", "insert", *arguments, *options, "-o", copy, "-q"),
            command("cp", "-p", *(copy / name for name in names), self.path),
            command("rm", "-r", copy),
        )
        # A new manifest has no checksums of what was made from the insertion.
        return " && ".join((*steps, self.reseal()) if MANIFEST in names else steps)

    def reseal(self) -> str:
        """Return the command that records the checksums of records that have none."""
        return command("canaryaudit", "verify", self.path, "--reseal")

    def replace(self, path: Path) -> str:
        """Return the command that clears the way for a file: what is in its place goes, a directory is put aside."""
        if path.is_dir() and not path.is_symlink():
            return command("mv", path, free_name(self.path, path.name))
        return command("rm", "-f", path)

    def close(self) -> str:
        """Return the command that lets only the owner read the run."""
        return command("chmod", "-R", "go=", self.path)

    def train(self, record: ModelRecord | None) -> str:
        """Return the command that trains the model again; ``record`` is None if model.json is lost."""
        if plan := self._plan_of("train", ""):
            return plan
        if outside := self._measured_outside():
            return outside
        if record and (training := record.training):
            options = flag_words(
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
            options = self._stage_options("train", "")
        return command("canaryaudit", "train", self.path, *options)

    def measure(self, model: ModelId, measurement: Measurement | None = None) -> str:
        """Return the command that measures a model again; ``measurement`` is the current one, if it can be read."""
        if plan := self._plan_of("measure", str(model)):
            return plan
        if model.is_trained and (outside := self._measured_outside()):
            return outside
        made_by = self._argv("measure", str(model))
        options = split_words(made_by[2:], but={"--model"})[1] if made_by[1:2] == ["measure"] else []
        if made_by[1:2] in (["unlearn"], ["attack"]):
            options = split_words(made_by[2:], only=_PASSED_ON)[1]
        if not made_by and measurement:
            effort = {
                "budget": measurement.search_budget,
                "precision-bits": measurement.precision_bits,
                "max-draws": measurement.max_draws,
                "time-limit": f"{measurement.time_limit:g}",
            }
            options = flag_words({"samples": measurement.num_references, "seed": measurement.seed, **effort})
        return command("canaryaudit", "measure", self.path, "--model", model, *options)

    def _measured_outside(self) -> str:
        """Return the command that measured a model outside the run; empty if the run's model is its own."""
        stages = self.manifest.stages if self.manifest else ()
        for stage in reversed([own for own in stages if own.stage in ("measure", "train")]):
            words = split_words(stage.argv[2:])[1] if stage.argv[1:2] == ("measure",) else []
            if stage.argv[1:2] == ("unlearn",):
                words = split_words(stage.argv[2:], only=("--model", "--adapter", *_PASSED_ON))[1]
            if "--scores" in words or any(word.removeprefix("--model=").startswith("hf:") for word in words):
                return command("canaryaudit", "measure", self.path, *words)
            if stage.stage == "train":
                return ""
        return ""

    def unlearn(self, name: str, record: UnlearningRecord | None, measured: Measurement | None) -> str:
        """Return the command that unlearns again, and attacks the result again if it was attacked.

        Args:
            name: The unlearning's name.
            record: Its record, if it can be read.
            measured: Any measurement, for the number of references.
        """
        if plan := self._plan_of("unlearn", name):
            return plan
        options = self._stage_options("unlearn", name, but={"--name"})
        if not options and record:
            options = flag_words(_asked(record) | ({"samples": measured.num_references} if measured else {}))
        again = command("canaryaudit", "unlearn", self.path, "--name", name, *options)
        if (output := _output_of(options)) and output.exists():  # The command takes no folder that is there.
            again = f"{command('mv', output, free_name(output, 'old'))} && {again}"
        return f"{again} && {self.attack(record)}" if record and record.relearning else again

    def attack(self, record: UnlearningRecord) -> str:
        """Return the command that repeats the attack of a record."""
        relearning = record.relearning
        plan = self._plan_of("attack", record.name)
        if plan or relearning is None:
            return plan
        options = flag_words(
            {
                "name": record.name,
                "canary": tuple(dict.fromkeys(curve.canary for curve in relearning.curves)),
                "steps": ",".join(map(str, relearning.steps)),
                "learning-rate": relearning.learning_rate,
                "seed": relearning.seed,
            }
        )
        return command("canaryaudit", "attack", self.path, *options)

    def _argv(self, stage: Stage, name: str) -> list[str]:
        """Return the command line of the last such stage; empty if there is none."""
        stages = self.manifest.stages if self.manifest else ()
        runs = [run.argv for run in stages if (run.stage, run.name) == (stage, name)]
        return list(runs[-1]) if runs else []

    def _plan_of(self, stage: Stage, name: str) -> str:
        """Return the plan's command if it ran the last such stage, or if that is unknown; else an empty string."""
        return self._plan if self._argv(stage, name)[1:2] in ([], ["run"]) else ""

    def _stage_options(self, stage: Stage, name: str, but: set[str] | None = None) -> list[str]:
        """Return the options of the stage's command; empty if another command ran the stage with defaults."""
        made_by = self._argv(stage, name)
        return split_words(made_by[2:], but=but or set())[1] if made_by[1:2] == [stage] else []

    def _known_flags(self) -> list[str]:
        """Return the options of an insertion that the manifest has beside the command line."""
        if self.manifest is None:
            return []
        facts = self.manifest.corpus
        options = InsertOptions(
            corpus=facts.name,
            lowercase=facts.lowercase,
            skip_chars=facts.skip_chars,
            holdout=facts.holdout,
            seed=facts.seed,
        )
        return _insertion_flags(options)

    def _plan_command(self) -> tuple[str, list[str]]:
        """Return the command that ran this audit from a plan, and the words of its insertion, if the plan exists."""
        for stage in reversed(self.manifest.stages if self.manifest else ()):
            if stage.argv[1:2] != ("run",):
                continue
            arguments = split_words(stage.argv[2:])[0]
            try:
                run, insertion = self._planned_run(Path(arguments[0]) if arguments else None)
            except UsageError:
                continue
            if run.resolve() == self.path.resolve():
                return command("canaryaudit", "run", *arguments), insertion
        return "", []

    def _planned_run(self, path: Path | None) -> tuple[Path, list[str]]:
        """Return the run directory of a plan, and the words of its insertion.

        Raises:
            UsageError: It is no plan of such a run.
        """
        plan = read_plan(path) if path else Plan()
        if not isinstance(plan, Plan):
            raise UsageError(f"{path} is the plan of rows")
        return plan.run, [plan.insert.corpus, *_insertion_flags(plan.insert)]


def free_name(run: Path, word: str) -> Path:
    """Return a path beside a directory at which there is nothing: ``RUN.new``, or ``RUN.new-2``."""
    path, number = run.with_name(f"{run.resolve().name}.{word}"), 1
    while path.exists() or path.is_symlink():
        number += 1
        path = run.with_name(f"{run.resolve().name}.{word}-{number}")
    return path


def _insertion_flags(options: InsertOptions) -> list[str]:
    """Return the flags of an insertion, without defaults; the user must fill in the secrets, as in the manifest."""
    default, values = InsertOptions(corpus=options.corpus), dict[str, Any]()
    for name, value in options:
        if name not in ("corpus", "lowercase") and value != getattr(default, name):
            values[name.replace("_", "-")] = value
    if options.repetitions != default.repetitions:
        values["repetitions"] = ",".join(map(str, options.repetitions))
    if options.secret:
        values["secret"] = (MASK * 3,) * len(options.secret)
    return flag_words(values) + (["--lowercase"] if options.lowercase else [])


def split_words(
    words: Sequence[str], *, but: set[str] | None = None, only: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Return the arguments of a command line, and its options with their values, except those of output.

    Args:
        words: The words after the command's name.
        but: Options to omit.
        only: The only options to keep; None for all.
    """
    arguments: list[str] = []
    options: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            arguments.append(word)
            continue
        flag = word.partition("=")[0] if word.startswith("--") else word[:2]
        values = [] if flag in _SWITCHES or flag != word else [next(rest, "")]
        if flag not in _OF_OUTPUT | (but or set()) and (only is None or flag in only):
            options += [word, *values]
    return arguments, options


def _output_of(options: Sequence[str]) -> Path | None:
    """Return the folder that options of ``unlearn`` name for a checkpoint."""
    for place, word in enumerate(options):
        flag, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if flag in ("-o", "--output"):
            return Path(value or "".join(options[place + 1 : place + 2]))
    return None


def _asked(record: UnlearningRecord) -> dict[str, Any]:
    """Return the flag values that a record contains."""
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


def flag_words(values: Mapping[str, Any]) -> list[str]:
    """Return options as words; None is omitted, and a tuple repeats its flag for each element."""
    words: list[str] = []
    for name, value in values.items():
        for element in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [f"--{name}", str(element)]
    return words
