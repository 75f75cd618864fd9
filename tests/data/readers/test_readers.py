"""Readers of JSON arrays, SQuAD files and tagging files: what they say about each kind of bad input, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.data.readers.tables import Problem, read_rows
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.tasks.base import Table

JSON = Table('x.json', 'json', ('text', 'label'))
SQUAD = Table('x.json', 'squad', ('id', 'question', 'context'))
SENTENCES = Table('x.json', 'squad_sentences', ('context',))
CONLL = Table('x', 'conll', ())
CONLLU = Table('x', 'conllu', ())
STAGGED = Table('x', 'stagged', ())
CCGBANK = Table('x', 'ccgbank', ())
EXPLODE = Table('x', 'jsonl', ('q',), explode=('q', 'a'))

WORD = '{}\t{}\t_\t{}\t_\t_\t{}\tdep\t_\t_\n'
RUNS = '(<T S[dcl] 0 2> (<L N/N DT DT Every N_1/N_1>) (<T S[dcl] 1 1> (<L S[dcl]\\NP VBZ VBZ runs S[dcl]\\NP_2>) ) )\n'


def rows(folder: Path, table: Table, content: str, name: str = 'file') -> list[tuple[int, Any]]:
    path = folder / name
    path.write_text(content, encoding='utf-8', newline='')
    return list(read_rows(path, table))


def squad(*questions: Any, **paragraph: Any) -> str:
    return json.dumps({'data': [{'paragraphs': [{'context': 'c', 'qas': list(questions)} | paragraph]}]}, indent=0)


def test_json_arrays_and_objects_know_their_lines(tmp_path: Path) -> None:
    read = rows(tmp_path, JSON, '[\n {"text": "a", "label": 0},\n\n {"text": "b", "label": 1} ]\n')
    assert read == [(2, {'text': 'a', 'label': 0}), (4, {'text': 'b', 'label': 1})]
    read = rows(tmp_path, JSON, '{"k1": {"text": "a", "label": 0},\n"k2": {"text": "b", "label": 1, "key": 5}}')
    assert [row['key'] for _, row in read] == ['k1', 5]
    assert [line for line, _ in read] == [1, 2]


def test_lists_become_rows(tmp_path: Path) -> None:
    read = rows(tmp_path, EXPLODE, '{"q": ["x", "y"], "a": [1, 2], "t": [0]}\n{"q": ["x"], "a": []}\n{"q": []}\n')
    assert read[:2] == [(1, {'q': 'x', 'a': 1, 't': [0]}), (1, {'q': 'y', 'a': 2, 't': [0]})]
    assert read[2] == (2, Problem('lists of one length are expected in q, a'))
    assert len(read) == 3


def test_hidden_columns_and_constants(tmp_path: Path) -> None:
    table = Table('x', 'tsv', ('a',), hidden=('b',), constants={'side': 'left'})
    assert rows(tmp_path, table, 'a\tb\n1\t2\n') == [(2, {'a': '1', 'side': 'left'})]


def test_labels_beside_the_rows(tmp_path: Path) -> None:
    path, labels = tmp_path / 'x.jsonl', tmp_path / 'labels.lst'
    path.write_text('{"q": 1}\n{"q": 2\n{"q": 3}\n', encoding='utf-8')
    labels.write_text('1\n2\n3 \n', encoding='utf-8')
    table = Table('x.jsonl', 'jsonl', ('q',))
    read = list(read_rows(path, table, labels))
    assert [row['label'] for _, row in read if not isinstance(row, Problem)] == ['1', '3'], (
        'a bad row has its label too'
    )
    for content, said in (
        ('1\n', 'labels.lst: 1 labels, but .* has more rows'),
        ('1\n2\n3\n4\n', '4 labels for 3 rows'),
    ):
        labels.write_text(content, encoding='utf-8')
        with pytest.raises(DataError, match=said):
            list(read_rows(path, table, labels))


def test_squad_rows_have_the_line_of_their_id(tmp_path: Path) -> None:
    content = squad({'id': 'q1', 'question': 'A?', 'answers': []}, {'id': 'é2', 'question': 'B?'})
    content = content.replace('\\u00e9', 'é')
    read = rows(tmp_path, SQUAD, content)
    lines = content.split('\n')
    assert [lines[line - 1] for line, _ in read] == ['"id": "q1",', '"id": "é2",']
    assert read[1][1] == {
        'id': 'é2', 'question': 'B?', 'context': 'c', 'answers': [], 'paragraph': 1, 'sentences': [],
    }  # fmt: skip


def test_two_columns_with_tabs_blanks_or_nothing(tmp_path: Path) -> None:
    read = rows(tmp_path, CONLL, '\na\tO\n\u3000\tB-X\n\n\nb c\tO\r\n')
    assert read == [
        (2, {'words': ['a', '\u3000'], 'tags': ['O', 'B-X'], 'lines': [2, 3]}),
        (6, {'words': ['b c'], 'tags': ['O'], 'lines': [6]}),
    ]
    assert rows(tmp_path, CONLL, 'a O\nb B-X\n')[0][1]['tags'] == ['O', 'B-X']
    assert rows(tmp_path, CONLL, 'a\nb\n')[0][1] == {'words': ['a', 'b'], 'lines': [1, 2]}


def test_a_bad_line_spoils_its_sentence_only(tmp_path: Path) -> None:
    read = rows(tmp_path, CONLL, 'a\tO\nb\n\nc\tO\n')
    assert read[0] == (2, Problem("a word and a tag are expected, not 'b'"))
    assert read[1][1]['words'] == ['c']


@pytest.mark.parametrize(
    ('heads', 'tags', 'name', 'expected'),
    [
        (('2', '0'), ('VERB', 'PRON'), 'xx_a', 'PRON'),  # nearest to the root
        (('3', '3'), ('ADP', 'DET'), 'xx_a', 'ADP'),  # as near: the first in the list
        (('3', '3'), ('DET', 'NOUN'), 'xx_a', 'NOUN'),
        (('3', '3'), ('ADV', 'PRON'), 'it_a', 'ADV'),  # Italian, Spanish and French have lists of their own
        (('3', '3'), ('ADV', 'PRON'), 'fr_a', 'PRON'),
        (('3', '3'), ('NOUN', 'DET'), 'es_a', 'DET'),  # a tag that is not in the list comes last
        (('2', '1'), ('NOUN', 'VERB'), 'xx_a', 'VERB'),  # a circle is no tree, but ends
    ],
)
def test_the_tag_of_a_fused_token(
    heads: tuple[str, str], tags: tuple[str, str], name: str, expected: str, tmp_path: Path
) -> None:
    content = '1-2\tab' + '\t_' * 8 + '\n' + ''.join(WORD.format(i + 1, 'xy'[i], tags[i], heads[i]) for i in (0, 1))
    content += WORD.format(3, 'z', 'VERB', 0)
    assert rows(tmp_path, CONLLU, content, name)[0][1]['words'] == ['ab', 'z']
    assert rows(tmp_path, CONLLU, content, name)[0][1]['tags'] == [expected, 'VERB']


def test_sentences_without_text_are_dropped(tmp_path: Path) -> None:
    words = ['_'] * 3
    for kept, content in ((False, words), (False, [*words[:2], 'a']), (True, ['_', 'a', 'b'])):
        text = (
            ''.join(WORD.format(i, word, 'X', 0) for i, word in enumerate(content, 1))
            + '\n'
            + WORD.format(1, 'z', 'X', 0)
        )
        assert len(rows(tmp_path, CONLLU, text)) == 1 + kept


def test_ccgbank(tmp_path: Path) -> None:
    read = rows(tmp_path, CCGBANK, 'ID=wsj_0001.1 PARSER=GOLD NUMPARSE=1\n' + RUNS)
    assert read == [(2, {'words': ['Every', 'runs'], 'tags': ['N/N', 'S[dcl]\\NP'], 'lines': [2, 2]})]


FUSED = '{}\tx' + '\t_' * 8 + '\n'
THREE = ''.join(WORD.format(i, 'a', 'X', 0) for i in (1, 2, 3))
BAD_TREES = [
    *(
        (WORD.format(1, 'a', 'X', 0) + WORD.format(2, 'b', 'X', head), 2, said)
        for head, said in (
            ('²', "the number of a word is expected in HEAD, not '²'"),
            ('xx', "the number of a word is expected in HEAD, not 'xx'"),
            ('-1', "the number of a word is expected in HEAD, not '-1'"),
            ('', "the number of a word is expected in HEAD, not ''"),
            ('99', 'head 99 is not one of the 2 words'),
        )
    ),
    ('1\ta\t_\tX\t_\t_\t0\tdep\t²:dep\t_\n', 1, "the number of a word is expected in DEPS, not '²'"),
    (WORD.format(1, '', 'X', 0), 1, "word '1' has no form: ''"),
    (WORD.format(1, '\u200c', 'X', 0), 1, "word '1' has no form: '\\u200c'"),
    (FUSED.format('1-2') + FUSED.format('2-3') + THREE, 2, 'multi-word token 2-3 shares word 2 with another one'),
    (FUSED.format('1-2') * 2 + THREE, 2, 'multi-word token 1-2 shares word 1 with another one'),
]
PROBLEMS = [
    (JSON, '[{"text": "a"},\n 5]', [(1, "no field 'label' (known: text)"), (2, 'a JSON object is expected, not int')]),
    (SQUAD, squad({'question': 'A?'}), [(1, 'a question of paragraph 1 without an id')]),
    (SQUAD, squad({'id': 'a'}), [(9, "question 'a' has no field 'question'")]),
    (
        SQUAD,
        squad({'id': 'a', 'question': 'A?'}, context=5),
        [(1, 'paragraph 1 has no text `context` with a list `qas`')],
    ),
    (
        SQUAD,
        squad({'id': 'a', 'question': 'A?'}, sentence_breaks=[[0, 9]]),
        [(9, 'sentence break [0, 9] does not lie in the context (1 characters)')],
    ),
    *(
        (
            table,
            squad({'id': 'a', 'question': 'A?'}, sentence_breaks=breaks),
            [(line, f'a list of [start, end] is expected in sentence_breaks, not {breaks}')],
        )
        for table, breaks, line in ((SQUAD, None, 9), (SQUAD, 5, 9), (SENTENCES, None, 9))
    ),
    (SENTENCES, squad(qas=None), [(1, 'paragraph 1 has no text `context` with a list `qas`')]),
    (SENTENCES, squad({'id': 'a'}), [(9, 'paragraph 1 has no sentence_breaks')]),
    (CONLL, 'a\tO\nb\tO\tx\n', [(2, "a word and a tag are expected, not 'b\\tO\\tx'")]),
    (CONLL, 'a\nb\tO\n', [(2, "a word alone is expected, not 'b\\tO'")]),
    (CONLL, 'a\tO\n\tO\n', [(2, "a word and a tag are expected, not '\\tO'")]),
    (CONLLU, '1\ta\tb\n', [(1, '3 fields, expected 10')]),
    (CONLLU, WORD.format(1, 'a', 'X', 0) + WORD.format(3, 'a', 'X', 0), [(2, "id '3' is out of order, expected 2")]),
    (CONLLU, '1-2\tab' + '\t_' * 8 + '\n' + WORD.format(1, 'a', 'X', 0), [(1, 'multi-word token 1-2 of 1 words')]),
    *((CONLLU, bad, [(line, said)]) for bad, line, said in BAD_TREES),
    (STAGGED, 'a|DT|N b|N\n', [(1, "word|POS|supertag is expected, not 'b|N'")]),
    (CCGBANK, 'ID=1\nno derivation\n', [(2, 'a derivation (<T ...> ...) with leaves <L ...> is expected')]),
]


@pytest.mark.parametrize(('table', 'content', 'expected'), PROBLEMS)
def test_rows_that_cannot_be_read(table: Table, content: str, expected: list[tuple[int, str]], tmp_path: Path) -> None:
    found = [(line, row.reason) for line, row in rows(tmp_path, table, content) if isinstance(row, Problem)]
    assert found == expected


@pytest.mark.parametrize(
    ('table', 'content', 'said'),
    [
        (JSON, '[{"text": "a",\n', r'file, line 2: broken JSON: .* at column'),
        (JSON, '[{"text": "a", "label": 0} 5]', r"line 1: broken JSON: ',' is expected, not '5'"),
        (JSON, '[{"text": "a", "label": 0}\n', r"line 2: broken JSON: ',' is expected, not 'the end of the file'"),
        (JSON, '[{"text": "a", "label": 0},\n]', r"line 2: broken JSON: a comma before the closing ']'"),
        (JSON, '{"k": {"text": "a", "label": 0},}', r"line 1: broken JSON: a comma before the closing '}'"),
        (JSON, '{5: {"text": "a", "label": 0}}', "line 1: broken JSON: '\"' is expected, not '5'"),
        (JSON, '5', r'line 1: broken JSON: an array or an object is expected'),
        (JSON, '[]', r'no rows in this file'),
        (SQUAD, '{"data":\n[', r'file, line 2: broken JSON: .* at column \d+'),
        (SQUAD, '[]', r'not in the SQuAD form: an object with a list `data`'),
        (SQUAD, '{"data": [{"title": "t"}]}', r'not in the SQuAD form: an article without a list `paragraphs`'),
        (CONLL, '\n\n', r'no rows in this file'),
    ],
)
def test_files_that_cannot_be_read(table: Table, content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        rows(tmp_path, table, content)
