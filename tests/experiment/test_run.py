"""A plan from beginning to end on the tiny encoder: what it writes, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.analysis.study_report import write_report_again
from xlmr_flax.config import Config
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.experiment import runner
from xlmr_flax.experiment import training as phase
from xlmr_flax.experiment.runner import PlanFailed, Runner
from xlmr_flax.experiment.workdir.scheduling import Share
from xlmr_flax.kinds import score_files
from xlmr_flax.tasks import get_task

REQUIRED = ('encoder', 'intermediate', 'target', 'language', 'split', 'metric', 'value', 'n', 'seed', 'step')
OPTIONAL = {
    'run', 'command', 'preset', 'english', 'chance', 'stand_in', 'note', 'source', 'tfds', 'left_out',
    'language_name', 'script', 'family', 'resource_level', 'cc100_gib', 'collapsed',
}  # fmt: skip

Configs = Callable[..., Config]


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / 'results.jsonl').read_text('utf-8').splitlines()]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / 'w'))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What a start trains and evaluates from here on."""
    found: dict[str, list[str]] = {'trained': [], 'evaluated': []}
    train, evaluate = runner.train_run, runner.Evaluator.run_all

    def counted_train(setting: Any, run: Any) -> None:
        found['trained'].append(run.name.rsplit('-', 1)[0])
        train(setting, run)

    def counted_evaluate(self: Any, task: Any, *rest: Any) -> Any:
        for language, *scores in evaluate(self, task, *rest):
            found['evaluated'].append(f'{task.name}-{language}')
            yield language, *scores

    monkeypatch.setattr(runner, 'train_run', counted_train)
    monkeypatch.setattr(runner.Evaluator, 'run_all', counted_evaluate)
    return found


def test_every_row_has_the_documented_fields(finished: Path) -> None:
    rows = read_rows(finished)
    for row in rows:
        assert set(REQUIRED) <= row.keys() <= {*REQUIRED, *OPTIONAL}
        assert all(isinstance(row[k], int) for k in ('n', 'seed', 'step'))
        assert 0 <= row['value'] <= 100
        assert row['n'] == 16
        assert row['encoder'] == 'random:tiny'
        assert row['step'] == (3 if row['target'] == 'world_pairs' else 0)
        assert row['english'] is (row['language'] == 'en')
        assert (row['command'], row['preset'], row['source']) == ('first', '', 'world')
    german = next(r for r in rows if r['language'] == 'de')
    facts = ('language_name', 'script', 'family', 'resource_level')
    assert [german[k] for k in facts] == ['German', 'Latn', 'IE:Germanic', 'high']
    assert {r['target']: r['chance'] for r in rows} == {'world_pairs': 50.0, 'world_retrieval': 100 / 16}


def test_every_arm_target_language_and_seed_is_there_once(finished: Path) -> None:
    keys = [tuple(r[k] for k in ('seed', 'intermediate', 'target', 'language', 'metric')) for r in read_rows(finished)]
    wanted = [
        (seed, arm, *rest)
        for seed in (1, 2)
        for arm in ('none', 'world_nli')
        for rest in (
            ('world_pairs', 'en', 'accuracy'), ('world_pairs', 'de', 'accuracy'),
            ('world_retrieval', 'de', 'accuracy'), ('world_retrieval', 'de', 'accuracy_to_en'),
        )
    ]  # fmt: skip
    assert keys == wanted


def test_prediction_files_are_the_benchmarks_and_give_the_values(finished: Path) -> None:
    pairs, retrieval = get_task('world_pairs'), get_task('world_retrieval')
    checked = 0
    for row in read_rows(finished):
        path = finished / 'predictions' / f'{row["intermediate"]}-seed{row["seed"]}' / row['target']
        path = path / f'test-{row["language"]}.tsv'
        lines = path.read_text('utf-8').splitlines()
        assert len(lines) == row['n'] == 16
        if row['target'] == 'world_pairs':
            assert set(lines) <= set(pairs.labels)
            scores = score_files(pairs, row['language'], path, read_split(pairs, row['language'], 'test', limit=16))
        else:
            assert all(0 <= int(line) < 16 for line in lines)
            scores = score_files(retrieval, row['language'], path, read_pairs(retrieval, 'de', 'test', limit=16)[0])
        if row['metric'] in scores:
            assert row['value'] == scores[row['metric']]
            checked += 1
    assert checked == 12


