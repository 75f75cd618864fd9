"""The table type, and its output as Markdown and CSV. LaTeX is in latex.py, HTML in html_table.py."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from xlmr_flax.report.rows import Score

MISSING = '–'
BLANK = ' '  # an empty cell that is not a missing value, as in the rows of means
MINUS = '−'
PARTIAL = '†'
PARTIAL_NOTE = f'{PARTIAL} over fewer languages or seeds than the other columns have: not to be compared with them.'

Cell = str | int | float | Score | None
Kind = Literal['text', 'count', 'score', 'delta']


@dataclass(frozen=True)
class Column:
    """A column. head: one word. group: heading that neighbouring columns share, written once above them.

    kind: 'text' is left-aligned; 'count' is an integer or a text like '100–150'; 'score' is a number with fixed
    decimals; 'delta' is the same with its sign. best: the column takes part in marking the highest value. order: the
    texts of the column in the order in which a page sorts them, if that is not the alphabetical one.
    """

    head: str
    kind: Kind = 'text'
    group: str = ''
    decimals: int = 1
    best: bool = False
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A row. mean: separated from the rows above it, because it is their average or the best of them."""

    cells: tuple[Cell, ...]
    mean: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    best: mark the highest value of each 'row' or of each 'column' (without rows of means); '' marks none. bold: mark
    these cells instead. name: file name. hints: (line, column) -> source of the cell's number. sortable: in the page,
    a reader can sort and filter it.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    best: Literal['row', 'column', ''] = ''
    name: str = ''
    hints: Mapping[tuple[int, int], str] = field(default_factory=dict)
    bold: frozenset[tuple[int, int]] | None = None
    sortable: bool = False

    def __post_init__(self) -> None:
        for line in self.lines:
            if len(line.cells) != len(self.columns):
                raise ValueError(f'table {self.title!r}: {len(line.cells)} cells for {len(self.columns)} columns')

    def texts(self) -> list[list[str]]:
        """The cells as texts, unescaped."""
        return [[text(cell, c) for cell, c in zip(line.cells, self.columns, strict=True)] for line in self.lines]

    def marked(self) -> set[tuple[int, int]]:
        """(line, column) of the best cells: the highest printed value, so that all ties are marked."""
        if self.bold is not None:
            return set(self.bold)
        if not self.best:
            return set()
        shown = {
            (i, j): float(text(Score(score.mean), column).replace(MINUS, '-'))
            for i, line in enumerate(self.lines)
            for j, (cell, column) in enumerate(zip(line.cells, self.columns, strict=True))
            if column.best and (score := as_score(cell)) is not None and not score.partial
            if self.best == 'row' or not line.mean
        }
        axis = 0 if self.best == 'row' else 1
        found: set[tuple[int, int]] = set()
        for group in {place[axis] for place in shown}:
            rivals = {place: value for place, value in shown.items() if place[axis] == group}
            if len(set(rivals.values())) > 1:
                found |= {place for place, value in rivals.items() if value == max(rivals.values())}
        return found

    def span(self, line: int) -> int:
        """Number of columns that the first cell of a line spans: itself and the blank cells after it."""
        cells = self.lines[line].cells
        return next((j for j in range(1, len(cells)) if cells[j] != BLANK), len(cells))

    def groups(self) -> list[tuple[str, int]]:
        """(group, number of neighbouring columns in it), from the left; [] when no column is in a group."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found if any(name for name, _ in found) else []

    def all_notes(self) -> tuple[str, ...]:
        """The notes, plus notes on bold cells and on partial scores, if the table has them."""
        partial = any(isinstance(cell, Score) and cell.partial for line in self.lines for cell in line.cells)
        meaning = 'the highest of its row' if self.best == 'row' else 'the highest of its column'
        meaning = 'the highest score of its column' if self.bold is not None else meaning
        more = [f'Bold: {meaning}.'] if self.marked() else []
        return (*self.notes, *more, *([PARTIAL_NOTE] if partial else []))

    def markdown(self) -> str:
        """The table in GitHub's Markdown, after its title in bold; columns are padded to be readable as plain text."""
        marked = self.marked()
        grid = [[markdown(column_name(column)) for column in self.columns]]
        for i, cells in enumerate(self.texts()):
            escaped = [f'**{markdown(c)}**' if (i, j) in marked else markdown(c) for j, c in enumerate(cells)]
            if self.lines[i].mean:
                escaped[0] = f'*{escaped[0]}*'
            grid.append(escaped)
        widths = [max(3, *(len(row[j]) for row in grid)) for j in range(len(self.columns))]
        right = [column.kind != 'text' for column in self.columns]
        rules = ['-' * (w - 1) + ':' if r else '-' * w for w, r in zip(widths, right, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
            return f'| {" | ".join(padded)} |'

        parts = [f'**{markdown(self.title)}**', '', line(grid[0]), line(rules), *map(line, grid[1:])]
        parts += ['', *(f'- {markdown(note)}' for note in self.all_notes())] if self.all_notes() else []
        return '\n'.join(parts) + '\n'

    def csv(self) -> str:
        """The table as CSV with a head line: plain numbers; a missing value is empty; a spread is a separate column."""
        spread = [any(_sd(line.cells[j]) is not None for line in self.lines) for j in range(len(self.columns))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator='\n')
        heads = [column_name(column) for column in self.columns]
        writer.writerow([h for head, s in zip(heads, spread, strict=True) for h in [head, f'{head} sd'][: 1 + s]])
        for line in self.lines:
            cells: list[str] = []
            for cell, column, has_sd in zip(line.cells, self.columns, spread, strict=True):
                cells += _plain(cell, column, has_sd)
            writer.writerow(cells)
        return out.getvalue()


def as_score(cell: Cell) -> Score | None:
    """Converts a number to a Score; None for a text or a missing value."""
    if isinstance(cell, Score):
        return cell
    return Score(float(cell)) if isinstance(cell, int | float) else None


def text(cell: Cell, column: Column) -> str:
    """Formats a cell: 71.3, 71.3 ± 0.4, +2.0, −0.4, 1,000, – for a missing value."""
    if cell is None or cell == '':
        return MISSING
    if isinstance(cell, str):
        return cell
    if column.kind == 'count' and isinstance(cell, int):
        return f'{cell:,}'
    score = as_score(cell)
    assert score is not None
    shown = signed(score.mean, column.decimals, plus=column.kind == 'delta')
    if score.sd is not None:
        shown += f' ± {fixed(score.sd, column.decimals)}'
    return shown + PARTIAL * score.partial + score.mark


def fixed(value: float, decimals: int = 1, sign: str = '-') -> str:
    """Formats a number with a fixed number of decimals. sign: '+' writes the plus sign.

    Means of accuracies often lie half-way between two numbers (5.875). The value is rounded to nine decimals first, so
    that its last digits, which differ between processors, do not decide.
    """
    return f'{round(value, 9):{sign}.{decimals}f}'


def signed(value: float, decimals: int = 1, plus: bool = True) -> str:
    """Formats a number with its sign: +2.0, −0.4, and 0.0 if it rounds to zero. plus: write the plus sign."""
    number = fixed(value, decimals, '+' if plus else '-')
    return number.lstrip('+-') if not float(number) else number.replace('-', MINUS)


def column_name(column: Column) -> str:
    """Group and head of a column in one text, for formats with a single head line."""
    return f'{column.group} {column.head}' if column.group else column.head


def _sd(cell: Cell) -> float | None:
    return cell.sd if isinstance(cell, Score) else None


def _plain(cell: Cell, column: Column, has_sd: bool) -> list[str]:
    if isinstance(cell, Score | float):
        value = fixed(cell.mean if isinstance(cell, Score) else cell, column.decimals)
    else:
        value = '' if cell is None else str(cell).strip()
    sd = _sd(cell)
    return [value, '' if sd is None else fixed(sd, column.decimals)][: 1 + has_sd]


def markdown(value: str) -> str:
    """Escapes a text for GitHub's Markdown, on one line."""
    for mark in ('\\', '|', '*', '_', '`', '<', '>', '[', ']'):
        value = value.replace(mark, '\\' + mark)
    return ' '.join(value.split())
