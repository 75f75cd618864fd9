"""Makes tables, figures and the HTML page from result rows alone. Imports nothing else of the package but util."""

from xlmr_flax.report.effects import write_effects
from xlmr_flax.report.html import write_report
from xlmr_flax.report.rows import RowsError, read_rows
from xlmr_flax.report.study import Study, make_study
from xlmr_flax.report.tables import side_by_side, write_tables

__all__ = [
    'RowsError',
    'Study',
    'make_study',
    'read_rows',
    'side_by_side',
    'write_effects',
    'write_report',
    'write_tables',
]
