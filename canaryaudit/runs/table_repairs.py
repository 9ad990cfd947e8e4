"""Commands that recreate lost files of a run on a table with their original options."""

from typing import Any

from canaryaudit.errors import command
from canaryaudit.records import ModelId
from canaryaudit.runs.repair_commands import Repairs, split_words


class TableRepairs(Repairs):
    """The commands that recreate the files of a run on a table; the options come from the manifest."""

    def train(self, record: Any) -> str:  # noqa: ARG002
        """Return the command that trains the model again."""
        return command("canaryaudit", "train", self.path, *self._stage_options("train", ""))

    def measure(self, model: ModelId, measurement: Any = None) -> str:  # noqa: ARG002
        """Return the command that measures a model again."""
        return command("canaryaudit", "measure", self.path, "--model", model)

    def unlearn(self, name: str, record: Any, measured: Any) -> str:  # noqa: ARG002
        """Return the command that carries a request out again."""
        made_by = self._argv("unlearn", name)
        options = split_words(made_by[2:], but={"--name", "--save"})[1] if made_by[1:2] == ["unlearn"] else []
        return command("canaryaudit", "unlearn", self.path, "--name", name, *options)

    def _known_flags(self) -> list[str]:
        facts: Any = getattr(self.manifest, "table", None)
        if facts is None:
            return ["--target", "COLUMN"]
        return ["--target", facts.target, "--holdout", f"{facts.holdout:g}", "--seed", str(facts.seed)]
