"""How figures look and how they are written: the style, SVG for files and for pages, PNG.

Light and dark: ink and grid are fixed colours with no other use, which `svg(inline=True)` turns into CSS variables.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GRID, SOFT, PAPER, ACCENT = '#1b1f24', '#d3d7dc', '#5b636d', '#fefefe', '#0072b2'
VARIABLES = {
    INK: f'var(--ink, {INK})',
    GRID: f'var(--grid, {GRID})',
    SOFT: f'var(--soft, {SOFT})',
    PAPER: f'var(--paper, {PAPER})',
    ACCENT: f'var(--data, {ACCENT})',
}


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


def svg(figure: Figure, label: str = '', inline: bool = False, prefix: str = '') -> str:
    """The figure as SVG, the same for the same figure. label: what a screen reader says.

    inline: for a page: no prolog, `prefix` before every id (two figures share a page), colours as CSS variables.
    """
    out = io.StringIO()
    with style():
        figure.savefig(out, format='svg', metadata={'Date': None, 'Creator': None, 'Type': None, 'Format': None})
    text = re.sub(r'\s*<metadata>.*?</metadata>', '', out.getvalue(), flags=re.DOTALL)
    said = f'role="img" aria-label="{html.escape(label)}"'
    text = text.replace('<svg ', f'<svg {said} ', 1)
    if not inline:
        return text
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
