"""A training row without a label is never trained on: an error, or a bad row with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.config import Config
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, are_labelled, read_split
from xlmr_flax.experiment.plan.reads import check_dev_labels
from xlmr_flax.experiment.plan.runs import make_plan
from xlmr_flax.tasks import get_task


@pytest.mark.parametrize('answer', ['', None])
def test_a_choice_without_an_answer(tmp_path: Path, answer: str | None) -> None:
    folder = tmp_path / 'intermediate' / 'commonsenseqa'
    folder.mkdir(parents=True)
    choices = [{'label': letter, 'text': f'thing {letter}'} for letter in 'ABCDE']
    rows = [
        {'id': f'q{i}', 'question': {'stem': 'Which?', 'choices': choices}, 'answerKey': key}
        for i, key in enumerate(['B', answer, 'E'])
    ]
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    for split in ('train', 'dev'):
        (folder / f'{split}_rand_split.jsonl').write_text(lines, encoding='utf-8')
    task, bad = get_task('commonsenseqa'), []
    with pytest.raises(DataError, match='line 2'):
        read_split(task, 'en', 'train', tmp_path)
    assert [example.id for example in read_split(task, 'en', 'train', tmp_path, None, bad)] == ['q0', 'q2']
    assert [(row.file, row.line) for row in bad] == [(str(folder / 'train_rand_split.jsonl'), 2)]
    assert isinstance(bad[0], BadRow)


def squad(*answers: str) -> str:
    """A file in SQuAD's form, one question a line; '' = the placeholder of a public test file."""
    asked = ',\n'.join(
        json.dumps({'id': f'q{i}', 'question': '?', 'answers': [{'text': text, 'answer_start': 0}]})
        for i, text in enumerate(answers)
    )
    return f'{{"data": [{{"paragraphs": [{{"context": "Oslo", "qas": [\n{asked}]}}]}}]}}'


def test_a_question_without_an_answer_among_others_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'xtreme/xquad/xquad.de.json'
    path.parent.mkdir(parents=True)
    task = get_task('xquad')
    for answers, labelled in ((('Oslo',), True), (('', ''), False)):
        path.write_text(squad(*answers), encoding='utf-8')
        assert are_labelled(task, 'de', 'test', tmp_path, read_split(task, 'de', 'test', tmp_path)) is labelled
    path.write_text(squad('Oslo', ''), encoding='utf-8')
    with pytest.raises(DataError) as error:
        are_labelled(task, 'de', 'test', tmp_path, read_split(task, 'de', 'test', tmp_path))
    assert str(error.value).startswith(f'{path}, line 3: ')


CHOICE = {'id': 'a', 'question': {'stem': 's', 'choices': [{'label': x, 'text': x} for x in 'ABCDE']}, 'answerKey': ''}
PAIR = 'id\tsentence1\tsentence2\n1\tthe cat\ta dog\n'
DEV = [  # task, dev file, its rows without labels
    ('panx', 'xtreme/panx/dev-en.tsv', 'Ada\nsees\n\nOslo\n'),
    ('squad_v1', 'intermediate/squad_v1.1/dev-v1.1.json', squad('', '')),
    ('commonsenseqa', 'intermediate/commonsenseqa/dev_rand_split.jsonl', json.dumps(CHOICE) + '\n'),
    ('pawsx', 'xtreme/pawsx/x-final/en/dev_2k.tsv', PAIR),
]


@pytest.mark.parametrize(('name', 'file', 'rows'), DEV)
def test_dev_rows_that_select_have_labels(tmp_path: Path, name: str, file: str, rows: str) -> None:
    """The error comes before training, with any `keep`."""
    plan = make_plan(Config(data_root=str(tmp_path), targets=(name,)))
    check_dev_labels(plan)  # without the file, nothing selects
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(rows, encoding='utf-8')
    with pytest.raises(DataError, match=r"no row has a gold label|no column 'label'") as error:
        check_dev_labels(plan)
    assert str(path) in str(error.value)
    if name == 'squad_v1':
        path.write_text(squad('Oslo', ''), encoding='utf-8')
        with pytest.raises(DataError, match=r'json, line 3: no gold label'):
            check_dev_labels(plan)
