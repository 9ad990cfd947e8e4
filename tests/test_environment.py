"""Tests of canaryaudit.environment."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from canaryaudit import environment
from tests.commands import PROCESS

FAULTS = """
import resource, torch
from canaryaudit import environment

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(60):
        torch.ones(64 * 2**20 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
environment.keep_freed_memory()
torch.ones(64 * 2**20 // 4)
print(plain, faults())
"""


def test_freed_memory_is_used_again_instead_of_asked_for_anew() -> None:
    """By the page faults of large tensors that come and go, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=PROCESS)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 2


@pytest.mark.skipif(shutil.which("git") is None, reason="Git is not here")
def test_the_commit_is_the_packages_own_and_not_that_of_the_repository_it_is_used_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "environment.py").write_text("", "utf-8")
    git("commit", "-q", "--allow-empty", "-m", "of a user")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "package" / "environment.py"))
    assert environment.commit() == ""
    git("add", ".")
    git("commit", "-q", "-m", "of the package")
    assert environment.commit() == git("rev-parse", "HEAD")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit() == ""
