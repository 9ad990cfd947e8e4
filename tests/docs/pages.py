"""The documentation's pages and notebooks, and what of them can be run."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.commands import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
NOTEBOOKS = tuple(sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")))
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block of a page.

    Attributes:
        page: Where it stands.
        line: Of its first line.
        language: What its fence says.
        text: Its lines.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Its ``canaryaudit`` commands, as words."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines if line.strip().startswith("canaryaudit ")]
        return [line[1:] for line in words]


def name_of(path: Path) -> str:
    """Return a page's path in the repository."""
    return str(path.relative_to(ROOT))


def examples(page: Path, *languages: str) -> list[Example]:
    """Return a page's blocks in some languages, in their order."""
    text = page.read_text("utf-8")
    found = [
        Example(page, text[: match.start()].count("\n") + 2, match["language"], match["text"])
        for match in _FENCE.finditer(text)
    ]
    return [example for example in found if example.language in languages]


def code_cells(notebook: Path) -> list[str]:
    """Return a notebook's code, cell by cell."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
