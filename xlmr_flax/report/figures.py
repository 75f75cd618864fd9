"""Figures of result rows and training curves, as SVG or PNG. Matplotlib's Agg and SVG writers, imported when needed.

Each function returns a matplotlib Figure; `svg` and `png` turn it into what can be written. Nothing here touches
pyplot or keeps state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.canvas import ACCENT, INK, PAPER, SOFT, new_figure, png, style, svg
from xlmr_flax.report.rows import (
    NONE,
    Row,
    RowsError,
    Score,
    Values,
    columns,
    delta,
    distinct,
    facts,
    languages,
    latest,
    major_metric,
    over_seeds,
    scored,
)
from xlmr_flax.report.table import signed
from xlmr_flax.report.tables import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
GAIN, LOSS = (0.35, 0.65, 0.90), (0.96, 0.62, 0.35)  # a cell's colour at the largest difference
PANELS = 3  # at most this many beside each other
Curve = Mapping[str, Any]


def dumbbells(
    rows: Iterable[Row],
    target: str,
    metric: str | None = None,
    split: str | None = None,
    encoder: str | None = None,
    sort: str = 'resource',
) -> Figure:
    """Score by language with and without each intermediate task: a panel for each, a line from 'none' to it.

    sort: 'resource' (as in the tables) or 'delta' (largest mean gain first). encoder: the first in the rows if None.
    Raises RowsError when there is no such row.
    """
    chosen = scored(rows, target, metric, split)
    encoder = encoder or chosen[0]['encoder']
    found = {name: values for (e, name), values in columns(chosen).items() if e == encoder}
    if not found:
        raise RowsError(f'no rows of target {target!r} with encoder {encoder!r}')
    codes = _sorted_languages(chosen, found, sort)
    names = [name for name in found if name != NONE] or [NONE]
    across = min(len(names), PANELS)
    down = math.ceil(len(names) / across)
    with style():
        figure = new_figure(7.2 if across == 1 else 1.9 + 3.1 * across, down * (1.25 + 0.235 * len(codes)))
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        chance = _chance(chosen)
        near = chance is not None and _is_near(chance, found)
        for axes, name in zip(grid, names, strict=False):
            _dumbbell_panel(axes, codes, found.get(NONE, {}), found[name], name)
            change = delta(found[name], found.get(NONE, {}), languages(chosen, zero_shot=True))
            gain = f': {signed(change.mean)} zero-shot' if change and name != NONE else ''
            axes.set_title(name + gain)
            if near:
                axes.axvline(chance, color=INK, lw=1, ls=(0, (4, 3)), label=f'chance ({chance:.1f} %)')
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        grid[0].set_yticks(range(len(codes)), _labels(chosen, codes))
        grid[0].set_ylim(len(codes) - 0.4, -0.6)
        grid[0].set_xlim(*_limits(found, chance if near else None))
        far = f'; chance ({chance:.1f} %) lies outside' if chance is not None and not near else ''
        spread = '; whiskers: sd over seeds' if len(distinct(chosen, 'seed')) > 1 else ''
        axis = f'{target}: {metric_name(chosen[0]["metric"])} (%), {chosen[0]["split"]} split{spread}{far}'
        figure.supxlabel(axis, fontsize=9.5)
        figure.legend(*_unique_legend(grid), loc='outside upper right', ncols=4, fontsize=9)
    return figure


def delta_heatmap(
    rows: Iterable[Row], encoder: str | None = None, metrics: Mapping[str, str] | None = None
) -> Figure | None:
    """Differences to 'none' in points: languages down, intermediates across, grouped by target; the means last.

    The number stands in every cell; colours are light enough for black text, and losses are hatched, so that the figure
    can be printed in black and white. None when nothing can be compared.
    """
    rows = latest(rows)
    encoder = encoder or (rows[0]['encoder'] if rows else '')
    blocks: list[tuple[str, str, Values, Values, list[Row]]] = []
    for target in distinct(rows, 'target'):
        metric = (metrics or {}).get(target) or major_metric(rows, target)
        chosen = scored(rows, target, metric)
        found = {name: values for (e, name), values in columns(chosen).items() if e == encoder}
        blocks += [(target, n, v, found[NONE], chosen) for n, v in found.items() if n != NONE and NONE in found]
    if not blocks:
        return None
    codes = languages([row for row in rows if any(row['target'] == block[0] for block in blocks)])
    cells = [[delta(values, base, [code]) for _, _, values, base, _ in blocks] for code in codes]
    cells.append([delta(values, base, languages(chosen, zero_shot=True)) for _, _, values, base, chosen in blocks])
    labels = [*_labels(rows, codes), 'zero-shot mean']
    with style():
        figure = new_figure(2.4 + 0.78 * len(blocks), 1.5 + 0.27 * len(labels))
        axes = figure.subplots()
        _draw_cells(axes, cells)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xticks(range(len(blocks)), [block[1] for block in blocks])
        axes.tick_params(length=0)
        if max(len(block[1]) for block in blocks) > 8:
            for label in axes.get_xticklabels():
                label.set(rotation=35, ha='right', rotation_mode='anchor')
        axes.spines[:].set_visible(False)
        _target_headings(axes, [block[0] for block in blocks])
        axes.set_xlabel(f'Δ in points against {NONE!r}; hatched: worse', fontsize=9)
    return figure


def training_curves(curves: Iterable[Curve], title: str = '') -> Figure | None:
    """Training loss and dev metric by step, a line for each run; None when there is no point to draw.

    curves: dicts with run, intermediate, target, seed, step and loss, or metric and value, or both. One colour, marker
    and dash pattern for an intermediate; its seeds share them.
    """
    points = list(curves)
    losses = _lines(points, 'loss')
    metrics = {name: _lines([p for p in points if p.get('metric') == name], 'value') for name in _metrics(points)}
    panels = ([('training loss', losses)] if losses else []) + [
        (f'dev {metric_name(name.removeprefix("dev "))} (%)', lines) for name, lines in metrics.items() if lines
    ]
    if not panels:
        return None
    kinds = sorted({str(p.get('intermediate', '')) for p in points}, key=lambda name: (name != NONE, name))
    with style():
        figure = new_figure(1.0 + 3.6 * len(panels), 3.3)
        grid = figure.subplots(1, len(panels), squeeze=False).flatten()
        for axes, (label, lines) in zip(grid, panels, strict=True):
            for (kind, run), (steps, values) in lines.items():
                colour, marker, dash = STYLES[kinds.index(kind) % len(STYLES)]
                few = marker if len(steps) <= 25 else ''
                axes.plot(steps, values, color=colour, ls=dash, marker=few, ms=4, lw=1.4, label=kind or run)
            axes.set(xlabel='training step', ylabel=label)
            axes.grid(visible=True)
            axes.margins(x=0.02)
            axes.ticklabel_format(axis='x', style='plain', useOffset=False)
        figure.legend(*_unique_legend(grid), loc='outside upper right', ncols=5, fontsize=9)
        if title:
            figure.suptitle(title, x=0.01, ha='left', fontsize=10, fontweight='bold')
    return figure


def _labels(rows: Sequence[Row], codes: Sequence[str]) -> list[str]:
    names = facts(rows, 'language_name')
    return [f'{names[code]} ({code})' if code in names else code for code in codes]


def _sorted_languages(rows: Sequence[Row], found: Mapping[str, Values], sort: str) -> list[str]:
    codes = languages(rows)
    if sort == 'resource' or NONE not in found:
        return codes
    if sort != 'delta':
        raise RowsError(f"sort={sort!r} is neither 'resource' nor 'delta'")

    def gain(code: str) -> float:
        changes = [delta(values, found[NONE], [code]) for name, values in found.items() if name != NONE]
        return max((change.mean for change in changes if change), default=-math.inf)

    return sorted(codes, key=gain, reverse=True)


def _dumbbell_panel(axes: Axes, codes: Sequence[str], base: Values, values: Values, name: str) -> None:
    colour = STYLES[0][0]
    for y, code in enumerate(codes):
        start, end = over_seeds(base.get(code, {})), over_seeds(values.get(code, {}))
        if start and end and name != NONE:
            worse = end.mean < start.mean
            axes.plot([start.mean, end.mean], [y, y], color=SOFT if worse else colour, lw=2, ls=':' if worse else '-')
        if start:
            _dot(axes, start, y, PAPER, SOFT, NONE)
        if end and name != NONE:
            _dot(axes, end, y, colour, colour, 'with intermediate training')
    axes.grid(visible=True, axis='x')
    axes.tick_params(axis='y', length=0)


def _dot(axes: Axes, score: Score, y: int, face: str, edge: str, label: str) -> None:
    axes.errorbar(
        score.mean, y, xerr=score.sd, fmt='o', ms=6, mfc=face, mec=edge, mew=1.4, ecolor=edge, elinewidth=1,
        label=label, zorder=3,
    )  # fmt: skip


def _limits(found: Mapping[str, Values], chance: float | None) -> tuple[float, float]:
    """From just below the lowest score or chance to just above the highest, from 0 up."""
    numbers = [value for values in found.values() for seeds in values.values() for value in seeds.values()]
    numbers += [] if chance is None else [chance]
    # At least ten points wide, so that differences of nothing do not fill the figure.
    room = max(0.06 * (max(numbers) - min(numbers)), 5 - (max(numbers) - min(numbers)) / 2)
    return max(min(0.0, min(numbers)) - 1.0, min(numbers) - room), max(numbers) + room


def _is_near(chance: float, found: Mapping[str, Values]) -> bool:
    """Whether an axis that reaches down to chance still leaves the scores a third of its length."""
    numbers = [value for values in found.values() for seeds in values.values() for value in seeds.values()]
    return max(numbers) - min(numbers) >= (max(numbers) - min(chance, *numbers)) / 3


def _chance(rows: Sequence[Row]) -> float | None:
    """The chance level, where all languages share one to a tenth of a point."""
    levels = {round(row['chance'], 1) for row in rows if row.get('chance') is not None}
    return levels.pop() if len(levels) == 1 else None


def _unique_legend(grid: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _draw_cells(axes: Axes, cells: Sequence[Sequence[Score | None]]) -> None:
    from matplotlib.patches import Rectangle

    largest = max((abs(cell.mean) for line in cells for cell in line if cell), default=0.0) or 1.0
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if cell is None:
                axes.text(x, y, '–', ha='center', va='center', color=SOFT)
                continue
            share = abs(cell.mean) / largest
            end = GAIN if cell.mean >= 0 else LOSS
            face = tuple(1 - share * (1 - part) for part in end)
            hatch = '////' if round(cell.mean, 1) < 0 else None
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=face, ec='#ffffff', lw=1.2, hatch=hatch))
            box = {'boxstyle': 'square,pad=0.12', 'fc': face, 'ec': 'none'} if hatch else None
            weight = 'bold' if y == len(cells) - 1 else 'normal'
            where = {'ha': 'center', 'va': 'center', 'color': '#000000', 'fontsize': 9}
            axes.text(x, y, signed(cell.mean), weight=weight, bbox=box, **where)
    axes.set(xlim=(-0.5, len(cells[0]) - 0.5), ylim=(len(cells) - 0.5, -0.5))
    axes.axhline(len(cells) - 1.5, color=INK, lw=1)


def _target_headings(axes: Axes, targets: Sequence[str]) -> None:
    """The target's name over its columns, and a line between targets."""
    start = 0
    for x in range(1, len(targets) + 1):
        if x == len(targets) or targets[x] != targets[start]:
            middle = (start + x - 1) / 2
            axes.annotate(
                targets[start], (middle, -0.5), xytext=(0, 5), textcoords='offset points', ha='center', va='bottom',
                weight='bold', annotation_clip=False,
            )  # fmt: skip
            if x < len(targets):
                axes.axvline(x - 0.5, color=INK, lw=1)
            start = x


def _metrics(points: Sequence[Curve]) -> list[str]:
    return list(dict.fromkeys(p['metric'] for p in points if p.get('metric') and p.get('value') is not None))


def _lines(points: Sequence[Curve], field: str) -> dict[tuple[str, str], tuple[list[int], list[float]]]:
    """(intermediate, run) -> steps and values, in the order of steps; the last of two values for a step counts."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for point in points:
        value = point.get(field)
        if value is not None and math.isfinite(value):
            found.setdefault((str(point.get('intermediate', '')), str(point['run'])), {})[point['step']] = value
    return {key: (sorted(at), [at[step] for step in sorted(at)]) for key, at in found.items()}


__all__ = ['delta_heatmap', 'dumbbells', 'png', 'svg', 'training_curves']
