"""Tests of a workdir's differences from its prediction files: the scores are the official ones, gaps have reasons."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.analysis import significance as module
from xlmr_flax.analysis.significance import read_tests, significance
from xlmr_flax.analysis.study_report import curves, failures, write_report_again
from xlmr_flax.config import parse
from xlmr_flax.data.sources import read_split
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.kinds import example_sums, kind_of, prediction_path, read_gold_set, score_files
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, number_units
from xlmr_flax.kinds.span import normaliser
from xlmr_flax.scoring import files
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SentenceExample, SpanExample, Task

N = 120
LANGUAGES = {
    'world_pairs': ['en', 'de', 'ru'], 'world_pos': ['en', 'de'], 'world_spans': ['en', 'de'],
    'world_retrieval': ['de', 'ru'],
}  # fmt: skip


def config(**more: Any):
    fields = {'intermediate': ('none', 'world_nli', 'world_choices'), 'targets': tuple(LANGUAGES)}
    return parse({**fields, 'evaluation': {'max_examples': N}, 'tensorboard': False, **more})


def predict(task: Task, language: str, path: Path, wrong: float, seed: int) -> tuple[dict[str, float], int]:
    """A prediction file that is right but for a share of its examples; the official scores of it."""
    rng = random.Random(seed)
    if task.kind == 'retrieval':
        files.write_labels(path, [i if rng.random() > wrong else (i + 1) % N for i in range(N)])
        return score_files(task, language, path, [SentenceExample('', '')] * N), N
    examples: Any = read_split(task, language, 'test', None, N)
    spoil = [rng.random() < wrong for _ in examples]
    if task.kind == 'pair':
        said: Any = [task.labels[(e.label + bad) % len(task.labels)] for e, bad in zip(examples, spoil, strict=True)]
    elif task.kind == 'tag':
        said = [['X' if bad else task.labels[t] for t in e.tags] for e, bad in zip(examples, spoil, strict=True)]
    else:
        said = {e.id: 'the' if bad else e.answers[0][0] + ' it' for e, bad in zip(examples, spoil, strict=True)}
    kind_of(task).write(path, said)
    return score_files(task, language, path, examples), len(examples)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory) -> tuple[Workdir, list[dict[str, Any]]]:
    """'world_nli' is better than 'none' on everything, 'world_choices' is 'none' over again."""
    root, rows = tmp_path_factory.mktemp('significance'), []
    for seed in (1, 2):
        for arm, wrong in (('none', 0.5), ('world_nli', 0.2), ('world_choices', 0.5)):
            for target, languages in LANGUAGES.items():
                task = get_task(target)
                for number, language in enumerate(languages):
                    path = prediction_path(root / 'predictions' / f'{arm}-seed{seed}', task, language)
                    scores, n = predict(task, language, path, wrong, 10 * seed + number)
                    rows += [
                        {
                            'encoder': 'small', 'intermediate': arm, 'target': target, 'language': language,
                            'split': 'test', 'metric': metric, 'value': value, 'n': n, 'seed': seed, 'step': 1,
                            'run': f'{arm}{seed}',
                        }
                        for metric, value in scores.items()
                    ]  # fmt: skip
    found = Workdir(root)
    found.write_results(rows)
    return found, rows


def difference(rows, target, arm, metrics, english=True) -> float:
    def mean(name: str) -> float:
        chosen = [r for r in rows if (r['intermediate'], r['target']) == (name, target) and r['metric'] in metrics]
        return float(np.mean([r['value'] for r in chosen if english or r['language'] != 'en']))

    return mean(arm) - mean('none')


def test_differences_are_those_of_the_rows_and_only_real_ones_are_significant(workdir):
    place, rows = workdir
    found = {(r['target'], r['intermediate'], r['languages']): r for r in significance(place, config(), rows)}
    assert len(found) == 4 * 2 * 2
    majors = {'world_pos': ('f1',), 'world_spans': ('f1', 'exact_match')}
    for (target, arm, which), row in found.items():
        expected = difference(rows, target, arm, majors.get(target, ('accuracy',)), which == 'all')
        assert row['difference'] == pytest.approx(expected, abs=1e-6)
        assert row['low'] <= row['difference'] <= row['high']
        assert (row['p_holm'] < 0.05) == (arm == 'world_nli'), row
        assert (row['family'], row['seeds'], row['resamples']) == (8, 2, 2000)
    assert found['world_pairs', 'world_choices', 'all']['difference'] == 0.0
    assert found['world_pairs', 'world_nli', 'all']['n'] == 3 * N
    assert found['world_pairs', 'world_nli', 'zero-shot']['parts'] == 2


def test_finished_targets_come_from_the_cache_until_their_rows_change(workdir, tmp_path, monkeypatch):
    place, rows = workdir
    cache, calls = tmp_path / 'cache.json', []
    real = module.bootstrap
    monkeypatch.setattr(module, 'bootstrap', lambda *a: calls.append(1) or real(*a))
    first = significance(place, config(), rows, cache)
    assert len(calls) == 4
    assert significance(place, config(), rows, cache) == first
    assert len(calls) == 4
    changed = [{**r, 'run': 'again'} if r['target'] == 'world_pairs' else r for r in rows]
    significance(place, config(), changed, cache)
    assert len(calls) == 5
    whole = json.loads(cache.read_text())

    def damaged(change):
        return json.dumps({**whole, 'targets': {k: [change(r) for r in v] for k, v in whole['targets'].items()}})

    contents = [
        '{broken', '[]', '[' * 9999, '{"format": 1}', '{"format": 1, "targets": []}', '\udcff',
        damaged(lambda row: 5), damaged(lambda row: {**row, 'p': 'x'}), damaged(lambda row: {**row, 'target': None}),
        damaged(lambda row: {name: value for name, value in row.items() if name != 'low'}),
    ]  # fmt: skip
    for content in contents:
        cache.write_bytes(content.encode('utf-8', 'surrogateescape'))
        assert read_tests(cache) == []
        assert significance(place, config(), rows, cache) == first
        assert len(read_tests(cache)) == len(first)


def reasons(found, target) -> set[str]:
    return {r['reason'] for r in found if r['target'] == target and 'reason' in r}


def test_what_cannot_be_tested_has_a_reason(workdir):
    place, rows = workdir
    gone = [r for r in rows if not (r['intermediate'] == 'world_nli' and r['language'] == 'ru')]
    found = significance(place, config(), gone)
    assert reasons(found, 'world_pairs') == {'not scored in every language and seed'}
    assert [r['intermediate'] for r in found if r['target'] == 'world_pairs' and 'p_holm' in r] == ['world_choices'] * 2
    without = [r for r in rows if (r['intermediate'], r['target']) != ('none', 'world_pairs')]
    assert not [r for r in significance(place, config(), without) if r['target'] == 'world_pairs' and 'p' in r]
    other = [{**r, 'value': r['value'] + 1} if r['target'] == 'world_pos' else r for r in rows]
    assert any('results.jsonl' in reason for reason in reasons(significance(place, config(), other), 'world_pos'))


def test_differences_are_over_the_seeds_that_both_have(workdir):
    place, rows = workdir

    def differences(chosen):
        found = [
            r for r in significance(place, config(), chosen) if (r['target'], r['languages']) == ('world_pos', 'all')
        ]
        return {r['intermediate']: (r.get('difference'), r.get('seeds'), r.get('reason')) for r in found}

    only = [r for r in rows if r['seed'] == 1]
    uneven = differences([r for r in rows if r['seed'] == 1 or r['intermediate'] != 'world_nli'])
    assert uneven['world_nli'] == differences(only)['world_nli'] and uneven['world_nli'][1] == 1
    assert uneven['world_choices'][1] == 2
    apart = differences([r for r in rows if (r['seed'] == 1) == (r['intermediate'] == 'world_nli')])
    assert apart['world_nli'] == (None, None, "no seed in common with 'none'")


def test_a_missing_prediction_file_is_no_error(workdir, tmp_path):
    _, rows = workdir
    assert significance(Workdir(tmp_path / 'empty'), config(), rows) == []
    (tmp_path / 'half' / 'predictions').mkdir(parents=True)
    found = significance(Workdir(tmp_path / 'half'), config(), rows, tmp_path / 'cache.json')
    assert found and all('no scores by example' in row['reason'] for row in found)
    assert not (tmp_path / 'cache.json').exists()  # they may be there next time


def test_the_report_of_a_workdir_shows_the_marks(workdir):
    place, _ = workdir
    plan = {'intermediate': ['none', 'world_nli', 'world_choices'], 'targets': list(LANGUAGES)}
    more = {'seeds': [1, 2], 'evaluation': {'max_examples': N, 'languages': LANGUAGES}}
    saved = {'command': 'xlmr-flax run', 'config': {**plan, **more}}
    (place.path / 'config.json').write_text(json.dumps(saved), encoding='utf-8')
    write_report_again(place.path, {})
    text = (place.path / 'report' / 'tables.md').read_text(encoding='utf-8')
    line = next(line for line in text.splitlines() if line.startswith('| world\\_nli'))
    assert line.count('\\*') == 4
    assert 'family-wise error rate of 5 %' in text
    assert json.loads((place.path / 'report' / 'significance.json').read_text())['targets']


@pytest.mark.parametrize(
    ('target', 'metric', 'why'),
    [('bucc2018', 'f1', 'mined pairs'), ('squad_v2', 'f1', 'thresholded'), ('panx', 'precision', 'panx: precision')],
)
def test_metrics_that_are_no_sums_over_examples(target, metric, why, tmp_path):
    gold = GoldSet(get_task(target), 'de', [])
    with pytest.raises(NoExampleScores, match=why):
        example_sums(gold, tmp_path / 'x', metric)


def test_mlqa_is_normalised_by_language_and_takes_the_best_answer(tmp_path):
    task = get_task('mlqa')
    answers = [('a', (('der alte Turm', 0), ('Turm', 0))), ('b', (('zwei', 0),)), ('c', (('drei', 0),))]
    examples = [SpanExample(id_, '?', 'x', given) for id_, given in answers]
    path = tmp_path / 'p.json'
    files.write_answers(path, {'a': 'alte Turm!', 'b': 'zwei drei'})
    found = GoldSet(task, 'de', ['a', 'b', 'c'], examples, {}, normaliser(task, 'de'))
    official = score_files(task, 'de', path, examples)
    for metric in ('f1', 'exact_match'):
        over, under = example_sums(found, path, metric)
        assert 100 * over.sum() / under.sum() == pytest.approx(official[metric])
    assert example_sums(found, path, 'exact_match')[0].tolist() == [1, 0, 0]


def test_rankings_by_query(tmp_path):
    path = tmp_path / 'p.tsv'
    files.write_answers(path.with_suffix('.json'), {'q1': ['x', 'a'], 'q2': ['b']})
    gold = GoldSet(get_task('mewslix'), 'de', ['q1', 'q2'], (), {'q1': ['a'], 'q2': ['b']})
    assert example_sums(gold, path, 'map@20')[0].tolist() == [0.5, 1.0]


def test_units_are_shared_by_id():
    units = number_units([['0', '1', '2'], ['1', '2'], ['x']])
    assert [u.tolist() for u in units] == [[0, 1, 2], [1, 2], [3]]
    gold = [read_gold_set(get_task('world_pos'), code, 'test', '', 5).ids for code in ('en', 'de')]
    assert gold[0] == gold[1]


def test_failed_runs_of_the_plan_are_named(tmp_path):
    place = Workdir(tmp_path)
    (tmp_path / 'failed').mkdir()
    for run in ('world_nli--world_pairs--seed1-0a', 'other--world_pairs--seed1-0b'):
        text = json.dumps({'run': run, 'type': 'DataError', 'error': 'no such file'})
        (tmp_path / 'failed' / f'{run}.json').write_text(text, encoding='utf-8')
    (tmp_path / 'failed' / 'cut.json').write_text('{"run"', encoding='utf-8')
    assert failures(place, config()) == ['Failed run world_nli--world_pairs--seed1-0a: DataError: no such file']


def test_dev_curves_carry_the_metric_of_the_task_that_was_trained():
    about = {'run': 'r', 'intermediate': 'none', 'target': 'world_spans', 'seed': 1, 'step': 5}
    records = [about | {'task': task, 'loss': 0.5, 'dev_metric': 40.0} for task in ('world_spans', 'a_mixture')]
    points = curves(records, config())
    assert [p['metric'] for p in points if 'metric' in p] == ['dev f1', 'dev score']
    assert [p['loss'] for p in points if 'loss' in p] == [0.5, 0.5]
    both = curves(records, config(recipes={'world_spans': {'dev_score': 'mean'}}, targets=['world_spans']))
    assert [p['metric'] for p in both if 'metric' in p] == ['dev f1 and exact_match', 'dev score']
