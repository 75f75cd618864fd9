"""Prepared TFDS data in place of a local file: real ArrayRecord files, written here without TensorFlow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfds_files import write

from xlmr_flax.data.readers import tfds
from xlmr_flax.data.readers.tables import READERS
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.split import Split
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import PairExample, SpanExample, Table

CONTEXT = 'The lake froze in May. Nobody had seen that.'
LABELS = ['entailment', 'neutral', 'contradiction']
NLI = {'label': LABELS}


def question(ident: str, **more: Any) -> dict[str, Any]:
    answers = {'text': ['May', 'in May'], 'answer_start': [18, 15]}
    return {'id': ident, 'title': 'T', 'context': CONTEXT, 'question': 'When?', 'answers': answers, **more}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with four prepared datasets and no local file."""
    if sys.platform == 'win32':
        pytest.skip('array_record has no wheels for Windows')
    root = tmp_path_factory.mktemp('data')
    pair = {'premise': 'Ein See – froh.', 'hypothesis': 'A lake.'}
    mnli = [{**pair, 'idx': i, 'label': label} for i, label in enumerate((*LABELS, 'neutral'))]
    write(root / 'tfds', 'text.glue', 'glue', 'mnli', {'train': mnli, 'validation_matched': mnli[:1]})
    v2 = {'plausible_answers': {'text': [], 'answer_start': []}}
    nothing = {'answers': {'text': [], 'answer_start': []}}
    rows = [question('b1', is_impossible=False, **v2), question('b2', **v2, **nothing, is_impossible=True)]
    write(root / 'tfds', 'question_answering', 'squad', 'v2.0', {'train': rows})
    premise, hypothesis = ({code: f'{code} {text}' for code in XNLI} for text in ('premise', 'hypothesis'))
    xnli = {'premise': premise, 'hypothesis': hypothesis}
    records = [{**xnli, 'label': label} for label in ('neutral', 'contradiction')]
    write(root / 'tfds', 'text.xnli', 'xnli', '', {'validation': records, 'test': records[:1]})
    goldp = [question(f'{name}-{i}') for i, name in enumerate(('english', 'finnish', 'english'))]
    tydi = {'train': goldp, 'validation-fi': [question('finnish-9')]}
    write(root / 'tfds', 'question_answering.tydi_qa', 'tydi_qa', 'goldp', tydi)
    return root


XNLI = get_task('xnli').languages


def test_mnli_from_array_records(prepared: Path) -> None:
    task = get_task('mnli')
    found = read_split(task, 'en', 'train', prepared)
    assert all(isinstance(example, PairExample) for example in found)
    assert sorted(task.labels[example.label] for example in found) == sorted([*LABELS, 'neutral'])
    assert {(example.text_a, example.text_b) for example in found} == {('Ein See – froh.', 'A lake.')}
    assert [example.id for example in found] == [f'mnli-train-en-{i}' for i in range(4)]
    assert len(read_split(task, 'en', 'dev', prepared)) == 1
    assert len(read_split(task, 'en', 'train', prepared, limit=2)) == 2


def test_squad_v2_from_array_records(prepared: Path) -> None:
    found = {example.id: example for example in read_split(get_task('squad_v2'), 'en', 'train', prepared)}
    assert found['b1'] == SpanExample('b1', 'When?', CONTEXT, (('May', 18), ('in May', 15)))
    assert found['b2'] == SpanExample('b2', 'When?', CONTEXT, (), is_impossible=True)


def test_xnli_from_array_records_in_every_language(prepared: Path) -> None:
    task = get_task('xnli')
    for code in XNLI:
        found = read_split(task, code, 'dev', prepared)
        assert {(example.text_a, example.text_b) for example in found} == {(f'{code} premise', f'{code} hypothesis')}
        assert {task.labels[example.label] for example in found} == {'neutral', 'contradiction'}
    assert len(read_split(task, 'sw', 'test', prepared)) == 1


def test_tydiqa_is_filtered_by_language(prepared: Path) -> None:
    task = get_task('tydiqa')
    found = read_split(task, 'en', 'train', prepared)
    assert len(found) == 2
    assert [example.id for example in found] == ['tydiqa-train-en-0', 'tydiqa-train-en-1']  # ids of the file repeat
    assert [example.id for example in read_split(task, 'fi', 'test', prepared)] == ['finnish-9']
    assert not Split(task, 'ko', 'test', prepared).is_there()


def test_what_is_used_is_said_and_decides_the_run(prepared: Path, tmp_path: Path) -> None:
    task = get_task('mnli')
    [folder] = Split(task, 'en', 'train', prepared).files()
    assert folder.parent == prepared / 'tfds' / 'glue' / 'mnli'
    assert Split(task, 'en', 'train', prepared).is_there()
    assert Split(task, 'en', 'train', prepared).stand_in() == ''
    digests = {Split(task, 'en', split, prepared).digest() for split in ('train', 'dev')}
    assert len(digests) == 2
    assert all(file.is_file() for file in tfds.data_files(folder, 'intermediate/mnli/train.tsv'))
    assert tfds.data_files(folder, 'intermediate/mnli/train.tsv')


