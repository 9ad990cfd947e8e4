"""The files of the report of a run on a table."""

from collections.abc import Callable, Sequence
from pathlib import Path

from canaryaudit.records import ReportFormat
from canaryaudit.report.formats.files import earlier_formats, remove_own, write_files
from canaryaudit.report.formats.writer import MAIN_FILES
from canaryaudit.report.tables.pipelines import render_tables_junit, render_tables_sarif
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.report.tables.writer import tables_files

TABLE_FILES: dict[ReportFormat, str] = {name: file for name, file in MAIN_FILES.items() if name != "model-card"}
"""Each format's file; Markdown has pictures besides."""


def table_files(formats: Sequence[ReportFormat]) -> list[str]:
    """Return the names of the main files of a run's report."""
    return [TABLE_FILES[name] for name in formats]


def write_table_report(
    summary: TablesSummary, directory: Path, formats: Sequence[ReportFormat], *, private: bool = False
) -> list[Path]:
    """Write a run's report in several formats, all files or none; the main ones first.

    Formats that an earlier report left in the directory are written again, so all files agree. A report that reveals
    names is written in the requested formats only, and other formats of an earlier report are removed.

    Raises:
        RunDirectoryError: A file cannot be written, or is somebody else's.
    """
    requested = [name for name in TABLE_FILES if name in formats]
    earlier = earlier_formats(directory, TABLE_FILES, formats)
    makers: dict[ReportFormat, Callable[[], dict[str, str]]] = {
        "junit": lambda: {TABLE_FILES["junit"]: render_tables_junit(summary)},
        "sarif": lambda: {TABLE_FILES["sarif"]: render_tables_sarif(summary)},
    }
    contents: dict[str, str] = {}
    for name in requested if private else requested + earlier:
        contents |= makers[name]() if name in makers else tables_files(summary, f".{name}", "report")
    written = write_files(directory, contents, private=private)
    remove_own(directory, [TABLE_FILES[name] for name in earlier if TABLE_FILES[name] not in contents])
    return written
