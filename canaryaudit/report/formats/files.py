"""The files of a report's directory: written all or none, and only over files that a report wrote before.

A report is meant to be shared, so its files get the usual permissions, unless it reveals secrets. The directory may
hold anything else of the user's. A file is a report's if it ends with the signature, or is JSON of a report's form.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from canaryaudit.errors import Damaged, RunDirectoryError
from canaryaudit.records import ReportFormat
from canaryaudit.storage.files import PRIVATE, PUBLIC, atomic_files, open_plain, read_errors, write_errors

SIGNATURE = "<!-- Written by canaryaudit. -->\n"
"""Last line of every file of a report but JSON."""
_JSON = re.compile(rb'\{\s*"schema_version": \d+,\s*"(run|unlearned|estimators?|images)": |"canaryaudit"')
_HEAD_BYTES = 4096


def write_files(directory: Path, contents: Mapping[str, str], *, private: bool = False) -> list[Path]:
    """Write files, all or none.

    Args:
        directory: Created if it is missing.
        contents: Each file's text by its name; all but JSON is signed.
        private: Only the owner may read them.

    Returns:
        Their paths.

    Raises:
        RunDirectoryError: A file cannot be written, or is somebody else's.
    """
    check_files(directory, contents)
    data = {name: _signed(name, text).encode("utf-8") for name, text in contents.items()}
    atomic_files(directory, data, PRIVATE if private else PUBLIC)
    return [directory / name for name in contents]


def check_files(directory: Path, names: Collection[str]) -> None:
    """Raise the error that writing files of these names would raise for what is there.

    Raises:
        RunDirectoryError: A file was not written by a report.
    """
    for name in names:
        path = directory / name
        if (path.exists() or path.is_symlink()) and not is_own(path):
            raise RunDirectoryError(
                f"{path} was not written by canaryaudit: move it, or choose another directory with -o"
            )


def earlier_formats(
    directory: Path, main_files: Mapping[ReportFormat, str], formats: Collection[ReportFormat]
) -> list[ReportFormat]:
    """Return the formats, other than these, in which an earlier report lies in the directory."""
    return [own for own, name in main_files.items() if own not in formats and is_own(directory / name)]


def is_own(path: Path) -> bool:
    """Return whether a report wrote this file; a link or a pipe is nobody's report."""
    try:
        with read_errors(path), open_plain(path) as file:
            if _is_json(path.name):
                return _JSON.search(file.read(_HEAD_BYTES)) is not None
            file.seek(-min(file.seek(0, 2), len(SIGNATURE)), 2)
            return file.read() == SIGNATURE.encode()
    except (Damaged, RunDirectoryError):
        return False


def remove_own(directory: Path, names: Collection[str]) -> None:
    """Remove those of these files that a report wrote."""
    with write_errors(directory):
        for name in names:
            if is_own(directory / name):
                (directory / name).unlink(missing_ok=True)


def _signed(name: str, text: str) -> str:
    if _is_json(name):
        return text
    # After a Markdown table, a line that follows at once would be a row of it.
    return text + ("\n" if name.endswith(".md") else "") + SIGNATURE


def _is_json(name: str) -> bool:
    return name.endswith((".json", ".sarif"))
