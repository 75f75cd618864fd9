"""Tables, figures and the HTML page, from result rows alone. Imports nothing else of the package."""

from xlmr_flax.report.html import write_report, write_tables
from xlmr_flax.report.rows import RowsError, read_rows
from xlmr_flax.report.tables import side_by_side, summary

__all__ = ['RowsError', 'read_rows', 'side_by_side', 'summary', 'write_report', 'write_tables']
