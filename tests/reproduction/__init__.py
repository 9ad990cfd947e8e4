"""The published experiment on unintended memorization, redone: `make reproduce`; see reports/paper/README.md."""
