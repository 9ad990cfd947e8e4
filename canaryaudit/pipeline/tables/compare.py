"""How runs on tables are compared."""

from canaryaudit.pipeline.rows.compare import RowsComparing
from canaryaudit.pipeline.tables.pipeline import TablePipeline
from canaryaudit.report.tables.comparison import TABLES_VIEW, compare_tables, read_tables_report
from canaryaudit.runs.table_directory import TableDirectory

TABLE_COMPARING = RowsComparing(
    TableDirectory,
    TablePipeline,
    read_tables_report,
    compare_tables,
    TABLES_VIEW,
    needed={"against": ("retrain",)},  # others are in each run's report
)
