"""The report: one summary, masked once, and the formats made from it."""

from canaryaudit.report.comparison.comparison import Comparison, compare
from canaryaudit.report.comparison.trend import oldest_first, read_report
from canaryaudit.report.comparison.writer import (
    COMPARISON_FORMATS,
    render_comparison_result,
    render_comparison_terminal,
    write_comparison,
)
from canaryaudit.report.formats.files import check_files
from canaryaudit.report.formats.step_summary import append_step_error, append_step_summary, step_summary_path
from canaryaudit.report.formats.terminal import render_result, render_terminal
from canaryaudit.report.formats.writer import FORMATS, MAIN_FILES, write_gate_errors, write_report
from canaryaudit.report.json_schema import schema_path
from canaryaudit.report.schema import Summary
from canaryaudit.report.summary.build import SummaryOptions, build_summary
from canaryaudit.report.summary.gate import EarlierReport, read_baseline

__all__ = [
    "COMPARISON_FORMATS",
    "FORMATS",
    "MAIN_FILES",
    "Comparison",
    "EarlierReport",
    "Summary",
    "SummaryOptions",
    "append_step_error",
    "append_step_summary",
    "build_summary",
    "check_files",
    "compare",
    "oldest_first",
    "read_baseline",
    "read_report",
    "render_comparison_result",
    "render_comparison_terminal",
    "render_result",
    "render_terminal",
    "schema_path",
    "step_summary_path",
    "write_comparison",
    "write_gate_errors",
    "write_report",
]
