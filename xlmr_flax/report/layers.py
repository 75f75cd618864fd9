"""Tables and figure of retrieval by layer, from the rows of the retrieval command.

A row is one language and layer of one encoder, with the fields of `FIELDS` and optionally `many_to_many` (the mean over
the other languages and both directions; percent), `resource_level`, `language_name`, `script`, `note` and `stand_in`.
Rows with the same `name` are one line of the figure: the values of a language are averaged over them (seeds of an arm).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from xlmr_flax.report.plots.canvas import svg
from xlmr_flax.report.plots.layer_figure import layer_figure
from xlmr_flax.report.rows import RowsError, distinct, json_lines, languages, select
from xlmr_flax.report.table import Cell, Column, Line, Table, markdown
from xlmr_flax.report.tables import csv_text
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import write_atomically

Row = Mapping[str, Any]
FILE = 'retrieval.jsonl'
KEY = ('name', 'encoder', 'target', 'language', 'split', 'layer')
FIELDS: dict[str, type | tuple[type, ...]] = {
    'name': str, 'encoder': str, 'target': str, 'language': str, 'split': str, 'layer': int,
    'accuracy': (int, float), 'accuracy_to_en': (int, float), 'n': int,
}  # fmt: skip
OPTIONAL: dict[str, type | tuple[type, ...]] = {
    'many_to_many': (int, float), 'chance': (int, float), 'cc100_gib': (int, float),
    **dict.fromkeys(('english', 'seen'), bool),
    **dict.fromkeys(('resource_level', 'language_name', 'script', 'note', 'stand_in'), str),
}  # fmt: skip
_LOW = 'low'


def read_layer_rows(path: str | Path) -> list[dict[str, Any]]:
    """Reads and checks the rows of a retrieval.jsonl. Raises RowsError, which names file, line and field."""
    rows: dict[tuple, dict[str, Any]] = {}
    for where, row in json_lines(path):
        _check(row, where)
        rows[tuple(row[name] for name in KEY)] = row
    if not rows:
        raise RowsError(f'{path}: no rows')
    return list(rows.values())


def _check(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise RowsError(f'{where}: a row is a JSON object, not {type(row).__name__}')
    for name, kind in (FIELDS | OPTIONAL).items():
        value = row.get(name)
        if value is None and name in OPTIONAL:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise RowsError(f'{where}: field {name!r} is {quote(value)}')
    for name in ('accuracy', 'accuracy_to_en', 'many_to_many'):
        if not 0 <= (row.get(name) or 0) <= 100:
            raise RowsError(f'{where}: field {name!r} is {quote(row[name])}, not a percentage')


def write_layer_rows(folder: Path, rows: Iterable[Row]) -> Path:
    """Writes retrieval.jsonl and returns its path."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + '\n' for row in rows)
    return write_atomically(folder / FILE, ''.join(lines))


