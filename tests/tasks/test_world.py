"""The embedded tasks and the embedded data agree on languages, rows and schemas."""

from __future__ import annotations

import pytest

from xlmr_flax.data import world as data_world
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks import world as tasks_world
from xlmr_flax.tasks.base import TaskError

NAMES = sorted(task.name for task in tasks_world.TASKS if task.kind != 'retrieval')


def test_languages_are_the_same() -> None:
    assert tuple(data_world.LANGUAGES) == tasks_world.LANGUAGES


@pytest.mark.parametrize('name', NAMES)
def test_every_split_is_read_whole(name: str) -> None:
    task = get_task(name)
    for split, rows in tasks_world.ROWS.items():
        examples = read_split(task, 'en', split)
        assert len(examples) == rows
        assert len({example.id for example in examples}) == rows


@pytest.mark.parametrize('name', NAMES)
def test_every_language_is_read(name: str) -> None:
    task = get_task(name)
    for language in task.languages:
        assert len(read_split(task, language, 'test', limit=20)) == 20


def test_retrieval_has_two_sides() -> None:
    task = get_task('world_retrieval')
    for language in task.languages:
        english, foreign = read_pairs(task, language)
        assert len(english) == len(foreign) == tasks_world.ROWS['test']
        assert [e.text for e in english] != [f.text for f in foreign]


@pytest.mark.parametrize('name', NAMES)
def test_translated_splits_are_the_parallel_rows(name: str) -> None:
    task = get_task(name)
    assert 'en' not in task.translated['translate_train']
    assert read_split(task, 'de', 'translate_train', limit=30) == read_split(task, 'de', 'train', limit=30)
    assert read_split(task, 'de', 'translate_test') == read_split(task, 'en', 'test')
    with pytest.raises(TaskError, match="no language 'en' in split 'translate_test'"):
        read_split(task, 'en', 'translate_test')
