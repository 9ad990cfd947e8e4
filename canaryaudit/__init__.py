"""Measure, remove and prove the removal of secrets that a language model memorised."""

__version__ = "0.1.0"
