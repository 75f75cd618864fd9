"""Rows of one local file, and the error that says what is wrong with it.

Formats: 'tsv' splits at tabs and knows no quotes (XTREME and GLUE files have bare quotation marks inside sentences),
'csv' is RFC 4180, 'jsonl' one JSON object a line, 'lines' one text a line. Only a line feed ends a line: sentences may
hold other Unicode line separators.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_flax.tasks.base import Table, closest


class DataError(ValueError):
    """Data that is missing or cannot be read; the message names the file, the line (from 1) and the column."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, a byte order mark left out. DataError names the first bad byte and its line."""
    data = path.read_bytes()
    try:
        return data.decode('utf-8').removeprefix('\ufeff')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise DataError(
            f'{path}, line {line}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason})'
        ) from None


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends; an empty list for an empty file."""
    lines = read_text(path).split('\n')
    if lines[-1] == '':
        lines.pop()
    return [line.removesuffix('\r') for line in lines]


def read_table(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, column name -> value) for every row of a file in the format that `table` states.

    Raises DataError for what is not as `table` says; a file without rows is an error too.
    """
    readers = {'tsv': _read_tsv, 'csv': _read_csv, 'jsonl': _read_jsonl, 'lines': _read_plain}
    if table.format not in readers:
        raise DataError(f'{path}: unknown format {table.format!r}{closest(table.format, readers)}')
    number = 0
    for number, row in readers[table.format](path, table):
        yield number, row
    if not number:
        raise DataError(f'{path}: no rows in this file')


def _fields_to_rows(
    path: Path, table: Table, records: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Names for the fields of tsv and csv records: from the header, or by position."""
    names: list[str] = []
    for number, fields in records:
        if not names:
            if table.header:
                names = _header(path, table, number, fields)
                continue
            names = _positions(path, table, number, fields)
        if len(fields) != len(names):
            hint = '; a row cut short?' if len(fields) < len(names) else '; a tab or quote inside a field?'
            raise DataError(f'{path}, line {number}: {len(fields)} fields, expected {len(names)}{hint}')
        yield number, dict(zip(names, fields, strict=True))


def _header(path: Path, table: Table, number: int, fields: list[str]) -> list[str]:
    for column in table.columns:
        if column not in fields:
            raise DataError(f'{path}, line {number}: the header has no column {column!r}{closest(column, fields)}')
    if len(set(fields)) != len(fields):
        twice = next(name for name in fields if fields.count(name) > 1)
        raise DataError(f'{path}, line {number}: the header has column {twice!r} twice')
    return fields


def _positions(path: Path, table: Table, number: int, fields: list[str]) -> list[str]:
    names = [*table.columns, *table.optional]
    if not len(table.columns) <= len(fields) <= len(names):
        least = f'{len(table.columns)} to ' if table.optional else ''
        raise DataError(
            f'{path}, line {number}: {len(fields)} fields, expected {least}{len(names)} ({", ".join(names)})'
        )
    return names[: len(fields)]


def _read_tsv(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    records = ((number, line.split('\t')) for number, line in enumerate(read_lines(path), 1))
    return _fields_to_rows(path, table, records)


def _read_csv(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    def records() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(read_text(path), newline=''), strict=True)
        start = 1
        try:
            for fields in reader:
                if fields:
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f'{path}, line {start}: not CSV: {error}') from None

    return _fields_to_rows(path, table, records())


def _read_jsonl(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f'{path}, line {number}: broken JSON: {error.msg} at column {error.colno}') from None
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number}: a JSON object is expected, not {type(row).__name__}')
        for column in table.columns:
            if column not in row:
                raise DataError(f'{path}, line {number}: no field {column!r}{closest(column, row)}')
        yield number, row


def _read_plain(path: Path, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), 1):
        yield number, {table.columns[0]: line}
