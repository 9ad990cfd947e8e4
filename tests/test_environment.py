"""Tests of canaryaudit.environment."""

import subprocess
import sys

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
