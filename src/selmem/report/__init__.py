"""From measured tables to figures, tables and one self-contained report."""

from selmem.report.summary import summary
from selmem.report.write import load_tables, write_report

__all__ = ["load_tables", "summary", "write_report"]
