"""Reads the rows of one local file with the reader of its format.

Readers yield rows. In place of a row that cannot be read they yield a Problem, so that callers can count and list them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from xlmr_flax.data.readers import fields, logicbench, squad, tags, tfds
from xlmr_flax.data.readers.text import DataError, Problem, Row, Rows, read_lines, read_text
from xlmr_flax.tasks.base import Table
from xlmr_flax.util.errors import closest
from xlmr_flax.util.strict_json import has_surrogate

__all__ = ['READERS', 'DataError', 'Problem', 'read_lines', 'read_rows', 'read_text']

READERS: dict[str, Callable[[Path, Table], Rows]] = {
    'tsv': fields.read_tsv,
    'csv': fields.read_csv,
    'csv_tabs': fields.read_csv_tabs,
    'jsonl': fields.read_jsonl,
    'json': fields.read_json,
    'lines': fields.read_plain,
    'squad': squad.read_squad,
    'squad_sentences': squad.read_sentences,
    'conll': tags.read_conll,
    'conllu': tags.read_conllu,
    'iob2': tags.read_iob2,
    'stagged': tags.read_stagged,
    'ccgbank': tags.read_ccgbank,
    'logicbench': logicbench.read_logicbench,
    tfds.FORMAT: tfds.read_prepared,
}
_JSON = ('jsonl', 'json', 'squad', 'squad_sentences', 'logicbench')


def read_rows(path: Path, table: Table, label_path: Path | None = None) -> Rows:
    """Yields (line number from 1, {column name: value}) for every row of a file in the format of `table`. A row that
    cannot be read is a Problem, and the next row follows.

    label_path: path of the file with the labels (`table.label_file`). Raises DataError for a fault that makes the whole
    file unreadable, also for a file without rows.
    """
    if table.format not in READERS:
        raise DataError(f'{path}: unknown format {table.format!r}{closest(table.format, READERS)}')
    rows = READERS[table.format](path, table)
    if label_path is not None:
        rows = _with_labels(path, rows, label_path)
    empty = True
    for line, row in rows:
        empty = False
        if isinstance(row, Problem):
            yield line, row
            continue
        for changed in _explode(row, table):
            broken = _broken_text(changed, table)
            if broken is not None or isinstance(changed, Problem):
                yield line, broken or changed
            else:
                yield line, {k: v for k, v in changed.items() if k not in table.hidden} | dict(table.constants)
    if empty:
        raise DataError(f'{path}: no rows in this file')


def _broken_text(row: Row | Problem, table: Table) -> Problem | None:
    """The Problem of a row, None for a valid row. A text with half a character (an unpaired surrogate) is a Problem,
    because no tokenizer accepts it. JSON's escapes can contain one; other formats are UTF-8, which cannot."""
    if isinstance(row, Problem):
        return row
    if table.format in _JSON:
        for column, value in row.items():
            if has_surrogate(value):
                return Problem(f'column {column!r}: half a character (an unpaired surrogate)')
    return None


def _explode(row: Row, table: Table) -> Iterator[Row | Problem]:
    columns = [column for column in table.explode if column in row]
    if not columns:
        yield row
        return
    values = [row[column] for column in columns]
    if not all(isinstance(value, list) for value in values) or len({len(value) for value in values}) != 1:
        yield Problem(f'lists of one length are expected in {", ".join(columns)}')
        return
    for items in zip(*values, strict=True):
        yield row | dict(zip(columns, items, strict=True))


def _with_labels(path: Path, rows: Rows, label_path: Path) -> Rows:
    """Adds the column 'label' to each row: line i of the label file is the label of row i."""
    labels = read_lines(label_path)
    number = 0
    for line, row in rows:
        if number >= len(labels):
            raise DataError(f'{label_path}: {len(labels)} labels, but {path} has more rows')
        yield line, row if isinstance(row, Problem) else row | {'label': labels[number].strip()}
        number += 1
    if number != len(labels):
        raise DataError(f'{label_path}: {len(labels)} labels for {number} rows of {path}')
