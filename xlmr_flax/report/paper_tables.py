"""Tables as in the paper (Phang et al. 2020): intermediates as rows, targets as columns, and tables by language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from xlmr_flax.report.rows import NONE, Row, Score, facts, language_mean
from xlmr_flax.report.study import MARKED, STAND_IN, Study, metric_name, metric_title, score_metrics
from xlmr_flax.report.table import BLANK, Cell, Column, Line, Table, text
from xlmr_flax.report.view import View, best_notes, chance_notes, common_notes, means_note, significance_notes


def differences(view: View) -> Table:
    """The paper's main table: scores of 'none', differences of every arm to it, and the best arm of each target."""
    columns = [Column('Intermediate')]
    for target in view.targets:
        columns.append(Column(_metric(view, target), 'delta', view.target_name(target), best=True))
    several = len(view.targets) > 1
    columns += [Column('average', 'delta', best=True)] if several else []
    lines, hints = [], {}
    for name in view.study.arms:
        cells: list[Cell] = [view.arm_name(name)]
        for target in view.targets:
            cell = view.score(name, target) if name == NONE else view.change(name, target)
            cells.append(_shown(view.flagged(cell, name, target)) if name == NONE else view.flagged(cell, name, target))
            hints[len(lines), len(cells) - 1] = _difference_hint(view, name, target)
        if several:
            mine, change = view.average(name)
            cells.append(_shown(mine) if name == NONE else change)
        lines.append(Line(tuple(cells)))
    chosen = {target: view.best(target) for target in view.targets}
    if any(best.arms for best in chosen.values()) and len(view.study.arms) > 1:
        names = [chosen[target].shown for target in view.targets]
        lines.append(Line(('best arm', *names, *([BLANK] if several else [])), mean=True))
        changes = [_over_ties([_gain(view, name, target) for name in chosen[target].arms]) for target in view.targets]
        mean = fmean(c.mean for c in changes if c) if all(changes) else None
        lines.append(Line(('its Δ', *changes, *([mean] if several else [])), mean=True))
    notes = [
        f'Row {NONE!r}: score in %. Other rows: points above it, the same encoder without intermediate training. '
        f'{means_note(view)}'
    ]
    notes += significance_notes(view) + best_notes(chosen, view) + chance_notes(view) + common_notes(view)
    title = f'Scores without intermediate training, and differences to them ({view.where})'
    name = f'differences{view.slug}'
    bold = frozenset(_highest(view, several))
    return Table(title, tuple(columns), tuple(lines), tuple(notes), '', name, hints, bold)


def _highest(view: View, average: bool) -> Iterator[tuple[int, int]]:
    """(line, column) of the highest absolute score of each column; the row of 'none' may have it."""
    for j in range(len(view.targets) + average):
        column = [
            view.score(n, view.targets[j]) if j < len(view.targets) else view.average(n)[0] for n in view.study.arms
        ]
        shown = {i: round(score.mean, 1) for i, score in enumerate(column) if score and not score.partial}
        if len(set(shown.values())) > 1:
            yield from ((i, j + 1) for i, value in shown.items() if value == max(shown.values()))


