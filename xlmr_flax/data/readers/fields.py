"""Readers of tabular files: tsv, csv (with commas or tabs), jsonl, json and plain lines."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_flax.data.readers.text import DataError, Problem, Rows, read_lines, read_plain_lines, read_text
from xlmr_flax.tasks.base import Table
from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import closest


def read_tsv(path: Path, table: Table) -> Rows:
    """Reads tab-separated fields without quoting: a quotation mark is an ordinary character."""
    records = ((number, line.split('\t')) for number, line in enumerate(read_lines(path), 1))
    return _fields_to_rows(path, table, records)


def read_csv(path: Path, table: Table, delimiter: str = ',') -> Rows:
    """Reads CSV (RFC 4180). A quote that is never closed makes the rest of the file unreadable: DataError, not a
    Problem."""

    def records() -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(sys.maxsize)  # a process-wide setting; the default rejects fields over 131,072 characters
        reader = csv.reader(io.StringIO(read_text(path), newline=''), delimiter=delimiter, strict=True)
        start = 1
        try:
            for fields in reader:
                if fields:
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f'{path}, line {start}: not CSV: {error}') from None

    return _fields_to_rows(path, table, records())


def read_csv_tabs(path: Path, table: Table) -> Rows:
    """Reads CSV with tabs instead of commas, as pandas writes it: fields with a quotation mark are quoted (SIB-200)."""
    return read_csv(path, table, '\t')


def read_jsonl(path: Path, table: Table) -> Rows:
    """Reads JSON lines: one object a line."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = strict_json.loads(line, surrogates=True)
        except strict_json.JsonError as error:
            yield number, Problem(error.described())
            continue
        yield number, _object(row, table)


def read_json(path: Path, table: Table) -> Rows:
    """Reads a JSON array of objects, or an object of objects, whose keys become the column 'key' unless a row has one.

    After a syntax error the rest of the file cannot be parsed: DataError, not a Problem.
    """
    content = read_text(path)

    def skip(position: int) -> int:
        while position < len(content) and content[position] in ' \t\r\n':
            position += 1
        return position

    def decode(position: int) -> tuple[Any, int]:
        try:
            return strict_json.decode(content, position, surrogates=True)
        except strict_json.JsonError as error:
            raise DataError(f'{path}, line {error.line}: {error.described()}') from None

    position = skip(0)
    opening = content[position : position + 1]
    if opening not in ('[', '{'):
        raise _broken(path, content.count('\n', 0, position) + 1, 'an array or an object is expected')
    closing, line, counted = ']' if opening == '[' else '}', 1, 0
    position = skip(position + 1)
    while content[position : position + 1] != closing:
        key, start = None, position
        if opening == '{':
            _expect(path, content, position, '"')
            key, position = decode(position)
            position = skip(position)
            _expect(path, content, position, ':')
            position = skip(position + 1)
        value, position = decode(position)
        line += content.count('\n', counted, start)
        counted = start
        row = _object(value, table)
        yield line, {'key': key, **row} if key is not None and isinstance(row, dict) else row
        position = skip(position)
        if content[position : position + 1] != closing:
            _expect(path, content, position, ',')
            position = skip(position + 1)
            if content[position : position + 1] == closing:
                raise _broken(path, content.count('\n', 0, position) + 1, f'a comma before the closing {closing!r}')
    position = skip(position + 1)
    if position < len(content):
        line = content.count('\n', 0, position) + 1
        raise _broken(
            path, line, f'unexpected text after the closing {closing!r}: {content[position : position + 20]!r}'
        )


def read_plain(path: Path, table: Table) -> Rows:
    """Reads plain text: one text a line, in the table's only column. Raises DataError for JSON lines."""
    for number, line in enumerate(read_plain_lines(path), 1):
        yield number, {table.columns[0]: line}


def _broken(path: Path, line: int, what: str) -> DataError:
    return DataError(f'{path}, line {line}: broken JSON: {what}')


def _expect(path: Path, content: str, position: int, character: str) -> None:
    if content[position : position + 1] != character:
        actual = content[position : position + 1] or 'the end of the file'
        raise _broken(path, content.count('\n', 0, position) + 1, f'{character!r} is expected, not {actual!r}')


def _object(row: Any, table: Table) -> dict[str, Any] | Problem:
    if not isinstance(row, dict):
        return Problem(f'a JSON object is expected, not {type(row).__name__}')
    for column in table.columns:
        if column not in row:
            return Problem(f'no field {column!r}{closest(column, row)}')
    return row


def _fields_to_rows(path: Path, table: Table, records: Iterator[tuple[int, list[str]]]) -> Rows:
    """Converts tsv and csv records to rows. Field names come from the header, or from the table by position."""
    names: list[str] = []
    least = 0
    for number, fields in records:
        if not names:
            if table.header:
                names = _header(path, table, number, fields)
                least = 1 + max(map(names.index, table.columns), default=0)
                continue
            positions = _positions(table, fields)
            if isinstance(positions, Problem):
                yield number, positions
                continue
            names = positions
        if table.short_rows and least <= len(fields) < len(names):
            fields = [*fields, *[''] * (len(names) - len(fields))]
        if len(fields) != len(names):
            hint = '; a row cut short?' if len(fields) < len(names) else '; a tab or quote inside a field?'
            yield number, Problem(f'{len(fields)} fields, expected {len(names)}{hint}')
            continue
        yield number, dict(zip(names, fields, strict=True))


def _header(path: Path, table: Table, number: int, fields: list[str]) -> list[str]:
    for column in table.columns:
        if column not in fields:
            raise DataError(f'{path}, line {number}: the header has no column {column!r}{closest(column, fields)}')
    if len(set(fields)) != len(fields):
        twice = next(name for name in fields if fields.count(name) > 1)
        raise DataError(f'{path}, line {number}: the header has column {twice!r} twice')
    return fields


def _positions(table: Table, fields: list[str]) -> list[str] | Problem:
    names = [*table.columns, *table.optional]
    if not len(table.columns) <= len(fields) <= len(names):
        least = f'{len(table.columns)} to ' if table.optional else ''
        return Problem(f'{len(fields)} fields, expected {least}{len(names)} ({", ".join(names)})')
    return names[: len(fields)]
