"""What a plan reads: made without a look at any file, and the same for a run, for `prepare` and for `download`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.config import Config, parse
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.data_check.tokenise import encoded_reads
from xlmr_flax.experiment.plan.reads import DEV, LABELS, TEST, TRAIN, UNUSED, Read, read_tasks, reads
from xlmr_flax.experiment.plan.runs import Plan, find_data, make_plan, resolve
from xlmr_flax.experiment.studies.phang2020 import study
from xlmr_flax.models.source import open_source
from xlmr_flax.tasks import get_task

Configs = Callable[..., Config]
PAWSX = 'xtreme/pawsx/x-final/{}'


def write(root: Path, path: str, lines: int = 3) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    rows = ''.join(f'{i}\tthe cat {i}\ta dog\t{i % 2}\n' for i in range(lines))
    (root / path).write_text(f'id\tsentence1\tsentence2\tlabel\n{rows}', encoding='utf-8')


def of(found: list[Read] | Plan, purpose: str) -> list[tuple[str, str, str]]:
    found = reads(found) if isinstance(found, Plan) else found
    return [(r.split.task.name, r.split.name, r.split.language) for r in found if r.purpose == purpose]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every file that is opened or looked at."""
    seen: list[Any] = []
    is_on = [True]
    # A hook of the interpreter cannot be removed.
    sys.addaudithook(lambda event, values: seen.append(values[0]) if is_on[0] and event == 'open' else None)
    for name in ('stat', 'lstat', 'scandir', 'listdir'):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, **k: (seen.append(a), _real(*a, **k))[1])
    yield seen
    is_on[0] = False


@pytest.mark.parametrize('table', ['main', 'mlm', 'translation', 'joint'])
def test_a_plan_is_made_without_any_file(table: str, opened: list[Any], tmp_path: Path) -> None:
    """CCG's labels are in its files, XCOPA's warm-up is left out where its files are not there, the weights are of no
    size that would be read: nothing of that is looked at."""
    config = parse(
        {
            **study(table, 'large'),
            'encoder': {'source': 'random:large'},
            'data_root': str(tmp_path / 'none'),
            'seeds': (1, 2, 3),
        }
    )
    opened.clear()
    began = time.perf_counter()
    plan = make_plan(config)
    found = reads(plan)
    assert time.perf_counter() - began < 5  # a fraction of a second; the machine may be busy
    assert opened == []
    assert len(plan) > 3 * len(config.targets) and len(found) > len(config.targets)
    assert all(run.id == '' for run in plan)
    with pytest.raises(DataError, match='is not a folder'):
        resolve(plan, open_source('random:tiny'))
    assert opened != [], 'the hook sees what is read'


def test_what_is_read_where_all_is_there_and_what_a_run_reads(config_of: Configs, tmp_path: Path) -> None:
    """XCOPA is trained on COPA after Social IQa. Nothing is there but Italian rows to be scored."""
    plan = make_plan(
        config_of(targets=('xcopa',), intermediate=('none', 'ccg'), data_root=str(tmp_path), evaluation__languages={})
    )
    assert [run.key for run in plan if run.intermediate == 'none'] == [
        'none--xcopa-warmup--seed1', 'none--xcopa--seed1'
    ]  # fmt: skip
    assert of(plan, TRAIN) == [('siqa', 'train', 'en'), ('copa', 'train', 'en'), ('ccg', 'train', 'en')]
    assert of(plan, DEV)[:2] == [('siqa', 'dev', 'en'), ('copa', 'dev', 'en')]
    assert {split for _, split, _ in of(plan, TEST)} == {'test', 'dev'}
    assert of(plan, LABELS) == [('ccg', split, 'en') for split in ('train', 'test', 'dev')]
    assert [task.name for task in read_tasks(reads(plan))] == ['siqa', 'copa', 'xcopa', 'ccg']
    there = find_data(plan)
    assert [run.key for run in there if run.intermediate == 'none'] == ['none--xcopa--seed1'], 'without its warm-up'
    assert there[0].start is None
    assert {split for _, split, _ in of(there, TEST)} == {'test'}
    assert not [read for read in reads(there) if read.purpose == DEV and read.is_taken()]


def test_english_dev_rows_are_asked_for_where_they_are(config_of: Configs, tmp_path: Path) -> None:
    """As training takes them: `prepare` used to demand them."""
    for path in ('en/train.tsv', 'de/test_2k.tsv'):
        write(tmp_path, PAWSX.format(path))
    config = config_of(
        targets=('pawsx',), intermediate=('none',), data_root=str(tmp_path), evaluation__languages={'pawsx': ('de',)}
    )
    assert of(encoded_reads(config), DEV) == []
    write(tmp_path, PAWSX.format('en/dev_2k.tsv'))
    assert of(encoded_reads(config), DEV) == [('pawsx', 'dev', 'en')]


def test_lengths_limits_and_drawn_rows_are_those_of_the_run(config_of: Configs) -> None:
    half = {'world_nli': {'fraction': 0.5, 'shuffle_labels': True, 'max_length': 24}, 'world_pos': {'max_train': 7}}
    config = config_of(
        seeds=(1, 2), arms={'half': {'tasks': half}}, intermediate=('half',),
        targets=('world_pairs', 'world_retrieval'),
        recipe__max_train=9, recipe__eval_examples=5,
    )  # fmt: skip
    found = encoded_reads(config)
    own = config.recipe.max_length
    assert [(r.split.task.name, r.max_length, r.limit, r.seed, r.fraction) for r in found if r.purpose == TRAIN] == [
        ('world_nli', 24, 9, 1, 0.5), ('world_pos', own, 7, 0, 1.0), ('world_pairs', own, 9, 0, 1.0),
        ('world_nli', 24, 9, 2, 0.5),
    ]  # fmt: skip
    assert {(r.split.task.name, r.max_length, r.limit) for r in found if r.purpose == DEV} == {
        ('world_nli', 24, 5), ('world_pos', own, 5), ('world_pairs', own, 5)
    }  # fmt: skip
    first = next(r for r in found if r.is_shuffled)
    (rows,) = first.examples().values()
    assert len(rows) == round(0.5 * 9)
    lengths = {r.split.task.name: r.max_length for r in found if r.purpose == TEST}
    assert lengths == {'world_pairs': own, 'world_retrieval': config.evaluation.max_length}


def test_rows_that_a_member_names_others_for_are_fetched_and_not_read(config_of: Configs, tmp_path: Path) -> None:
    config = config_of(arms={'x': {'tasks': {'folio': {'split': 'dev'}}}}, intermediate=('x',), data_root=str(tmp_path))
    assert of(make_plan(config), UNUSED) == [('folio', 'train', 'en')]
    assert of(make_plan(config), TRAIN)[0] == ('folio', 'dev', 'en')
    assert 'folio' not in {name for name, _, _ in of(make_plan(config), DEV)}, 'it does not select by what it learns'
    assert UNUSED not in {read.purpose for read in encoded_reads(config)}


def test_two_handles_of_one_split_are_one() -> None:
    first, second = (Split(get_task('xnli'), 'de', 'test') for _ in range(2))
    assert (first, hash(first)) == (second, hash(second))
    assert first != Split(get_task('xnli'), 'de', 'test', 'elsewhere')
    assert str(first) == 'xnli test de'
