"""All tables of a study: those of the paper, each target by language, and a long (tidy) form for other programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.report.latex import latex_document, latex_fragment
from xlmr_flax.report.paper_tables import by_language, differences, intervals, runs_table, scores
from xlmr_flax.report.rows import (
    NONE,
    Row,
    RowsError,
    Values,
    columns,
    delta,
    distinct,
    facts,
    language_mean,
    languages,
    scored,
    select,
)
from xlmr_flax.report.study import (
    STAND_IN,
    Study,
    metric_name,
    metric_title,
    score_metrics,
    score_rows,
)
from xlmr_flax.report.table import BLANK, Cell, Column, Line, Table, markdown
from xlmr_flax.report.view import View, provenance, row_notes, seed_notes, stand_in_notes
from xlmr_flax.util.files import safe_name, write_atomically

ZERO_SHOT, ALL = 'zero-shot mean', 'mean of all'
FEW_ARMS = 4  # with at most this many arms, languages are rows and arms are columns


def side_by_side(rows: Iterable[Row], target: str, metric: str | None = None) -> Table:
    """Table of one target: languages as rows, intermediates and their differences to 'none' as columns, means last.

    metric: the target's major metric if None. Several encoders become groups of columns. The highest score of a row is
    marked. Raises RowsError if there are no such rows.
    """
    rows = list(rows)
    chosen = scored(rows, target, metric)
    codes, found = languages(chosen), columns(chosen)
    left = _language_columns(chosen)
    several = len(distinct(chosen, 'encoder')) > 1
    right: list[Column] = []
    sources: list[tuple[str, str]] = []  # encoder and intermediate of each column
    pairs: list[tuple[Values, Values | None]] = []  # a column's values, and for a difference the values of 'none'
    for encoder in distinct(chosen, 'encoder'):
        mine = {name: values for (e, name), values in found.items() if e == encoder}
        group = encoder if several else ''
        for name, values in mine.items():
            right.append(Column(name, 'score', group, best=True))
            sources.append((encoder, name))
            pairs.append((values, None))
        for name, values in mine.items():
            if NONE in mine and name != NONE:
                right.append(Column(f'Δ {name}', 'delta', group))
                sources.append((encoder, name))
                pairs.append((values, mine[NONE]))
    lines = [Line((*_language_cells(chosen, left, code), *_cells(pairs, [code]))) for code in codes]
    runs: dict[tuple, list[Row]] = {}
    for row in chosen:
        runs.setdefault((row['language'], row['encoder'], row['intermediate']), []).append(row)
    hints = {
        (i, len(left) + j): provenance(runs.get((code, *source), ()))
        for i, code in enumerate(codes)
        for j, source in enumerate(sources)
    }
    for name, over in _averages(chosen, codes):
        head = f'{name} ({len(over)} language{"s" * (len(over) != 1)})'
        blanks = [BLANK] * (len(left) - 1)
        lines.append(Line((head, *blanks, *_cells(pairs, over)), mean=True))
    shown = metric_title(chosen[0]['metric'], select(rows, target=target))
    title = f'{target}: {shown} by language, without and with intermediate training'
    name = f'{target}-{chosen[0]["metric"]}'
    return Table(title, (*left, *right), tuple(lines), tuple(_notes(chosen)), 'row', name, hints)


def tidy(study: Study) -> list[dict[str, Any]]:
    """Records in long (tidy) form: one for each target, metric, split, encoder, intermediate and language.

    Metrics include the mean of F1 and exact match; languages include the means 'mean:zero-shot' and 'mean:all'. A
    record has value and sd over seeds, delta and its sd against 'none', and its interval and p-values if it was tested.
    runs, presets, commands: the source of the value. A missing value is None.
    """
    records = []
    for target in study.scored_targets:
        rows = study.of_target(target)
        keys = dict.fromkeys((r['metric'], r['split']) for r in rows)
        sets = [scored(rows, target, metric, split) for metric, split in keys]
        if len(score_metrics(rows, target)) > 1:
            sets.append(score_rows(rows, target))
        for chosen in sets:
            records += _tidy_rows(study, chosen)
    return records


def _tidy_rows(study: Study, chosen: list[Row]) -> list[dict[str, Any]]:
    codes, first = languages(chosen), chosen[0]
    names, scripts, levels = (facts(chosen, f) for f in ('language_name', 'script', 'resource_level'))
    sizes = {code: _counts(chosen, code) for code in codes}
    means = {ZERO_SHOT: 'mean:zero-shot', ALL: 'mean:all'}
    places = [(code, [code]) for code in codes] + [(means[n], over) for n, over in _averages(chosen, codes)]
    table, found = columns(chosen), []
    sources: dict[tuple, list[Row]] = {}
    for row in chosen:
        sources.setdefault((row['encoder'], row['intermediate']), []).append(row)
    for (encoder, name), values in table.items():
        base = table.get((encoder, NONE), {})
        for code, over in places:
            score = language_mean(values, over)
            change = None if name == NONE else delta(values, base, over)
            mine = [row for row in sources[encoder, name] if row['language'] in over]
            found.append(
                {
                    'encoder': encoder, 'intermediate': name, 'target': first['target'], 'metric': first['metric'],
                    'split': first['split'], 'language': code, 'language_name': names.get(code),
                    'script': scripts.get(code), 'resource_level': levels.get(code), 'n': sizes.get(code),
                    'seeds': score and score.seeds, 'value': score and score.mean, 'sd': score and score.sd,
                    'delta': change and change.mean, 'delta_sd': change and change.sd,
                    'partial': bool((score and score.partial) or (change and change.partial)),
                    **_tested(study, encoder, name, first, code),
                    'stand_in': any(row.get('stand_in') for row in mine),
                    'runs': _joined(f'{r.get("run", "")}:seed{r["seed"]}' for r in mine),
                    'presets': _joined(row.get('preset') for row in mine),
                    'commands': _joined(row.get('command') for row in mine),
                }
            )  # fmt: skip
    return found


def _tested(study: Study, encoder: str, name: str, row: Row, code: str) -> dict[str, Any]:
    """Interval and p-values of the difference of a mean over languages."""
    test = None
    if code.startswith('mean:') and name != NONE:
        test = study.test(encoder, name, row['target'], code == 'mean:zero-shot')
        if test is None and code == 'mean:zero-shot':  # a target without English has only the mean over all
            test = study.test(encoder, name, row['target'], zero_shot=False)
    there = test if test and test['metric'] == row['metric'] and test['split'] == row['split'] else {}
    return {
        field: there.get(key) for field, key in (('low', 'low'), ('high', 'high'), ('p', 'p'), ('p_holm', 'p_holm'))
    }


def _joined(values: Iterable[Any]) -> str:
    return ' | '.join(dict.fromkeys(str(value) for value in values if value))


def all_tables(study: Study) -> list[Table]:
    """All tables: for each encoder differences, scores and intervals, then targets by language, then the runs.

    The tables of an encoder are repeated without English if that changes a mean.
    """
    tables: list[Table | None] = []
    for encoder in study.encoders:
        views = [View(study, encoder)]
        if any(study.codes(t, zero_shot=True) != study.codes(t) for t in study.scored_targets):
            views.append(View(study, encoder, zero_shot=True))
        for view in views:
            tables += [differences(view) if view.compares else None, scores(view), intervals(view)]
    for target in study.scored_targets:
        tables += language_tables(study, target)
    return [table for table in tables if table] + [runs_table(study)]


def language_tables(study: Study, target: str) -> list[Table]:
    """Tables of a target by language, one for each metric; the metrics of the target's score come first.

    With few arms they are columns (`side_by_side`), else rows (`by_language`, a table for each encoder).
    """
    rows = study.of_target(target)
    metrics = list(dict.fromkeys([*score_metrics(rows, target), *distinct(rows, 'metric')]))
    if len(study.arms) <= FEW_ARMS:
        return [side_by_side(rows, target, metric) for metric in metrics]
    return [by_language(View(study, encoder), target, metric) for metric in metrics for encoder in study.encoders]


def write_tables(
    folder: str | Path, study: Study, title: str = '', notes: Sequence[str] = (), command: str = ''
) -> list[Path]:
    """Writes all tables to tables.md and tables.tex, and each table to latex/NAME.tex; returns the paths.

    Also writes the numbers in full precision: tables.csv (`tidy`: means, differences, intervals) and results.csv (the
    rows). title, notes: head of the documents. Raises RowsError if there are no rows.
    """
    if not study.rows:
        raise RowsError('no rows to make tables of')
    folder, tables = Path(folder), all_tables(study)
    made = [f'Command: {command}'] if command else []
    files = 'Numbers in full precision, each with its run, seed, preset and command: results.csv; means: tables.csv.'
    head = [*notes, *made, files]
    text = ''.join([f'# {markdown(title)}\n\n' if title else '', *(f'- {markdown(note)}\n' for note in head), '\n'])
    fragments = [write_atomically(folder / 'latex' / f'{safe_name(t.name)}.tex', latex_fragment(t)) for t in tables]
    return [
        write_atomically(folder / 'tables.md', text + '\n'.join(table.markdown() for table in tables)),
        write_atomically(folder / 'tables.csv', csv_text(tidy(study))),
        write_atomically(folder / 'results.csv', csv_text(study.rows)),
        write_atomically(folder / 'tables.tex', latex_document(tables, title, head)),
        *fragments,
    ]


def csv_text(records: Sequence[Mapping[str, Any]], decimals: int | None = None) -> str:
    """Records as CSV with a head line; a missing value is empty; a text that looks like a formula gets a leading quote.

    decimals: round floats to this many. Estimates differ in their last digits between processors.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return repr(value if decimals is None else round(value, decimals))
        return f"'{value}" if isinstance(value, str) and value.startswith(('=', '+', '-', '@')) else value

    fields = list(dict.fromkeys(name for record in records for name in record))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: cell(v) for k, v in record.items()} for record in records)
    return out.getvalue()


