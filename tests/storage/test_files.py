"""Tests of canaryaudit.storage.files."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from canaryaudit.errors import RunDirectoryError
from canaryaudit.storage.files import atomic_path, atomic_write, exclusive_lock, sha256_of


def test_writing_makes_directories_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    atomic_write(path, "ä\r\n")
    assert path.read_bytes() == b"\xc3\xa4\r\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "note.txt"
    atomic_write(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half", "utf-8")
        raise error
    assert path.read_text("utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]


def test_a_private_file_is_private_from_the_first_byte(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "secret", 0o600) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_text("secret", "utf-8")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_library_that_replaces_the_temporary_file_does_not_change_the_permissions(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "weights", 0o640) as temporary:
        other = tmp_path / "other"
        other.touch(0o600)
        other.replace(temporary)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "no space left on the disk; free some space and rerun the command"),
        (errno.EROFS, "read-only; choose another directory"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_the_operating_systems_errors_become_one_line_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "note.txt"
    atomic_write(path, "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunDirectoryError, match=hint) as caught:
        atomic_write(path, "new")
    assert str(path) in str(caught.value)
    assert path.read_text("utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.txt"]


def test_a_full_disk_under_safetensors_becomes_one_line(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(RunDirectoryError, match="no space left"), atomic_path(tmp_path / "weights"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), atomic_path(tmp_path / "weights"):
        raise SafetensorError("invalid header")
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot write .*file/note.txt"):
        atomic_write(tmp_path / "file" / "note.txt", "text")


def test_the_checksum_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    atomic_write(tmp_path / "abc", "abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(RunDirectoryError, match="cannot read"):
        sha256_of(tmp_path / "none")


def test_a_lock_held_by_another_process_is_refused_with_its_id(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = (
        "import sys, pathlib; from canaryaudit.storage.files import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1]), 'it'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(RunDirectoryError, match=f"it is in use by another command .process {process.pid}."),
            exclusive_lock(path, "it"),
        ):
            pytest.fail("the lock was given twice")
        process.kill()
    with exclusive_lock(path, "it"):
        assert path.read_text("ascii") == f"{os.getpid()}\n"


def test_a_lock_ends_with_its_block_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(KeyboardInterrupt), exclusive_lock(path, "it"):
        raise KeyboardInterrupt
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
