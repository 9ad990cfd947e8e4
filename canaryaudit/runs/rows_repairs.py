"""Commands that recreate lost files of a run on rows with their original options."""

from pathlib import Path
from typing import Any, ClassVar

from canaryaudit.errors import UsageError, command
from canaryaudit.image_plan import ImagePlan, read_plan
from canaryaudit.plan import Plan
from canaryaudit.records import ModelId
from canaryaudit.records.run import RowsManifest
from canaryaudit.runs.repair_commands import Repairs, flag_words, split_words
from canaryaudit.table_plan import TablePlan


class RowsRepairs(Repairs):
    """The commands that recreate the files of a run on rows; the options come from the manifest.

    Attributes:
        plan_type: Of an audit of such rows.
        named: Facts that say which columns are which.
    """

    plan_type: ClassVar[type[TablePlan | ImagePlan]]
    named: ClassVar[tuple[str, ...]]

    def train(self, record: Any) -> str:  # noqa: ARG002
        """Return the command that trains the model again."""
        if plan := self._plan_of("train", ""):
            return plan
        return command("canaryaudit", "train", self.path, *self._stage_options("train", ""))

    def measure(self, model: ModelId, measurement: Any = None) -> str:  # noqa: ARG002
        """Return the command that measures a model again."""
        if plan := self._plan_of("measure", str(model)):
            return plan
        return command("canaryaudit", "measure", self.path, "--model", model)

    def unlearn(self, name: str, record: Any, measured: Any) -> str:  # noqa: ARG002
        """Return the command that carries a request out again."""
        if plan := self._plan_of("unlearn", name):
            return plan
        made_by = self._argv("unlearn", name)
        options = split_words(made_by[2:], but={"--name", "--save"})[1] if made_by[1:2] == ["unlearn"] else []
        return command("canaryaudit", "unlearn", self.path, "--name", name, *options)

    def _planned_run(self, path: Path | None) -> tuple[Path, list[str]]:
        plan = read_plan(path) if path else Plan()
        if not isinstance(plan, self.plan_type):
            raise UsageError(f"{path} is no plan of such rows")
        fields = type(plan.insert).model_fields
        given = {name: own for name, own in plan.insert if own != fields[name].default}
        corpus, header = str(given.pop("corpus")), given.pop("header", None)
        words = flag_words({name.replace("_", "-"): own for name, own in given.items()})
        return plan.run, [corpus, *words, *([] if header is None else ["--header" if header else "--no-header"])]

    def _known_flags(self) -> list[str]:
        facts: Any = self.manifest.facts if isinstance(self.manifest, RowsManifest) else None
        named = [(f"--{name}", "COLUMN" if facts is None else getattr(facts, name)) for name in self.named]
        words = [word for pair in named for word in pair]
        return words if facts is None else [*words, "--holdout", f"{facts.holdout:g}", "--seed", str(facts.seed)]


class TableRepairs(RowsRepairs):
    """The commands of a run on a table."""

    plan_type = TablePlan
    named = ("target",)


class ImageRepairs(RowsRepairs):
    """The commands of a run on images."""

    plan_type = ImagePlan
    named = ("image", "target")