def scores(view: View) -> Table:
    """The table of absolute scores; F1 and exact match of question answering have a column each."""
    columns, places = [Column('Intermediate')], []
    for target in view.targets:
        rows = view.study.of_target(target)
        for metric in score_metrics(rows, target) if rows else ('',):
            head = 'EM' if metric == 'exact_match' else metric_name(metric) or 'score'
            columns.append(Column(head, 'score', view.target_name(target), best=True))
            places.append((target, metric))
    several = len(view.targets) > 1
    columns += [Column('average', 'score', best=True)] if several else []
    lines, hints = [], {}
    for name in view.study.arms:
        cells: list[Cell] = [view.arm_name(name)]
        for target, metric in places:
            cells.append(view.flagged(view.score(name, target, metric), name, target) if metric else None)
            hints[len(lines), len(cells) - 1] = view.runs(name, target)
        lines.append(Line((*cells, *([view.average(name)[0]] if several else []))))
    chosen = {target: view.best(target) for target in view.targets}
    if any(best.arms for best in chosen.values()) and len(view.study.arms) > 1:
        named = [chosen[p[0]].shown if i == 0 or places[i - 1][0] != p[0] else BLANK for i, p in enumerate(places)]
        lines.append(Line(('best arm', *named, *([BLANK] if several else [])), mean=True))
        best = [
            _over_ties([view.score(name, target, metric or None) for name in chosen[target].arms])
            for target, metric in places
        ]
        whole = [_over_ties([view.score(name, target) for name in chosen[target].arms]) for target in view.targets]
        mean = fmean(score.mean for score in whole if score) if all(whole) else None
        lines.append(Line(('its score', *best, *([mean] if several else [])), mean=True))
    notes = [f'In %. {means_note(view)}', *best_notes(chosen, view), *chance_notes(view), *common_notes(view)]
    title = f'Scores without and with intermediate training ({view.where})'
    return Table(title, tuple(columns), tuple(lines), tuple(notes), 'column', f'scores{view.slug}', hints)


def by_language(view: View, target: str, metric: str) -> Table:
    """Scores by language of one target and metric: intermediates as rows, the means and every language as columns."""
    every, others = view.study.codes(target), view.study.codes(target, zero_shot=True)
    by_arm = view.study.values(target, view.encoder, metric)
    rows = view.study.of_target(target)
    means = [('mean', every)] + ([('zero-shot', others)] if 0 < len(others) < len(every) else [])
    columns = [Column('Intermediate'), *(Column(head, 'score', best=True) for head, _ in means)]
    columns += [Column(code, 'score', best=True) for code in every]
    lines, hints = [], {}
    for name in view.study.arms:
        values = by_arm.get(name, {})
        cells: list[Cell] = [view.arm_name(name)]
        cells += [view.whole_seeds(language_mean(values, over), values) for _, over in means]
        for code in every:
            here = {code: values.get(code, {})}
            cells.append(view.whole_seeds(language_mean(here, [code]), here))
            hints[len(lines), len(cells) - 1] = view.runs(name, target, language=code)
        lines.append(Line(tuple(cells)))
    counts = sorted({r['language']: r['n'] for r in rows}.values())
    size = f'{counts[0]:,}' if counts[0] == counts[-1] else f'{counts[0]:,} to {counts[-1]:,}'
    notes = [f'In %, {rows[0]["split"]} split, {size} examples a language.']
    notes += [*names_note(facts(rows, 'language_name'), every), *common_notes(view, target)]
    place = f'; {view.encoder}' if len(view.study.encoders) > 1 else ''
    title = f'{view.target_name(target)}: {metric_title(metric, rows)} by language{place}'
    slug = f'{target}-{metric}{replace(view, zero_shot=False).slug}'
    return Table(title, tuple(columns), tuple(lines), tuple(notes), 'column', slug, hints)


def names_note(names: Mapping[str, str], codes: Sequence[str]) -> list[str]:
    """A note with the names of the languages, [] if none is known."""
    spelled = [f'{code} {names[code]}' for code in codes if code in names]
    return [f'{"; ".join(spelled)}.'] if spelled else []


def upright(table: Table) -> Table:
    """Transposes a table of `by_language`: languages as rows, means last. An HTML page has room for many rows."""
    means = [j for j, column in enumerate(table.columns) if column.head in ('mean', 'zero-shot')]
    order = [*(j for j in range(1, len(table.columns)) if j not in means), *means]
    columns = (Column('Language'), *(Column(str(line.cells[0]), 'score', best=True) for line in table.lines))
    lines = [Line((table.columns[j].head, *(line.cells[j] for line in table.lines)), mean=j in means) for j in order]
    hints = {(order.index(j), i + 1): hint for (i, j), hint in table.hints.items()}
    return replace(table, columns=columns, lines=tuple(lines), best='row', hints=hints)


