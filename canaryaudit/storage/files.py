"""Atomic file writes, locks, and one-line messages for operating system errors."""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canaryaudit.errors import RunDirectoryError

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
def atomic_path(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` and rename it to ``path`` if the block succeeds.

    Args:
        path: The file to write; missing directories are created.
        mode: Permissions from the first byte on; the process's umask applies.

    Raises:
        RunDirectoryError: The file cannot be written; the previous file remains.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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


def is_temporary(name: str) -> bool:
    """Return whether ``atomic_path`` makes files of this name."""
    return bool(_TEMPORARY.fullmatch(name))


def atomic_write(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Write ``data`` (text as UTF-8, line breaks unchanged) to ``path`` atomically.

    Raises:
        RunDirectoryError: The file cannot be written; the previous file remains.
    """
    with atomic_path(path, mode) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def remove(path: Path) -> None:
    """Remove a file or a directory tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
    with read_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive_lock(path: Path, name: str) -> Iterator[None]:
    """Hold a lock during a block; the operating system releases it when the process ends.

    Args:
        path: The lock file; created if missing, never removed.
        name: What the lock protects, for the message.

    Raises:
        RunDirectoryError: Another process holds the lock; the message gives its id.
    """
    with write_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise RunDirectoryError(
                f"{name} is in use by another command (process {holder}): wait for it to end, or stop it"
            ) from None
        with write_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)


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
