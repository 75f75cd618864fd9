"""The reader of local files, on files written here: what it reads, and what it says about each kind of bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.data.readers.tables import Problem, read_lines, read_rows
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.tasks.base import Table

TSV = Table('x.tsv', 'tsv', ('id', 'text'))
BARE = Table('x.tsv', 'tsv', ('a', 'b'), header=False, optional=('label',))
CSV = Table('x.csv', 'csv', ('id', 'text'))
JSONL = Table('x.jsonl', 'jsonl', ('uid', 'label'))
LINES = Table('x', 'lines', ('text',), header=False)


def rows(folder: Path, table: Table, content: str | bytes) -> list[tuple[int, dict]]:
    path = folder / 'file'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = list(read_rows(path, table))
    for line, row in found:
        if isinstance(row, Problem):
            raise DataError(f'{path}, line {line}: {row.reason}')
    return [(line, row) for line, row in found if not isinstance(row, Problem)]


def test_tsv_reads_by_name_and_knows_no_quotes(tmp_path: Path) -> None:
    read = rows(tmp_path, TSV, 'text\tid\tmore\n"He said\t1\tx\n""\t2\ty\n')
    assert read == [(2, {'text': '"He said', 'id': '1', 'more': 'x'}), (3, {'text': '""', 'id': '2', 'more': 'y'})]


def test_tsv_without_header_reads_by_position(tmp_path: Path) -> None:
    assert rows(tmp_path, BARE, 'p\tq\tneutral\n') == [(1, {'a': 'p', 'b': 'q', 'label': 'neutral'})]
    assert rows(tmp_path, BARE, 'p\tq\nr\ts') == [(1, {'a': 'p', 'b': 'q'}), (2, {'a': 'r', 'b': 's'})]


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    read = rows(tmp_path, LINES, 'one\u2028still one\x85\x0bstill\r\ntwo\n\nfour')
    assert [row['text'] for _, row in read] == ['one\u2028still one\x85\x0bstill', 'two', '', 'four']


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert rows(tmp_path, TSV, b'\xef\xbb\xbfid\ttext\n1\tx\n') == [(2, {'id': '1', 'text': 'x'})]


def test_csv_has_quotes_and_lines_inside_fields(tmp_path: Path) -> None:
    read = rows(tmp_path, CSV, 'id,text\r\n1,"two\nlines, one field"\r\n2,"a ""word"""\r\n')
    assert read == [(2, {'id': '1', 'text': 'two\nlines, one field'}), (4, {'id': '2', 'text': 'a "word"'})]


def test_jsonl(tmp_path: Path) -> None:
    read = rows(tmp_path, JSONL, '{"uid": "a", "label": "c", "n": [1]}\n{"uid": "b", "label": "e"}\n')
    assert read[0] == (1, {'uid': 'a', 'label': 'c', 'n': [1]})
    assert read[1][0] == 2


BAD = [
    (TSV, 'id\ttxt\n1\tx\n', r"file, line 1: the header has no column 'text' \(did you mean 'txt'\?\)"),
    (TSV, 'id\ttext\tid\n', r"line 1: the header has column 'id' twice"),
    (TSV, 'id\ttext\n1\tx\n2\n', r'file, line 3: 1 fields, expected 2; a row cut short\?'),
    (TSV, 'id\ttext\n1\tx\ty\n', r'line 2: 3 fields, expected 2; a tab or quote inside a field\?'),
    (TSV, 'id\ttext\n1\tx\n\n2\ty\n', r'line 3: 1 fields, expected 2'),
    (BARE, 'p\n', r'line 1: 1 fields, expected 2 to 3 \(a, b, label\)'),
    (BARE, 'p\tq\tneutral\nr\ts\n', r'line 2: 2 fields, expected 3; a row cut short\?'),
    (BARE, 'p\tq\tneutral\tx\n', r'line 1: 4 fields, expected 2 to 3'),
    (CSV, 'id,text\n1,x,y\n', r'line 2: 3 fields, expected 2'),
    (CSV, 'id,text\n1,"x\n', r'line 2: not CSV: unexpected end of data'),
    (JSONL, '{"uid": "a", "label": "c"}\n{"uid": "b", \n', r'file, line 2: broken JSON: .* at column \d+'),
    (JSONL, '["a"]\n', r'line 1: a JSON object is expected, not list'),
    (JSONL, '{"uid": "a", "lable": "c"}\n', r"line 1: no field 'label' \(did you mean 'lable'\?\)"),
    (LINES, '', r'file: no rows in this file'),
    (TSV, '', r'file: no rows in this file'),
    (TSV, 'id\ttext\n', r'file: no rows in this file'),
    (JSONL, '', r'file: no rows in this file'),
    (LINES, b'good\nb\xe4d\n', r'file, line 2: not UTF-8: byte 0xe4 at offset 6'),
    (Table('x', 'parquet', ()), 'x', r"unknown format 'parquet'"),
]


@pytest.mark.parametrize(('table', 'content', 'said'), BAD)
def test_what_is_said_about_bad_input(tmp_path: Path, table: Table, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        rows(tmp_path, table, content)


def test_lines_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / 'empty'
    path.touch()
    assert read_lines(path) == []