def test_a_local_file_comes_first_and_a_stand_in_last(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepared.parent / 'other'
    local = root / 'intermediate' / 'mnli' / 'train.tsv'
    local.parent.mkdir(parents=True)
    local.write_text('sentence1\tsentence2\tgold_label\na\tb\tneutral\n', encoding='utf-8')
    monkeypatch.setenv('TFDS_DATA_DIR', str(prepared / 'tfds'))
    assert Split(get_task('mnli'), 'en', 'train', root).files() == [local]
    assert Split(get_task('mnli'), 'en', 'dev', root).files()[0].is_relative_to(prepared)
    assert len(read_split(get_task('xnli'), 'de', 'dev', root)) == 2
    assert Split(get_task('xnli'), 'de', 'dev', root).stand_in() == ''
    standing = root / 'standins' / 'QQP' / 'train.tsv'
    standing.parent.mkdir(parents=True)
    standing.write_text('question1\tquestion2\tis_duplicate\na\tb\t1\n', encoding='utf-8')
    assert Split(get_task('qqp'), 'en', 'train', root).files() == [standing]
    pairs = [{'question1': 'Why?', 'question2': 'How?', 'label': label, 'idx': label} for label in (0, 1)]
    write(root / 'tfds', 'text.glue', 'glue', 'qqp', {'train': pairs})
    assert Split(get_task('qqp'), 'en', 'train', root).stand_in() == ''
    assert sorted(example.label for example in read_split(get_task('qqp'), 'en', 'train', root)) == [0, 1]


def test_the_newest_version_is_read(prepared: Path) -> None:
    def info(version: str, form: str = 'array_record') -> Path:
        folder = prepared / 'tfds' / 'hellaswag' / version
        folder.mkdir(parents=True)
        content = {'fileFormat': form, 'splits': [{'name': 'train', 'shardLengths': ['1']}]}
        (folder / 'dataset_info.json').write_text(json.dumps(content))
        return folder

    path = 'intermediate/hellaswag/hellaswag_train.jsonl'
    newest = [info(version) for version in ('1.9.0', '1.10.0')][-1]
    assert tfds.find_prepared(path, prepared) == newest
    info('2.0.0', 'tfrecord')
    assert tfds.find_prepared(path, prepared) == newest
    assert tfds.find_prepared('intermediate/hellaswag/hellaswag_val.jsonl', prepared) is None
    with pytest.raises(DataError, match=r"1\.10\.0: split 'train' cannot be read"):
        read_split(get_task('hellaswag'), 'en', 'train', prepared)


def test_data_in_another_form_says_how_to_prepare_it(tmp_path: Path) -> None:
    folder = tmp_path / 'tfds' / 'snli' / '1.1.0'
    folder.mkdir(parents=True)
    content = {'fileFormat': 'tfrecord', 'splits': [{'name': 'train', 'shardLengths': ['1']}]}
    (folder / 'dataset_info.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"snli/1\.1\.0: prepared as tfrecord.*file_format='array_record'"):
        read_split(get_task('snli'), 'en', 'train', tmp_path)
    assert not Split(get_task('snli'), 'en', 'train', tmp_path).is_there()


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'\xff', b'{"splits": [5]}', b'{"splits": 5}', b'[' * 9999])
def test_a_damaged_description_is_one_error(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / 'tfds' / 'snli' / '1.1.0'
    folder.mkdir(parents=True)
    (folder / 'dataset_info.json').write_bytes(content)
    with pytest.raises(DataError, match=r'dataset_info\.json'):
        tfds.find_prepared('intermediate/snli/snli_1.0_train.txt', tmp_path)


def test_what_is_missing_names_the_builder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'mnli/train\.tsv: no such file.*nor TFDS glue/mnli in .*tfds'):
        Split(get_task('mnli'), 'en', 'train', tmp_path).files()


