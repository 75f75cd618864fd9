"""A strip plot: the difference of each language, by arm and resource class.

Matplotlib is imported when needed; see canvas.py. The records are those of `analysis.language_effects` by language.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.plots.canvas import ACCENT, INK, PAPER, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
PANELS = 3  # at most this many panels in a row
_WIDTH = 0.62  # of a strip, in units of the distance between two strips
_GOLDEN = 0.618034
# Name of a strip -> whether a language belongs to it.
_STRIPS = (
    ('high', lambda r: r.get('resource_level') == 'high'),
    ('mid', lambda r: r.get('resource_level') == 'mid'),
    ('low', lambda r: r.get('resource_level') == 'low' and bool(r.get('cc100_gib'))),
    ('low, not\nin CC-100', lambda r: r.get('resource_level') == 'low' and not r.get('cc100_gib')),
)


def strips(records: Sequence[Record]) -> Figure | None:
    """Draws a panel for each arm of one target, with a strip for each resource class that has languages.

    The lowest and the highest language of a strip have their codes. Returns None without two strips.
    """
    arms = list(dict.fromkeys(r['intermediate'] for r in records))
    there = [(name, belongs) for name, belongs in _STRIPS if any(belongs(r) for r in records)]
    if len(there) < 2:
        return None
    across = min(len(arms), PANELS)
    down = math.ceil(len(arms) / across)
    with style():
        figure = new_figure(0.9 + 2.9 * across, 0.7 + 2.6 * down)
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, arm in zip(grid, arms, strict=False):
            for place, (_, belongs) in enumerate(there):
                _strip(axes, place, [r for r in records if r['intermediate'] == arm and belongs(r)])
            axes.axhline(0, color=INK, lw=0.8)
            axes.grid(visible=True, axis='y')
            axes.set_title(arm)
        for axes in grid[len(arms) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(arms) - across) : len(arms)]:  # the lowest panel of each column
            axes.tick_params(labelbottom=True)
        grid[0].set_xticks(range(len(there)), [name for name, _ in there])
        grid[0].set_xlim(-0.6, len(there) - 0.4)
        grid[0].margins(y=0.12)  # room for the codes
        figure.supxlabel('resource class; bar: mean of the class', fontsize=9.5)
        figure.supylabel(f'{records[0]["target"]}: difference (points)', fontsize=9.5)
    return figure


def _strip(axes: Axes, place: int, records: Sequence[Record]) -> None:
    if not records:
        return
    points = sorted(records, key=lambda r: r['difference'])
    # Neighbours in value are far apart across the strip, in the same way each time.
    x = [place + _WIDTH * ((number * _GOLDEN) % 1 - 0.5) for number in range(len(points))]
    y = [r['difference'] for r in points]
    axes.plot(x, y, 'o', ms=3.6, mfc=PAPER, mec=INK, mew=0.8, zorder=3)
    mean = fmean(y)
    axes.plot([place - _WIDTH / 2, place + _WIDTH / 2], [mean, mean], color=ACCENT, lw=2.4, zorder=4)
    for number, shift in {0: -9, len(points) - 1: 4}.items():
        axes.annotate(
            points[number]['language'], (x[number], y[number]), xytext=(0, shift), textcoords='offset points',
            fontsize=6.5, color=INK, ha='center',
        )  # fmt: skip
