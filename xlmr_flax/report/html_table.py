"""Writes a table as HTML: it scrolls sideways, so that no column is cut, and tooltips name each number's source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from xlmr_flax.report.table import MISSING, Column, Table

SHORT = 50  # a note of at most this many characters is repeated instead of referred to by number
WIDE, WIDER = 9, 12  # tables with more columns get a smaller font, and a still smaller one


class Notes:
    """The notes of a page: a note is printed where it first applies; later uses refer to its number.

    `numbered` assigns numbers when the page is complete, only to notes that are referred to. A note that was printed
    only in a folded section is printed again outside it.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._used: set[int] = set()

    def html(self, notes: Sequence[str], name: str = 'notes', folded: bool = False) -> str:
        """A <ul> of the new notes, with one item that refers to the known ones."""
        items, known = [], []
        for note in dict.fromkeys(notes):
            if note in self._places and len(note) > SHORT:
                known.append(self._places[note])
            elif folded or note in self._places:
                items.append(f'<li>{escape(note)}</li>')
            else:
                place = self._places[note] = len(self._places)
                items.append(f'<li\0{place}\0>{escape(note)}</li>')
        if known:
            self._used |= set(known)
            items.append(f'<li>As above: {", ".join(f"{chr(1)}{place}{chr(1)}" for place in known)}.</li>')
        return f'<ul{html_class(name)}>{"".join(items)}</ul>' if items else ''

    def numbered(self, page: str) -> str:
        """The complete page with the numbers of its notes inserted."""
        numbers = {place: i for i, place in enumerate(sorted(self._used), 1)}

        def first(match: re.Match[str]) -> str:
            number = numbers.get(int(match[1]))
            return f' id="note-{number}"><b>[{number}]</b> ' if number else '>'

        def again(match: re.Match[str]) -> str:
            number = numbers[int(match[1])]
            return f'<a href="#note-{number}">[{number}]</a>'

        return re.sub('\1(\\d+)\1', again, re.sub('\0(\\d+)\0>', first, page))


def html_table(table: Table, notes: Notes | None = None, folded: bool = False) -> str:
    """The table as HTML: its title, a <table> that scrolls sideways, and its notes. notes: those of the page."""
    marked, groups, title = table.marked(), table.groups(), escape(table.title)
    out = ['<div class="sortable">'] if table.sortable else []  # what by_language.SCRIPT looks for
    out += [f'<h3>{title}</h3>', f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">']
    wide = html_class(len(table.columns) > WIDE and 'wide', len(table.columns) > WIDER and 'wider')
    out += [f'<table{wide} aria-label="{title}">', '<thead>']
    if groups:
        named = ' class="named" scope="colgroup"'
        cells = [f'<th colspan="{n}"{named if g else ""}><span>{escape(g)}</span></th>' for g, n in groups]
        out.append(f'<tr class="groups">{"".join(cells)}</tr>')
    out += [f'<tr>{"".join(map(_head, table.columns))}</tr>', '</thead>', '<tbody>']
    for i, (line, cells) in enumerate(zip(table.lines, table.texts(), strict=True)):
        first = line.mean and i and not table.lines[i - 1].mean
        out.append(f'<tr{html_class(line.mean and "mean", first and "first")}>')
        span = table.span(i)
        spanned = f' colspan="{span}"' if span > 1 else ''
        out.append(f'<th scope="row"{spanned}>{escape(cells[0])}</th>')
        for j in range(span, len(cells)):
            numeric = table.columns[j].kind != 'text' and 'number'
            # A name in a column of numbers may wrap, so that it does not widen the column.
            name = numeric and isinstance(line.cells[j], str) and not any(c.isdigit() for c in cells[j][:1]) and 'name'
            names = html_class(numeric, (i, j) in marked and 'best', cells[j] == MISSING and 'missing', name)
            hint = table.hints.get((i, j), '')
            title_of = f' title="{escape(hint)}"' if hint and cells[j] != MISSING else ''
            out.append(f'<td{names}{title_of}>{escape(cells[j])}</td>')
        out.append('</tr>')
    out += ['</tbody>', '</table>', '</div>', *(['</div>'] if table.sortable else [])]
    # The notes say bold. Here the rows of means are bold as well, and the style sheet makes the highest score blue.
    all_notes = [re.sub('^Bold: ', 'Blue: ', note) for note in table.all_notes()]
    return '\n'.join(out) + (notes.html(all_notes, folded=folded) if notes else html_list(all_notes, 'notes'))


def _head(column: Column) -> str:
    order = f' data-order="{escape(" ".join(column.order))}"' if column.order else ''
    return f'<th scope="col"{html_class(column.kind != "text" and "number")}{order}>{escape(column.head)}</th>'


def html_list(items: Sequence[str], name: str) -> str:
    """A <ul> of texts, '' if there are none."""
    return f'<ul{html_class(name)}>{"".join(f"<li>{escape(str(item))}</li>" for item in items)}</ul>' if items else ''


def html_class(*names: Any) -> str:
    """A class attribute of the names that are not empty, '' if there are none."""
    there = ' '.join(name for name in names if name)
    return f' class="{there}"' if there else ''
