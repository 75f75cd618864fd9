"""A training row without a label is never trained on: an error, or a bad row with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.data.sources import BadRow, DataError, read_split
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