def intervals(view: View) -> Table | None:
    """Table of every tested difference with its interval and p-values; None if nothing was tested."""
    which = 'zero-shot' if view.zero_shot else 'all'
    mine = [row for row in view.study.tested if row['languages'] == which and row['encoder'] == view.encoder]
    tested = [row for row in mine if row.get('p_holm') is not None]
    if not tested:
        return None
    columns = (
        Column('Target'), Column('Intermediate'), Column('Δ', 'delta'), Column('from', 'delta', '95 % interval'),
        Column('to', 'delta', '95 % interval'), Column('single', 'score', 'p', decimals=4),
        Column('Holm', 'score', 'p', decimals=4), Column('examples', 'count'), Column('languages', 'count'),
        Column('seeds', 'count'),
    )  # fmt: skip
    order = {name: i for i, name in enumerate(view.study.targets)}, {n: i for i, n in enumerate(view.study.arms)}
    tested.sort(key=lambda row: (order[0].get(row['target'], 0), order[1].get(row['intermediate'], 0)))
    lines = []
    for row in tested:
        change = Score(row['difference'], mark=MARKED * (row['p_holm'] < row['alpha']))
        place = (view.target_name(row['target']), row['intermediate'])
        numbers = (change, *(row[name] for name in ('low', 'high', 'p', 'p_holm', 'n', 'parts', 'seeds')))
        lines.append(Line((*place, *numbers)))
    title = f'Intervals of the differences ({view.where})'
    notes = [*significance_notes(view), *common_notes(view, missing=False)]
    return Table(title, columns, tuple(lines), tuple(notes), name=f'intervals{view.slug}')


def runs_table(study: Study) -> Table:
    """Table of the runs: run id, seed, step, preset and command of every score."""
    runs: dict[tuple, Row] = {}
    for row in study.rows:
        runs.setdefault((row['intermediate'], row['target'], row['seed'], row.get('run'), row['encoder']), row)
    commands = list(dict.fromkeys(str(row['command']) for row in runs.values() if row.get('command')))
    several = len(study.encoders) > 1
    columns = [*([Column('Encoder')] if several else []), Column('Target'), Column('Intermediate')]
    columns += [Column('seed', 'count'), Column('Run'), Column('step', 'count'), Column('Preset'), Column('Command')]
    order = {n: i for i, n in enumerate(study.targets)}, {n: i for i, n in enumerate(study.arms)}
    lines = []
    for row in sorted(runs.values(), key=lambda r: (order[0][r['target']], order[1][r['intermediate']], r['seed'])):
        number = f'[{commands.index(str(row["command"])) + 1}]' if row.get('command') else None
        target = row['target'] + STAND_IN * study.stands_in(target=row['target'])
        about = (target, row['intermediate'], str(row['seed']), row.get('run'), row['step'], row.get('preset'), number)
        lines.append(Line((*([row['encoder']] if several else []), *about)))
    notes = [f'[{i}] {command}' for i, command in enumerate(commands, 1)]
    title = 'Runs: where every score comes from'
    return Table(title, tuple(columns), tuple(lines), tuple(notes), name='runs')


def _metric(view: View, target: str) -> str:
    rows = view.study.of_target(target)
    metrics = score_metrics(rows, target) if rows else ()
    return 'F1/EM' if len(metrics) == 2 else ''.join(map(metric_name, metrics)) or 'score'


def _shown(score: Score | None) -> Cell:
    """Formats an absolute score for a column of differences."""
    return None if score is None else text(score, Column('', 'score'))


def _gain(view: View, name: str, target: str) -> Score | None:
    return Score(0.0) if name == NONE else view.change(name, target)


def _over_ties(scores: Sequence[Score | None]) -> Score | None:
    """Score of the best arm of a target, or the mean of several arms that tie."""
    there = [score for score in scores if score]
    if len(there) < 2:
        return there[0] if there else None
    return Score(fmean(score.mean for score in there))


def _difference_hint(view: View, name: str, target: str) -> str:
    parts = [view.runs(name, target)]
    if name != NONE and (test := view.study.test(view.encoder, name, target, view.zero_shot)):
        low, high = (text(Score(test[side]), Column('', 'delta')) for side in ('low', 'high'))
        parts.append(f'95 % interval {low} to {high}; p (Holm) {test["p_holm"]:.3g}')
    return '; '.join(part for part in parts if part)
