"""The report: one summary, masked once, and the formats made from it."""

from canaryaudit.report.schema import Summary
from canaryaudit.report.summary import build_summary
from canaryaudit.report.terminal import render_terminal
from canaryaudit.report.write import FORMATS, write_report

__all__ = ["FORMATS", "Summary", "build_summary", "render_terminal", "write_report"]
