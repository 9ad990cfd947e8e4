"""Atomic file writes, plain files only, locks, and one-line messages for operating system errors.

Files are private unless the caller says otherwise: a run holds secrets, and a model that memorized them. No link is
followed at the end of a path, since a run directory may come from a stranger.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from canaryaudit.errors import Damaged, RunDirectoryError, command

PRIVATE, PUBLIC = 0o600, 0o666
"""Permissions of files before the umask: of a run's, which hold secrets, and of a report's, which is to be shared."""
_MAX_LOCK_BYTES = 20

_HINTS = {
    errno.ENOSPC: "no space left on the disk; free some space and rerun the command",
    errno.EDQUOT: "the disk quota is used up; free some space and rerun the command",
    errno.EROFS: "the file system is read-only; choose another directory",
    errno.EACCES: "permission denied; choose another directory or change its permissions",
    errno.EPERM: "not permitted; choose another directory or change its permissions",
    errno.EEXIST: "a file already exists there; choose another directory",
    errno.ENOTDIR: "part of the path is a file; choose another directory",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
# The form of operating system errors in Rust libraries such as safetensors.
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)|\bcode: (\d+)\b")


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def atomic_path(path: Path, mode: int = PRIVATE) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` and rename it to ``path`` if the block succeeds.

    A link at ``path`` is replaced, and its target is not touched.

    Args:
        path: The file to write; missing directories are created.
        mode: Permissions from the first byte on; the process's umask applies.

    Raises:
        RunDirectoryError: The file cannot be written; the previous file remains.
    """
    temporary = _temporary(path)
    with write_errors(path):
        make_directory(path.parent, mode)
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            permissions = temporary.stat().st_mode
            yield temporary
            temporary.chmod(permissions)  # The block may have replaced the file, as safetensors does.
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def make_directory(path: Path, mode: int = PRIVATE) -> None:
    """Make a directory and its missing parents, for files of this mode."""
    if not path.is_dir():
        if not path.parent.exists():
            make_directory(path.parent, mode)
        path.mkdir(0o700 if mode == PRIVATE else 0o777, exist_ok=True)


def atomic_files(directory: Path, contents: Mapping[str, bytes], mode: int = PRIVATE) -> None:
    """Write several files of one directory, all or none: a full disk leaves every previous file as it was.

    Args:
        directory: Created if it is missing.
        contents: Each file's bytes by its name.
        mode: Permissions; the process's umask applies.

    Raises:
        RunDirectoryError: A file cannot be written.
    """
    waiting: dict[Path, Path] = {}
    with write_errors(directory):
        make_directory(directory, mode)
    try:
        for name, data in contents.items():
            path = directory / name
            temporary = waiting[path] = _temporary(path)
            with write_errors(path):
                descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                _sync(temporary)
        try:
            _rename_all(waiting)
        except BaseException:  # A signal between two renames must not leave files of two reports.
            _rename_all(waiting)
            raise
        with write_errors(directory):
            _sync(directory)
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)


def _rename_all(waiting: dict[Path, Path]) -> None:
    for path in [*waiting]:
        with write_errors(path):
            _rename(waiting[path], path)
        del waiting[path]


def _rename(path: Path, to: Path) -> None:
    path.replace(to)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")


def is_temporary(name: str) -> bool:
    """Return whether ``atomic_path`` makes files of this name."""
    return bool(_TEMPORARY.fullmatch(name))


def atomic_write(path: Path, data: bytes | str, mode: int = PRIVATE) -> None:
    """Write ``data`` (text as UTF-8, line breaks unchanged) to ``path`` atomically.

    Raises:
        RunDirectoryError: The file cannot be written; the previous file remains.
    """
    with atomic_path(path, mode) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def plain_fault(path: Path) -> str:
    """Return why ``path`` is not a plain file, without following a link; empty if it is one or is missing."""
    try:
        return _fault(path.lstat())
    except OSError:
        return ""


def _fault(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link, not a plain file"
    return "" if stat.S_ISREG(status.st_mode) else "not a plain file"


def open_plain(path: Path, repair: str = "remove it") -> BufferedReader:
    """Open a plain file for reading; no link is followed, and no pipe or device is waited for.

    Args:
        path: The file.
        repair: What to do if it is something else, as a clause.

    Raises:
        Damaged: It is a link, a directory, a pipe or a device.
        OSError: It cannot be opened.
    """
    if fault := plain_fault(path):
        raise Damaged(path, fault, repair)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # It may have been replaced since.
    if fault := _fault(os.fstat(descriptor)):
        os.close(descriptor)
        raise Damaged(path, fault, repair)
    return os.fdopen(descriptor, "rb")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    with read_errors(path), open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive_lock(path: Path, name: str, *, read_only: bool = False) -> Iterator[None]:
    """Hold a lock during a block; the operating system releases it when the process ends.

    Args:
        path: The lock file; created if missing, never removed.
        name: What the lock protects, for the message.
        read_only: Write nothing: without a lock file, nothing is locked.

    Raises:
        RunDirectoryError: Another process holds the lock; the message gives its id. Or the lock file is not a plain
            file of its own, which writing to it would change something else.
    """
    if read_only and not path.exists():
        yield
        return
    descriptor = _open_lock(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, _MAX_LOCK_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
            raise RunDirectoryError(
                f"{name} is in use by another command (process {holder}): wait for it to end, or stop it"
            ) from None
        if not read_only:
            with write_errors(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path, flags: int) -> int:
    fault = plain_fault(path)
    if not fault:
        with write_errors(path):
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE)
        status = os.fstat(descriptor)
        fault = _fault(status) or ("a hard link to another file" if status.st_nlink > 1 else "")
        if not fault:
            return descriptor
        os.close(descriptor)
    raise RunDirectoryError(f"{path} is {fault}: remove it, the run loses nothing: {command('rm', path)}")


def is_lock(path: Path) -> bool:
    """Return whether ``exclusive_lock`` could have written this file: nothing but a process id."""
    if plain_fault(path) or not path.exists():
        return False
    with read_errors(path), open_plain(path) as file:
        return re.fullmatch(rb"\d*\n?", file.read(_MAX_LOCK_BYTES + 1)) is not None


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn operating system errors into one line that names ``path`` and the next step."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error.errno, error.strerror or str(error)) from error
    except Exception as error:
        match = _RUST_OS_ERROR.search(str(error)) if type(error).__name__ == "SafetensorError" else None
        if match is None:
            raise
        number = int(match[1] or match[2])
        raise _cannot_write(path, number, os.strerror(number)) from error


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn operating system errors into one line that names ``path``."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error


def _cannot_write(path: Path, number: int | None, what: str) -> RunDirectoryError:
    return RunDirectoryError(f"cannot write {path}: {_HINTS.get(number or 0, f'{what}; check the directory')}")
