"""The files of the report of a run on rows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from canaryaudit.records import ReportFormat
from canaryaudit.report.formats.files import earlier_formats, remove_own, write_files
from canaryaudit.report.formats.writer import MAIN_FILES

ROWS_FILES: dict[ReportFormat, str] = {name: file for name, file in MAIN_FILES.items() if name != "model-card"}
"""Each format's file; Markdown has pictures besides."""
Makers = Mapping[ReportFormat, Callable[[], dict[str, str]]]
"""Each format's files and what stands in them."""


def report_files(formats: Sequence[ReportFormat]) -> list[str]:
    """Return the names of the main files of a run's report."""
    return [ROWS_FILES[name] for name in formats]


def write_rows_report(
    makers: Makers, directory: Path, formats: Sequence[ReportFormat], *, private: bool = False
) -> list[Path]:
    """Write a run's report in several formats, all files or none; the main ones first.

    Formats that an earlier report left in the directory are written again, so all files agree. A report that reveals
    names is written in the requested formats only, and other formats of an earlier report are removed.

    Raises:
        RunDirectoryError: A file cannot be written, or is somebody else's.
    """
    requested = [name for name in ROWS_FILES if name in formats]
    earlier = earlier_formats(directory, ROWS_FILES, formats)
    contents: dict[str, str] = {}
    for name in requested if private else requested + earlier:
        contents |= makers[name]()
    written = write_files(directory, contents, private=private)
    remove_own(directory, [ROWS_FILES[name] for name in earlier if ROWS_FILES[name] not in contents])
    return written
