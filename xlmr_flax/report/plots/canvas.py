"""Style of figures, and their output as SVG (for files and for pages) and PNG.

Light and dark mode: ink, grid and paper have fixed colours with no other use, which `inline` replaces by CSS variables.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 3  # at most this many panels in a row of a figure
INK, GRID, SOFT, PAPER, ACCENT = '#1b1f24', '#d3d7dc', '#5b636d', '#fefefe', '#0072b2'
VARIABLES = {
    INK: f'var(--ink, {INK})',
    GRID: f'var(--grid, {GRID})',
    SOFT: f'var(--soft, {SOFT})',
    PAPER: f'var(--paper, {PAPER})',
    ACCENT: f'var(--data, {ACCENT})',
}

# Okabe and Ito's colour-blind-safe colours, each with a marker and a dash pattern that identify a line without colour.
STYLES = [
    (ACCENT, 'o', '-'),
    ('#d55e00', 's', '--'),
    ('#009e73', '^', '-.'),
    ('#cc79a7', 'D', ':'),
    ('#e69f00', 'v', (0, (5, 1))),
    ('#56b4e9', 'P', (0, (3, 1, 1, 1))),
    ('#8a6d00', 'X', (0, (1, 1))),
]


def panels_across(number: int) -> int:
    """Returns how many panels a row of a figure has, for rows of nearly equal length."""
    return math.ceil(number / math.ceil(number / _PANELS))


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib settings; use them for drawing and for writing, because savefig does much of the drawing."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        'font.family': 'sans-serif',
        'font.sans-serif': ['DejaVu Sans', 'Verdana', 'sans-serif'],
        'font.size': 9.5,
        'svg.fonttype': 'none',
        'svg.hashsalt': 'xlmr_flax',
        'text.parse_math': False,
        'text.color': INK,
        'axes.labelcolor': INK,
        'axes.edgecolor': SOFT,
        'axes.titlesize': 10,
        'axes.titleweight': 'bold',
        'axes.titlelocation': 'left',
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.axisbelow': True,
        'axes.facecolor': 'none',
        'figure.facecolor': 'none',
        'xtick.color': SOFT,
        'ytick.color': SOFT,
        'xtick.labelcolor': INK,
        'ytick.labelcolor': INK,
        'grid.color': GRID,
        'grid.linewidth': 0.7,
        'legend.frameon': False,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A language name in a script that the font lacks is text in the SVG, so that the warning does not apply.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, with a layout that cuts no label."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


def svg(figure: Figure, label: str = '') -> str:
    """The figure as SVG; the output is deterministic. label: text for screen readers."""
    out = io.StringIO()
    with style():
        figure.savefig(out, format='svg', metadata={'Date': None, 'Creator': None, 'Type': None, 'Format': None})
    text = re.sub(r'\s*<metadata>.*?</metadata>', '', out.getvalue(), flags=re.DOTALL)
    attributes = f'role="img" aria-label="{html.escape(label)}"'
    return text.replace('<svg ', f'<svg {attributes} ', 1)


def inline(text: str, prefix: str) -> str:
    """An SVG for inclusion in a page: no prolog, `prefix` before every id, colours as CSS variables."""
    text = text[text.index('<svg ') :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{prefix}', text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG on a white background."""
    out = io.BytesIO()
    with style():
        figure.savefig(out, format='png', dpi=dpi, facecolor='white')
    return out.getvalue()


def unique_legend(grid: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Legend handles and labels of several axes, each label once."""
    handles: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return list(handles.values()), list(handles)
