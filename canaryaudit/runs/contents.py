"""What a run directory may hold: which entries are the run's own, which are somebody else's, and which are not safe.

A run directory may come from a stranger, and a user may put files of their own into one. Only the run's own entries are
ever written, replaced or removed, and no link among them is followed.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from canaryaudit.runs import layout
from canaryaudit.storage.files import is_temporary, plain_fault

_NAME = r"[a-z0-9][a-z0-9._-]*"
_INSERTED = (
    rf"(?:{'|'.join(map(re.escape, (layout.MANIFEST, *layout.ALL_INSERTED)))}|"
    rf"{re.escape(layout.ENCODED)}/(?:corpus|heldout)\.safetensors)"
)
_FILES = re.compile(
    "|".join(
        (
            _INSERTED,
            rf"{re.escape(layout.STAGING)}/(?:{_INSERTED}|{re.escape(layout.REPLACED)})",
            "|".join(map(re.escape, (layout.LOCK, layout.MODEL, layout.WEIGHTS, layout.CHECKPOINT, layout.CURVATURE))),
            rf"{re.escape(layout.SIGNATURE)}|{re.escape(layout.RELEASES)}",
            rf"{layout.MEASUREMENTS}/(?:before|after-{_NAME})\.json",
            rf"{layout.UNLEARNED}/{_NAME}/(?:{layout.UNLEARNING}|{layout.WEIGHTS}|{layout.CHECKPOINT})",
            rf"{layout.UNLEARNED}/{_NAME}/{layout.SHARDS}/\d+(?:{layout.CORRECTED})?\.safetensors",
            rf"{re.escape(layout.PARTS)}/[0-9a-f]+/[^/]+\.safetensors",
        )
    )
)
_DIRECTORIES = re.compile(
    "|".join(
        (
            rf"(?:{re.escape(layout.STAGING)}/)?{re.escape(layout.ENCODED)}",
            rf"{re.escape(layout.STAGING)}|{layout.MEASUREMENTS}",
            rf"{layout.UNLEARNED}(?:/{_NAME}(?:/{layout.SHARDS})?)?",
            rf"{re.escape(layout.PARTS)}(?:/[0-9a-f]+)?",
        )
    )
)
MAX_LISTED = 3
"""Names of other files that a message lists."""


def is_file_name(name: str) -> bool:
    """Return whether a run has a file of this name, relative to it and with slashes."""
    path = PurePosixPath(name)
    if is_temporary(path.name):
        return str(path.parent) == "." or _DIRECTORIES.fullmatch(str(path.parent)) is not None
    return _FILES.fullmatch(name) is not None


def is_directory_name(name: str) -> bool:
    """Return whether a run has a directory of this name, relative to it and with slashes."""
    return _DIRECTORIES.fullmatch(name) is not None


def entries(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield everything in a run directory by its relative name, sorted; no link is followed.

    Somebody else's directory is yielded, but not what it holds.
    """
    waiting = [run]
    while waiting:
        directory = waiting.pop()
        for path in sorted(directory.iterdir()):
            name = path.relative_to(run).as_posix()
            yield name, path
            if is_directory_name(name) and _is_directory(path):
                waiting.append(path)


def faults(run: Path) -> Iterator[tuple[Path, str]]:
    """Yield every entry with a name of the run's own that is not what the run would have there, and what it is.

    These are links, pipes and devices, directories in a file's place, and files in a directory's place.
    """
    for name, path in entries(run):
        if is_directory_name(name):
            if not _is_directory(path):
                yield path, "a symbolic link" if path.is_symlink() else "not a directory"
        elif is_file_name(name) and (fault := plain_fault(path)):
            yield path, fault


def others(run: Path) -> list[str]:
    """Return the names of all entries that are not the run's own."""
    return [
        name
        for name, path in entries(run)
        if not (is_directory_name(name) and _is_directory(path)) and not (is_file_name(name) and not plain_fault(path))
    ]


def listed(names: list[str]) -> str:
    """Return the first few names for a message."""
    return ", ".join(names[:MAX_LISTED]) + (", …" if len(names) > MAX_LISTED else "")


def too_open(run: Path) -> list[str]:
    """Return the names of the run's own files that others may read or write.

    They may if the run directory lets them in and the file's own permissions do; a directory that others may write to
    lets them replace every file.
    """
    door = stat.S_IMODE(run.stat().st_mode)
    files = [(name, path) for name, path in entries(run) if is_file_name(name) and not plain_fault(path)]
    if door & 0o022:
        return [name for name, _ in files]
    return [name for name, path in files if door & 0o011 and path.lstat().st_mode & 0o066]


def remove_temporary(run: Path) -> None:
    """Remove half-written files of a killed command."""
    for name, path in [*entries(run)]:
        if is_temporary(path.name) and is_file_name(name) and not plain_fault(path):
            path.unlink(missing_ok=True)


def remove(run: Path, *names: str) -> None:
    """Remove the run's own entries below these names at the top level, or all; others and their folders stay."""
    own = [(name, path) for name, path in entries(run) if not names or name.partition("/")[0] in names]
    for name, path in own:
        if is_file_name(name) and not plain_fault(path):
            path.unlink(missing_ok=True)
    for name, path in sorted(own, reverse=True):
        if is_directory_name(name) and _is_directory(path) and not any(path.iterdir()):
            path.rmdir()


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
