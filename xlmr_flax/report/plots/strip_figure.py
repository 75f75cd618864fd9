"""A strip plot: the score or the difference of each language, by arm, resource class and script.

Matplotlib is imported when needed; see canvas.py. A record has the fields language, intermediate, the value, and the
facts of its language: `analysis.language_effects` (by language) or `figures.score_strips`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.plots.canvas import INK, PAPER, SOFT, new_figure, panels_across, style, unique_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
CC100_NOTE = 'CC-100 is the pretraining data of XLM-R.'
# Scripts (ISO 15924) of the languages in CC-100, the pretraining data of XLM-R.
CC100_SCRIPTS = frozenset((
    'Arab', 'Armn', 'Beng', 'Cyrl', 'Deva', 'Ethi', 'Geor', 'Grek', 'Gujr', 'Guru', 'Hans', 'Hant', 'Hebr', 'Jpan',
    'Khmr', 'Knda', 'Kore', 'Laoo', 'Latn', 'Mlym', 'Mymr', 'Orya', 'Sinh', 'Taml', 'Telu', 'Thai',
))  # fmt: skip
# Script -> marker, face and edge, the same in all figures: the four scripts with most languages. The rest share a look.
_LOOKS = {
    'Latn': ('o', PAPER, SOFT),
    'Arab': ('^', '#009e73', '#009e73'),
    'Cyrl': ('s', '#56b4e9', '#56b4e9'),
    'Deva': ('D', '#cc79a7', '#cc79a7'),
}
_REST, _NOT_IN = ('v', '#e69f00', '#e69f00'), ('X', '#d55e00', '#d55e00')
_UNKNOWN = 'unknown'
_WIDTH = 0.74  # of a strip, in units of the distance between two strips
_GOLDEN = 0.618034
# Name of a strip -> whether a language belongs to it. A language belongs to the first that fits.
_STRIPS: dict[str, Callable[[Record], bool]] = {
    'high': lambda r: r.get('resource_level') == 'high',
    'mid': lambda r: r.get('resource_level') == 'mid',
    'low, in\nCC-100': lambda r: r.get('resource_level') == 'low' and bool(r.get('cc100_gib')),
    'low, not\nin CC-100': lambda r: r.get('resource_level') == 'low' and r.get('cc100_gib') == 0,
    'unknown': lambda _: True,  # the class, or whether the language is in CC-100
}
Group = tuple[str, tuple[str, str, str], frozenset[str]]  # text of the legend, look, scripts


def strips(records: Sequence[Record], value: str, label: str, chance: float | None = None) -> Figure | None:
    """Draws a panel for each arm of one target, with a strip for each resource class that has languages.

    value: the field that is drawn, 'score' (percent) or 'difference' (points). label: of its axis. chance: a line at
    this score. Marker and colour are the script; the lowest and the highest language of a strip have their codes. The
    training language (field english) is a line. Returns None without two strips.
    """
    arms = list(dict.fromkeys(r['intermediate'] for r in records))
    points = [r for r in records if not r.get('english')]
    strip_of = {r['language']: next(name for name, fits in _STRIPS.items() if fits(r)) for r in points}
    names = [name for name in _STRIPS if name in strip_of.values()]
    if len(names) < 2:
        return None
    groups, counts = _groups(points), Counter(strip_of.values())
    across = panels_across(len(arms))
    down = math.ceil(len(arms) / across)
    # A panel alone has the width of the page; several are smaller, so that a row of them fits.
    width, height = {1: (7.4, 4.2), 2: (4.2, 3.4)}.get(across, (2.9, 2.6))
    with style():
        figure = new_figure(0.9 + width * across, 1.2 + height * down)
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, arm in zip(grid, arms, strict=False):
            mine = [r for r in points if r['intermediate'] == arm]
            _panel(axes, [[r for r in mine if strip_of[r['language']] == name] for name in names], value, groups)
            for r in records:
                if r.get('english') and r['intermediate'] == arm:
                    axes.axhline(r[value], color=INK, lw=1, ls='--', label=f'{r["language"]}, the training language')
            if chance is not None:
                axes.axhline(chance, color=INK, lw=1, ls=':', label=f'chance ({chance:.1f} %)')
            if value == 'difference':
                axes.axhline(0, color=INK, lw=0.8)
            axes.grid(visible=True, axis='y')
            axes.tick_params(axis='x', labelsize=8)
            axes.set_title(arm)
        for axes in grid[len(arms) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(arms) - across) : len(arms)]:  # the lowest panel of each column
            axes.tick_params(labelbottom=True)
        grid[0].set_xticks(range(len(names)), [f'{name}\n({counts[name]})' for name in names])
        grid[0].set_xlim(-0.6, len(names) - 0.4)
        grid[0].margins(y=0.1)  # room for the codes
        figure.supxlabel('resource class (languages); bar: mean of the class', fontsize=9.5)
        figure.supylabel(label, fontsize=9.5)
        figure.legend(*unique_legend(grid), loc='outside upper left', ncols=min(4, across + 2), fontsize=8.5)
    return figure


def _groups(points: Sequence[Record]) -> list[Group]:
    """The scripts with a look of their own, the rest, and those not in CC-100, with their numbers of languages."""
    counts = Counter({r['language']: _script(r) for r in points}.values())
    lacking = sorted(counts.keys() - CC100_SCRIPTS - {_UNKNOWN})
    sets = [(script, look, [script]) for script, look in _LOOKS.items()]
    sets.append(('other scripts', _REST, [script for script in counts if script not in (*_LOOKS, *lacking)]))
    sets.append((f'not in CC-100: {", ".join(lacking)}', _NOT_IN, lacking))
    numbers = [sum(counts[script] for script in scripts) for _, _, scripts in sets]
    return [(f'{name} ({n})', look, frozenset(mine)) for (name, look, mine), n in zip(sets, numbers, strict=True) if n]


def _script(record: Record) -> str:
    return str(record.get('script') or _UNKNOWN)


def _panel(axes: Axes, by_strip: Sequence[Sequence[Record]], value: str, groups: Sequence[Group]) -> None:
    placed: list[tuple[float, float, str]] = []  # x, y, script
    for place, records in enumerate(by_strip):
        if not records:
            continue
        points = sorted(records, key=lambda r: r[value])
        y = [r[value] for r in points]
        # Neighbours in value are far apart across the strip, in the same way each time.
        x = [place + _WIDTH * ((number * _GOLDEN) % 1 - 0.5) for number in range(len(points))]
        placed += zip(x, y, map(_script, points), strict=True)
        mean = fmean(y)
        axes.plot([place - _WIDTH / 2, place + _WIDTH / 2], [mean, mean], color=INK, lw=2, zorder=4)
        for number, shift in {0: -9, len(points) - 1: 4}.items():
            axes.annotate(
                points[number]['language'], (x[number], y[number]), xytext=(0, shift), textcoords='offset points',
                fontsize=7, color=INK, ha='center',
            )  # fmt: skip
    for label, (marker, face, edge), scripts in groups:
        mine = [(x, y) for x, y, script in placed if script in scripts]
        xs, ys = [x for x, _ in mine], [y for _, y in mine]
        axes.plot(xs, ys, ls='', marker=marker, ms=4.4, mfc=face, mec=edge, mew=0.8, zorder=3, label=label)
