"""Writes the report: a self-contained HTML page made from result rows, training curves and facts about the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlmr_flax.report.by_language import (
    MANY_LANGUAGES,
    SCRIPT,
    facts_by_language,
    language_table,
    with_facts,
)
from xlmr_flax.report.effects import Effects, effect_figures, effect_sentences, effect_tables
from xlmr_flax.report.findings import findings
from xlmr_flax.report.html_table import Notes, html_list, html_table
from xlmr_flax.report.page_style import document
from xlmr_flax.report.paper_tables import differences, intervals, runs_table, scores, upright
from xlmr_flax.report.plots.canvas import inline, svg
from xlmr_flax.report.plots.curves import training_curves
from xlmr_flax.report.plots.figures import dumbbells, gains_by_language, score_strips
from xlmr_flax.report.plots.heatmaps import arms_by_targets, delta_heatmap
from xlmr_flax.report.plots.strip_figure import CC100_NOTE
from xlmr_flax.report.rows import NONE, Row, RowsError, distinct, facts, intermediates, languages, scored
from xlmr_flax.report.study import TO_ENGLISH, Study, metric_name, metric_title, score_metrics
from xlmr_flax.report.table import Table
from xlmr_flax.report.tables import FEW_ARMS, caveats, language_tables
from xlmr_flax.report.view import View
from xlmr_flax.util.files import safe_name, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Mapping[str, Any]
WIDE = 16  # largest number of columns of a heat map that fits a page
MOST_COLUMNS = 12  # largest number of columns of a table that fits a page


def write_report(
    path: str | Path, study: Study, curves: Iterable[Curve] = (), info: Mapping[str, Any] | None = None
) -> Path:
    """Writes the page atomically, and its figures to figures/NAME.svg in the same folder; returns the page's path.

    curves: dicts {run, intermediate, target, seed, step, loss?, metric?, value?}; those of an intermediate phase have
    the target ''. info: any of title, command, config (dict), versions (dict), sources (commits), seconds, date, notes,
    data_notes and licences (lists of texts), effects (records of analysis.language_effects), and tokens_per_word
    (encoder -> target -> language -> value). Raises RowsError if there are no rows.
    """
    figures = _Figures()
    text = page(study, curves, info, figures)
    for name, drawing in figures.files.items():
        write_atomically(Path(path).parent / 'figures' / f'{safe_name(name)}.svg', drawing)
    return write_atomically(path, text)


def page(
    study: Study,
    curves: Iterable[Curve] = (),
    info: Mapping[str, Any] | None = None,
    figures: _Figures | None = None,
) -> str:
    """The HTML page as text; see `write_report` for the arguments."""
    if not study.rows:
        raise RowsError('no rows to make a report of')
    rows, curves, info, figures = study.rows, list(curves), dict(info or {}), figures or _Figures()
    title = str(info.get('title') or 'Cross-lingual transfer')
    head = _caveats(rows, info, figures)
    sections = [('results', 'Results', _results(study, figures))]
    # A table of several encoders is without tokens per word: their tokenizers differ.
    tokens = info.get('tokens_per_word', {}).get(study.encoders[0], {}) if len(study.encoders) == 1 else {}
    for i, target in enumerate(study.scored_targets):
        sections.append((f'target-{i}', target, _target(study, target, figures, tokens.get(target, {}))))
    for id_, name, body in (
        ('differences', 'Differences by language', _differences(study, figures)),
        ('effects', 'Effects by language property', _effects(info.get('effects'), figures)),
        ('curves', 'Training curves', _curves(study, curves, figures)),
    ):
        if body:
            sections.append((id_, name, body))
    sections.append(('run', 'What was run', _what_was_run(rows, info)))
    sections.append(('reproduce', 'How to reproduce', _reproduce(study, info, figures)))
    links = ' '.join(f'<a href="#{id_}">{escape(name)}</a>' for id_, name, _ in sections)
    bodies = '\n'.join(f'<section id="{i}">\n<h2>{escape(name)}</h2>\n{body}\n</section>' for i, name, body in sections)
    lead = f'<p class="lead">{escape(_lead(rows))}</p>\n<nav aria-label="Sections">{links}</nav>'
    footer = f'<footer>{escape(_footer(study, curves))}</footer>'
    script = SCRIPT if 'class="sortable"' in bodies else ''
    text = document(title, lead, f'{head}\n{bodies}\n{footer}', script)
    return figures.notes.numbered(text)


def _footer(study: Study, curves: Sequence[Curve]) -> str:
    parts = [f'scores, means and differences from {_number(len(study.rows), "result row")} (results.jsonl)']
    parts += ['losses and dev scores from what the runs logged (metrics.jsonl)'] if curves else []
    parts += ['intervals and p from the test predictions'] if study.tested else []
    return f'Made by xlmr_flax: {"; ".join(parts)}; times, versions and settings as recorded with the runs.'


class _Figures:
    """Collects the figures and notes of a page. Figures are numbered, so that their ids are unique on the page.

    files: file name -> SVG.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.notes = Notes()

    def add(self, figure: Figure | None, name: str, label: str, caption: str) -> str:
        if figure is None:
            return ''
        drawing = svg(figure, label)
        self.files[name] = drawing
        return (
            f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
            f'{inline(drawing, f"f{len(self.files)}-")}</div><figcaption>{escape(caption)}</figcaption></figure>'
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


def _caveats(rows: Sequence[Row], info: Mapping[str, Any], figures: _Figures) -> str:
    notes = [*info.get('notes', ()), *caveats(rows)]
    return f'<div class="caveats">{figures.notes.html(notes, "")}</div>' if notes else ''


def _results(study: Study, figures: _Figures) -> str:
    parts = [html_list(findings(study.rows, study.tested), 'findings')]
    for encoder in study.encoders:
        view, other = View(study, encoder), View(study, encoder, zero_shot=True)
        english = any(other.codes(target) != view.codes(target) for target in study.scored_targets)
        if not view.compares:
            parts.append(html_table(scores(view), figures.notes))
            without = [scores(other)] if english else []
            parts.append(_folded('Without English (zero-shot means)', without, figures))
            continue
        parts.append(html_table(differences(view), figures.notes))
        name = f'differences{view.slug}'
        caption = _of(study, encoder) + 'Points won or lost against the same encoder without intermediate training.'
        if len(study.arms) * len(study.targets) > 4:
            drawn = arms_by_targets(view)
            parts.append(figures.add(drawn, name, f'Differences by intermediate and target, {encoder}', caption))
        parts.append(_folded('Absolute scores', [scores(view)], figures))
        if english:
            without = [differences(other), scores(other)]
            parts.append(_folded('The same without English (zero-shot means)', without, figures))
        tested = [intervals(view), intervals(other) if english else None]
        parts.append(_folded('Intervals of the differences', tested, figures))
    return '\n'.join(part for part in parts if part)


def _of(study: Study, encoder: str) -> str:
    """Start of a caption: the encoder's name, if the study has several encoders."""
    return f'{encoder}. ' if len(study.encoders) > 1 else ''


def _folded(name: str, tables: Iterable[Table | None], figures: _Figures) -> str:
    bodies = '\n'.join(html_table(table, figures.notes, folded=True) for table in tables if table)
    return f'<details><summary>{escape(name)}</summary>{bodies}</details>' if bodies else ''


def _target(study: Study, target: str, figures: _Figures, tokens_per_word: Mapping[str, float]) -> str:
    rows, few = study.of_target(target), len(study.arms) <= FEW_ARMS
    many = len(study.codes(target)) > MANY_LANGUAGES
    about = facts_by_language(rows, tokens_per_word)
    majors = score_metrics(rows, target)
    tables = language_tables(study, target)
    tables = [upright(t) if not few and len(t.columns) > MOST_COLUMNS else t for t in tables]
    tables = [with_facts(t, about) if many else t for t in tables]
    main = tables[: 1 if few else len(study.encoders)]
    # Shows both directions of retrieval, so that neither is mistaken for the other.
    main += [table for table in tables if few and table.name == f'{target}-{TO_ENGLISH}']
    parts = [html_table(table, figures.notes) for table in main]
    chosen = scored(rows, target, majors[0])
    for number, encoder in enumerate(distinct(chosen, 'encoder'), 1):
        label = f'{target}: {metric_title(majors[0], rows)} by language, {encoder}'
        name = f'{target}-by-language' + (f'-{number}' if len(study.encoders) > 1 else '')
        drawn = score_strips(rows, target, majors[0], encoder, about) if many else None
        if drawn is not None:
            caption = f'A point for each language, by resource class and script. {CC100_NOTE}'
        elif few:
            caption = (
                'Languages from high-resource to low-resource. Open: without intermediate training; filled: with it. '
                'Means over the seeds that both have, so the open points of two panels can differ.'
            )
            drawn = dumbbells(rows, target, majors[0], encoder=encoder)
        else:
            caption = f'Differences in {metric_name(majors[0])} to no intermediate training, in points.'
            drawn = delta_heatmap(chosen, encoder)
        parts.append(figures.add(drawn, name, label, _of(study, encoder) + caption))
    for table in tables:
        if table not in main:
            parts.append(_folded(table.title, [table], figures))
    return '\n'.join(part for part in parts if part)


def _differences(study: Study, figures: _Figures) -> str:
    drawn = []
    for number, encoder in enumerate(study.encoders, 1):
        place = f'-{number}' if len(study.encoders) > 1 else ''
        if len(study.arms) <= FEW_ARMS and len(study.targets) * (len(study.arms) - 1) <= WIDE:
            caption = _of(study, encoder) + 'Points won or lost against the same encoder without intermediate training.'
            figure = delta_heatmap(study.rows, encoder)
            drawn.append(figures.add(figure, f'by-language{place}', f'Differences by language, {encoder}', caption))
        caption = _of(study, encoder) + 'The arm that gains most on average for each target, and what the others do.'
        label = f'Gains by language, {encoder}'
        if len(study.arms) > 2:
            drawn.append(figures.add(gains_by_language(View(study, encoder)), f'gains{place}', label, caption))
    return '\n'.join(figure for figure in drawn if figure)


def _effects(effects: Effects | None, figures: _Figures) -> str:
    if not effects or not effects['means']:
        return ''
    parts = [html_list(effect_sentences(effects), '')]
    parts += [figures.add(drawn, name, label, text) for name, (drawn, label, text) in effect_figures(effects).items()]
    records = effects['languages']
    for encoder, target in dict.fromkeys((r['encoder'], r['target']) for r in records):
        mine = [r for r in records if (r['encoder'], r['target']) == (encoder, target)]
        table = language_table(mine, target, encoder)
        parts.append(_folded(f'{len(table.lines)} languages', [table], figures))
    return '\n'.join([*parts, *(_folded(table.title, [table], figures) for table in effect_tables(effects))])


def _curves(study: Study, curves: Sequence[Curve], figures: _Figures) -> str:
    drawn = []
    for target in dict.fromkeys(str(curve.get('target') or '') for curve in curves):
        title = target or 'intermediate training'
        mine = [curve for curve in curves if str(curve.get('target') or '') == target]
        name = f'curves-{target or "intermediate"}'
        label = f'Training curves, {title}'
        drawn.append(figures.add(training_curves(mine, title, study.arms), name, label, _curve_caption(mine, title)))
    return '\n'.join(figure for figure in drawn if figure)


def _curve_caption(curves: Sequence[Curve], title: str) -> str:
    metrics = dict.fromkeys(str(c['metric']) for c in curves if c.get('metric') and c.get('value') is not None)
    names = [f'dev {metric_name(metric.removeprefix("dev "))}' for metric in metrics]
    names = ['training loss', *names] if any(c.get('loss') is not None for c in curves) else names
    shown = ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f'{title}: {shown} by training step; a line for each run.'


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
        ('Source', _join(f'commit {source}' for source in info.get('sources', ()))),
        ('Versions', ', '.join(f'{name} {version}' for name, version in info.get('versions', {}).items())),
    ]
    facts_list = ''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in shown if v)
    parts = [f'<dl class="facts">{facts_list}</dl>']
    if info.get('data_notes'):
        parts.append(f'<h3>Notes on the data</h3>{html_list(info["data_notes"], "")}')
    if info.get('licences'):
        parts.append(f'<h3>Licences of data and encoder</h3>{html_list(info["licences"], "")}')
    if info.get('config'):
        text = json.dumps(info['config'], indent=2, ensure_ascii=False, default=str)
        parts.append(f'<details><summary>Configuration</summary><pre>{escape(text)}</pre></details>')
    return '\n'.join(parts)


def _reproduce(study: Study, info: Mapping[str, Any], figures: _Figures) -> str:
    rows, parts = study.rows, []
    if info.get('command'):
        parts.append(f'<p>This page was made by</p><pre>{escape(str(info["command"]))}</pre>')
    seeds, sources = distinct(rows, 'seed'), info.get('sources', ())
    same = [f'the source of commit {_join(sources)}'] if sources else []
    same += ['the versions listed above', 'the same data', f'and seed{"s" * (len(seeds) > 1)} {_join(seeds)}']
    begin = 'with' if info.get('command') else 'To reproduce the scores, use'
    parts.append(
        f'<p>{begin} {escape(", ".join(same))}. The order of training examples depends on the '
        'seed alone; the last digits of a score can differ from one kind of hardware to another.</p>'
    )
    parts.append(_folded('Run, preset and command of every score', [runs_table(study)], figures))
    return '\n'.join(parts)


def duration(seconds: float) -> str:
    """Formats a duration: '42 s', '12 min 34 s', '3 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02d} min'


def _join(items: Iterable[Any]) -> str:
    return ', '.join(str(item) for item in items)


def _number(count: int, noun: str) -> str:
    return f'{count} {noun}{"s" * (count != 1)}'


__all__ = ['page', 'write_report']
