"""The published experiment on unintended memorisation, redone: `make reproduce`; see reports/paper/README.md."""