def sampling_margin(rows: Iterable[Row]) -> float | None:
    """Half-width in points of the widest 95 % interval of one language's accuracy; None if a row is no accuracy.

    It depends on the number of examples and the accuracy alone (normal approximation).
    """
    widest = None
    for row in rows:
        p = row['value'] / 100
        if row['metric'] != 'accuracy' or row['n'] < 1 or not 0 <= p <= 1:
            return None
        widest = max(widest or 0.0, 196 * math.sqrt(p * (1 - p) / row['n']))
    return widest


def _language_columns(rows: Sequence[Row]) -> list[Column]:
    optional = [('language_name', 'Language'), ('script', 'Script'), ('resource_level', 'Resources')]
    there = [Column(head) for field, head in optional if facts(rows, field)]
    return [Column('Code'), *there, Column('n', 'count')]


def _language_cells(rows: Sequence[Row], left: Sequence[Column], code: str) -> list[Cell]:
    fields = {'Language': 'language_name', 'Script': 'script', 'Resources': 'resource_level'}
    middle = [facts(rows, fields[column.head]).get(code) for column in left[1:-1]]
    return [code, *middle, _counts(rows, code)]


def _counts(rows: Sequence[Row], code: str) -> Cell:
    """Number of examples of a language; 'least–most' if columns differ."""
    counts = [row['n'] for row in rows if row['language'] == code]
    return counts[0] if len(set(counts)) == 1 else f'{min(counts):,}–{max(counts):,}'


