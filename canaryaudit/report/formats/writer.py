"""The report's files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from canaryaudit.records import ReportFormat
from canaryaudit.report.charts import charts
from canaryaudit.report.formats.files import earlier_formats, remove_own, write_files
from canaryaudit.report.formats.html import render_html
from canaryaudit.report.formats.json_text import render_json
from canaryaudit.report.formats.junit import render_junit, render_junit_error
from canaryaudit.report.formats.markdown import render_markdown
from canaryaudit.report.formats.model_card import render_model_card
from canaryaudit.report.formats.sarif import render_sarif, render_sarif_error
from canaryaudit.report.schema import Summary

FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)
MAIN_FILES: dict[ReportFormat, str] = {
    "html": "report.html",
    "md": "report.md",
    "json": "report.json",
    "junit": "report.junit.xml",
    "sarif": "report.sarif",
    "model-card": "model-card.md",
}
"""Each format's file; Markdown has pictures besides."""


def write_report(summary: Summary, directory: Path, formats: Sequence[ReportFormat] = FORMATS) -> list[Path]:
    """Write the report in all requested formats: all files or none.

    Formats that an earlier report left in the directory are written again, so all files always agree. A report that
    reveals secrets is written in the requested formats only, and other formats of an earlier report are removed.

    Args:
        summary: The report's content.
        directory: Output directory; created if it does not exist.
        formats: Any of ``html``, ``md`` (with pictures in the same folder), ``json``, ``junit``, ``sarif``
            and ``model-card``.

    Returns:
        The files written, the main one first.

    Raises:
        RunDirectoryError: The directory or a file cannot be written, or a file there is not a report's.
    """
    requested = [name for name in FORMATS if name in formats]
    earlier = earlier_formats(directory, MAIN_FILES, formats)
    wanted = requested if summary.reveal_secrets else requested + earlier
    drawn = charts(summary) if {*wanted} & {"html", "md"} else ()
    makers: dict[ReportFormat, Callable[[], dict[str, str]]] = {
        "html": lambda: {MAIN_FILES["html"]: render_html(summary, drawn)},
        "md": lambda: {MAIN_FILES["md"]: render_markdown(summary, drawn)} | {c.file_name: c.svg() for c in drawn},
        "json": lambda: {MAIN_FILES["json"]: render_json(summary)},
        "junit": lambda: {MAIN_FILES["junit"]: render_junit(summary)},
        "sarif": lambda: {MAIN_FILES["sarif"]: render_sarif(summary)},
        "model-card": lambda: {MAIN_FILES["model-card"]: render_model_card(summary)},
    }
    contents = {name: text for own in wanted for name, text in makers[own]().items()}
    written = write_files(directory, contents, private=summary.reveal_secrets)
    if "md" in wanted:  # An earlier report may have had more templates.
        remove_own(directory, [path.name for path in directory.glob("*.svg") if path.name not in contents])
    remove_own(directory, [MAIN_FILES[name] for name in earlier if name not in wanted])
    return written


def write_gate_errors(directory: Path, run: str, message: str, formats: Sequence[ReportFormat]) -> list[Path]:
    """Write that a gate is inconclusive, for want of a report, as JUnit XML and SARIF.

    Each is written if it is requested, or if an earlier report left one in the directory, which may have passed.

    Args:
        directory: Output directory of the report.
        run: Name of the run.
        message: Why there is no report.
        formats: The formats requested.

    Raises:
        RunDirectoryError: A file cannot be written, or is not a report's.
    """
    makers: dict[ReportFormat, Callable[[str, str], str]] = {"junit": render_junit_error, "sarif": render_sarif_error}
    earlier = earlier_formats(directory, {name: MAIN_FILES[name] for name in makers}, formats)
    wanted = [name for name in makers if name in formats or name in earlier]
    return write_files(directory, {MAIN_FILES[name]: makers[name](run, message) for name in wanted}) if wanted else []