def test_one_intermediate_run_a_seed_serves_both_targets(finished: Path) -> None:
    names = sorted(p.name for p in (finished / 'runs').iterdir())
    assert len(names) == 2 * 5
    trained = list((finished / 'runs').glob('*/model/model.json'))
    assert len(trained) == 2 * 3
    for seed in (1, 2):
        assert len([n for n in names if n.startswith(f'world_nli--intermediate--seed{seed}-')]) == 1
    models = {p.parent.parent.name: (p.parent / 'model.safetensors').read_bytes() for p in trained}
    assert len(set(models.values())) == 6, 'no two runs have the same weights'
    assert not list((finished / 'runs').glob('*/checkpoints')), 'the state of a finished run is deleted'


def test_the_report_is_there_and_can_be_made_again(copy: Path) -> None:
    page, tables = copy / 'report' / 'index.html', copy / 'report' / 'tables.md'
    text = page.read_text('utf-8')
    assert '<html' in text
    assert 'Tiny random encoder on the embedded world' in text
    before = tables.read_bytes()
    assert b'pairs' in before
    assert b'retrieval' in before
    shutil.rmtree(copy / 'report')
    said = write_report_again(copy, {'jax': '0'})
    assert str(page) in said
    assert tables.read_bytes() == before
    assert page.is_file()


def test_metrics_are_of_every_training(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / 'metrics.jsonl').read_text().splitlines()]
    losses = [r for r in records if 'loss' in r]
    assert len({r['run'] for r in losses}) == 6
    for run in {r['run'] for r in losses}:
        mine = [r for r in records if r['run'] == run]
        assert [r['step'] for r in mine if 'loss' in r] == [2, 3]
        assert [r['step'] for r in mine if 'dev_metric' in r] == [3]
    assert {(r['intermediate'], r['target'], r['task'], r['seed']) for r in losses} == {
        (arm, target, task, seed)
        for seed in (1, 2)
        for arm, target, task in (
            ('none', 'world_pairs', 'world_pairs'), ('world_nli', '', 'world_nli'), ('world_nli', 'world_pairs',
            'world_pairs'),
        )
    }  # fmt: skip


def test_a_second_start_does_nothing_and_writes_the_same(
    copy: Path, config_of: Configs, done: dict[str, list[str]]
) -> None:
    before, metrics = (copy / 'results.jsonl').read_bytes(), (copy / 'metrics.jsonl').read_bytes()
    predictions = {p: p.stat().st_mtime_ns for p in (copy / 'predictions').rglob('*.tsv')}
    (copy / 'results.jsonl').unlink()
    Runner.open(config_of(seeds=(1, 2)), copy, 'second').run()
    assert done == {'trained': [], 'evaluated': []}
    assert (copy / 'results.jsonl').read_bytes() == before
    assert (copy / 'metrics.jsonl').read_bytes() == metrics
    assert {p: p.stat().st_mtime_ns for p in (copy / 'predictions').rglob('*.tsv')} == predictions


def test_what_is_missing_is_made_again_and_nothing_else(
    copy: Path, config_of: Configs, done: dict[str, list[str]]
) -> None:
    before = read_rows(copy)
    (path,) = (copy / 'runs').glob('none--world_pairs--seed2-*/evaluations/world_pairs-test-de.json')
    path.unlink()
    Runner.open(config_of(seeds=(1, 2)), copy, 'first').run()
    assert done == {'trained': [], 'evaluated': ['world_pairs-de']}
    assert read_rows(copy) == before


def test_a_half_written_evaluation_is_made_again(copy: Path, config_of: Configs, done: dict[str, list[str]]) -> None:
    before = (copy / 'results.jsonl').read_bytes()
    (path,) = (copy / 'runs').glob('none--world_retrieval--seed1-*/evaluations/world_retrieval-test-de.json')
    path.write_text(path.read_text('utf-8')[:50], 'utf-8')
    Runner.open(config_of(seeds=(1, 2)), copy, 'first').run()
    assert done == {'trained': [], 'evaluated': ['world_retrieval-de']}
    assert (copy / 'results.jsonl').read_bytes() == before


def test_a_missing_model_is_trained_again_to_the_same_bits(
    copy: Path, config_of: Configs, done: dict[str, list[str]]
) -> None:
    (folder,) = (copy / 'runs').glob('world_nli--intermediate--seed1-*')
    before = (folder / 'model' / 'model.safetensors').read_bytes()
    shutil.rmtree(folder)
    Runner.open(config_of(seeds=(1, 2)), copy, 'first').run()
    assert done == {'trained': ['world_nli--intermediate--seed1'], 'evaluated': []}
    assert (folder / 'model' / 'model.safetensors').read_bytes() == before


