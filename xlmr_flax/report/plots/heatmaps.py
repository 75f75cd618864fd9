"""Heat maps of differences to 'none': arms by targets, and languages by arms; legible in black and white."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from xlmr_flax.report.plots.canvas import INK, SOFT, new_figure, style
from xlmr_flax.report.rows import (
    NONE,
    Row,
    Score,
    Values,
    columns,
    delta,
    distinct,
    language_labels,
    languages,
    latest,
    scored,
)
from xlmr_flax.report.study import MARKED
from xlmr_flax.report.table import MINUS, MISSING, PARTIAL, signed
from xlmr_flax.report.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAIN, LOSS = (0.35, 0.65, 0.90), (0.96, 0.62, 0.35)  # RGB of a cell with the largest difference
STEPS = 6  # number of colours on either side of white in the scale
HATCH = '#8a8a8a'


def delta_heatmap(rows: Iterable[Row], encoder: str | None = None) -> Figure | None:
    """Heat map of differences to 'none' in points: languages as rows, intermediates as columns grouped by target.

    The means are the last row. None if nothing can be compared.
    """
    rows = latest(rows)
    encoder = encoder or (rows[0]['encoder'] if rows else '')
    blocks: list[tuple[str, str, Values, Values, list[Row]]] = []
    for target in distinct(rows, 'target'):
        chosen = scored(rows, target)
        found = {name: values for (e, name), values in columns(chosen).items() if e == encoder}
        blocks += [(target, n, v, found[NONE], chosen) for n, v in found.items() if n != NONE and NONE in found]
    if not blocks:
        return None
    codes = languages([row for row in rows if any(row['target'] == block[0] for block in blocks)])
    cells = [[delta(values, base, [code]) for _, _, values, base, _ in blocks] for code in codes]
    cells.append([delta(values, base, languages(chosen, zero_shot=True)) for _, _, values, base, chosen in blocks])
    labels = [*language_labels(rows, codes), 'zero-shot mean']
    with style():
        figure = new_figure(2.4 + 0.78 * len(blocks), 1.5 + 0.27 * len(labels))
        axes = figure.subplots()
        draw_cells(axes, cells, mean_line=True)
        axes.set_yticks(range(len(labels)), labels)
        arms = list(dict.fromkeys(block[1] for block in blocks))
        axes.set_xticks(range(len(blocks)), [block[1] for block in blocks] if len(arms) > 1 else [''] * len(blocks))
        axes.tick_params(length=0)
        if len(arms) > 1 and max(len(block[1]) for block in blocks) > 8:
            for label in axes.get_xticklabels():
                label.set(rotation=35, ha='right', rotation_mode='anchor')
        axes.spines[:].set_visible(False)
        _target_headings(axes, [block[0] for block in blocks])
        of = '' if len(arms) > 1 else f' of {arms[0]}'
        _wrapped_note(axes, f'Δ{of} in points against {NONE!r}{_hatched(cells)}', len(blocks))
        _colour_scale(figure, axes, cells)
    return figure


def arms_by_targets(view: View) -> Figure | None:
    """Heat map of differences to 'none': arms as rows, targets as columns, their average last; None without any.

    A star marks significant differences, as in the table.
    """
    names = [name for name in view.study.arms if name != NONE]
    targets = [target for target in view.targets if view.study.of_target(target)]
    cells = [[view.change(name, target) for target in targets] for name in names]
    if len(targets) > 1:
        cells = [[*line, view.average(name)[1]] for line, name in zip(cells, names, strict=True)]
    if not any(cell for line in cells for cell in line):
        return None
    heads = [view.target_name(t) for t in targets] + (['average'] if len(targets) > 1 else [])
    with style():
        longest = max(len(name) for name in names)
        figure = new_figure(1.0 + 0.085 * longest + 0.8 * len(heads), 1.2 + 0.33 * len(names))
        axes = figure.subplots()
        draw_cells(axes, cells, mean_column=len(targets) > 1)
        axes.set_yticks(range(len(names)), [view.arm_name(name) for name in names])
        axes.set_xticks(range(len(heads)), heads)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        starred = any(cell and cell.mark.startswith(MARKED) for line in cells for cell in line)
        star = f'; {MARKED} significant, see the table' if starred else ''
        _wrapped_note(axes, f'Δ in points against {NONE!r}{_hatched(cells)}{star}', len(heads))
        _colour_scale(figure, axes, cells)
    return figure


def _wrapped_note(axes: Axes, note: str, cells: int) -> None:
    """Writes a note below the cells, wrapped to the width of the figure."""
    axes.set_xlabel(textwrap.fill(note, max(30, 14 * cells)), fontsize=9)


def _hatched(cells: Sequence[Sequence[Score | None]]) -> str:
    return '; hatched: worse' if any(cell and _is_worse(cell) for line in cells for cell in line) else ''


def _is_worse(cell: Score) -> bool:
    return round(cell.mean, 1) < 0


def _largest(cells: Sequence[Sequence[Score | None]]) -> float:
    """The largest absolute difference, which gets the full colour; 1.0 if all are 0."""
    return max((abs(cell.mean) for line in cells for cell in line if cell), default=0.0) or 1.0


def _colour(share: float) -> tuple[float, ...]:
    """RGB colour of a difference, given as a share of the largest one, from -1 to 1."""
    return tuple(1 - abs(share) * (1 - part) for part in (GAIN if share >= 0 else LOSS))


def _colour_scale(figure: Figure, axes: Axes, cells: Sequence[Sequence[Score | None]]) -> None:
    """Draws the colour scale; nothing if all differences are equal."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    numbers = [cell.mean for line in cells for cell in line if cell]
    if min(numbers) == max(numbers):
        return
    largest = _largest(cells)
    colours = ListedColormap([_colour(i / STEPS) for i in range(-STEPS, STEPS + 1)])
    # Discrete steps: a gradient would be a bitmap in the SVG.
    scale = figure.colorbar(
        ScalarMappable(Normalize(-largest, largest), colours), ax=axes, fraction=0.04, pad=0.03, shrink=0.9, aspect=16
    )
    ends = [f'{MINUS}{largest:.3g}', '0', f'+{largest:.3g}']
    scale.set_ticks([-largest, 0, largest], labels=ends, fontsize=8)
    scale.ax.tick_params(length=0)
    scale.outline.set_linewidth(0.4)


