"""Figures of scores by language, drawn with matplotlib, which is imported when needed.

Each function returns a matplotlib Figure; `canvas.svg` and `canvas.png` convert it for writing. This module does not
use pyplot and has no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.plots.canvas import ACCENT, INK, PAPER, SOFT, new_figure, panels_across, style, unique_legend
from xlmr_flax.report.plots.strip_figure import strips
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
    language_labels,
    languages,
    over_seeds,
    paired,
    scored,
    select,
)
from xlmr_flax.report.study import metric_title
from xlmr_flax.report.table import signed
from xlmr_flax.report.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def dumbbells(
    rows: Iterable[Row],
    target: str,
    metric: str | None = None,
    encoder: str | None = None,
) -> Figure:
    """Dumbbell plot of scores by language: a panel for each intermediate task, a line from the score of 'none' to its.

    Both are means over the seeds that both have in the language. encoder: the first in the rows if None. Raises
    RowsError if there is no such row.
    """
    rows = list(rows)
    chosen = scored(rows, target, metric)
    encoder = encoder or chosen[0]['encoder']
    found = {name: values for (e, name), values in columns(chosen).items() if e == encoder}
    if not found:
        raise RowsError(f'no rows of target {target!r} with encoder {encoder!r}')
    codes = languages(chosen)
    names = [name for name in found if name != NONE] or [NONE]
    across = panels_across(len(names))
    down = math.ceil(len(names) / across)
    with style():
        figure = new_figure(7.2 if across == 1 else 1.9 + 3.1 * across, down * (1.25 + 0.235 * len(codes)))
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        chance = _chance(chosen)
        near = chance is not None and _is_near(chance, found)
        for axes, name in zip(grid, names, strict=False):
            values, base = found[name], found.get(NONE, {})
            ours, theirs = paired(values, base, codes)
            _dumbbell_panel(axes, codes, {**base, **theirs}, {**values, **ours}, name)
            change = delta(values, base, languages(chosen, zero_shot=True))
            gain = f': {signed(change.mean)} zero-shot' if change and name != NONE else ''
            axes.set_title(name + gain)
            if near:
                axes.axvline(chance, color=INK, lw=1, ls=(0, (4, 3)), label=f'chance ({chance:.1f} %)')
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        grid[0].set_yticks(range(len(codes)), language_labels(chosen, codes))
        grid[0].set_ylim(len(codes) - 0.4, -0.6)
        grid[0].set_xlim(*_limits(found, chance if near else None))
        far = f'; chance ({chance:.1f} %) is outside of the axis' if chance is not None and not near else ''
        shown = metric_title(chosen[0]['metric'], select(rows, target=target))
        spread = '; whiskers: sd over seeds' if len(distinct(chosen, 'seed')) > 1 else ''
        axis = f'{target}: {shown} in %, {chosen[0]["split"]} split{spread}{far}'
        figure.supxlabel(axis, fontsize=9.5)
        figure.legend(*unique_legend(grid), loc='outside upper right', ncols=4, fontsize=9)
    return figure


def score_strips(
    rows: Iterable[Row], target: str, metric: str, encoder: str, about: Mapping[str, Mapping[str, Any]]
) -> Figure | None:
    """Strip plot of scores by language (`strips`), means over seeds. about: `by_language.facts_by_language`."""
    rows = list(rows)
    chosen = scored(rows, target, metric)
    found = {name: values for (e, name), values in columns(chosen).items() if e == encoder}
    records = [
        {**about[code], 'intermediate': name, 'language': code, 'score': score.mean}
        for name, values in found.items()
        for code, by_seed in values.items()
        if (score := over_seeds(by_seed))
    ]
    chance = _chance(chosen)
    label = f'{target}: {metric_title(metric, select(rows, target=target))} in %, {chosen[0]["split"]} split'
    return strips(records, 'score', label, chance if chance is not None and _is_near(chance, found) else None)


def _dumbbell_panel(axes: Axes, codes: Sequence[str], base: Values, values: Values, name: str) -> None:
    colour = ACCENT
    for y, code in enumerate(codes):
        start, end = over_seeds(base.get(code, {})), over_seeds(values.get(code, {}))
        if start and end and name != NONE:
            worse = end.mean < start.mean
            axes.plot([start.mean, end.mean], [y, y], color=SOFT if worse else colour, lw=2, ls=':' if worse else '-')
        if start:
            _dot(axes, start, y, PAPER, SOFT, NONE, size=9)  # larger: visible under an equal score
        if end and name != NONE:
            _dot(axes, end, y, colour, colour, 'with intermediate training')
    axes.grid(visible=True, axis='x')
    axes.tick_params(axis='y', length=0)


def _dot(axes: Axes, score: Score, y: int, face: str, edge: str, label: str, size: float = 6) -> None:
    axes.errorbar(
        score.mean, y, xerr=score.sd, fmt='o', ms=size, mfc=face, mec=edge, mew=1.4, ecolor=edge, elinewidth=1,
        label=label, zorder=3,
    )  # fmt: skip


def _limits(scores: Mapping[str, Values], chance: float | None) -> tuple[float, float]:
    """Limits of the axis: from just below the lowest score or chance to just above the highest, not far below 0."""
    numbers = [value for values in scores.values() for seeds in values.values() for value in seeds.values()]
    numbers += [] if chance is None else [chance]
    # At least ten points wide, so that tiny differences do not fill the figure.
    room = max(0.06 * (max(numbers) - min(numbers)), 5 - (max(numbers) - min(numbers)) / 2)
    return max(min(0.0, min(numbers)) - 1.0, min(numbers) - room), max(numbers) + room


def _is_near(chance: float, scores: Mapping[str, Values]) -> bool:
    """Whether the scores cover at least a third of an axis that includes chance."""
    numbers = [value for values in scores.values() for seeds in values.values() for value in seeds.values()]
    return max(numbers) - min(numbers) >= (max(numbers) - min(chance, *numbers)) / 3


def _chance(rows: Sequence[Row]) -> float | None:
    """The chance level if all languages share it (to a tenth of a point), else None."""
    levels = {round(row['chance'], 1) for row in rows if row.get('chance') is not None}
    return levels.pop() if len(levels) == 1 else None


def gains_by_language(view: View) -> Figure | None:
    """Differences to 'none' by language, a panel for each target; None if nothing can be compared.

    Bars are the arm with the largest average gain; dots are the other arms, so that their range is visible.
    """
    panels = []
    for target in view.study.scored_targets:
        values, codes = view.study.values(target, view.encoder), view.study.codes(target)
        changes = {n: delta(v, values.get(NONE, {}), view.codes(target)) for n, v in values.items() if n != NONE}
        whole = {n: c.mean for n, c in changes.items() if c and not c.partial} or {
            n: c.mean for n, c in changes.items() if c
        }
        if whole:
            best = max(whole, key=lambda n: whole[n])
            lines = {n: [delta(values[n], values[NONE], [code]) for code in codes] for n in whole}
            panels.append((target, best, codes, lines))
    if not panels:
        return None
    panels.sort(key=lambda panel: -len(panel[2]))  # so that panels in a row have similar heights
    across = panels_across(len(panels))
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    heights = [0.75 + 0.19 * len(row[0][2]) for row in rows]
    with style():
        figure = new_figure(0.6 + 3.1 * across, 0.4 + sum(heights))
        grid = figure.subplots(len(rows), across, squeeze=False, height_ratios=heights)
        for axes in grid.flatten()[len(panels) :]:
            axes.set_visible(False)
        names = facts(view.study.rows, 'language_name') if len(panels) == 1 else {}
        for axes, (target, best, codes, lines) in zip(grid.flatten(), panels, strict=False):
            _gain_panel(axes, best, lines)
            axes.set_yticks(range(len(codes)), [f'{names[c]} ({c})' if c in names else c for c in codes], fontsize=8.5)
            axes.set_ylim(len(codes) - 0.4, -0.6)
            axes.set_title(f'{view.target_name(target)}: {best}', fontsize=9.5)
        figure.supxlabel(
            f'Δ in points against {NONE!r} (bar: the named arm, hatched: worse; dots: the others)', fontsize=9
        )
    return figure


def _gain_panel(axes: Axes, best: str, lines: Mapping[str, Sequence[Score | None]]) -> None:
    for y, score in enumerate(lines[best]):
        if score:
            worse = score.mean < 0
            look = {
                'fc': 'none' if worse else ACCENT,
                'ec': SOFT if worse else ACCENT,
                'hatch': '/////' if worse else None,
            }
            spread = {'xerr': score.sd, 'ecolor': INK, 'error_kw': {'elinewidth': 0.9}} if score.sd is not None else {}
            axes.barh(y, score.mean, height=0.62, lw=0.7, **look, **spread)
    for name, scores in lines.items():
        if name != best:
            places = [(score.mean, y) for y, score in enumerate(scores) if score]
            axes.plot(*zip(*places, strict=True), ls='', marker='o', ms=2.6, mfc=PAPER, mec=SOFT, mew=0.7)
    axes.axvline(0, color=INK, lw=0.8)
    axes.grid(visible=True, axis='x')
    axes.tick_params(axis='y', length=0)


__all__ = ['dumbbells', 'gains_by_language', 'score_strips']