def test_other_settings_of_the_evaluation_evaluate_again_without_training(
    copy: Path, config_of: Configs, done: dict[str, list[str]]
) -> None:
    Runner.open(config_of(seeds=(1,), targets=('world_retrieval',), evaluation__languages={}, evaluation__pooling='cls',
                     intermediate=('none',)), copy, 'x').run()  # fmt: skip
    assert done['trained'] == []
    assert done['evaluated'][:2] == ['world_retrieval-ar', 'world_retrieval-bg']
    assert len(done['evaluated']) == 15
    assert len(read_rows(copy)) == 30


def test_other_rows_to_score_evaluate_again(
    copy: Path, config_of: Configs, done: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Split.digest
    monkeypatch.setattr(Split, 'digest', lambda rows: real(rows) + 'x' * ((rows.name, rows.language) == ('test', 'en')))
    Runner.open(config_of(seeds=(1,), intermediate=('none',)), copy, 'x').run()
    assert done == {'trained': [], 'evaluated': ['world_pairs-en']}


def test_a_stopped_start_leaves_what_it_had(
    copy: Path, config_of: Configs, done: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third seed dies in its last training: the results of what was finished are kept, time is counted."""
    real = runner.train_run

    def fails(setting: Any, run: Any) -> None:
        if run.target and run.intermediate != 'none':
            raise KeyboardInterrupt
        real(setting, run)

    monkeypatch.setattr(runner, 'train_run', fails)
    seconds = json.loads((copy / 'time.json').read_text())['seconds']
    with pytest.raises(KeyboardInterrupt):
        Runner.open(config_of(seeds=(1, 3)), copy, 'first').run()
    assert done['trained'] == ['none--world_pairs--seed3', 'world_nli--intermediate--seed3']
    rows = read_rows(copy)
    assert {(r['intermediate'], r['target']) for r in rows if r['seed'] == 3} == {
        ('none', 'world_pairs'), ('none', 'world_retrieval')
    }  # fmt: skip
    assert len([r for r in rows if r['seed'] == 1]) == 8
    assert json.loads((copy / 'time.json').read_text())['seconds'] > seconds


def test_an_arm_starts_from_its_parent(finished: Path, config_of: Configs) -> None:
    """Encoder and pooler of the target's start are the intermediate run's; its head is fresh."""
    import numpy as np

    from xlmr_flax.models.source import open_source

    made = Runner.open(config_of(seeds=(1, 2)), finished, 'x')
    run = next(r for r in made.plan if r.intermediate == 'world_nli' and r.target == 'world_pairs')
    (folder,) = (finished / 'runs').glob('world_nli--intermediate--seed1-*')
    parent, start = open_source(f'ckpt:{folder}').load(), phase.start_params(made.setting, run)
    fresh = phase.start_params(made.setting, dataclasses.replace(run, start=None))
    for part in ('encoder', 'pooler'):
        np.testing.assert_equal(start[part], parent[part])
    assert np.abs(start['pooler']['dense']['kernel'] - fresh['pooler']['dense']['kernel']).max() > 0


def test_real_failures_are_recorded_and_real_leftovers_removed(
    copy: Path, config_of: Configs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs: an arm fails after others have finished, and a run was killed after its end and left its state."""
    before = (copy / 'results.jsonl').read_bytes()
    (nli,) = (copy / 'runs').glob('world_nli--intermediate--seed1-*')
    (nli / 'checkpoints' / 'last').mkdir(parents=True)
    (nli / '.model.x').mkdir()
    (gone,) = (copy / 'runs').glob('world_nli--world_pairs--seed2-*')
    shutil.rmtree(gone)

    def broken(setting: Any, run: Any) -> None:
        raise MemoryError('no room')

    monkeypatch.setattr(runner, 'train_run', broken)
    with pytest.raises(PlanFailed, match='1 of 10 runs failed; run --retry_failed'):
        Runner.open(config_of(seeds=(1, 2)), copy, 'first').run()
    assert [p.name for p in nli.iterdir() if p.name in ('checkpoints', '.model.x')] == []
    monkeypatch.undo()
    Runner.open(config_of(seeds=(1, 2)), copy, 'first', Share(retry_failed=True)).run()
    assert (copy / 'results.jsonl').read_bytes() == before
