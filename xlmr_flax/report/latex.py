"""Writes tables as LaTeX with booktabs, and a document of tables that compiles as it is.

A table that is too wide for a portrait page gets a smaller font, then landscape orientation, then is split into blocks
of columns that repeat the first column. A table that is too long is split into several tables.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from xlmr_flax.report.table import BLANK, MINUS, PARTIAL, Table

# Text width and height in points of the document that `latex_document` makes (A4, margins of 2 cm).
_WIDTH, _HEIGHT = 484.0, 731.0
_GAP = 4.0  # between columns, on either side of one (tabcolsep)
# font size -> (width of a character in points, for Computer Modern with room for bold ones; height of a line in points)
_SIZES = {r'\normalsize': (5.4, 12.0), r'\small': (4.9, 11.0), r'\footnotesize': (4.45, 9.5)}
_NEEDED = 'needs booktabs, graphicx, pdflscape, [T1]{fontenc}; see tables.tex'


@dataclass(frozen=True)
class _Page:
    size: str
    landscape: bool = False

    @property
    def width(self) -> float:
        return _HEIGHT if self.landscape else _WIDTH

    @property
    def height(self) -> float:
        return _WIDTH if self.landscape else _HEIGHT


_PAGES = [_Page(size, side) for side in (False, True) for size in _SIZES]


def latex_table(table: Table) -> str:
    """The table as one or several `table` environments with booktabs rules; needs the packages of `latex_document`."""
    widths, texts = _widths(table), _bold(table)
    page = next((p for p in _PAGES if _total(widths, p) <= p.width), _PAGES[-1])
    blocks = [(lines, columns) for columns in _columns_apart(widths, page) for lines in _lines_apart(table, page)]
    parts = []
    for number, (lines, columns) in enumerate(blocks, 1):
        title = table.title if len(blocks) == 1 else f'{table.title} ({number} of {len(blocks)})'
        notes = table.all_notes() if number == len(blocks) else ()
        parts.append(_environment(table, texts, lines, columns, title, page, notes))
    return '\n'.join(parts)


def latex_document(tables: Sequence[Table], title: str = '', notes: Sequence[str] = ()) -> str:
    """A complete LaTeX document of the tables, for pdflatex; each table can be copied out of it."""
    head = [
        r'\documentclass{article}',
        r'\usepackage[utf8]{inputenc}',
        r'\usepackage[T1]{fontenc}',
        r'\usepackage[a4paper,margin=2cm]{geometry}',
        r'\usepackage{booktabs}',
        r'\usepackage{graphicx}',
        r'\usepackage{pdflscape}',
        r'\begin{document}',
    ]
    if title:
        head.append(rf'\section*{{{latex(title)}}}')
    if notes:
        head += [r'\begin{itemize}', *(rf'\item {latex(note)}' for note in notes), r'\end{itemize}', r'\clearpage']
    bodies = [f'\n{latex_table(table)}\\clearpage' for table in tables]
    return '\n'.join([*head, *bodies, '', r'\end{document}']) + '\n'


def latex_fragment(table: Table) -> str:
    """One table as a file for \\input."""
    return f'% {_NEEDED}\n{latex_table(table)}'


def _widths(table: Table) -> list[int]:
    """Width of each column in characters. The last column of a group is widened if the group's name is too long."""
    texts = table.texts()
    spans = [table.span(i) for i in range(len(texts))]
    widths = [
        max([len(c.head), *(len(row[j]) for row, span in zip(texts, spans, strict=True) if j or span == 1)])
        for j, c in enumerate(table.columns)
    ]
    start = 0
    for name, count in table.groups():
        short = len(name) - sum(widths[start : start + count])
        if short > 0:
            widths[start + count - 1] += short
        start += count
    return widths


def _total(widths: Sequence[int], page: _Page) -> float:
    return sum(widths) * _SIZES[page.size][0] + 2 * _GAP * len(widths)


def _columns_apart(widths: Sequence[int], page: _Page) -> list[list[int]]:
    """Splits columns into blocks of about equal size that fit the page; every block starts with the first column."""
    every = list(range(len(widths)))
    if _total(widths, page) <= page.width or len(every) < 3:
        return [every]
    for count in range(2, len(every)):
        size = math.ceil((len(every) - 1) / count)
        blocks = [[0, *every[i : i + size]] for i in range(1, len(every), size)]
        if all(_total([widths[j] for j in block], page) <= page.width for block in blocks):
            return blocks
    return [[0, j] for j in every[1:]]


