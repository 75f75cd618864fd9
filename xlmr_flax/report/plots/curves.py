"""Draws training curves: loss and dev metric by step."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.plots.canvas import ACCENT, SOFT, STYLES, new_figure, style, unique_legend
from xlmr_flax.report.rows import NONE
from xlmr_flax.report.study import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Mapping[str, Any]
Line = tuple[list[int], list[float]]  # steps and values
Lines = dict[tuple[str, str], Line]  # (intermediate, run) -> line
FEW = 5  # at most this many intermediates share one panel
ACROSS = 4  # panels in a row
POINTS = 400  # about this many points of a line are drawn
LEAST = 5.0  # smallest range of a dev metric's axis, in points: a smaller range exaggerates differences


def training_curves(curves: Iterable[Curve], title: str = '', order: Sequence[str] = ()) -> Figure | None:
    """Training loss and dev metric by step, a line for each run; None if there is no point to draw.

    curves: dicts with run, intermediate, target, seed, step and loss, or metric and value, or both. Seeds of one
    intermediate share its style. Up to FEW intermediates share a panel, each with its colour, marker and dash pattern;
    more have a panel each, with 'none' in grey for comparison. A loss with many points is smoothed; the unsmoothed line
    is drawn in a pale colour. order: order of the intermediates.
    """
    points = list(curves)
    losses = _lines(points, 'loss')
    metrics = {name: _lines([p for p in points if p.get('metric') == name], 'value') for name in _metrics(points)}
    panels = ([('training loss', losses)] if losses else []) + [
        (f'dev {metric_name(name.removeprefix("dev "))} (%)', lines) for name, lines in metrics.items() if lines
    ]
    if not panels:
        return None
    there = {str(p.get('intermediate', '')) for p in points}
    known = [name for name in order if name in there]
    kinds = [*known, *sorted(there - set(known), key=lambda name: (name != NONE, name))]
    with style():
        figure = _together(panels, kinds) if len(kinds) <= FEW else _apart(panels, kinds)
        if title:
            apart = len(kinds) > FEW and NONE in kinds
            title += f' (dashed: {NONE!r}, for comparison)' * apart
            title = textwrap.fill(title, round(11 * figure.get_figwidth()))
            figure.suptitle(title, x=0.01, ha='left', fontsize=10, fontweight='bold')
    return figure


def _together(panels: Sequence[tuple[str, Lines]], kinds: Sequence[str]) -> Figure:
    figure = new_figure(1.0 + 3.6 * len(panels), 3.3)
    grid = figure.subplots(1, len(panels), sharex=True, squeeze=False).flatten()
    for axes, (label, lines) in zip(grid, panels, strict=True):
        for (kind, run), line in lines.items():
            place = kinds.index(kind)
            colour, marker, dash = STYLES[place % len(STYLES)]
            few = marker if len(line[0]) <= 25 else ''
            # Open markers, each smaller than the one before, so that equal points stay visible.
            size = 4 + 2.5 * (len(kinds) - 1 - place)
            _draw(axes, line, colour, ls=dash, marker=few, ms=size, mfc='none', mew=1.4, lw=1.4, label=kind or run)
        axes.set(xlabel='training step', ylabel=label)
        _tidy(axes)
    for axes, (label, lines) in zip(grid, panels, strict=True):
        _widen([axes], {**lines, **panels[0][1]}, label.endswith('(%)'))
    figure.legend(*unique_legend(grid), loc='outside lower right', ncols=5, fontsize=9)  # a title may be long
    return figure


def _apart(panels: Sequence[tuple[str, Lines]], kinds: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    down = math.ceil(len(kinds) / ACROSS)
    width, height = 1.0 + 2.2 * ACROSS, 0.3 + (0.85 + 1.5 * down) * len(panels)
    figure = Figure(figsize=(width, height))  # laid out by hand: the constrained layout takes seconds for 30 panels
    parts = figure.add_gridspec(
        len(panels), 1, left=0.75 / width, right=0.99, bottom=0.5 / height, top=1 - 0.55 / height, hspace=0.5 / down
    )
    for i, (label, lines) in enumerate(panels):
        cells = parts[i].subgridspec(down, ACROSS, wspace=0.08, hspace=0.32)
        grid = list(cells.subplots(sharex=True, sharey=True, squeeze=False).flatten())
        for axes, kind in zip(grid, kinds, strict=False):
            if kind != NONE:
                _draw_kind(axes, lines, NONE, SOFT, ls=(0, (3, 1)), lw=1.0, faint=False)
            _draw_kind(axes, lines, kind, ACCENT, ls='-', lw=1.3)
            axes.set_title(kind, fontsize=9, fontweight='normal', pad=3)
            axes.locator_params(nbins=4)
            _tidy(axes, nbins=4)
        _widen(grid, lines, label.endswith('(%)'))
        for axes in grid[len(kinds) :]:
            axes.set_visible(False)
        for number, axes in enumerate(grid[: len(kinds)]):
            if number + ACROSS >= len(kinds):  # the lowest of its column
                axes.tick_params(labelbottom=True)
                axes.set_xlabel('training step', fontsize=8.5)
            if number % ACROSS == 0:
                axes.set_ylabel(label, fontsize=8.5)
    return figure


def _draw_kind(axes: Axes, lines: Lines, kind: str, colour: str, **look: Any) -> None:
    for (name, _), line in lines.items():
        if name == kind:
            _draw(axes, line, colour, **look)


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over a thirtieth of the points on either side; unchanged for less than 30 points."""
    reach = len(values) // 30
    sums = [0.0, *itertools.accumulate(values)]
    spans = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans] if reach else list(values)


def _draw(axes: Axes, line: Line, colour: str, faint: bool = True, **look: Any) -> None:
    steps, values = line
    if len(steps) == 1:  # a line of one point is invisible
        look = {'marker': 'o', 'ms': 4, **look}
    smoothed = smooth(values)
    if faint and smoothed != values:
        thin = max(1, len(steps) // POINTS)
        axes.plot(steps[::thin], values[::thin], color=colour, lw=0.5, alpha=0.3)
    thin = max(1, len(steps) // POINTS)
    axes.plot(steps[::thin], smoothed[::thin], color=colour, **look)


def _tidy(axes: Axes, nbins: int = 7) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.grid(visible=True)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins, integer=True))
    axes.ticklabel_format(axis='x', style='plain', useOffset=False)
    axes.ticklabel_format(axis='y', useOffset=False)


def _widen(grid: Sequence[Axes], lines: Lines, percent: bool) -> None:
    """Widens axes around a single point or tiny differences, which would be exaggerated otherwise.

    Call it after drawing: a limit applies to all axes that share it, and to everything drawn later.
    """
    steps = {step for at, _ in lines.values() for step in at}
    if len(steps) == 1:
        grid[0].set_xlim(0, 1.25 * max(steps) or 1)
    low, high = grid[0].get_ylim()
    if percent and high - low < LEAST:
        grid[0].set_ylim((low + high - LEAST) / 2, (low + high + LEAST) / 2)


def _metrics(points: Sequence[Curve]) -> list[str]:
    return list(dict.fromkeys(p['metric'] for p in points if p.get('metric') and p.get('value') is not None))


def _lines(points: Sequence[Curve], field: str) -> Lines:
    """{(intermediate, run): (steps, values)} in the order of steps; the last value of a step counts."""
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for point in points:
        value = point.get(field)
        if value is not None and math.isfinite(value):
            lines.setdefault((str(point.get('intermediate', '')), str(point['run'])), {})[point['step']] = value
    return {key: (sorted(at), [at[step] for step in sorted(at)]) for key, at in lines.items()}
