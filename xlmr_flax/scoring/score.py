"""Scores folders of prediction files and makes the benchmark's tables, as XTREME's evaluate.py.

A task's score is the mean over its languages (QA: the mean of the means of EM and F1). The overall score is the
unweighted mean over all tasks of the benchmark. It exists only if all tasks are present with all their languages;
missing tasks and languages are listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.scoring.benchmarks import BENCHMARKS, QA, Benchmark, Part
from xlmr_flax.scoring.gold import GoldFolder, GoldSource, file_of, missing_file
from xlmr_flax.scoring.metrics.sums import total
from xlmr_flax.scoring.one_file import Scores, coverage, score_file
from xlmr_flax.tasks import get_task
from xlmr_flax.util.errors import closest


def score_folder(
    predictions: Path | str,
    labels: Path | str | GoldSource,
    benchmark: str = 'xtreme',
    tasks: Iterable[str] | None = None,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Scores ROOT/TASK/test-LANG prediction files against gold labels.

    labels: a folder of gold files with the same layout, or a data root (`gold.GoldOfDataRoot`).
    tasks: the tasks to score (default: every task of the benchmark that has a folder of predictions and one of labels,
    as in evaluate.py, or with a data root a test file in one of its languages).
    Returns {'benchmark', 'tasks': {task: {'languages': {language: {metric: value}}, 'mean': {metric: value}, 'score',
    'missing_languages', 'unlabelled_languages', 'coverage', 'stand_in'}}, 'groups': {group: value or None}, 'overall':
    value or None, 'missing_tasks', 'unlabelled_tasks', 'unscored', 'unknown_folders'}; all values are percentages. A
    group score or the overall score is None unless all its tasks are complete.
    coverage: {language: {'gold', 'unanswered', 'unknown'}}: numbers of gold ids, of gold ids without a prediction and
    of predictions without a gold id, for languages in which the ids differ.
    unlabelled_tasks: tasks that are not scored because there are no labels of them; they also count as missing.
    unlabelled_languages: those whose gold rows have no labels; they are not scored. unscored: sentences about these
    files, and about tasks with a folder of which no file is scored. stand_in: notes on gold rows of a data root that
    stand in for the dataset's, '' for real ones.
    Raises DataError for a file that is missing (unless allow_missing), has another suffix, is unreadable, of another
    length than the gold file or has labels that the task does not have, and if no predicted task has labels.
    """
    predictions, bench = Path(predictions), _benchmark(benchmark)
    if not predictions.is_dir():
        raise DataError(f'{predictions}: no such folder of predictions')
    source = GoldFolder(Path(labels)) if isinstance(labels, Path | str) else labels
    present = sorted(path.name for path in predictions.iterdir() if path.is_dir())
    wanted = _wanted(bench, tasks, present)
    unlabelled = [] if tasks is not None else [task for task in wanted if not source.has(task, bench.parts[task])]
    if wanted and wanted == unlabelled:
        raise DataError(f'{source}: no {source.what} for any of the predicted tasks ({", ".join(wanted)})')
    wanted = [task for task in wanted if task not in unlabelled]
    scored = {task: _score_task(task, bench.parts[task], predictions, source, allow_missing) for task in wanted}
    empty = {task: result for task, result in scored.items() if not result['languages']}
    scored = {task: result for task, result in scored.items() if task not in empty}
    gaps = ('missing_languages', 'unlabelled_languages')
    whole = {task: result['score'] for task, result in scored.items() if not any(map(result.get, gaps))}
    return {
        'benchmark': bench.name,
        'tasks': scored,
        'groups': {group: _mean_of(whole, members) for group, members in bench.groups.items()},
        'overall': _mean_of(whole, bench.parts),
        'missing_tasks': [task for task in bench.parts if task not in scored],
        'unlabelled_tasks': unlabelled,
        'unscored': _unscored(source, bench, scored | empty),
        'unknown_folders': [name for name in present if name not in bench.parts],
    }


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise DataError(f'unknown benchmark {name!r}{closest(name, BENCHMARKS)}')
    return BENCHMARKS[name]


def _wanted(bench: Benchmark, tasks: Iterable[str] | None, present: Sequence[str]) -> list[str]:
    if tasks is None:
        return [task for task in bench.parts if task in present]
    asked = list(dict.fromkeys(tasks))
    for task in asked:
        if task not in bench.parts:
            raise DataError(f'benchmark {bench.name!r} has no task {task!r}{closest(task, bench.parts)}')
    return asked


def _mean_of(scores: Mapping[str, float], tasks: Iterable[str]) -> float | None:
    tasks = list(tasks)
    if any(task not in scores for task in tasks):
        return None
    return total(scores[task] for task in tasks) / len(tasks)


