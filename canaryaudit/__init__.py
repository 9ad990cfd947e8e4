"""Measure, remove and prove the removal of secrets that a language model memorized."""

import os

# How long a thread spins for the others before it sleeps. Left alone, GNU's OpenMP spins so long that two programs on
# two cores starve each other: training was measured at 2,000 characters/s beside another, and at 15,000 so; alone it
# loses nothing (54,000), where threads that never spin lose half. Read when torch is first loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")


__version__ = "0.1.0"
