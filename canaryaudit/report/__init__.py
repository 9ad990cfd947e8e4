"""The report: one summary, masked once, and the formats made from it."""

from canaryaudit.report.comparison import Comparison, compare
from canaryaudit.report.comparisonfiles import COMPARISON_FORMATS, render_comparison_terminal, write_comparison
from canaryaudit.report.gate import EarlierReport, read_baseline
from canaryaudit.report.published import schema_path
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary import build_summary
from canaryaudit.report.terminal import render_terminal
from canaryaudit.report.write import FORMATS, write_report

__all__ = [
    "COMPARISON_FORMATS",
    "FORMATS",
    "Comparison",
    "EarlierReport",
    "Summary",
    "build_summary",
    "compare",
    "read_baseline",
    "render_comparison_terminal",
    "render_terminal",
    "schema_path",
    "write_comparison",
    "write_report",
]
