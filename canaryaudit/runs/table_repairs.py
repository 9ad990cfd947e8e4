"""Commands that recreate lost files of a run on a table with their original options."""

from pathlib import Path
from typing import Any

from canaryaudit.errors import UsageError, command
from canaryaudit.plan import Plan
from canaryaudit.records import ModelId
from canaryaudit.runs.repair_commands import Repairs, flag_words, split_words
from canaryaudit.table_plan import TableInsertOptions, TablePlan, read_plan


class TableRepairs(Repairs):
    """The commands that recreate the files of a run on a table; the options come from the manifest."""

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
        if not isinstance(plan, TablePlan):
            raise UsageError(f"{path} is no plan of a table")
        given = {name: own for name, own in plan.insert if own != TableInsertOptions.model_fields[name].default}
        corpus, header = str(given.pop("corpus")), given.pop("header", None)
        words = flag_words({name.replace("_", "-"): own for name, own in given.items()})
        return plan.run, [corpus, *words, *([] if header is None else ["--header" if header else "--no-header"])]

    def _known_flags(self) -> list[str]:
        facts: Any = getattr(self.manifest, "table", None)
        if facts is None:
            return ["--target", "COLUMN"]
        return ["--target", facts.target, "--holdout", f"{facts.holdout:g}", "--seed", str(facts.seed)]
