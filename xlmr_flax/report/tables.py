"""The tables made of result rows: languages side by side, the summary of a plan, and a long form for other programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from xlmr_flax.report.files import write_atomically
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
    is_english,
    language_mean,
    languages,
    latest,
    major_metric,
    scored,
    seed_means,
)
from xlmr_flax.report.table import BLANK, Cell, Column, Line, Table, latex_document

METRIC_NAMES = {'accuracy': 'accuracy', 'f1': 'F1', 'exact_match': 'exact match', 'em': 'exact match', 'map': 'mAP'}
ZERO_SHOT, ALL = 'zero-shot mean', 'mean of all'


def metric_name(metric: str) -> str:
    """A metric as it is written in a heading."""
    return METRIC_NAMES.get(metric, metric.replace('_', ' '))


def side_by_side(rows: Iterable[Row], target: str, metric: str | None = None, split: str | None = None) -> Table:
    """Languages as rows; a column for each intermediate, 'none' first, then the differences to 'none'; means below.

    metric: the target's major one if None. split: 'test' if there is one, else the first in the rows. Several encoders
    become groups of columns. The highest score of a row is marked. Raises RowsError when there are no such rows.
    """
    chosen = scored(rows, target, metric, split)
    codes, found = languages(chosen), columns(chosen)
    left = _language_columns(chosen)
    several = len(distinct(chosen, 'encoder')) > 1
    right: list[Column] = []
    pairs: list[tuple[Values, Values | None]] = []  # a column's values, and for a difference what it is taken from
    for encoder in distinct(chosen, 'encoder'):
        mine = {name: values for (e, name), values in found.items() if e == encoder}
        group = encoder if several else ''
        for name, values in mine.items():
            right.append(Column(name, 'score', group, best=True))
            pairs.append((values, None))
        for name, values in mine.items():
            if NONE in mine and name != NONE:
                right.append(Column(f'Δ {name}', 'delta', group))
                pairs.append((values, mine[NONE]))
    lines = [Line((*_language_cells(chosen, left, code), *_cells(pairs, [code]))) for code in codes]
    for name, over in _averages(chosen, codes):
        head = f'{name} ({len(over)} language{"s" * (len(over) != 1)})'
        blanks = [BLANK] * (len(left) - 1)
        lines.append(Line((head, *blanks, *_cells(pairs, over)), mean=True))
    shown = metric_name(chosen[0]['metric'])
    title = f'{target}: {shown} by language, without and with intermediate training'
    return Table(title, (*left, *right), tuple(lines), tuple(_notes(chosen)), best='row')


def summary(rows: Iterable[Row], zero_shot: bool = True, metrics: Mapping[str, str] | None = None) -> Table:
    """Intermediates as rows, targets as columns: the mean over languages and its difference to 'none'; their average.

    zero_shot: means without the training language. metrics: target -> metric, where not the major one. The average is
    unweighted over targets, and is given where every target has been scored. The highest of a column is marked.
    """
    rows = list(rows)
    targets = distinct(rows, 'target')
    if not targets:
        raise RowsError('no rows to summarise')
    chosen = {t: scored(rows, t, (metrics or {}).get(t)) for t in targets}
    found = {t: columns(chosen[t]) for t in targets}
    codes = {t: languages(chosen[t], zero_shot) for t in targets}
    several = len(distinct(rows, 'encoder')) > 1
    heads = [*([Column('Encoder')] if several else []), Column('Intermediate')]
    for target in targets:
        group = f'{target} ({metric_name(chosen[target][0]["metric"])})'
        heads += [Column('mean', 'score', group, best=True), Column('Δ', 'delta', group)]
    if len(targets) > 1:
        heads += [Column('mean', 'score', 'average', best=True), Column('Δ', 'delta', 'average')]
    lines = []
    for encoder, name in _pairs(found):
        cells: list[Cell] = [*([encoder] if several else []), name]
        scores, deltas = [], []
        for target in targets:
            values = found[target].get((encoder, name), {})
            base = found[target].get((encoder, NONE), {})
            scores.append(language_mean(values, codes[target]))
            deltas.append(None if name == NONE else delta(values, base, codes[target]))
            cells += [scores[-1], deltas[-1]]
        if len(targets) > 1:
            cells += _average_cells(found, codes, encoder, name, scores, deltas)
        lines.append(Line(tuple(cells)))
    kind = 'zero-shot mean (all languages but English)' if zero_shot else 'mean over all languages, English included'
    notes = [f'Each number is the {kind}, in %; Δ: points above the same encoder without intermediate training.']
    notes += [f'{t}: {len(codes[t])} languages, {chosen[t][0]["split"]} split.' for t in targets]
    title = 'Summary: zero-shot means' if zero_shot else 'Summary: means over all languages'
    return Table(title, tuple(heads), tuple(lines), (*notes, *_seed_notes(rows)), best='column')


def tidy(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Long form, one number a row: every target, metric and split, each language and the two means ('mean:zero-shot',
    'mean:all'); value and sd over seeds, delta and its sd against 'none'. Missing is None."""
    rows = latest(rows)
    found = []
    for target, metric, split in dict.fromkeys((r['target'], r['metric'], r['split']) for r in rows):
        chosen = scored(rows, target, metric, split)
        codes = languages(chosen)
        names, scripts, levels = (facts(chosen, f) for f in ('language_name', 'script', 'resource_level'))
        sizes = {code: _counts(chosen, code) for code in codes}
        means = {ZERO_SHOT: 'mean:zero-shot', ALL: 'mean:all'}
        places = [(code, [code]) for code in codes] + [(means[n], over) for n, over in _averages(chosen, codes)]
        table = columns(chosen)
        for (encoder, name), values in table.items():
            base = table.get((encoder, NONE), {})
            for code, over in places:
                score = language_mean(values, over)
                change = None if name == NONE else delta(values, base, over)
                found.append(
                    {
                        'encoder': encoder, 'intermediate': name, 'target': target, 'metric': metric, 'split': split,
                        'language': code, 'language_name': names.get(code), 'script': scripts.get(code),
                        'resource_level': levels.get(code), 'n': sizes.get(code),
                        'seeds': score and score.seeds, 'value': score and score.mean, 'sd': score and score.sd,
                        'delta': change and change.mean, 'delta_sd': change and change.sd,
                        'partial': bool((score and score.partial) or (change and change.partial)),
                    }
                )  # fmt: skip
    return found


