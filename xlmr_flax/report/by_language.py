"""The effect of every arm in every language: a table that a reader of the page can sort and filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.report.html_table import Notes, html_table
from xlmr_flax.report.table import Column, Line, Table

Record = Mapping[str, Any]

# The only script of a page. Without it, the table is as it is in the HTML. It reads the text of cells and moves rows.
SCRIPT = """
for (const table of document.querySelectorAll('.sortable table')) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const value = (row, i) => {
    const text = row.cells[i].textContent.replace('−', '-');
    return heads[i].classList.contains('number') ? (isNaN(parseFloat(text)) ? null : parseFloat(text)) : text;
  };
  heads.forEach((head, i) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const sign = head.getAttribute('aria-sort') === 'descending' ? 1 : -1;
      const order = (a, b) => a === null ? 1 : b === null ? -1 : sign * (a < b ? -1 : a > b ? 1 : 0);
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
      body.replaceChildren(...[...body.rows].sort((a, b) => order(value(a, i), value(b, i))));
    });
  });
  const field = document.createElement('input');
  field.type = 'search';
  field.placeholder = 'language, family, script or class';
  field.setAttribute('aria-label', 'Show only rows with');
  field.addEventListener('input', () => {
    const words = field.value.toLowerCase().split(/\\s+/);
    for (const row of body.rows) {
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    }
  });
  table.closest('.sortable').insertBefore(field, table.closest('.scroll'));
}
""".strip()


def language_table(records: Sequence[Record], target: str, encoder: str = '') -> Table:
    """A line for each language with its facts and the difference of each arm to no intermediate training.

    records: those of `analysis.language_effects` of one encoder and target, by language.
    """
    arms = list(dict.fromkeys(r['intermediate'] for r in records))
    columns = (
        Column('Code'), Column('Language'), Column('Family'), Column('Script'), Column('Class'),
        Column('CC-100 GiB', 'count'), *(Column(name, 'delta') for name in arms),
    )  # fmt: skip
    lines = []
    for code in dict.fromkeys(r['language'] for r in records):
        mine = {r['intermediate']: r for r in records if r['language'] == code}
        first = next(iter(mine.values()))
        size = first.get('cc100_gib')
        facts = [first.get(name) for name in ('language_name', 'family', 'script', 'resource_level')]
        cells = [code, *facts, None if size is None else f'{size:g}']
        lines.append(Line((*cells, *(mine[name]['difference'] if name in mine else None for name in arms))))
    notes = ('Difference to no intermediate training in points, the mean over seeds. Click on a heading to sort.',)
    of = f', {encoder}' if encoder else ''
    return Table(f'{target}: effect by language{of}', columns, tuple(lines), notes, name=f'effects-{target}-languages')


def sortable(table: Table, notes: Notes | None = None) -> str:
    """The table as HTML that `SCRIPT` makes sortable, folded."""
    return (
        f'<details><summary>{len(table.lines)} languages</summary>\n<div class="sortable">\n'
        f'{html_table(table, notes, folded=True)}\n</div>\n</details>'
    )