def _cells(pairs: Sequence[tuple[Values, Values | None]], codes: Sequence[str]) -> list[Cell]:
    return [language_mean(v, codes) if base is None else delta(v, base, codes) for v, base in pairs]


def _averages(rows: Sequence[Row], codes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(name, languages) of the rows of means; only one row if no language or every language is English."""
    others = languages(rows, zero_shot=True)
    if not others:
        return [(ALL, list(codes))]
    return [(ZERO_SHOT, others)] + ([(ALL, list(codes))] if len(others) < len(codes) else [])


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
    return notes + seed_notes(sorted(set(distinct(rows, 'seed')))) + caveats(rows)


def caveats(rows: Iterable[Row]) -> list[str]:
    """Caveats from the rows: stand-in data, unreadable test rows that were left out, data from TFDS, and notes."""
    rows = list(rows)
    notes = [f'{STAND_IN} Stand-in data, not the dataset itself: {text}.' for text in stand_in_notes(rows)]
    bad = {(row['target'], row['language']): row['left_out'] for row in rows if row.get('left_out')}
    for target in dict.fromkeys(target for target, _ in bad):
        counts = ', '.join(f'{language} {n:,}' for (name, language), n in bad.items() if name == target)
        notes.append(f'{target}: test rows that could not be read are left out of the scores ({counts}).')
    other = dict.fromkeys((row['target'], row['tfds']) for row in rows if row.get('tfds'))
    notes += [f'{target}: read from TFDS ({builder}), not from the official files.' for target, builder in other]
    return notes + row_notes(rows)


__all__ = ['Table', 'all_tables', 'csv_text', 'language_tables', 'side_by_side', 'tidy', 'write_tables']
