"""Tables, figures and sentences on effects by language: means over language groups, regression lines, power.

The records are those of `analysis.language_effects` (plain dicts); this module computes no statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.report.latex import latex_document, latex_fragment
from xlmr_flax.report.plots.canvas import svg
from xlmr_flax.report.plots.effect_figures import forest, line_panels
from xlmr_flax.report.plots.strip_figure import CC100_NOTE, strips
from xlmr_flax.report.rows import NONE
from xlmr_flax.report.study import MARKED, metric_name
from xlmr_flax.report.table import Column, Line, Table, markdown, signed
from xlmr_flax.report.tables import csv_text
from xlmr_flax.util.files import safe_name, write_atomically

Record = Mapping[str, Any]
Effects = Mapping[str, Sequence[Record]]
SIZE = 'log10 CC-100 GiB'
KEYS = ('means', 'lines', 'joint', 'power', 'languages', 'excluded')
INTERVALS = (
    'Intervals: 95 %, languages and seeds as crossed random factors (mean of a Satterthwaite and a generalized test; '
    'simulations check the coverage). Test examples are not resampled; the bootstrap of the other tables does that.'
)
WITH_EXAMPLES = (
    'Intervals: 95 %, languages, seeds and test examples as crossed random factors (mean of a Satterthwaite and a '
    'generalized test; simulations check the coverage). Examples %: share of the variance of the mean that comes from '
    'test examples which languages share; without a number, the interval does not include it.'
)


def effect_tables(effects: Effects) -> list[Table]:
    """Tables of means and regression lines for each encoder and target, then of control arms, then of power."""
    tables = []
    for encoder, target in _places(effects['means']):
        mine = [r for r in effects['means'] if (r['encoder'], r['target'], r['against']) == (encoder, target, NONE)]
        if mine:
            tables.append(_means(mine, f'{target}: effect of intermediate training', f'effects-{target}', encoder))
        lines = [r for r in effects['lines'] if (r['encoder'], r['target']) == (encoder, target)]
        if lines:
            tables.append(_lines(lines, target, encoder))
        joint = [r for r in effects['joint'] if (r['encoder'], r['target']) == (encoder, target)]
        if joint:
            tables.append(_lines(joint, target, encoder, together=True))
    others = [r for r in effects['means'] if r['against'] != NONE and r['group'] in ('all', 'low-resource')]
    if others:
        tables.append(_means(others, 'Arms against controls', 'effects-controls', '', targets=True))
    return tables + ([_power(effects['power'])] if effects['power'] else [])


def _means(records: Sequence[Record], title: str, name: str, encoder: str, targets: bool = False) -> Table:
    columns = [
        *([Column('Target')] if targets else []), Column('Languages'), Column('Arm'), Column('Against'),
        Column('n', 'count'), Column('Seeds', 'count'), Column('Δ', 'delta'), Column('low', 'delta', '95 %'),
        Column('high', 'delta', '95 %'), Column('p'), Column('p (Holm)'), Column('Seeds %', 'count'),
    ]  # fmt: skip
    known = any('example_share' in r for r in records)
    columns += [Column('Examples %', 'count')] if known else []
    lines = []
    for r in records:
        cells = [r['target']] if targets else []
        cells += [r['group'], r['intermediate'] + MARKED * (r['p_holm'] < r['alpha']), r['against'], r['languages']]
        cells += [r['seeds'], r['estimate'], r['low'], r['high'], probability(r['p']), probability(r['p_holm'])]
        cells += [round(100 * r['seed_share'])]
        cells += [round(100 * r['example_share']) if 'example_share' in r else None] if known else []
        lines.append(Line(tuple(cells)))
    first = records[0]
    scale = f'Differences in {metric_name(first["metric"])}, points, {first["split"]} split' if not targets else (
        "Differences in points of each target's score"
    )  # fmt: skip
    notes = [
        f'{scale}; languages other than the training language; n: languages.',
        WITH_EXAMPLES if known else INTERVALS,
        f'{MARKED} p < {first["alpha"]:g} after Holm within the {"target and group" if targets else "group"}'
        '; Seeds %: share of the variance of the mean that comes from seeds.',
    ]
    return Table(f'{title}{_of(encoder)}', tuple(columns), tuple(lines), tuple(notes), name=name)


def _lines(records: Sequence[Record], target: str, encoder: str, together: bool = False) -> Table:
    columns = (
        Column('Property'), Column('Arm'), Column('n', 'count'), Column('Slope', 'delta', decimals=2),
        Column('low', 'delta', '95 %', decimals=2), Column('high', 'delta', '95 %', decimals=2), Column('p'),
        Column('p (Holm)'),
    )  # fmt: skip
    lines = [
        Line((
            r['property'], r['intermediate'] + MARKED * (r['p_holm'] < r['alpha']), r['languages'], r['slope'],
            r['low'], r['high'], probability(r['p']), probability(r['p_holm']),
        ))
        for r in records
    ]  # fmt: skip
    how = 'the properties in one regression' if together else 'each property by itself'
    notes = (
        'Slope: points of effect for one unit of the property (a factor of ten in size; one class; yes against no; one '
        f'token), {how}. The properties are correlated (languages that are not in CC-100 are low-resource and have '
        'many tokens per word), so a slope does not show a cause. Languages that are not in CC-100 count as '
        '0.05 GiB.',
        'Tokens per word: of the scored texts; not of scripts without spaces between words.',
        INTERVALS,
        f'{MARKED} p < {records[0]["alpha"]:g} after Holm over all {records[0]["family"]} slopes of the target.',
    )
    title = f'{target}: effect by {"properties of the language together" if together else "property of the language"}'
    name = f'effects-{target}-{"together" if together else "properties"}'
    return Table(title + _of(encoder), columns, tuple(lines), notes, name=name)


def _power(records: Sequence[Record]) -> Table:
    columns = (
        Column('Target'), Column('Languages'), Column('Arms'), Column('n', 'count'), Column('Seeds', 'count'),
        Column('languages', 'score', 'sd', decimals=2), Column('seeds', 'score', 'sd', decimals=2),
        Column('rest', 'score', 'sd', decimals=2),
    )  # fmt: skip
    known = any('error_examples' in r for r in records)
    columns += (Column('examples', 'score', 'error', decimals=2),) if known else ()
    columns += (Column('Smallest Δ', 'score', decimals=1),)
    lines = []
    shapes = Counter((r['encoder'], r['target'], r['group']) for r in records)
    for r in records:
        alone = shapes[r['encoder'], r['target'], r['group']] == 1
        cells = (r['target'], r['group'], 'all' if alone else r['arms'].replace('+', ', '), r['languages'], r['seeds'])
        cells += (r['sd_language'], r['sd_seed'], r['sd_rest'])
        cells += (r.get('error_examples'),) if known else ()
        lines.append(Line((*cells, r['smallest'])))
    notes = (
        'Smallest Δ: the smallest true difference to no intermediate training that this design detects with a power of '
        '80 % at p < 0.05, for one arm without correction; by simulation from the components of variance that the '
        'arms of the line have on average (standard deviations in points).'
        + (
            ' examples: what test examples that languages share add to the standard error of the mean.' if known else ''
        ),
    )
    return Table('Power: smallest detectable differences', columns, tuple(lines), notes, name='effects-power')


def probability(p: float) -> str:
    """Formats a p-value: '0.031', '< 0.001'."""
    return '< 0.001' if p < 0.001 else f'{p:.3f}'


def effect_sentences(effects: Effects) -> list[str]:
    """One sentence for each target: which arms differ from 'none', and the smallest difference that was detectable."""
    sentences = []
    for encoder, target in _places(effects['means']):
        mine = [r for r in effects['means'] if (r['encoder'], r['target'], r['against']) == (encoder, target, NONE)]
        group = 'low-resource' if any(r['group'] == 'low-resource' for r in mine) else 'all'
        mine = [r for r in mine if r['group'] == group]
        if not mine:
            continue
        sure = [r for r in mine if r['p_holm'] < r['alpha']]
        listed = ', '.join(f'{r["intermediate"]} {signed(r["estimate"])} ({_interval(r)})' for r in sure)
        what = f'{len(sure)} of {len(mine)} arms differ from none' + (f': {listed}' if listed else '')
        reach = [
            r
            for r in effects['power']
            if (r['encoder'], r['target'], r['group']) == (encoder, target, group) and r['smallest'] >= 0.05
        ]
        how = [f'{r["smallest"]:.1f} points' + f' with {r["seeds"]} seeds' * (len(reach) > 1) for r in reach]
        least = f'; the smallest detectable difference is {" and ".join(how)} (80 % power)' if reach else ''
        which = 'languages' if group == 'all' else 'low-resource languages'
        sentences.append(f'{target}{_of(encoder)}, {mine[0]["languages"]} {which}: {what}{least}.')
    return sentences + excluded_sentences(effects)


def excluded_sentences(effects: Effects) -> list[str]:
    """One sentence for each target with collapsed runs: how many were left out, and which."""
    sentences = []
    for encoder, target in _places(effects['excluded']):
        mine = [r for r in effects['excluded'] if (r['encoder'], r['target']) == (encoder, target)]
        names = ', '.join(f'{r["intermediate"]} seed {r["seed"]} ({r["collapsed"]})' for r in mine)
        sentences.append(
            f'{target}{_of(encoder)}: {len(mine)} of {mine[0]["of"]} runs are collapsed and left out by the exclusion '
            f'rule: {names}.'
        )
    return sentences


def _interval(record: Record) -> str:
    return f'{signed(record["low"])} to {signed(record["high"])}'


def effect_figures(effects: Effects) -> dict[str, tuple[Any, str, str]]:
    """Figures of effects: {file name: (figure, label, caption)}."""
    figures = {}
    for number, encoder in enumerate(dict.fromkeys(r['encoder'] for r in effects['means']), 1):
        more = f'-{number}' if number > 1 else ''
        mine = [r for r in effects['means'] if r['encoder'] == encoder and r['against'] == NONE]
        if mine:
            caption = (
                f'{encoder}. Difference to no intermediate training with its 95 % interval over languages and seeds. '
                'Filled: all languages; open: low-resource ones alone. Grey: differences below the smallest '
                'detectable one in all languages.'
            )
            power = [r for r in effects['power'] if r['encoder'] == encoder]
            figures[f'effects-forest{more}'] = (forest(mine, power), 'Effects of arms by target', caption)
        for target in dict.fromkeys(r['target'] for r in effects['lines'] if r['encoder'] == encoder):
            lines = [
                r for r in effects['lines'] if (r['encoder'], r['target'], r['property']) == (encoder, target, SIZE)
            ]
            if lines:
                caption = (
                    f'{encoder}, {target}. Difference to no intermediate training by language, the mean over seeds, '
                    'against the size of the language in CC-100; line with its pointwise 95 % band. Open: not in '
                    'CC-100 (drawn at 0.05 GiB).'
                )
                label = f'Effect by CC-100 size, {target}'
                figures[f'effects-size-{target}{more}'] = (line_panels(lines), label, caption)
        languages = [r for r in effects['languages'] if r['encoder'] == encoder]
        for target in dict.fromkeys(r['target'] for r in languages):
            mine = [r for r in languages if r['target'] == target]
            drawn = strips(mine, 'difference', f'{target}: difference (points)')
            if drawn is not None:
                caption = (
                    f'{encoder}, {target}. Difference to no intermediate training of every language, the mean over '
                    f'seeds, by resource class and script. {CC100_NOTE}'
                )
                label = f'Effect by resource class, {target}'
                figures[f'effects-classes-{target}{more}'] = (drawn, label, caption)
    return figures


def write_effects(
    folder: str | Path, effects: Effects, title: str = '', notes: Iterable[str] = (), command: str = ''
) -> list[Path]:
    """Writes effects.md, effects.tex, effects-*.csv (every record, six decimals), latex/NAME.tex and
    figures/effects-*.svg; returns their paths ([] if there is no effect to show)."""
    tables = effect_tables(effects)
    if not tables:
        return []
    folder, head = Path(folder), [*effect_sentences(effects), *notes]
    head += [f'Command: {command}'] if command else []
    text = ''.join([f'# {markdown(title)}\n\n' if title else '', *(f'- {markdown(note)}\n' for note in head), '\n'])
    paths = [
        write_atomically(folder / 'effects.md', text + '\n'.join(table.markdown() for table in tables)),
        write_atomically(folder / 'effects.tex', latex_document(tables, title, head)),
    ]
    for key in KEYS:
        flat = [{k: v for k, v in r.items() if k not in ('at', 'points')} for r in effects[key]]
        if flat:
            paths.append(write_atomically(folder / f'effects-{key}.csv', csv_text(flat, decimals=6)))
    paths += [write_atomically(folder / 'latex' / f'{safe_name(t.name)}.tex', latex_fragment(t)) for t in tables]
    for name, (figure, label, _) in effect_figures(effects).items():
        paths.append(write_atomically(folder / 'figures' / f'{safe_name(name)}.svg', svg(figure, label)))
    return paths


def _places(records: Sequence[Record]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r['encoder'], r['target']) for r in records))


def _of(encoder: str) -> str:
    return f' ({encoder})' if encoder else ''
