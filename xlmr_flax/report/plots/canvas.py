"""How figures look and how they are written: the style, SVG for files and for pages, PNG.

Light and dark: ink and grid are fixed colours with no other use, which `svg(inline=True)` turns into CSS variables.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, SOFT, PAPER, ACCENT = '#1b1f24', '#d3d7dc', '#5b636d', '#fefefe', '#0072b2'
VARIABLES = {
    INK: f'var(--ink, {INK})',
    GRID: f'var(--grid, {GRID})',
    SOFT: f'var(--soft, {SOFT})',
    PAPER: f'var(--paper, {PAPER})',
    ACCENT: f'var(--data, {ACCENT})',
}

# Okabe and Ito's colours for the colour-blind, each with a marker and a dash pattern that do without the colour.
STYLES = [
    (ACCENT, 'o', '-'),
    ('#d55e00', 's', '--'),
    ('#009e73', '^', '-.'),
    ('#cc79a7', 'D', ':'),
    ('#e69f00', 'v', (0, (5, 1))),
    ('#56b4e9', 'P', (0, (3, 1, 1, 1))),
    ('#8a6d00', 'X', (0, (1, 1))),
]


@contextmanager
def style() -> Iterator[None]:
    """Settings for drawing and for writing, which is when much of the drawing happens."""
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
        # A language's name in a script that the font lacks is still text in the SVG.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, laid out so that no label is cut."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout='constrained')


def svg(figure: Figure, label: str = '') -> str:
    """The figure as SVG, the same for the same figure. label: what a screen reader says."""
    out = io.StringIO()
    with style():
        figure.savefig(out, format='svg', metadata={'Date': None, 'Creator': None, 'Type': None, 'Format': None})
    text = re.sub(r'\s*<metadata>.*?</metadata>', '', out.getvalue(), flags=re.DOTALL)
    said = f'role="img" aria-label="{html.escape(label)}"'
    return text.replace('<svg ', f'<svg {said} ', 1)


def inline(text: str, prefix: str) -> str:
    """An SVG for a page: no prolog, `prefix` before every id (two figures share a page), colours as CSS variables."""
    text = text[text.index('<svg ') :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{prefix}', text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG on white."""
    out = io.BytesIO()
    with style():
        figure.savefig(out, format='png', dpi=dpi, facecolor='white')
    return out.getvalue()


def unique_legend(grid: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Handles and labels of several axes, each label once."""
    found: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