def _score_task(task: str, part: Part, predictions: Path, source: GoldSource, allow_missing: bool) -> dict[str, Any]:
    by_language: dict[str, Scores] = {}
    counts: dict[str, dict[str, int]] = {}
    missing, unlabelled, notes = [], [], []
    for language in part.languages:
        path = file_of(predictions, task, part, language)
        if lacks := missing_file(path, task, language) or source.lacks(task, part, language):
            if not allow_missing:
                raise DataError(f'{lacks}. To leave such languages out: --allow_missing')
            missing.append(language)
            continue
        gold = source.read(task, part, language)
        if gold.values is None:
            unlabelled.append(language)
            continue
        counts[language] = coverage(part.form, path, gold)
        by_language[language] = score_file(get_task(task), part.form, language, path, gold)
        notes.append(gold.stand_in)
    metrics = next(iter(by_language.values()), {})
    mean = {name: total(scores[name] for scores in by_language.values()) / len(by_language) for name in metrics}
    score = None
    if mean:
        pair = part.group == QA and not part.main
        score = (mean['exact_match'] + mean['f1']) / 2 if pair else mean[part.main or _major(mean)]
    return {
        'languages': by_language,
        'mean': mean,
        'score': score,
        'missing_languages': missing,
        'unlabelled_languages': unlabelled,
        'coverage': {language: each for language, each in counts.items() if any(list(each.values())[1:])},
        'stand_in': '; '.join(filter(None, dict.fromkeys(notes))),
    }


def _unscored(source: GoldSource, bench: Benchmark, results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences about files that are there and are not scored: without labels, or in no language of the task."""
    sentences = []
    for task, result in results.items():
        part = bench.parts[task]
        for language in result['unlabelled_languages']:
            where = source.name(task, part, language)
            sentences.append(f'{task} {language}: {where} has no labels (a public test file): not scored')
        if not result['languages'] and not result['unlabelled_languages']:
            name = f'test-LANG.{part.suffix}'
            sentences.append(f'{task}: no language has a file {name} of predictions and one of labels: not scored')
    return sentences


def warnings(scores: Mapping[str, Any]) -> list[str]:
    """Warnings about a result of score_folder: tasks and files that are not scored, stand-ins, and `coverage_lines`."""
    unlabelled = [f'{task}: predictions, but no labels: not scored' for task in scores['unlabelled_tasks']]
    notes = {task: result['stand_in'] for task, result in scores['tasks'].items()}
    stand_ins = [f'{task}: the gold rows stand in for the dataset: {note}' for task, note in notes.items() if note]
    return unlabelled + scores['unscored'] + stand_ins + coverage_lines(scores)


def coverage_lines(scores: Mapping[str, Any]) -> list[str]:
    """One line for each task and language in which the ids of predictions and gold differ."""
    return [
        f'{task} {language}: {counts["unanswered"]} of {counts["gold"]} gold {_what(scores, task)} have no prediction '
        f'(they count 0), {counts["unknown"]} predictions are not in the gold file'
        for task, result in scores['tasks'].items()
        for language, counts in result['coverage'].items()
    ]


def _what(scores: Mapping[str, Any], task: str) -> str:
    return 'pairs' if BENCHMARKS[scores['benchmark']].parts[task].form == 'pairs' else 'ids'


def _major(metrics: Mapping[str, float]) -> str:
    return next(name for name in ('f1', 'accuracy', 'map@20') if name in metrics)


def to_json(scores: Mapping[str, Any]) -> str:
    """The result of score_folder as JSON text, without rounding."""
    return json.dumps(scores, indent=1, ensure_ascii=False) + '\n'


def to_markdown(scores: Mapping[str, Any]) -> str:
    """The result of score_folder as Markdown tables: the benchmark's summary, then each task by language; two
    decimals."""
    lines = [f'# {scores["benchmark"]}', '']
    rows = [['overall', _number(scores['overall']), '']]
    rows += [[f'group: {group}', _number(value), ''] for group, value in scores['groups'].items()]
    for task, result in scores['tasks'].items():
        means = ', '.join(f'{name} {_number(value)}' for name, value in result['mean'].items())
        rows.append([task, _number(result['score']), means])
    lines += _table(['', 'score', 'mean over languages'], rows)
    for task, result in scores['tasks'].items():
        names = list(result['mean'])
        lines += ['', f'## {task}', '']
        rows = [
            [language, *(_number(values[name]) for name in names)] for language, values in result['languages'].items()
        ]
        lines += _table(['language', *names], rows)
        if result['missing_languages']:
            lines += ['', f'Missing languages: {", ".join(result["missing_languages"])}.']
    if notes := warnings(scores):
        lines += ['', *(f'- {line}' for line in notes)]
    if scores['missing_tasks']:
        lines += ['', f'Missing tasks: {", ".join(scores["missing_tasks"])}.']
    if scores['unknown_folders']:
        lines += ['', f'Folders that belong to no task: {", ".join(scores["unknown_folders"])}.']
    return '\n'.join(lines) + '\n'


def _number(value: float | None) -> str:
    return '–' if value is None else f'{value:.2f}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    dashes = ['---', *('---:' for _ in header[1:])]
    return [f'| {" | ".join(row)} |' for row in (header, dashes, *rows)]
