"""The report: one HTML page that needs nothing but itself, made of result rows, curves and facts about the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlmr_flax.report import figures
from xlmr_flax.report.files import write_atomically
from xlmr_flax.report.findings import findings
from xlmr_flax.report.page_style import CSS
from xlmr_flax.report.rows import (
    NONE,
    Row,
    distinct,
    facts,
    intermediates,
    is_english,
    languages,
    latest,
    major_metric,
    scored,
    select,
)
from xlmr_flax.report.table import MISSING, Table
from xlmr_flax.report.tables import caveats, metric_name, side_by_side, summary, write_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Mapping[str, Any]


def write_report(
    path: str | Path, rows: Iterable[Row], curves: Iterable[Curve] = (), info: Mapping[str, Any] | None = None
) -> Path:
    """Writes the page at once or not at all; returns its path.

    curves: dicts {run, intermediate, target, seed, step, loss?, metric?, value?}; those of an intermediate phase have
    the target ''. info: any of title, command, config (dict), versions (dict), seconds, date, notes and licences (lists
    of texts). Raises RowsError when there are no rows.
    """
    return write_atomically(path, page(rows, curves, info))


def page(rows: Iterable[Row], curves: Iterable[Curve] = (), info: Mapping[str, Any] | None = None) -> str:
    """The page as text; see `write_report`."""
    rows, curves, info = latest(rows), list(curves), dict(info or {})
    title = str(info.get('title') or 'Cross-lingual transfer')
    counter = _Counter()
    sections = [('results', 'Results', _results(rows))]
    for i, target in enumerate(distinct(rows, 'target')):
        sections.append((f'target-{i}', target, _target(rows, target, counter)))
    for id_, name, body in (
        ('differences', 'Differences by language', _differences(rows, counter)),
        ('curves', 'Training curves', _curves(curves, counter)),
    ):
        if body:
            sections.append((id_, name, body))
    sections.append(('run', 'What was run', _what_was_run(rows, info)))
    sections.append(('reproduce', 'How to reproduce', _reproduce(rows, info)))
    links = ' '.join(f'<a href="#{id_}">{escape(name)}</a>' for id_, name, _ in sections)
    bodies = '\n'.join(f'<section id="{i}">\n<h2>{escape(name)}</h2>\n{body}\n</section>' for i, name, body in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(_lead(rows))}</p>
<nav aria-label="Sections">{links}</nav>
</header>
{_caveats(rows, info)}
{bodies}
<footer>Made by xlmr_flax from {len(rows):,} result rows. Every number on this page follows from them.</footer>
</main>
</body>
</html>
"""


