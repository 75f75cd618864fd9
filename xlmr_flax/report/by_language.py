"""Tables by language with the facts of each language, which a reader of the page can sort and filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from xlmr_flax.report.paper_tables import names_note
from xlmr_flax.report.rows import RESOURCE_LEVELS, Row, facts, is_english
from xlmr_flax.report.table import BLANK, Cell, Column, Line, Table

Record = Mapping[str, Any]
# If a target has more languages than this, the page has a sortable table and a strip plot for it. A table without
# filter, or a figure with a line for each language, would be longer than two screens.
MANY_LANGUAGES = 40
SORT_NOTE = (
    'Click on a heading to sort; words in the field above the table select rows by language, script, family and class.'
)
# Column -> field of a record or row.
_FACTS = (
    (Column('Language'), 'language_name'),
    (Column('Script'), 'script'),
    (Column('Family'), 'family'),
    (Column('CC-100 GiB', 'count'), 'cc100_gib'),
    (Column('Class', order=RESOURCE_LEVELS), 'resource_level'),
    (Column('Tokens/word', 'score', decimals=2), 'tokens_per_word'),
)

# The only script of a page. Without it, the table is as it is in the HTML. It reads the text of cells and moves rows.
# Rows of means stay last and are never hidden. A word of the field fits a row if a word of its text cells starts so.
SCRIPT = """
for (const table of document.querySelectorAll('.sortable table')) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const rows = [...body.rows].filter(row => !row.classList.contains('mean'));
  const numeric = heads.map(head => head.classList.contains('number'));
  const value = (row, i) => {
    const text = row.cells[i].textContent, order = heads[i].dataset.order;
    if (order) return order.split(' ').includes(text) ? order.split(' ').indexOf(text) : null;
    if (!numeric[i]) return text === '–' ? null : text;
    const number = parseFloat(text.replace('−', '-').replaceAll(',', ''));
    return isNaN(number) ? null : number;
  };
  heads.forEach((head, i) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const before = head.getAttribute('aria-sort');
      const sign = (before ? before === 'descending' : !numeric[i]) ? 1 : -1;
      const order = (a, b) => a === b ? 0 : a === null ? 1 : b === null ? -1 : sign * (a < b ? -1 : 1);
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
      body.prepend(...rows.sort((a, b) => order(value(a, i), value(b, i))));
    });
  });
  const words = text => text.toLowerCase().split(/[\\s:()_,-]+/).filter(Boolean);
  const field = document.createElement('input'), count = document.createElement('output');
  field.type = 'search';
  field.placeholder = 'language, script, family or class';
  field.setAttribute('aria-label', 'Show only rows with');
  const filter = () => {
    const wanted = words(field.value);
    for (const row of rows) {
      const there = words([...row.cells].filter((_, i) => !numeric[i]).map(cell => cell.textContent).join(' '));
      row.hidden = !wanted.every(word => there.some(other => other.startsWith(word)));
    }
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} languages`;
  };
  field.addEventListener('input', filter);
  filter();
  table.closest('.scroll').before(field, count);
}
""".strip()


def facts_by_language(rows: Sequence[Row], tokens_per_word: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """{language: its facts, with the keys english, cc100_gib, language_name, ..., tokens_per_word (None: unknown)}."""
    known = {field: facts(rows, field) for _, field in _FACTS} | {'tokens_per_word': tokens_per_word}
    english = {row['language']: is_english(row) for row in rows}
    return {
        code: {'english': flag, **{field: values.get(code) for field, values in known.items()}}
        for code, flag in english.items()
    }


def language_table(records: Sequence[Record], target: str, encoder: str = '') -> Table:
    """A sortable line for each language with its facts and the difference of each arm to no intermediate training.

    records: those of `analysis.language_effects` of one encoder and target, by language.
    """
    arms = list(dict.fromkeys(r['intermediate'] for r in records))
    by_code: dict[str, dict[str, Record]] = {}
    for r in records:
        by_code.setdefault(r['language'], {})[r['intermediate']] = r
    left, cells = _facts({code: next(iter(mine.values())) for code, mine in by_code.items()})
    lines = [
        Line((*cells[code], *(mine[name]['difference'] if name in mine else None for name in arms)))
        for code, mine in by_code.items()
    ]
    columns = (*left, *(Column(name, 'delta') for name in arms))
    notes = ('Difference to no intermediate training in points, the mean over seeds.', SORT_NOTE)
    of = f', {encoder}' if encoder else ''
    title, name = f'{target}: effect by language{of}', f'effects-{target}-languages'
    return Table(title, columns, tuple(lines), notes, name=name, sortable=True)


def with_facts(table: Table, about: Mapping[str, Mapping[str, Any]]) -> Table:
    """A table by language (`side_by_side` or `upright`) as a sortable one with more facts of each language.

    about: `facts_by_language`. The first cell of a line is the code; the columns of text after it are replaced, and the
    note with the names of the languages is left out.
    """
    old = next(j for j, column in enumerate(table.columns) if column.kind != 'text')
    codes = [str(line.cells[0]) for line in table.lines if not line.mean]
    left, cells = _facts({code: about.get(code, {}) for code in codes})
    lines = []
    for line in table.lines:
        first = [line.cells[0], *[BLANK] * (len(left) - 1)] if line.mean else cells[str(line.cells[0])]
        lines.append(replace(line, cells=(*first, *line.cells[old:])))
    hints = {(i, j + len(left) - old): hint for (i, j), hint in table.hints.items()}
    columns = (*left, *table.columns[old:])
    spelled = names_note({code: a['language_name'] for code, a in about.items() if a.get('language_name')}, codes)
    notes = (*(note for note in table.notes if note not in spelled), SORT_NOTE)
    return replace(table, columns=columns, lines=tuple(lines), notes=notes, hints=hints, sortable=True)


def _facts(about: Mapping[str, Mapping[str, Any]]) -> tuple[list[Column], dict[str, list[Cell]]]:
    """The columns of the facts that a language has, after its code, and {code: cells}."""
    there = [(column, field) for column, field in _FACTS if any(a.get(field) is not None for a in about.values())]
    cells: dict[str, list[Cell]] = {}
    for code, mine in about.items():
        values = {field: mine.get(field) for _, field in there}
        if values.get('cc100_gib') is not None:
            values['cc100_gib'] = f'{values["cc100_gib"]:g}'  # 300.8, 0.1, 0: sizes have no fixed decimals
        cells[code] = [code, *values.values()]
    return [Column('Code'), *(column for column, _ in there)], cells