def write_layer_report(folder: Path, rows: Sequence[Row], command: str = '') -> Path:
    """Writes retrieval.md, retrieval.csv (every row), retrieval_means.csv and figures/retrieval-layers.svg; returns the
    path of retrieval.md."""
    head = list(dict.fromkeys(row['note'] for row in rows if row.get('note')))
    head += dict.fromkeys(f'Stand-in data: {row["stand_in"]}' for row in rows if row.get('stand_in'))
    head += [f'Command: {command}'] if command else []
    write_atomically(folder / 'retrieval.csv', csv_text(rows))
    write_atomically(folder / 'retrieval_means.csv', csv_text(means(rows)))
    write_atomically(folder / 'figures' / 'retrieval-layers.svg', svg(layer_figure(rows), 'Retrieval by layer'))
    targets = ', '.join(distinct(rows, 'target'))
    text = f'# {markdown(f"Retrieval by layer: {targets}")}\n\n' + ''.join(f'- {markdown(note)}\n' for note in head)
    return write_atomically(
        folder / 'retrieval.md', text + '\n' + '\n'.join(table.markdown() for table in layer_tables(rows))
    )


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Records of the means by name, target, layer and group of languages ('all', 'low-resource'), without English.

    accuracy, accuracy_to_en: over languages. many_to_many: over the ordered pairs of languages, for 'low-resource' of
    the pairs with a low-resource language on one side, whose mean is taken by that language.
    """
    records = []
    for target in distinct(rows, 'target'):
        for name in distinct(select(rows, target=target), 'name'):
            mine = select(rows, target=target, name=name)
            for layer in sorted(distinct(mine, 'layer')):
                here = [row for row in mine if row['layer'] == layer and not row.get('english')]
                low = [row for row in here if row.get('resource_level') == _LOW]
                for group, chosen in (('all', here), ('low-resource', low)):
                    if chosen:
                        about = {'name': name, 'target': target, 'layer': layer, 'group': group}
                        count = len(distinct(chosen, 'language'))
                        records.append(about | {'languages': count} | _mean(chosen))
    return records


def _mean(rows: Sequence[Row]) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for field in ('accuracy', 'accuracy_to_en', 'many_to_many'):
        values = [row[field] for row in rows if row.get(field) is not None]
        result[field] = fmean(values) if len(values) == len(rows) else None
    return result


def layer_tables(rows: Sequence[Row]) -> list[Table]:
    """Tables for each name and target: the means by layer, and the mean of both directions by language and layer."""
    tables = []
    for target in distinct(rows, 'target'):
        for name in distinct(select(rows, target=target), 'name'):
            mine = select(rows, target=target, name=name)
            tables += [_means_table(mine, name, target), _language_table(mine, name, target)]
    return tables


def _means_table(rows: Sequence[Row], name: str, target: str) -> Table:
    records = means(rows)
    groups = distinct(records, 'group')
    columns = [Column('Layer', 'count')]
    heads = ('en → X', 'X → en', 'many to many')
    columns += [Column(head, 'score', group, best=True) for group in groups for head in heads]
    lines = []
    for layer in distinct(records, 'layer'):
        cells: list[Cell] = [layer]
        for group in groups:
            found = select(records, layer=layer, group=group)
            values = found[0] if found else {}
            cells += [values.get(field) for field in ('accuracy', 'accuracy_to_en', 'many_to_many')]
        lines.append(Line(tuple(cells)))
    counts = ', '.join(f'{r["languages"]} {r["group"]}' for r in records if r['layer'] == records[0]['layer'])
    notes = (
        f'Accuracy in %, {rows[0]["split"]} split, mean over languages ({counts}; not English). Layer 0: embeddings.',
        'Many to many: mean over all ordered pairs of the languages; low-resource: pairs with one of them on one side.',
    )
    return Table(f'{target}, {name}: retrieval by layer', tuple(columns), tuple(lines), notes, 'column')


def _language_table(rows: Sequence[Row], name: str, target: str) -> Table:
    layers = sorted(distinct(rows, 'layer'))
    columns = (Column('Code'), Column('Language'), Column('Script'), Column('Resources'), Column('n', 'count'))
    columns += tuple(Column(str(layer), 'score', 'layer', best=True) for layer in layers)
    lines = []
    for code in languages(rows):
        mine = select(rows, language=code)
        first = mine[0]
        values = [[mean_of_directions(row) for row in mine if row['layer'] == layer] for layer in layers]
        cells = (code, first.get('language_name'), first.get('script'), first.get('resource_level'), first['n'])
        lines.append(Line((*cells, *(fmean(each) if each else None for each in values))))
    notes = (f'Accuracy in %, {rows[0]["split"]} split, mean of en → X and X → en.',)
    return Table(f'{target}, {name}: retrieval by language and layer', columns, tuple(lines), notes, 'row')


def mean_of_directions(row: Row) -> float:
    """The mean of both directions between a language and English."""
    return (row['accuracy'] + row['accuracy_to_en']) / 2
