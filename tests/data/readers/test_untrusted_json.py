"""Malformed JSON in data files: one bad row or one error, with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.data.readers.tables import Problem, read_rows
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.tasks.base import Table

JSONL, JSON = Table('f', 'jsonl', ('text',)), Table('f', 'json', ('text',))
SQUAD, CSV = Table('f', 'squad', ('id', 'question', 'context')), Table('f', 'csv', ('text',))
GOOD = '{"text": "fine"}'
BAD = {
    'digits': '{"text": "a", "n": ' + '1' * 5000 + '}',
    'depth': '{"text": ' + '[' * 100_000 + '}',
    'nan': '{"text": "a", "n": NaN}',
    'twice': '{"text": "a", "text": "b"}',
    'surrogate': '{"text": "half \\ud83d"}',
    'nested surrogate': '{"text": "a", "more": [{"x": "\\ude00"}]}',
    'behind': '{"text": "a"} {"text": "b"}',
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_line_is_one_problem(tmp_path: Path, name: str) -> None:
    path = tmp_path / 'f.jsonl'
    path.write_text(f'{GOOD}\n{BAD[name]}\n{GOOD}\n', encoding='utf-8')
    rows = list(read_rows(path, JSONL))
    assert [line for line, _ in rows] == [1, 2, 3]
    assert [isinstance(row, Problem) for _, row in rows] == [False, True, False]
    assert isinstance(rows[1][1], Problem) and len(rows[1][1].reason) < 200


@pytest.mark.parametrize('name', BAD)
def test_in_an_array_it_is_named_by_its_line(tmp_path: Path, name: str) -> None:
    """As the error of the file, or as the Problem of a row that can be parsed."""
    path = tmp_path / 'f.json'
    path.write_text(f'[{GOOD},\n{BAD[name]}]', encoding='utf-8')
    try:
        found = [line for line, row in read_rows(path, JSON) if isinstance(row, Problem)]
    except DataError as error:
        found = [2] if 'f.json, line 2' in str(error) else []
    assert found == [2]


@pytest.mark.parametrize('behind', ['\n[{"text": "lost"}]', '\nx', ']'])
def test_text_behind_the_closing_bracket(tmp_path: Path, behind: str) -> None:
    path = tmp_path / 'f.json'
    path.write_text(f'[{GOOD}]{behind}', encoding='utf-8')
    with pytest.raises(DataError, match=f'line {1 + behind.count(chr(10))}'):
        list(read_rows(path, JSON))
    path.write_text(f'[{GOOD}]\n \n', encoding='utf-8')
    assert len(list(read_rows(path, JSON))) == 1


def test_half_a_character_in_one_context_spoils_its_questions_alone(tmp_path: Path) -> None:
    def paragraph(name: str, context: str) -> dict[str, object]:
        return {'context': context, 'qas': [{'id': name, 'question': 'Where?', 'answers': []}]}

    path = tmp_path / 'f.json'
    articles = [{'paragraphs': [paragraph('a', 'here'), paragraph('b', 'cut \ud83d'), paragraph('c', 'there 😀')]}]
    path.write_text(json.dumps({'data': articles}), encoding='utf-8')
    rows = [row for _, row in read_rows(path, SQUAD)]
    assert [isinstance(row, Problem) for row in rows] == [False, True, False]
    assert "column 'context'" in str(rows[1])


def test_a_long_csv_field_is_read(tmp_path: Path) -> None:
    path, long = tmp_path / 'f.csv', 'long ' * 40_000
    path.write_text(f'text\n"{long}"\nshort\n', encoding='utf-8')
    assert [row for _, row in read_rows(path, CSV)] == [{'text': long}, {'text': 'short'}]