def draw_cells(
    axes: Axes, cells: Sequence[Sequence[Score | None]], mean_line: bool = False, mean_column: bool = False
) -> None:
    """Draws cells with their numbers, in colours light enough for black text; losses are hatched.

    mean_line, mean_column: the last row or column is the mean of the others; it is bold and separated by a line.
    """
    from matplotlib.patches import Rectangle

    largest = _largest(cells)
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if cell is None:
                axes.text(x, y, MISSING, ha='center', va='center', color=SOFT)
                continue
            face, worse = _colour(cell.mean / largest), _is_worse(cell)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=face, ec='#ffffff', lw=1.2))
            if worse:
                axes.add_patch(Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fc='none', ec=HATCH, lw=0, hatch='////'))
            box = {'boxstyle': 'square,pad=0.15', 'fc': face, 'ec': 'none'} if worse else None
            mean = (mean_line and y == len(cells) - 1) or (mean_column and x == len(line) - 1)
            where = {'ha': 'center', 'va': 'center', 'color': '#000000', 'fontsize': 9}
            shown = signed(cell.mean) + PARTIAL * cell.partial + cell.mark
            axes.text(x, y, shown, weight='bold' if mean else 'normal', bbox=box, **where)
    axes.set(xlim=(-0.5, len(cells[0]) - 0.5), ylim=(len(cells) - 0.5, -0.5))
    if mean_line:
        axes.axhline(len(cells) - 1.5, color=INK, lw=1)
    if mean_column:
        axes.axvline(len(cells[0]) - 1.5, color=INK, lw=1)


def _target_headings(axes: Axes, targets: Sequence[str]) -> None:
    """Writes each target's name above its columns, and draws a line between targets."""
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
