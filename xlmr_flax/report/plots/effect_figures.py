"""Figures of effects by language: a forest plot of arms, and effects against language size; legible without colour.

Matplotlib is imported when needed; see canvas.py. The records are those of `analysis.language_effects`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.plots.canvas import (
    ACCENT,
    GRID,
    INK,
    PAPER,
    SOFT,
    new_figure,
    panels_across,
    style,
    unique_legend,
)
from xlmr_flax.report.study import metric_name
from xlmr_flax.report.table import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
_FOREST = (('all', ACCENT, ACCENT, -0.14), ('low-resource', PAPER, INK, 0.14))
_NOTHING = 0.05  # points: smaller differences print as 0.0
_APART = 0.38  # decades between the columns of languages that are not in CC-100
_COLUMNS = 4  # number of these columns
_WIDEST = 105  # points: limit of the axis; a difference of scores cannot be larger, an interval can
_EDGE = 0.8  # decades of margin left and right
_TICKS = (0.05, 0.3, 1, 3, 10, 30, 100)


def forest(records: Sequence[Record], power: Sequence[Record] = ()) -> Figure:
    """Forest plot: arms as rows, a panel for each target, the difference to no intermediate training with its interval.

    Differences are over all languages and over low-resource ones. power: records with the smallest detectable
    difference of some arms; a grey area in the rows of these arms shows it.
    """
    targets = list(dict.fromkeys(r['target'] for r in records))
    arms = list(dict.fromkeys(r['intermediate'] for r in records))
    across = panels_across(len(targets))
    down = math.ceil(len(targets) / across)
    with style():
        figure = new_figure(1.7 + 2.7 * across, down * (1.0 + 0.34 * len(arms)) + 0.5)
        grid = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
        for axes, target in zip(grid, targets, strict=False):
            mine = [r for r in records if r['target'] == target]
            reach = {
                arm: r['smallest']
                for r in power
                if (r['target'], r['group']) == (target, 'all') and r['smallest'] >= _NOTHING
                for arm in r['arms'].split('+')
            }
            _forest_panel(axes, mine, arms, reach)
            if max(abs(r[end]) for r in mine for end in ('low', 'high')) < _NOTHING:
                axes.set_xlim(-1, 1)
            least, most = axes.get_xlim()
            axes.set_xlim(max(least, -_WIDEST), min(most, _WIDEST))
            axes.set_title(f'{target} ({metric_name(mine[0]["metric"])})')
        for axes in grid[len(targets) :]:
            axes.set_visible(False)
        grid[0].set_yticks(range(len(arms)), arms)
        grid[0].set_ylim(len(arms) - 0.5, -0.5)
        figure.supxlabel('difference from no intermediate training (points), 95 % interval', fontsize=9.5)
        figure.legend(*unique_legend(grid), loc='outside upper right', ncols=3, fontsize=9)
    return figure


def _forest_panel(axes: Axes, records: Sequence[Record], arms: Sequence[str], reach: Mapping[str, float]) -> None:
    for arm, smallest in reach.items():
        axes.barh(arms.index(arm), 2 * smallest, 1.0, -smallest, color=GRID, alpha=0.45, lw=0, label='below 80 % power')
    axes.axvline(0, color=INK, lw=1)
    for group, face, edge, shift in _FOREST:
        mine = [r for r in records if r['group'] == group]
        for r in mine:
            error = [[r['estimate'] - r['low']], [r['high'] - r['estimate']]]
            axes.errorbar(
                r['estimate'], arms.index(r['intermediate']) + shift, xerr=error, fmt='o' if group == 'all' else 'D',
                ms=5, mfc=face, mec=edge, mew=1.2, ecolor=edge, elinewidth=1.3, capsize=2.5, zorder=3,
                label=f'{group} languages',
            )  # fmt: skip
    axes.grid(visible=True, axis='x')
    axes.tick_params(axis='y', length=0)


def line_panels(records: Sequence[Record]) -> Figure:
    """Differences by language against CC-100 size, with regression line and band; one target, a panel for each arm."""
    across = panels_across(len(records))
    down = math.ceil(len(records) / across)
    with style():
        figure = new_figure(max(5.2, 0.9 + 2.9 * across), 0.7 + 2.5 * down)
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, record in zip(grid, records, strict=False):
            _line_panel(axes, record)
        for axes in grid[len(records) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(records) - across) : len(records)]:  # the lowest panel of each column
            axes.tick_params(labelbottom=True)
        least, most = _reach(records)
        ticks = [t for t in _TICKS if least - _EDGE <= math.log10(t) <= most + _EDGE]
        names = ['none' if t == _TICKS[0] else f'{t:g}' for t in ticks]
        grid[0].set_xticks([math.log10(t) for t in ticks], names)
        grid[0].set_xlim(least - _EDGE, most + _EDGE)
        figure.supxlabel('size in CC-100 (GiB, logarithmic); grey: 95 % band, cut at the edge', fontsize=9.5)
        figure.supylabel(f'{records[0]["target"]}: difference (points)', fontsize=9.5)
        grid[0].set_ylim(*_height(records))
    return figure


def _height(records: Sequence[Record]) -> tuple[float, float]:
    """y limits that show every language and line. Bands are cut: they can be so wide that languages would overlap."""
    values = [y for record in records for _, _, y in record['points']]
    values += [middle for record in records for _, middle, _, _ in record['at']] + [0.0]
    room = max(0.2 * (max(values) - min(values)), 1.0)
    return min(values) - room, max(values) + room


def _reach(records: Sequence[Record]) -> tuple[float, float]:
    sizes = [x for record in records for _, x, _ in record['points']]
    return min(sizes), max(sizes)


def _spread(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float, bool]]:
    """(code, x, y, not in CC-100). Languages that are not in CC-100 share one x; they are spread over several columns,
    ordered by y, so that their names are readable."""
    least = math.log10(_TICKS[0])
    alone = sorted((p for p in points if p[1] <= least + 1e-9), key=lambda p: p[2])
    middle = (_COLUMNS - 1) / 2
    apart = [(code, x + _APART * (i % _COLUMNS - middle), y, True) for i, (code, x, y) in enumerate(alone)]
    return apart + [(code, x, y, False) for code, x, y in points if x > least + 1e-9]


def _line_panel(axes: Axes, record: Record) -> None:
    x, middle, low, high = zip(*record['at'], strict=True)
    axes.axhline(0, color=INK, lw=0.8)
    axes.fill_between(x, low, high, color=GRID, alpha=0.55, lw=0)
    axes.plot(x, low, color=SOFT, lw=0.7, ls=':')
    axes.plot(x, high, color=SOFT, lw=0.7, ls=':')
    axes.plot(x, middle, color=ACCENT, lw=1.6)
    for code, at, value, unseen in _spread(record['points']):
        axes.plot(at, value, 'o', ms=4, mfc=PAPER if unseen else INK, mec=INK, mew=0.9, zorder=3)
        axes.annotate(code, (at, value), xytext=(3, 2), textcoords='offset points', fontsize=6.5, color=INK)
    axes.set_title(f'{record["intermediate"]}: {signed(record["slope"])} per factor of 10')
    axes.grid(visible=True)
