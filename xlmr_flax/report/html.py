"""The report: one HTML page that needs nothing but itself, made of result rows, curves and what the run says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from xlmr_flax.report import figures
from xlmr_flax.report.files import write_atomically
from xlmr_flax.report.page_style import CSS
from xlmr_flax.report.rows import (
    NONE,
    Row,
    columns,
    delta,
    distinct,
    is_english,
    language_mean,
    languages,
    latest,
    major_metric,
    scored,
    select,
)
from xlmr_flax.report.table import MINUS, MISSING, Table
from xlmr_flax.report.tables import caveats, metric_name, side_by_side, summary, write_tables

if TYPE_CHECKING := False:
    from matplotlib.figure import Figure
