"""The report's files."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import get_args

from canaryaudit.records import ReportFormat
from canaryaudit.report.charts import charts
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.junit import render_junit
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.formats.model_card import render_model_card
from canaryaudit.report.formats.sarif import render_sarif
from canaryaudit.report.schema import Summary
from canaryaudit.storage.files import atomic_write, write_errors

SIGNATURE = "<!-- Drawn by canaryaudit. -->\n"
"""First line of every picture file: a later report only removes files that have it."""

FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)


def write_report(summary: Summary, directory: Path, formats: Sequence[ReportFormat] = FORMATS) -> list[Path]:
    """Write the report in all requested formats; each file is written atomically.

    Args:
        summary: The report's content.
        directory: Output directory; created if it does not exist.
        formats: Any of ``html``, ``md`` (with pictures in the same folder), ``json``, ``junit``, ``sarif``
            and ``model-card``.

    Returns:
        The files written, the main one first.

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
        "sarif": lambda: {"report.sarif": render_sarif(summary)},
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
    """Remove pictures of an earlier report that this one does not have, for example because it has fewer templates.

    Only files with this package's signature are removed.
    """
    for path in directory.glob("*.svg"):
        if path.name in fresh or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(len(SIGNATURE)) == SIGNATURE.encode():
                path.unlink()
