"""The report's files."""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from canaryaudit.formatting import json_safe
from canaryaudit.records import ReportFormat
from canaryaudit.report.charts import charts
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.junit import render_junit
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.formats.model_card import render_model_card
from canaryaudit.report.schema import Summary
from canaryaudit.storage.files import atomic_write, write_errors

SIGNATURE = "<!-- Drawn by canaryaudit. -->\n"
"""Begins every picture's file: a later report knows by it what it may remove."""

FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)


def write_report(summary: Summary, directory: Path, formats: Sequence[ReportFormat] = FORMATS) -> list[Path]:
    """Write the report in every wanted format, each file whole or not at all.

    Args:
        summary: What to say.
        directory: Where; made if it does not exist.
        formats: Which of ``html``, ``md`` (with its pictures beside it), ``json``, ``junit`` and ``model-card``.

    Returns:
        The files written, the reader's first choice first.

    Raises:
        RunDirectoryError: The directory or a file cannot be written.
    """
    drawn = charts(summary) if set(formats) & {"html", "md"} else ()
    makers: dict[ReportFormat, Callable[[], dict[str, str]]] = {
        "html": lambda: {"report.html": render_html(summary, drawn)},
        "md": lambda: (
            {"report.md": render_markdown(summary, drawn)} | {c.file_name: SIGNATURE + c.svg() for c in drawn}
        ),
        "json": lambda: {"report.json": render_json(summary)},
        "junit": lambda: {"report.junit.xml": render_junit(summary)},
        "model-card": lambda: {"model-card.md": render_model_card(summary)},
    }
    contents = {name: text for wanted in FORMATS if wanted in formats for name, text in makers[wanted]().items()}
    with write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        atomic_write(directory / name, text.encode())
    if "md" in formats:
        with write_errors(directory):
            _remove_stale_pictures(directory, set(contents))
    return [directory / name for name in contents]


def _remove_stale_pictures(directory: Path, fresh: Collection[str]) -> None:
    """Remove the pictures of an earlier report that this one has none of: of fewer templates, say.

    Only files that bear this package's own signature are touched.
    """
    for path in directory.glob("*.svg"):
        if path.name in fresh or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(len(SIGNATURE)) == SIGNATURE.encode():
                path.unlink()


def render_json(summary: BaseModel) -> str:
    """Return the summary itself as JSON, one line for each entry of a list, so that versions can be compared.

    It is valid JSON, without infinities and without characters that cannot be seen.
    """
    parts = [f" {json.dumps(name)}: {_lines(value)}" for name, value in summary.model_dump(mode="json").items()]
    return json_safe("{\n" + ",\n".join(parts) + "\n}\n")


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _compact(value)
    return "[\n" + ",\n".join(f"  {_compact(item)}" for item in value) + "\n ]"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