def html_table(table: Table) -> str:
    """Its title, a <table> in a box that scrolls sideways, and its notes."""
    marked, groups, title = table.marked(), table.groups(), escape(table.title)
    out = [f'<h3>{title}</h3>', f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">']
    out += [f'<table aria-label="{title}">', '<thead>']
    if groups:
        named = ' class="named" scope="colgroup"'
        cells = [f'<th colspan="{n}"{named if g else ""}><span>{escape(g)}</span></th>' for g, n in groups]
        out.append(f'<tr class="groups">{"".join(cells)}</tr>')
    heads = [f'<th scope="col"{_class(c.kind != "text" and "number")}>{escape(c.head)}</th>' for c in table.columns]
    out += [f'<tr>{"".join(heads)}</tr>', '</thead>', '<tbody>']
    for i, (line, cells) in enumerate(zip(table.lines, table.texts(), strict=True)):
        first = line.mean and i and not table.lines[i - 1].mean
        out.append(f'<tr{_class(line.mean and "mean", first and "first")}>')
        span = table.span(i)
        wide = f' colspan="{span}"' if span > 1 else ''
        out.append(f'<th scope="row"{wide}>{escape(cells[0])}</th>')
        for j in range(span, len(cells)):
            numeric = table.columns[j].kind != 'text' and 'number'
            names = _class(numeric, (i, j) in marked and 'best', cells[j] == MISSING and 'missing')
            out.append(f'<td{names}>{escape(cells[j])}</td>')
        out.append('</tr>')
    out += ['</tbody>', '</table>', '</div>']
    return '\n'.join(out) + _list(table.all_notes(), 'notes')


class _Counter:
    """Numbers figures, so that no two on a page share an id."""

    def __init__(self) -> None:
        self.count = 0

    def figure(self, figure: Figure | None, label: str, caption: str) -> str:
        if figure is None:
            return ''
        self.count += 1
        drawing = figures.svg(figure, label, inline=True, prefix=f'f{self.count}-')
        return (
            f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{drawing}</div>'
            f'<figcaption>{escape(caption)}</figcaption></figure>'
        )


def _lead(rows: Sequence[Row]) -> str:
    names = [name for name in intermediates(rows) if name != NONE]
    codes, seeds = distinct(rows, 'language'), distinct(rows, 'seed')
    parts = [
        f'{_number(len(distinct(rows, "target")), "target task")} in {_number(len(codes), "language")}',
        f'without and with intermediate training on {_join(names)}' if names else 'without intermediate training',
        f'encoder {_join(distinct(rows, "encoder"))}',
        f'{_number(len(seeds), "seed")}',
    ]
    return f'{parts[0]}, {parts[1]}; {", ".join(parts[2:])}.'


def _caveats(rows: Sequence[Row], info: Mapping[str, Any]) -> str:
    notes = [*info.get('notes', ()), *caveats(rows)]
    return f'<div class="caveats">{_list(list(dict.fromkeys(notes)), "")}</div>' if notes else ''


def _results(rows: Sequence[Row]) -> str:
    parts = [_list(findings(rows), 'findings'), html_table(summary(rows))]
    flags = {is_english(row) for row in rows}
    if len(flags) == 2:
        whole = html_table(summary(rows, zero_shot=False))
        parts.append(f'<details><summary>The same with English in the means</summary>{whole}</details>')
    return '\n'.join(part for part in parts if part)


def _target(rows: Sequence[Row], target: str, counter: _Counter) -> str:
    major = major_metric(rows, target)
    parts = [html_table(side_by_side(rows, target, major))]
    chosen = scored(rows, target, major)
    for encoder in distinct(chosen, 'encoder'):
        label = f'{target}: {metric_name(major)} by language, {encoder}'
        caption = 'Languages from high-resource to low-resource. Open: without intermediate training; filled: with it.'
        if len(distinct(chosen, 'encoder')) > 1:
            caption = f'{encoder}. {caption}'
        parts.append(counter.figure(figures.dumbbells(rows, target, major, encoder=encoder), label, caption))
    others = [m for m in distinct(select(rows, target=target), 'metric') if m != major]
    for metric in others:
        table = html_table(side_by_side(rows, target, metric))
        parts.append(f'<details><summary>{escape(metric_name(metric))}</summary>{table}</details>')
    return '\n'.join(parts)


def _differences(rows: Sequence[Row], counter: _Counter) -> str:
    drawn = [
        counter.figure(
            figures.delta_heatmap(rows, encoder),
            f'Differences by language, {encoder}',
            f'{encoder}. Points won or lost against the same encoder without intermediate training.',
        )
        for encoder in distinct(rows, 'encoder')
    ]
    return '\n'.join(figure for figure in drawn if figure)


def _curves(curves: Sequence[Curve], counter: _Counter) -> str:
    drawn = []
    for target in dict.fromkeys(str(curve.get('target') or '') for curve in curves):
        title = target or 'intermediate training'
        mine = [curve for curve in curves if str(curve.get('target') or '') == target]
        figure = figures.training_curves(mine, title)
        drawn.append(counter.figure(figure, f'Training curves, {title}', f'{title}, by training step.'))
    return '\n'.join(figure for figure in drawn if figure)


def _what_was_run(rows: Sequence[Row], info: Mapping[str, Any]) -> str:
    names, levels = facts(rows, 'language_name'), facts(rows, 'resource_level')
    codes = languages(rows)
    spelled = ', '.join(f'{names[c]} ({c})' if c in names else c for c in codes)
    counted = [f'{sum(levels.get(c) == level for c in codes)} {level}' for level in dict.fromkeys(levels.values())]
    shown: list[tuple[str, str]] = [
        ('Encoder', _join(distinct(rows, 'encoder'))),
        ('Intermediate training', _join(intermediates(rows))),
        ('Targets', _join(distinct(rows, 'target'))),
        ('Languages', spelled),
        ('Resource level', ', '.join(counted)),
        ('Splits scored', _join(distinct(rows, 'split'))),
        ('Seeds', _join(distinct(rows, 'seed'))),
        ('Presets', _join(dict.fromkeys(row['preset'] for row in rows if row.get('preset')))),
        ('Time', duration(info['seconds']) if info.get('seconds') is not None else ''),
        ('Date', str(info.get('date') or '')),
        ('Versions', ', '.join(f'{name} {version}' for name, version in info.get('versions', {}).items())),
    ]
    facts_list = ''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in shown if v)
    parts = [f'<dl class="facts">{facts_list}</dl>']
    if info.get('licences'):
        parts.append(f'<h3>Licences of data and encoder</h3>{_list(info["licences"], "")}')
    if info.get('config'):
        text = json.dumps(info['config'], indent=2, ensure_ascii=False, default=str)
        parts.append(f'<details><summary>Configuration</summary><pre>{escape(text)}</pre></details>')
    return '\n'.join(parts)


def _reproduce(rows: Sequence[Row], info: Mapping[str, Any]) -> str:
    parts = []
    if info.get('command'):
        parts.append(f'<p>This page comes of</p><pre>{escape(str(info["command"]))}</pre>')
    commands = dict.fromkeys(str(row['command']) for row in rows if row.get('command'))
    single = [command for command in commands if command != info.get('command')]
    if single:
        listed = escape('\n'.join(single))
        heading = f'Commands of single runs ({len(single)})'
        parts.append(f'<details><summary>{heading}</summary><pre>{listed}</pre></details>')
    seeds = _join(distinct(rows, 'seed'))
    parts.append(
        f'<p>with the versions listed above, the same data, and seed {escape(seeds)}. The order of training examples '
        'depends on the seed alone; the last digits of a score can differ from one kind of hardware to another.</p>'
    )
    return '\n'.join(parts)


def duration(seconds: float) -> str:
    """'42 s', '12 min 34 s', '3 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02d} min'


def _list(items: Sequence[str], name: str) -> str:
    return f'<ul{_class(name)}>{"".join(f"<li>{escape(str(item))}</li>" for item in items)}</ul>' if items else ''


def _class(*names: Any) -> str:
    there = ' '.join(name for name in names if name)
    return f' class="{there}"' if there else ''


def _join(items: Iterable[Any]) -> str:
    return ', '.join(str(item) for item in items)


def _number(count: int, noun: str) -> str:
    return f'{count} {noun}{"s" * (count != 1)}'


__all__ = ['findings', 'html_table', 'page', 'write_report', 'write_tables']