def all_tables(rows: Iterable[Row]) -> list[Table]:
    """The summary, with and without English where that differs, then each target and metric side by side."""
    rows = latest(rows)
    tables = [summary(rows)]
    if any(is_english(row) for row in rows) and any(not is_english(row) for row in rows):
        tables.append(summary(rows, zero_shot=False))
    for target in distinct(rows, 'target'):
        major = major_metric(rows, target)
        metrics = distinct([row for row in rows if row['target'] == target], 'metric')
        tables += [side_by_side(rows, target, metric) for metric in [major, *(m for m in metrics if m != major)]]
    return tables


def write_tables(folder: str | Path, rows: Iterable[Row]) -> list[Path]:
    """Writes tables.md and tables.tex (every table) and tables.csv (`tidy`) there. Returns their paths."""
    rows, folder = latest(rows), Path(folder)
    tables = all_tables(rows)
    out = io.StringIO()
    records = tidy(rows)
    writer = csv.DictWriter(out, list(records[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: _decimals(v) for k, v in record.items()} for record in records)
    return [
        write_atomically(folder / 'tables.md', '\n'.join(table.markdown() for table in tables)),
        write_atomically(folder / 'tables.csv', out.getvalue()),
        write_atomically(folder / 'tables.tex', latex_document(tables)),
    ]


def sampling_margin(rows: Iterable[Row]) -> float | None:
    """The widest half-width in points of a 95 % interval for one language's accuracy, from the number of examples alone
    (normal approximation); None where a row is no accuracy."""
    widest = None
    for row in rows:
        p = row['value'] / 100
        if row['metric'] != 'accuracy' or row['n'] < 1 or not 0 <= p <= 1:
            return None
        widest = max(widest or 0.0, 196 * math.sqrt(p * (1 - p) / row['n']))
    return widest


def _decimals(value: Any) -> Any:
    return f'{value:.4f}' if isinstance(value, float) else value


def _language_columns(rows: Sequence[Row]) -> list[Column]:
    optional = [('language_name', 'Language'), ('script', 'Script'), ('resource_level', 'Resources')]
    there = [Column(head) for field, head in optional if facts(rows, field)]
    return [Column('Code'), *there, Column('n', 'count')]


def _language_cells(rows: Sequence[Row], left: Sequence[Column], code: str) -> list[Cell]:
    fields = {'Language': 'language_name', 'Script': 'script', 'Resources': 'resource_level'}
    middle = [facts(rows, fields[column.head]).get(code) for column in left[1:-1]]
    return [code, *middle, _counts(rows, code)]


def _counts(rows: Sequence[Row], code: str) -> Cell:
    """The number of examples of a language; 'least–most' where columns differ."""
    counts = [row['n'] for row in rows if row['language'] == code]
    return counts[0] if len(set(counts)) == 1 else f'{min(counts):,}–{max(counts):,}'


def _cells(pairs: Sequence[tuple[Values, Values | None]], codes: Sequence[str]) -> list[Cell]:
    return [language_mean(v, codes) if base is None else delta(v, base, codes) for v, base in pairs]


def _averages(rows: Sequence[Row], codes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(name, languages) of the mean rows; one of them where no language or every language is English."""
    others = languages(rows, zero_shot=True)
    if not others:
        return [(ALL, list(codes))]
    return [(ZERO_SHOT, others)] + ([(ALL, list(codes))] if len(others) < len(codes) else [])


def _pairs(found: Mapping[str, Mapping[tuple[str, str], Values]]) -> list[tuple[str, str]]:
    """(encoder, intermediate) over all targets: by encoder, 'none' first."""
    pairs = list(dict.fromkeys(pair for table in found.values() for pair in table))
    encoders = list(dict.fromkeys(encoder for encoder, _ in pairs))
    return sorted(pairs, key=lambda pair: (encoders.index(pair[0]), pair[1] != NONE))


def _average_cells(
    found: Mapping[str, Mapping[tuple[str, str], Values]],
    codes: Mapping[str, Sequence[str]],
    encoder: str,
    name: str,
    scores: Sequence[Score | None],
    deltas: Sequence[Score | None],
) -> list[Cell]:
    """Average over targets and its difference to 'none'. Spreads where the same seeds have scored every target."""

    def by_target(intermediate: str) -> Values:
        return {t: seed_means(found[t].get((encoder, intermediate), {}), codes[t]) for t in found}

    cells: list[Cell] = []
    whole = language_mean(by_target(name), list(found))
    change = delta(by_target(name), by_target(NONE), list(found))
    for parts, total in ((scores, whole), (deltas, change)):
        there = [part for part in parts if part is not None]
        if len(there) < len(parts) or total is None:
            cells.append(None)
        elif any(part.partial for part in there):
            cells.append(Score(fmean(part.mean for part in there), None, total.seeds, partial=True))
        else:
            cells.append(Score(total.mean, total.sd, total.seeds))
    return cells


def _notes(rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    scale = f'{metric_name(first["metric"])} in %, {first["split"]} split'
    scale = scale[0].upper() + scale[1:]
    notes = [f'{scale}; Δ: points above {NONE!r}, the same encoder without intermediate training.']
    english = [code for code in languages(rows) if code not in languages(rows, zero_shot=True)]
    if english:
        notes.append(f'{", ".join(english)} is the training language; the zero-shot mean leaves it out.')
    chances = sorted({row['chance'] for row in rows if row.get('chance') is not None})
    if chances:
        notes.append(f'Chance: {" to ".join(dict.fromkeys(f"{c:.1f}" for c in (chances[0], chances[-1])))}.')
    margin = sampling_margin(rows)
    if margin is not None:
        notes.append(f'By the number of examples alone, a score has a 95 % interval of up to ±{margin:.1f} points.')
    return notes + _seed_notes(rows) + caveats(rows)


def caveats(rows: Iterable[Row]) -> list[str]:
    """What the rows say of themselves: data that stands in for other data, and notes."""
    rows = list(rows)
    notes = [f'Stand-in data: {text}' for text in dict.fromkeys(r['stand_in'] for r in rows if r.get('stand_in'))]
    return notes + list(dict.fromkeys(row['note'] for row in rows if row.get('note')))


def _seed_notes(rows: Sequence[Row]) -> list[str]:
    seeds = sorted(set(distinct(rows, 'seed')))
    if len(seeds) == 1:
        return [f'One seed ({seeds[0]}): no spread is known, and small differences may be noise.']
    listed = ', '.join(map(str, seeds))
    return [f'Mean ± sample standard deviation over seeds {listed}; for a Δ, over the differences seed by seed.']


__all__ = ['Table', 'all_tables', 'side_by_side', 'summary', 'tidy', 'write_tables']