def _lines_apart(table: Table, page: _Page) -> list[list[int]]:
    """Splits lines into blocks of about equal size that fit the page with caption, head and notes."""
    every = list(range(len(table.lines)))
    notes = sum(math.ceil(len(note) * _SIZES[r'\footnotesize'][0] / page.width) for note in table.all_notes())
    height = page.height - 60 - min(notes * 9.5, page.height / 2)
    most = max(8, int(height / _SIZES[page.size][1] / 1.08) - 3)
    size = math.ceil(len(every) / math.ceil(len(every) / most)) if every else 1
    return [every[i : i + size] for i in range(0, len(every), size)] or [[]]


def _bold(table: Table) -> list[list[str]]:
    """The cells, escaped for LaTeX, with the marked (best) cells in bold."""
    marked = table.marked()
    return [
        [rf'\textbf{{{latex(c)}}}' if (i, j) in marked else latex(c) for j, c in enumerate(cells)]
        for i, cells in enumerate(table.texts())
    ]


def _environment(
    table: Table,
    texts: Sequence[Sequence[str]],
    lines: Sequence[int],
    columns: Sequence[int],
    title: str,
    page: _Page,
    notes: Sequence[str],
) -> str:
    spec = ''.join('l' if table.columns[j].kind == 'text' else 'r' for j in columns)
    heads = ' & '.join(latex(table.columns[j].head) for j in columns)
    body: list[str] = []
    for i in lines:
        if table.lines[i].mean and body and not table.lines[i - 1].mean:
            body.append(r'\midrule')
        cells = [texts[i][j] for j in columns]
        blank = [table.lines[i].cells[j] == BLANK for j in columns]
        span = next((k for k in range(1, len(cells)) if not blank[k]), len(cells))
        if span > 1:
            cells[:span] = [rf'\multicolumn{{{span}}}{{l}}{{{cells[0]}}}']
        body.append(' & '.join(cells) + r' \\')
    notes_text = ' '.join(latex(note) for note in notes)
    parts = [
        *([r'\begin{landscape}'] if page.landscape else []),
        r'\begin{table}[p]' if page.landscape else r'\begin{table}',
        r'\centering',
        rf'\caption{{{latex(title)}}}',
        rf'{page.size}\setlength{{\tabcolsep}}{{{_GAP:g}pt}}',
        r'\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%',
        rf'\begin{{tabular}}{{{spec}}}',
        r'\toprule',
        *_groups([table.columns[j].group for j in columns]),
        heads + r' \\',
        r'\midrule',
        *body,
        r'\bottomrule',
        r'\end{tabular}}',
        *([rf'\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes_text}}}'] if notes_text else []),
        r'\end{table}',
        *([r'\end{landscape}'] if page.landscape else []),
    ]
    return '\n'.join(parts) + '\n'


def _groups(names: Sequence[str]) -> list[str]:
    """The line of group names over their columns, and a rule under each."""
    if not any(names):
        return []
    groups = [(name, len(list(same))) for name, same in itertools.groupby(names)]
    cells = [rf'\multicolumn{{{width}}}{{c}}{{{latex(name)}}}' for name, width in groups]
    rules, start = [], 1
    for name, width in groups:
        if name:
            rules.append(rf'\cmidrule(lr){{{start}-{start + width - 1}}}')
        start += width
    return [' & '.join(cells) + r' \\', ''.join(rules)]


_LATEX = {
    '\\': r'\textbackslash{}', '{': r'\{', '}': r'\}', '&': r'\&', '%': r'\%', '$': r'\$', '#': r'\#', '_': r'\_',
    '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '<': r'\textless{}', '>': r'\textgreater{}',
    '|': r'\textbar{}', '"': r'\textquotedbl{}', '–': '--', '—': '---', MINUS: '$-$', '±': r'$\pm$', 'Δ': r'$\Delta$',
    '×': r'$\times$', '→': r'$\to$', PARTIAL: r'\textsuperscript{\dag}',
    '‡': r'\textsuperscript{\ddag}', '§': r'\textsuperscript{\S}', '’': "'", '‘': '`', '“': '``', '”': "''",
    '…': r'\ldots{}', '\n': ' ', '\t': ' ',
    '[': '{[}', ']': '{]}', '*': '{*}',  # after the \\ of a line, LaTeX would read them as arguments
}  # fmt: skip


def latex(value: str) -> str:
    """Escapes a text for pdflatex with T1 fonts. Letters without a glyph lose their diacritics or become U+XXXX."""
    return ''.join(_latex_character(c) for c in unicodedata.normalize('NFC', value))


def _latex_character(c: str) -> str:
    if c in _LATEX:
        return _LATEX[c]
    if ' ' <= c <= '~' or ('À' <= c <= 'ÿ' and c not in '×÷'):
        return c
    plain = ''.join(p for p in unicodedata.normalize('NFKD', c) if ' ' <= p <= '~')
    if plain:
        return ''.join(_LATEX.get(p, p) for p in plain)
    return '' if unicodedata.category(c) in ('Mn', 'Cf', 'Cc') else rf'\texttt{{U+{ord(c):04X}}}'
