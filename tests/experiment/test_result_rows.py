"""What a result row says of its data: where the rows came from, and what stands in for what."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tfds_files import write

from xlmr_flax.config import NONE, Arm, Config, Member, Recipe
from xlmr_flax.data.readers.paths import resolve_data_root
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.plan.arms import datasets
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.result_rows import result_rows, retrieval_note, source_facts, stand_ins
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.workdir.bad_rows import FILE, BadRows
from xlmr_flax.models.source import open_source
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Embedded

Configs = Callable[..., Config]


def describe(folder: Path, *splits: str) -> None:
    """A prepared dataset by its description alone."""
    folder.mkdir(parents=True)
    content = {'fileFormat': 'array_record', 'splits': [{'name': name, 'shardLengths': ['1']} for name in splits]}
    (folder / 'dataset_info.json').write_text(json.dumps(content))


def put(path: Path, text: str = 'x\n') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, 'utf-8')


def test_the_source_of_a_split(tmp_path: Path) -> None:
    """ANLI's three rounds are three files: one is here, of the others two versions are prepared."""
    put(tmp_path / 'intermediate/anli/anli_v1.0/R1/test.jsonl')
    for name in ('r2', 'r3'):
        describe(tmp_path / 'tfds' / 'anli' / name / '0.1.0', 'test')
    describe(tmp_path / 'tfds' / 'anli' / 'r3' / '0.2.0', 'test')
    assert source_facts(Split(get_task('anli'), 'en', 'test', tmp_path)) == {
        'source': 'file+tfds',
        'tfds': 'anli/r2:0.1.0, anli/r3:0.2.0',
    }
    assert source_facts(Split(get_task('anli_r1'), 'en', 'test', tmp_path)) == {'source': 'file'}
    prepared = source_facts(Split(get_task('anli_r2'), 'en', 'test', tmp_path))
    assert prepared == {'source': 'tfds', 'tfds': 'anli/r2:0.1.0'}
    assert source_facts(Split(get_task('world_nli'), 'de', 'test')) == {'source': 'world'}
    with pytest.raises(DataError, match='no such file'):
        source_facts(Split(get_task('anli'), 'en', 'dev', tmp_path))
    describe(tmp_path / 'tfds' / 'xnli' / '1.1.0', 'test')
    assert Split(get_task('xnli'), 'de', 'test', tmp_path).origin().builders == ('xnli:1.1.0',), (
        'a builder without configs'
    )


def test_a_split_of_files_and_of_the_embedded_world(tmp_path: Path) -> None:
    put(tmp_path / 'xtreme/xnli/test-de.tsv')
    task = get_task('xnli')
    mixed = dataclasses.replace(task, splits={**task.splits, 'test': (Embedded('nli', 4), *task.splits['test'])})
    assert Split(mixed, 'de', 'test', tmp_path).origin().source == 'file+world'


