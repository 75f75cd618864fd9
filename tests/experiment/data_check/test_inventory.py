"""What `prepare --check` finds about single splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.data_check.inventory import BAD, MISSING, READABLE, State, check, find_overlaps, wanted
from xlmr_flax.experiment.plan.reads import TEST, Read
from xlmr_flax.tasks import all_tasks, get_task


def test_a_task_without_english_training_rows_is_checked_to_the_end(tmp_path: Path) -> None:
    for split in ('train', 'test'):
        path = tmp_path / 'low_resource/masakhaner2/xho' / f'{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('Ada B-PER\nuhleli O\n\n', encoding='utf-8')
    states = [check(split) for split in wanted(['masakhaner2'], tmp_path, ['test'], ['xh'])]
    assert [state.state for state in states] == [READABLE]
    assert find_overlaps(states, ['masakhaner2']) == []


def test_a_split_that_a_dataset_does_not_have_in_a_language_is_not_missing(tmp_path: Path) -> None:
    """Universal Dependencies has no Thai training and development sentences, and no Kazakh development sentences."""
    required = {(split.name, split.language): must for split, must in wanted(['udpos'], tmp_path).items()}
    assert ('test', 'th') in required
    assert required['dev', 'de']
    assert not {('dev', 'kk'), ('dev', 'th')} & set(required)
    assert len([name for name in required if name[0] == 'dev']) == 33 - 4

    own = tmp_path / 'xtreme/udpos/dev-th.tsv'
    own.parent.mkdir(parents=True)
    own.write_text('a\tNOUN\n', encoding='utf-8')
    required = {(split.name, split.language): must for split, must in wanted(['udpos'], tmp_path).items()}
    assert required['dev', 'th'] is False

    named = wanted(['udpos'], tmp_path, languages=['th'])
    assert {split.name: must for split, must in named.items()} == {'train': False, 'dev': False, 'test': True}
    assert all(wanted(['udpos'], tmp_path, ['dev'], ['th']).values())


def test_a_set_of_several_files_needs_all_of_them(tmp_path: Path) -> None:
    """HELP's parts on conjunction and disjunction; CCGbank's sections."""
    path = tmp_path / 'logic/help/leskexppmb_and.tsv'
    path.parent.mkdir(parents=True)
    path.write_text('ori_sentence\tnew_sentence\tgold_label\na\tb\tneutral\n', encoding='utf-8')
    split = Split(get_task('help'), 'en', 'train', tmp_path)
    assert not split.is_there()
    state = check(split)
    assert (state.state, state.missing) == (MISSING, (tmp_path / 'logic/help/leskexppmb_or.tsv',))
    missing = check(Split(get_task('ccg'), 'en', 'train', tmp_path)).missing
    assert [place.parent.name for place in missing] == ['0[0-9]', '1[0-8]']


def test_bad_rows_of_retrieval_are_never_left_out(tmp_path: Path) -> None:
    for name in ('en', 'de', 'gold'):
        path = tmp_path / f'xtreme/bucc2018/de-en.test.{name}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('de-1\ten-1\n' if name == 'gold' else f'{name}-1\tx\n{name}-2\n', encoding='utf-8')
    split = Split(get_task('bucc2018'), 'de', 'test', tmp_path)
    state = check(split)
    assert (state.state, len(state.bad)) == (BAD, 2)
    assert not state.is_fine(skip_bad_rows=True)
    with pytest.raises(DataError, match='line 2'):
        Read(split, TEST).examples([])
    other = State(Split(get_task('xnli'), 'de', 'test', tmp_path), BAD)
    assert other.is_fine(skip_bad_rows=True) and not other.is_fine()


def test_every_unpublished_split_is_one_of_its_task() -> None:
    for task in all_tasks().values():
        for split, codes in task.unpublished.items():
            assert split in task.splits
            assert split not in task.translated
            assert set(codes) <= {*task.languages, *task.more_languages}
            assert not set(codes) & set(task.split_languages(split))
