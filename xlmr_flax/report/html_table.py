"""A table in HTML: a box that scrolls sideways, so that no column is cut, and for every number where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from xlmr_flax.report.table import MISSING, Table

WIDE, WIDER = 9, 12  # columns beyond which a table is set smaller, and smaller still


def html_table(table: Table) -> str:
    """Its title, a <table> in a box that scrolls sideways, and its notes."""
    marked, groups, title = table.marked(), table.groups(), escape(table.title)
    out = [f'<h3>{title}</h3>', f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">']
    wide = html_class(len(table.columns) > WIDE and 'wide', len(table.columns) > WIDER and 'wider')
    out += [f'<table{wide} aria-label="{title}">', '<thead>']
    if groups:
        named = ' class="named" scope="colgroup"'
        cells = [f'<th colspan="{n}"{named if g else ""}><span>{escape(g)}</span></th>' for g, n in groups]
        out.append(f'<tr class="groups">{"".join(cells)}</tr>')
    heads = [f'<th scope="col"{html_class(c.kind != "text" and "number")}>{escape(c.head)}</th>' for c in table.columns]
    out += [f'<tr>{"".join(heads)}</tr>', '</thead>', '<tbody>']
    for i, (line, cells) in enumerate(zip(table.lines, table.texts(), strict=True)):
        first = line.mean and i and not table.lines[i - 1].mean
        out.append(f'<tr{html_class(line.mean and "mean", first and "first")}>')
        span = table.span(i)
        spanned = f' colspan="{span}"' if span > 1 else ''
        out.append(f'<th scope="row"{spanned}>{escape(cells[0])}</th>')
        for j in range(span, len(cells)):
            numeric = table.columns[j].kind != 'text' and 'number'
            # A name among numbers may be broken, so that it does not widen the column.
            name = numeric and isinstance(line.cells[j], str) and not any(c.isdigit() for c in cells[j][:1]) and 'name'
            names = html_class(numeric, (i, j) in marked and 'best', cells[j] == MISSING and 'missing', name)
            hint = table.hints.get((i, j), '')
            title_of = f' title="{escape(hint)}"' if hint and cells[j] != MISSING else ''
            out.append(f'<td{names}{title_of}>{escape(cells[j])}</td>')
        out.append('</tr>')
    out += ['</tbody>', '</table>', '</div>']
    return '\n'.join(out) + html_list(table.all_notes(), 'notes')


def html_list(items: Sequence[str], name: str) -> str:
    """A <ul> of texts, '' for none."""
    return f'<ul{html_class(name)}>{"".join(f"<li>{escape(str(item))}</li>" for item in items)}</ul>' if items else ''


def html_class(*names: Any) -> str:
    """A class attribute of the names that are there, '' for none."""
    there = ' '.join(name for name in names if name)
    return f' class="{there}"' if there else ''
