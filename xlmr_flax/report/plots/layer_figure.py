"""Figure of retrieval accuracy by layer: the mean over languages with the middle half of the languages, by encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from xlmr_flax.report.plots.canvas import PAPER, STYLES, new_figure, style, unique_legend
from xlmr_flax.report.rows import distinct, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
_BAND = (25, 75)  # percentiles over languages
_FEW_BANDS = 3  # more bands would hide each other


def layer_figure(rows: Sequence[Row]) -> Figure:
    """Accuracy by layer, a line for each name, with a band from the first to the third quartile of the languages.

    A row of panels for each target: between English and each language (mean of both directions), and many to many where
    all rows have it. English is left out. With more than three names the band is drawn for the first alone.
    """
    rows = [row for row in rows if not row.get('english')]
    targets, names = distinct(rows, 'target'), distinct(rows, 'name')
    measures: list[tuple[str, Callable[[Row], float]]] = [
        ('English ↔ language', lambda row: (row['accuracy'] + row['accuracy_to_en']) / 2)
    ]
    if any(row.get('many_to_many') is not None for row in rows):
        measures.append(('many to many', lambda row: row['many_to_many']))
    with style():
        figure = new_figure(1.0 + 3.7 * len(measures), 0.7 + 2.9 * len(targets))
        grid = figure.subplots(len(targets), len(measures), sharex=True, sharey='row', squeeze=False)
        for target, line in zip(targets, grid, strict=True):
            mine = select(rows, target=target)
            for axes, (title, value) in zip(line, measures, strict=True):
                field_there = [row for row in mine if title != 'many to many' or row.get('many_to_many') is not None]
                _panel(axes, field_there, names, value)
                axes.set_title(f'{target}: {title}')
            line[0].set_ylabel('accuracy (%)')
        for axes in grid[-1]:
            axes.set_xlabel('layer (0: embeddings)')
        said = 'line: mean over languages; band: middle half of the languages'
        figure.legend(
            *unique_legend(grid.flatten()),
            loc='outside lower center',
            ncols=3,
            fontsize=9,
            title=said,
            title_fontsize=8.5,
        )
    return figure


def _panel(axes: Axes, rows: Sequence[Row], names: Sequence[str], value: Callable[[Row], float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_visible(bool(rows))
    for place, name in enumerate(names):
        mine = select(rows, name=name)
        if not mine:
            continue
        layers = sorted(distinct(mine, 'layer'))
        by_layer = [_by_language([row for row in mine if row['layer'] == layer], value) for layer in layers]
        colour, marker, dash = STYLES[place % len(STYLES)]
        if len(names) <= _FEW_BANDS or place == 0:
            low, high = (np.asarray([np.percentile(each, q) for each in by_layer]) for q in _BAND)
            axes.fill_between(layers, low, high, color=colour, alpha=0.13, lw=0)
        count = max(map(len, by_layer))
        axes.plot(
            layers, [fmean(each) for each in by_layer], color=colour, ls=dash, lw=1.6, marker=marker, ms=5, mfc=PAPER,
            mew=1.3, label=f'{name} ({count} language{"s" * (count != 1)})',
        )  # fmt: skip
    axes.set_ylim(0, 100)
    axes.grid(visible=True)
    axes.margins(x=0.03)
    axes.xaxis.set_major_locator(MaxNLocator(13, integer=True))


def _by_language(rows: Sequence[Row], value: Callable[[Row], float]) -> list[float]:
    """The value of each language, the mean over the rows of several seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row['language'], []).append(value(row))
    return [fmean(each) for each in found.values()]