def result(config: Config, run: Run, target: str, **more: Any) -> dict[str, Any]:
    rows, metrics = Split(get_task(target), 'en', 'dev', config.data_root), {'accuracy': 50.0}
    found = result_rows(
        config, open_source('random:tiny'), run, rows, metrics=metrics, n=4, step=3, command='x', **more
    )
    return found[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """QQP and CCG as their stand-ins, MNLI and PAWS-X as they are."""
    for split in ('train', 'dev'):
        put(tmp_path / f'standins/QQP/{split}.tsv')
        put(tmp_path / f'intermediate/mnli/{"train" if split == "train" else "dev_matched"}.tsv')
    put(tmp_path / 'xtreme/pawsx/x-final/en/train.tsv')
    put(tmp_path / 'xtreme/pawsx/x-final/en/dev_2k.tsv')
    return tmp_path


QQP = 'PAWS-X pairs in the layout of QQP'


def test_what_stands_in_is_said_of_every_dataset_of_a_mixture(config_of: Configs, root: Path) -> None:
    config = config_of(data_root=str(root))

    def run_of(name: str, start: Run | None, *tasks: str) -> Run:
        arm = Arm(tasks={task: Member() for task in tasks})
        target = 'pawsx' if start else ''
        return Run('0' * 12, name, target, '', 1, start, None, arm, datasets(config, arm, Recipe(), 'x'))

    row = result(config, run_of('both', run_of('both', None, 'mnli', 'qqp'), 'pawsx'), 'pawsx')
    assert row['stand_in'] == f'qqp train: {QQP}'
    assert (row['intermediate'], row['source']) == ('both', 'file')
    alone = run_of('qqp', run_of('qqp', None, 'qqp'), 'pawsx')
    assert stand_ins(alone, Split(get_task('pawsx'), 'en', 'dev', root)) == f'qqp train: {QQP}'
    assert stand_ins(alone, Split(get_task('qqp'), 'en', 'dev', root)) == f'qqp train: {QQP}; qqp dev: {QQP}'
    assert 'stand_in' not in result(config, dataclasses.replace(alone, start=None), 'pawsx')


def test_rows_that_were_left_out_are_counted(config_of: Configs, root: Path, tmp_path: Path) -> None:
    config, bad = config_of(data_root=str(root)), BadRows(tmp_path / FILE)
    run = Run('0' * 12, NONE, 'pawsx', 'pawsx', 1, None, None)
    assert 'left_out' not in result(config, run, 'pawsx', bad_rows=bad)
    [path] = Split(get_task('pawsx'), 'en', 'dev', root).files()
    bad.extend([BadRow(str(path), 3, 'a'), BadRow(str(path), 4, 'b'), BadRow('another', 4, 'b')])
    assert result(config, run, 'pawsx', bad_rows=bad)['left_out'] == 2


def test_rows_say_how_answers_are_decoded_and_repeated_sentences_mined(config_of: Configs) -> None:
    run = Run('0' * 12, NONE, 'world_spans', 'world_spans', 1, None, None)
    row = result(config_of(), run, 'world_spans')
    assert row['qa_decoding'] == 'offsets' and 'note' not in row
    row = result(config_of(evaluation__qa_decoding='reference'), run, 'world_spans')
    assert row['qa_decoding'] == 'reference'
    assert 'qa_decoding' not in result(config_of(), run, 'world_nli')
    source, bucc, tatoeba = open_source('random:tiny'), get_task('bucc2018'), get_task('tatoeba')
    config = config_of(evaluation__repeated_sentences='dropped')
    assert 'Repeated sentences are dropped.' in retrieval_note(config, source, bucc)
    assert 'Repeated' not in retrieval_note(config, source, tatoeba) + retrieval_note(config_of(), source, bucc)


LABELS = ('entailment', 'neutral', 'contradiction')


@pytest.fixture(scope='module')
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """glue/mnli and xnli, prepared by TFDS."""
    if sys.platform == 'win32':
        pytest.skip('array_record has no wheels for Windows')
    root = tmp_path_factory.mktemp('tfds')
    pairs = [{'premise': f'the cat {i}', 'hypothesis': 'a dog', 'idx': i, 'label': LABELS[i % 3]} for i in range(12)]
    write(root, 'text.glue', 'glue', 'mnli', {'train': pairs, 'validation_matched': pairs[:6]})
    sides = {
        name: {code: f'{code} {name}' for code in get_task('xnli').languages} for name in ('premise', 'hypothesis')
    }
    write(root, 'text.xnli', 'xnli', '', {'test': [{**sides, 'label': label} for label in LABELS]})
    return root


def test_a_plan_on_prepared_datasets_alone(
    prepared: Path, config_of: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TFDS_DATA_DIR is all that is set: training rows, dev rows and test rows come from there, and the row says so."""
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
    assert resolve_data_root() == prepared
    config = config_of(targets=('xnli',), intermediate=(NONE,), evaluation__languages={'xnli': ('en', 'de')})
    rows = Runner.open(config, tmp_path / 'w', 'x').run()
    versions = [path.parent.name for path in prepared.glob('xnli/**/dataset_info.json')]
    assert [(row['language'], row['n'], row['source']) for row in rows] == [('en', 3, 'tfds'), ('de', 3, 'tfds')]
    assert all(row['tfds'].startswith('xnli') and row['tfds'].endswith(f':{versions[0]}') for row in rows)
    put(tmp_path / 'data/xtreme/xnli/test-de.tsv', 'a\tb\tneutral\n')
    config = dataclasses.replace(config, data_root=str(tmp_path / 'data'))
    rows = Runner.open(config, tmp_path / 'w', 'x').run()
    assert [(row['language'], row['n'], row['source']) for row in rows] == [('en', 3, 'tfds'), ('de', 1, 'file')]


def test_without_any_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('XLMR_DATA_ROOT', 'TFDS_DATA_DIR'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match='no data root'):
        resolve_data_root()
    monkeypatch.setenv('TFDS_DATA_DIR', '/nowhere')
    with pytest.raises(DataError, match=r"'/nowhere' \(from TFDS_DATA_DIR\) is not a folder"):
        resolve_data_root()
