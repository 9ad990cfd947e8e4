"""Measure, remove and prove the removal of secrets that a language model memorised."""

import os

# Threads that wait in a busy loop for each other starve beside any other program: on two shared cores training
# was measured at 800 characters/s so, and at 34,000 with threads that sleep. Read when torch is first loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


__version__ = "0.1.0"
