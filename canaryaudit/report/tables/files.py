"""The files of the report of a run on a table."""

from canaryaudit.report.rows.files import ROWS_FILES, Makers
from canaryaudit.report.tables.pipelines import render_tables_junit, render_tables_sarif
from canaryaudit.report.tables.schema import TablesSummary
from canaryaudit.report.tables.writer import tables_files


def table_report_files(summary: TablesSummary) -> Makers:
    """Return what makes each format's files."""
    return {
        "html": lambda: tables_files(summary, ".html", "report"),
        "md": lambda: tables_files(summary, ".md", "report"),
        "json": lambda: tables_files(summary, ".json", "report"),
        "junit": lambda: {ROWS_FILES["junit"]: render_tables_junit(summary)},
        "sarif": lambda: {ROWS_FILES["sarif"]: render_tables_sarif(summary)},
    }
