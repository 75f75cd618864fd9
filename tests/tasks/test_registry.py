"""Every task is whole: splits, labels, languages, licence, a training task that exists; errors name what is close."""

from __future__ import annotations

import dataclasses

import pytest

from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import KINDS, Embedded, RowError, Table, TaskError

NAMES = sorted(all_tasks())


def test_the_registry_holds_what_was_asked_for() -> None:
    assert {'mnli', 'snli', 'anli', 'xnli', 'pawsx', 'tatoeba', 'world_nli', 'world_retrieval'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_task_is_whole(name: str) -> None:
    task = get_task(name)
    assert task.name == name
    assert task.kind in KINDS
    assert task.licence
    assert task.source
    assert task.metrics
    assert task.languages == tuple(dict.fromkeys(task.languages))
    assert bool(task.labels) == (task.kind in ('pair', 'tag', 'choice'))
    assert all(sources for sources in task.splits.values())
    if task.kind == 'retrieval':
        assert all(len(sources) == 2 for sources in task.splits.values())


@pytest.mark.parametrize('name', NAMES)
def test_the_training_task_exists_and_has_the_same_head(name: str) -> None:
    task = get_task(name)
    if task.train_task is None:
        assert 'train' not in task.splits
        return
    trained = get_task(task.train_task)
    assert 'train' in trained.splits
    assert (trained.kind, trained.labels) == (task.kind, task.labels)


@pytest.mark.parametrize('name', NAMES)
def test_tables_are_relative_and_name_known_formats(name: str) -> None:
    task = get_task(name)
    for sources in task.splits.values():
        for source in sources:
            assert isinstance(source, Table | Embedded)
            if isinstance(source, Table):
                assert not source.path.startswith('/')
                assert source.format in ('tsv', 'csv', 'jsonl', 'lines')
                assert len(task.languages) == 1 or '{language}' in source.path or '/en/' in source.path


def test_label_order_of_all_inference_tasks() -> None:
    for name in ('mnli', 'snli', 'anli', 'anli_r1', 'anli_r2', 'anli_r3', 'xnli', 'world_nli'):
        assert get_task(name).labels == ('contradiction', 'entailment', 'neutral')


def test_languages_of_the_benchmark() -> None:
    assert len(get_task('xnli').languages) == 15
    assert get_task('pawsx').languages == ('de', 'en', 'es', 'fr', 'ja', 'ko', 'zh')
    assert len(get_task('tatoeba').languages) == 36


def test_unknown_names_get_the_closest() -> None:
    with pytest.raises(TaskError, match=r"unknown task 'xnl1' \(did you mean 'xnli'\?\)"):
        get_task('xnl1')
    with pytest.raises(TaskError, match=r"no split 'tset' \(did you mean 'test'\?\)"):
        get_task('xnli').sources('tset')
    with pytest.raises(TaskError, match=r"'xnli' has no language 'ja' \(known: ar, bg"):
        get_task('xnli').local_code('ja')
    with pytest.raises(RowError, match=r"column 'label': unknown label 'entailmnt' \(did you mean 'entailment'\?\)"):
        get_task('xnli').label_index('entailmnt', 'label')


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TaskError, match="kind 'pairs'"):
        dataclasses.replace(get_task('xnli'), kind='pairs')


def test_tatoeba_codes() -> None:
    task = get_task('tatoeba')
    codes = {code: task.local_code(code) for code in ('de', 'sw', 'zh', 'fa', 'ar', 'az', 'yid', 'deu')}
    assert codes == {
        'de': 'deu',
        'sw': 'swh',
        'zh': 'cmn',
        'fa': 'pes',
        'ar': 'ara',
        'az': 'aze',
        'yid': 'yid',
        'deu': 'deu',
    }
