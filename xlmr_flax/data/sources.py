"""From a task, a language and a split to examples: local files in the official layouts, or the embedded world.

Real data lies under a data root (--data_root or XLMR_DATA_ROOT); the embedded world's tasks need none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_flax.data import world
from xlmr_flax.data.tables import DataError, read_lines, read_table, read_text
from xlmr_flax.tasks.base import Embedded, Example, RowError, SentenceExample, Table, Task, TaskError, closest

__all__ = [
    'DATA_ROOT_VARIABLE',
    'DataError',
    'content_digest',
    'needs_data_root',
    'read_lines',
    'read_pairs',
    'read_split',
    'read_table',
    'read_text',
    'resolve_data_root',
    'split_files',
]

DATA_ROOT_VARIABLE = 'XLMR_DATA_ROOT'
HOW_TO_SET = f'set --data_root=FOLDER or the environment variable {DATA_ROOT_VARIABLE}'


def resolve_data_root(flag_value: str | Path | None = None) -> Path:
    """The data root: the flag's value, else XLMR_DATA_ROOT. DataError says how to set it."""
    value, origin = flag_value, '--data_root'
    if not value:
        value, origin = os.environ.get(DATA_ROOT_VARIABLE), DATA_ROOT_VARIABLE
    if not value:
        raise DataError(f'no data root: {HOW_TO_SET}; tasks named world_* need none')
    root = Path(value).expanduser()
    if not root.is_dir():
        raise DataError(f'data root {str(root)!r} (from {origin}) is not a folder: {HOW_TO_SET}')
    return root


def needs_data_root(task: Task, split: str) -> bool:
    """Whether a split reads local files."""
    return any(isinstance(source, Table) for source in task.sources(split))


def split_files(task: Task, language: str, split: str, data_root: str | Path | None = None) -> list[Path]:
    """The files that a split reads, in order (none for the embedded world). DataError for one that is not there."""
    task.local_code(language)
    tables = [source for source in task.sources(split) if isinstance(source, Table)]
    return [_file(task, table, language, data_root) for table in tables]


def read_split(
    task: Task, language: str, split: str, data_root: str | Path | None = None, limit: int | None = None
) -> list[Example]:
    """The examples of a split in file order, at most `limit` of them (rows behind the limit are not read).

    A row the task drops gives no example, but its number is used up: ids are 'TASK-SPLIT-LANGUAGE-ROW' with the row
    number from 0 over all files of the split, unless the file has ids. Retrieval tasks have two sides: `read_pairs`.
    Raises TaskError (no such split or language) and DataError (anything wrong with the files).
    """
    if task.kind == 'retrieval':
        raise TaskError(f'task {task.name!r} has two sides of sentences: read it with read_pairs')
    return _read(task, language, split, task.sources(split), data_root, limit)


def read_pairs(
    task: Task, language: str, split: str = 'test', data_root: str | Path | None = None, limit: int | None = None
) -> tuple[list[SentenceExample], list[SentenceExample]]:
    """(English sentences, foreign sentences) of a retrieval task; row i of both is a gold pair.

    The ids of both sides are 'TASK-SPLIT-LANGUAGE-ROW' with '-en' behind the English ones, or the file's.
    Raises DataError when the sides differ in length.
    """
    if task.kind != 'retrieval':
        raise TaskError(f'task {task.name!r} is no retrieval task: read it with read_split')
    english, foreign = task.sources(split)
    sides = [
        _read(task, language, split, (source,), data_root, None, suffix)
        for source, suffix in ((english, '-en'), (foreign, ''))
    ]
    if len(sides[0]) != len(sides[1]):
        names = [_name(task, source, language, data_root) for source in (english, foreign)]
        raise DataError(
            f'the two sides differ: {names[0]} has {len(sides[0])} lines, {names[1]} has {len(sides[1])}; '
            'line i of both must be a pair'
        )
    queries, pool = ([example for example in side if isinstance(example, SentenceExample)] for side in sides)
    return queries[:limit], pool[:limit]


def content_digest(task: Task, language: str, split: str, data_root: str | Path | None = None) -> str:
    """sha256 (hex) over the bytes of the files that a split reads, in order; for the embedded world over its rows.

    Part of what names a run, so that changed data means another run.
    """
    digest = hashlib.sha256()
    for source in task.sources(split):
        if isinstance(source, Embedded):
            for row in _world_rows(task, source, language, split):
                digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b'\n')
        else:
            with _file(task, source, language, data_root).open('rb') as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def _read(
    task: Task,
    language: str,
    split: str,
    sources: tuple[Table | Embedded, ...],
    data_root: str | Path | None,
    limit: int | None,
    suffix: str = '',
) -> list[Example]:
    task.local_code(language)
    examples: list[Example] = []
    places: dict[str, str] = {}
    number = 0
    for source in sources:
        for place, row in _rows(task, source, language, split, data_root):
            if limit is not None and len(examples) >= limit:
                return examples
            example = _parse(task, language, place, {**row, '#': number})
            if example is not None:
                if not example.id:
                    example = dataclasses.replace(example, id=f'{task.name}-{split}-{language}-{number}{suffix}')
                if example.id in places:
                    raise DataError(f'{place}: id {example.id!r} was used already in {places[example.id]}')
                places[example.id] = place
                examples.append(example)
            number += 1
    return examples


def _parse(task: Task, language: str, place: str, row: dict[str, Any]) -> Example | None:
    try:
        return task.parse(row, task, language)
    except RowError as error:
        raise DataError(f'{place}, {error}') from None


def _rows(
    task: Task, source: Table | Embedded, language: str, split: str, data_root: str | Path | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where the row stands, the row)"""
    if isinstance(source, Embedded):
        for number, row in enumerate(_world_rows(task, source, language, split)):
            yield f'world {source.task}, row {number}', row
        return
    path = _file(task, source, language, data_root)
    for line, row in read_table(path, source):
        yield f'{path}, line {line}', row


def _world_rows(task: Task, source: Embedded, language: str, split: str) -> list[dict[str, Any]]:
    task.local_code(language)
    return world.rows(source.task, source.language or language, split, source.rows)


def _name(task: Task, source: Table | Embedded, language: str, data_root: str | Path | None) -> str:
    if isinstance(source, Embedded):
        return f'world {source.task} in {source.language or language}'
    return str(_file(task, source, language, data_root))


def _file(task: Task, table: Table, language: str, data_root: str | Path | None) -> Path:
    """The path of a table. DataError with the licence, the dataset's home and the closest language there is."""
    code = task.local_code(language)
    root = resolve_data_root(data_root)
    path = root / table.path.replace('{language}', code)
    if path.is_file():
        return path
    others = _codes_present(root, table.path) if '{language}' in table.path else []
    hint = f'; there are files for other languages{closest(code, others)}' if others else ''
    raise DataError(
        f'{path}: no such file, needed for task {task.name!r} in {language!r}{hint}. '
        f'Licence: {task.licence or "not stated"}. Where to get it: {task.source or "not stated"}'
    )


def _codes_present(root: Path, template: str) -> list[str]:
    """The language codes for which a file of the template is there."""
    first, *rest = (re.escape(part) for part in template.split('{language}'))
    pattern = re.compile(first + '([^/]+)' + r'\1'.join(rest))
    paths = (path.relative_to(root).as_posix() for path in root.glob(template.replace('{language}', '*')))
    return sorted(match[1] for match in map(pattern.fullmatch, paths) if match)
