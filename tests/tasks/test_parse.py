"""One row of each task to one example, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, PairExample, RowError, SentenceExample, SpanExample, TagExample


def parse(task: str, **row: Any) -> Any:
    task_ = get_task(task)
    return task_.parse({'#': 0, **row}, task_, 'en')


def test_mnli_and_snli() -> None:
    row = {'sentence1': 'It rains.', 'sentence2': 'It is dry.', 'gold_label': 'contradiction'}
    assert parse('mnli', **row) == parse('snli', **row) == PairExample('', 'It rains.', 'It is dry.', 0)
    assert parse('snli', **(row | {'gold_label': '-'})) is None
    with pytest.raises(RowError, match='gold_label'):
        parse('mnli', **(row | {'gold_label': '-'}))


@pytest.mark.parametrize(('letter', 'index'), [('c', 0), ('e', 1), ('n', 2)])
def test_anli(letter: str, index: int) -> None:
    row = {'uid': 'u1', 'context': 'A long text.', 'hypothesis': 'A text.', 'label': letter, 'premise': 'not this'}
    assert parse('anli', **row) == PairExample('u1', 'A long text.', 'A text.', index)


def test_anli_refuses_other_labels_and_types() -> None:
    row: dict[str, Any] = {'uid': 'u1', 'context': 'A long text.', 'hypothesis': 'A text.', 'label': 'x'}
    with pytest.raises(RowError, match=r"unknown label 'x' \(known: c, e, n\)"):
        parse('anli', **row)
    with pytest.raises(RowError, match="column 'context': a string is expected, not None"):
        parse('anli_r2', **(row | {'label': 'c', 'context': None}))


def test_xnli_and_pawsx_with_and_without_label() -> None:
    row = {'sentence1': 'a', 'sentence2': 'b'}
    assert parse('xnli', **row, label='neutral') == PairExample('', 'a', 'b', 2)
    assert parse('xnli', **row).label is None
    assert parse('pawsx', **row, id='7', label='1') == PairExample('7', 'a', 'b', 1)
    assert parse('pawsx', **row, id='7').label is None


def test_tatoeba() -> None:
    assert parse('tatoeba', text='Guten Tag.') == SentenceExample('', 'Guten Tag.')


def test_world_kinds() -> None:
    assert parse('world_pairs', id='p', sentence1='a', sentence2='b', label='0') == PairExample('p', 'a', 'b', 0)
    assert parse('world_nli', id='n', premise='a', hypothesis='b', label='entailment').label == 1
    span = {'id': 's', 'question': 'Who?', 'context': 'Ada sat.', 'answers': [{'text': 'Ada', 'answer_start': 0}]}
    assert parse('world_spans', **span) == SpanExample('s', 'Who?', 'Ada sat.', (('Ada', 0),))
    assert parse('world_spans', **(span | {'answers': []})).is_impossible
    choice = {'id': 'c', 'prompt': 'So', 'choices': ['w', 'x', 'y', 'z'], 'label': 3}
    assert parse('world_choices', **choice) == ChoiceExample('c', 'So', ('w', 'x', 'y', 'z'), 3)
    tags = {'id': 't', 'words': ['Ada', 'sat'], 'tags': ['B-PER', 'O']}
    assert parse('world_ner', **tags) == TagExample('t', ('Ada', 'sat'), (2, 6))
    assert parse('world_pos', **(tags | {'tags': ['PROPN', 'VERB']})).tags == (11, 15)
    assert parse('world_retrieval', id='r', sentence='Ada sat.') == SentenceExample('r', 'Ada sat.')


def test_world_rows_that_cannot_be() -> None:
    with pytest.raises(RowError, match='does not stand at character 1'):
        parse('world_spans', id='', question='', context='Ada', answers=[{'text': 'Ada', 'answer_start': 1}])
    with pytest.raises(RowError, match='4 is not the index of one of 4 choices'):
        parse('world_choices', id='', prompt='', choices=['a', 'b', 'c', 'd'], label=4)
    with pytest.raises(RowError, match='1 tags for 2 words'):
        parse('world_ner', id='', words=['a', 'b'], tags=['O'])
    with pytest.raises(RowError, match="unknown label 'B-PRE'"):
        parse('world_ner', id='', words=['a'], tags=['B-PRE'])
