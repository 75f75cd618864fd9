"""Prediction files: written and read back, replaced whole, and what is said about broken ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.kinds import kind_of, prediction_path
from xlmr_flax.scoring import files
from xlmr_flax.tasks import get_task

token = st.text(st.characters(exclude_categories=('C', 'Z')), min_size=1, max_size=6)


def test_paths() -> None:
    assert prediction_path('out', get_task('xnli'), 'sw') == Path('out/xnli/test-sw.tsv')
    assert prediction_path('out', get_task('world_spans'), 'de', 'dev') == Path('out/world_spans/dev-de.json')
    assert files.no_answer_path(Path('out/squad/dev-en.json')) == Path('out/squad/dev-en.no_answer.json')


def test_the_layout_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'folder' / 'test-en.tsv'
    files.write_labels(path, ['neutral', 'entailment'])
    assert path.read_bytes() == b'neutral\nentailment\n'
    files.write_labels(path, [3, 0])
    assert path.read_bytes() == b'3\n0\n'
    files.write_choices(path, [3, 0])
    assert path.read_bytes() == b'{"label": 3}\n{"label": 0}\n'
    files.write_tags(path, [['B-PER', 'O'], ['O']])
    assert path.read_bytes() == b'B-PER\nO\n\nO\n'
    files.write_pairs(path, [('de-1', 'en-2')])
    assert path.read_bytes() == b'de-1\ten-2\n'
    files.write_answers(path, {'q': 'groß'})
    assert path.read_text('utf-8') == '{\n "q": "groß"\n}\n'


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(token, min_size=1, max_size=4), min_size=1, max_size=4))
def test_tags_come_back(tmp_path_factory: pytest.TempPathFactory, sentences: list[list[str]]) -> None:
    path = tmp_path_factory.getbasetemp() / 'tags.tsv'
    files.write_tags(path, sentences)
    assert files.read_tags(path) == sentences


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=('Cs',)), max_size=9), max_size=4))
def test_answers_come_back(tmp_path_factory: pytest.TempPathFactory, answers: dict[str, str]) -> None:
    path = tmp_path_factory.getbasetemp() / 'answers.json'
    answers = {key: value for key, value in answers.items() if key.isprintable()}
    files.write_answers(path, answers)
    assert files.read_answers(path) == answers


def test_labels_indices_and_pairs_come_back(tmp_path: Path) -> None:
    path = tmp_path / 'x.tsv'
    files.write_labels(path, ['0', '1'])
    assert (files.read_labels(path), files.read_indices(path)) == (['0', '1'], [0, 1])
    files.write_pairs(path, [('a', 'b'), ('c', 'd')])
    assert files.read_pairs(path) == [('a', 'b'), ('c', 'd')]
    files.write_pairs(path, [])
    assert files.read_pairs(path) == []
    files.write_answers(path, {'m': ['Q1', 'Q2']})
    assert files.read_rankings(path) == {'m': ['Q1', 'Q2']}


def test_predictions_are_written_by_kind(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    kind_of(get_task('xnli')).write(path, ['neutral'])
    assert files.read_labels(path) == ['neutral']
    kind_of(get_task('world_ner')).write(path, [['O', 'B-LOC']])
    assert files.read_tags(path) == [['O', 'B-LOC']]
    kind_of(get_task('world_spans')).write(path, {'q': ''})
    assert files.read_answers(path) == {'q': ''}
    kind_of(get_task('xcopa')).write(path, [1, 0])
    assert files.read_choices(path) == [1, 0]
    kind_of(get_task('tatoeba')).write(path, [1, 0])
    assert files.read_indices(path) == [1, 0]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'test-en.tsv'
    files.write_labels(path, ['neutral'])

    def broken(*_: Any) -> None:
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', broken)
    with pytest.raises(OSError, match='disk full'):
        files.write_labels(path, ['entailment'])
    assert path.read_text() == 'neutral\n'
    assert os.listdir(tmp_path) == ['test-en.tsv']


@pytest.mark.parametrize('label', ['', 'a\tb', 'a\nb', ' a'])
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(DataError, match='which this format cannot hold'):
        files.write_labels(tmp_path / 'x', ['ok', label])
    with pytest.raises(DataError, match='sentence 2 has no tags'):
        files.write_tags(tmp_path / 'x', [['O'], []])


def test_an_empty_sentence_in_a_tag_file_counts(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    path.write_text('O\n\n\nO\nO\n\n')
    assert files.read_tags(path) == [['O'], [], ['O', 'O']]


BROKEN: list[tuple[Callable[[Path], Any], str | bytes, str]] = [
    (files.read_labels, '', r'x: an empty file'),
    (files.read_labels, 'a\n\nb\n', r'x, line 2: a blank line'),
    (files.read_labels, b'a\n\xff\n', r'x, line 2: not UTF-8: byte 0xff at offset 2'),
    (files.read_indices, '1\n-1\n', r"x, line 2: '-1' is not an index"),
    (files.read_choices, '{"label": 1}\n{"label": true}\n', r'x, line 2: an object with an index'),
    (files.read_choices, '{"label": 1}\n{"label": 1\n', r'x, line 2: broken JSON'),
    (files.read_tags, '', r'an empty file'),
    (files.read_pairs, 'a\tb\nc\n', r"line 2: two ids with a tab between them are expected, not 'c'"),
    (files.read_answers, '{"q": "a",\n "r" 1}', r'x, line 2: broken JSON: .* at column \d'),
    (files.read_answers, '{"q": 1}', r"the answer to 'q' is int"),
    (files.read_answers, '{"q": "a", "q": "b"}', r"the key 'q' occurs twice"),
    (files.read_answers, '[]', r'a JSON object by id is expected, not list'),
    (files.read_rankings, '{"m": "Q1"}', r"ranking of 'm' is not a list"),
    (files.read_no_answer_scores, '{"q": "0"}', r"score of 'q' is str"),
    (files.read_gold_answers, '{"data": []}', r'no questions'),
    (files.read_gold_answers, '{"data": [{"paragraphs": [{}]}]}', r"not in the SQuAD form .*KeyError\('qas'\)"),
]


@pytest.mark.parametrize(('read', 'content', 'said'), BROKEN)
def test_broken_files(tmp_path: Path, read: Callable[[Path], Any], content: str | bytes, said: str) -> None:
    path = tmp_path / 'x'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        read(path)
    with pytest.raises(DataError, match='no such file'):
        read(tmp_path / 'gone')


def test_gold_answers(tmp_path: Path) -> None:
    question = '{"id": "q", "question": "?", "answers": [{"text": "a", "answer_start": 0}, {"text": "b"}]}'
    article = f'{{"paragraphs": [{{"context": "ab", "qas": [{question}]}}]}}'
    for content in (f'{{"data": [{article}], "version": "1.1"}}', f'[{article}]'):
        (tmp_path / 'x').write_text(content)
        assert files.read_gold_answers(tmp_path / 'x') == {'q': ['a', 'b']}
    (tmp_path / 'x').write_text(f'[{article}, {article}]')
    with pytest.raises(DataError, match="question id 'q' occurs twice"):
        files.read_gold_answers(tmp_path / 'x')
    for text in ('5', 'null'):
        (tmp_path / 'x').write_text(f'[{article}]'.replace('"text": "b"', f'"text": {text}'))
        with pytest.raises(DataError, match="'q'"):
            files.read_gold_answers(tmp_path / 'x')