# (row function, record as the data source gives it, language, row)
MAPPED: list[tuple[Any, dict[str, Any], dict[str, list[str]], str, dict[str, Any]]] = [
    (
        tfds.glue_mnli, {'premise': b'a', 'hypothesis': b'b', 'label': np.int64(2)}, NLI, '',
        {'sentence1': 'a', 'sentence2': 'b', 'gold_label': 'contradiction'},
    ),
    (
        tfds.glue_mnli, {'premise': 'a', 'hypothesis': 'b', 'label': np.array(-1)}, NLI, '',
        {'sentence1': 'a', 'sentence2': 'b', 'gold_label': '-'},
    ),
    (
        tfds.anli, {'uid': b'u', 'context': b'c', 'hypothesis': b'h', 'label': 1}, {'label': ['e', 'n', 'c']}, '',
        {'uid': 'u', 'context': 'c', 'hypothesis': 'h', 'label': 'n'},
    ),
    (
        tfds.glue_qqp, {'question1': b'a', 'question2': b'b', 'label': 1, 'idx': 0}, {}, '',
        {'question1': 'a', 'question2': 'b', 'is_duplicate': '1'},
    ),
    (
        tfds.glue_qqp, {'question1': b'a', 'question2': b'b', 'label': -1, 'idx': 0}, {}, '',
        {'question1': 'a', 'question2': 'b'},
    ),
    (
        tfds.hellaswag,
        {'context': b'She opens. Then she', 'endings': [b'runs', b'sits', b'x', b'y'], 'label': np.int32(3)}, {}, '',
        {'ctx_a': 'She opens.', 'ctx_b': 'Then she', 'endings': ['runs', 'sits', 'x', 'y'], 'label': 3},
    ),
    (
        tfds.hellaswag, {'context': b'[header] How. [step] Be calm.', 'endings': [], 'label': -1}, {}, '',
        {'ctx_a': '[header] How. [step] Be calm.', 'ctx_b': '', 'endings': []},
    ),
    (
        tfds.cosmosqa,
        {'id': b'i', 'context': b'c', 'question': b'q', **{f'answer{n}': b'a' for n in range(4)}, 'label': 2},
        {'label': ['0', '1', '2', '3']}, '',
        {'id': 'i', 'context': 'c', 'question': 'q', **{f'answer{n}': 'a' for n in range(4)}, 'label': '2'},
    ),
    (
        tfds.pawsx, {'sentence1': b'a', 'sentence2': b'b', 'label': 0}, {'label': ['0', '1']}, 'de',
        {'id': '', 'sentence1': 'a', 'sentence2': 'b', 'label': '0'},
    ),
    (
        tfds.xnli,
        {
            'premise': {'de': b'x', 'en': b'y'},
            'hypothesis': {'language': np.array([b'en', b'de'], object), 'translation': [b'h', b'k']},
            'label': 0,
        },
        NLI, 'de', {'sentence1': 'x', 'sentence2': 'k', 'label': 'entailment'},
    ),
    (
        tfds.squad,
        {
            'id': b'i', 'question': b'q', 'context': b'c', 'title': b't',
            'answers': {'text': np.array([b'a'], object), 'answer_start': np.array([5], np.int32)},
        },
        {}, 'de', {'id': 'i', 'question': 'q', 'context': 'c', 'answers': [{'text': 'a', 'answer_start': 5}]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(('row', 'record', 'names', 'language', 'expected'), MAPPED)
def test_rows_get_the_columns_of_the_local_file(
    row: Any, record: dict[str, Any], names: dict[str, list[str]], language: str, expected: dict[str, Any]
) -> None:
    found = row(tfds.plain(record), names, language)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


def tables() -> list[tuple[str, Table]]:
    return [
        (task.name, source)
        for task in all_tasks().values()
        for sources in task.splits.values()
        for source in sources
        if isinstance(source, Table) and tfds.prepared_for(source.path)
    ]


def test_every_path_of_the_map_is_a_tasks() -> None:
    assert set(tfds.PREPARED) == {table.path for _, table in tables()}
    names = 'mnli snli anli anli_r1 qqp squad_v1 squad_v2 hellaswag cosmosqa xnli pawsx tydiqa mlqa xquad'
    assert set(names.split()) <= {name for name, _ in tables()}


def test_a_path_is_found_with_its_language() -> None:
    found = tfds.prepared_for('xtreme/mlqa/MLQA_V1/dev/dev-context-de-question-de.json')
    assert found is not None
    assert (found[0].builder, found[0].split, found[1]) == ('mlqa', 'validation', 'de')
    assert tfds.prepared_for('xtreme/mlqa/MLQA_V1/dev/dev-context-de-question-en.json') is None
    assert tfds.described('xtreme/pawsx/x-final/ko/test_2k.tsv') == 'paws_x_wiki/ko'
    assert tfds.described('intermediate/snli/snli_1.0_dev.txt') == 'snli'
    assert tfds.described('logic/med/MED.tsv') == ''


def test_a_record_of_another_shape_is_a_problem_of_its_row(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds, '_open', lambda path, split: ([{'premise': b'a'}], {}))
    bad: list[Any] = []
    assert read_split(get_task('mnli'), 'en', 'train', prepared, skip_bad_rows=bad) == []
    assert [(row.line, 'glue/mnli' in row.reason) for row in bad] == [(1, True)]


def test_official_rows_of_hellaswag_are_restored(data_root: Path) -> None:
    rows = [
        row
        for split in ('train', 'val')
        for _, row in READERS['jsonl'](
            data_root / f'intermediate/hellaswag/hellaswag_{split}.jsonl', Table('', 'jsonl', ())
        )
        if isinstance(row, dict)
    ]
    restored = [tfds.hellaswag({'context': row['ctx'], 'endings': [], 'label': -1}, {}, '') for row in rows]
    same = [(a['ctx_a'], a['ctx_b']) == (b['ctx_a'], b['ctx_b']) for a, b in zip(rows, restored, strict=True)]
    assert sum(same) >= 0.995 * len(rows) > 1000


def test_tensorflow_is_not_imported(prepared: Path) -> None:
    read_split(get_task('mnli'), 'en', 'train', prepared)
    assert 'tensorflow' not in sys.modules
