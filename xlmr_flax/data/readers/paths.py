"""Finds the files of a table under the data root and detects stand-in files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from xlmr_flax.data.readers import tfds
from xlmr_flax.data.readers.text import DataError, read_lines
from xlmr_flax.tasks.base import Table, Task
from xlmr_flax.util.errors import closest

DATA_ROOT_VARIABLE = 'XLMR_DATA_ROOT'
HOW_TO_SET = f'set --data_root=FOLDER or the environment variable {DATA_ROOT_VARIABLE}'
MANIFEST = 'MANIFEST.tsv'
STAND_IN_MARK = 'STAND-IN'
FOR_TRAINING = f'{STAND_IN_MARK} for training'


class MissingFile(DataError):
    """A file that a split needs, or the whole data root, does not exist. lacking: the files or patterns of a table that
    do not exist although others of the same table do.
    """

    def __init__(self, text: str, lacking: Sequence[Path] = ()):
        super().__init__(text)
        self.lacking = tuple(lacking)


@dataclass(frozen=True, slots=True)
class Found:
    """One data file: its table (possibly an alternative table), its language, its path and the path of its label file.

    For a prepared TFDS dataset, `table` has the format 'tfds' and the path of the local file, and `path` is the folder.
    without: the files of `Table.without` that exist, with their columns.
    """

    table: Table
    language: str
    path: Path
    label_path: Path | None = None
    without: tuple[tuple[Path, str], ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files that decide the rows: those with the rows and their labels, and those whose rows are left out."""
        if self.table.format == tfds.FORMAT:
            return tfds.data_files(self.path, self.table.path)
        return [self.path, *filter(None, [self.label_path]), *(path for path, _ in self.without)]


def resolve_data_root(flag_value: str | Path | None = None) -> Path:
    """The data root: the flag's value, else XLMR_DATA_ROOT, else TFDS_DATA_DIR (if all data is prepared by TFDS and
    there are no local files). Raises DataError that says how to set it, MissingFile if the folder does not exist.
    """
    value, setting = flag_value, '--data_root'
    for variable in (DATA_ROOT_VARIABLE, tfds.DIRECTORY_VARIABLE):
        if not value:
            value, setting = os.environ.get(variable), variable
    if not value:
        raise DataError(f'no data root: {HOW_TO_SET}; tasks named world_* need none')
    if remedy := bucket_remedy(str(value)):
        raise DataError(f'data root {str(value)!r} (from {setting}) is a bucket: {remedy}')
    root = Path(value).expanduser()
    if not root.is_dir():
        error = DataError if root.exists() else MissingFile
        raise error(f'data root {str(root)!r} (from {setting}) is not a folder: {HOW_TO_SET}')
    return root


def bucket_remedy(root: str) -> str:
    """What to do about a data root that is an address such as gs://BUCKET/PATH; '' for a folder."""
    if '://' not in root:
        return ''
    copy = f'gcloud storage rsync --recursive {root} FOLDER' if root.startswith('gs://') else f'copy {root} to a folder'
    return (
        'data is downloaded into a folder of this machine and read from there. Mount the bucket '
        f'(gcsfuse --implicit-dirs BUCKET FOLDER) or copy it ({copy}; after a download the other way), and name FOLDER'
    )


def split_files(task: Task, language: str, split: str, data_root: str | Path | None = None) -> list[Found]:
    """The files that a split reads, in reading order, gold pairs last; [] for the embedded world. Raises MissingFile
    for a file that does not exist."""
    task.local_code(language, split)
    if not (tables := split_tables(task, split)):
        return []
    root = resolve_data_root(data_root)
    files = [file for table in tables for file in find_files(task, table, language, root)]
    return list({file.path: file for file in files}.values())


def split_tables(task: Task, split: str) -> list[Table]:
    """The tables of local files that a split reads, the table of gold pairs last."""
    tables = [source for source in task.sources(split) if isinstance(source, Table)]
    return [*tables, *([task.gold[split]] if split in task.gold else [])]


def find_files(task: Task, table: Table, language: str, root: Path) -> list[Found]:
    """The files of a table in reading order, from the first alternative that exists. Local files come first, then a
    dataset prepared by TFDS (data/readers/tfds.py), then stand-ins.

    Raises MissingFile that names the path, the licence, the dataset's home and the closest language with files, or the
    files of a table that are missing beside others.
    """
    if not table.every_language:
        return _find(task, table, language, root)
    return [file for each in task.languages for file in _find(task, table, each, root)]


def _find(task: Task, table: Table, language: str, root: Path) -> list[Found]:
    code = task.local_code(language)
    tables = (table, *table.alternatives)
    files = (
        _find_local(task, [each for each in tables if not each.stand_in], language, code, root)
        or _find_prepared(table, language, code, root)
        or _find_local(task, [each for each in tables if each.stand_in], language, code, root)
    )
    if not files:
        raise MissingFile(_missing(task, table, language, code, root))
    return files


def _find_local(task: Task, tables: list[Table], language: str, code: str, root: Path) -> list[Found]:
    for table in tables:
        patterns = [path.replace('{benchmark_language}', language) for path in (table.path, *table.also)]
        matches = {pattern.replace('{language}', code): _matches(root, pattern, code) for pattern in patterns}
        paths = [path for found in matches.values() for path in found]
        if paths:
            if lacking := [root / pattern for pattern, found in matches.items() if not found]:
                names = ', '.join(map(str, lacking))
                raise MissingFile(f'{names}: no such file, needed with {paths[0]} for task {task.name!r}', lacking)
            label_paths = [_label_path(task, table, path, code, root) for path in paths]
            without = tuple(
                (each, column) for path, column in table.without.items() for each in _matches(root, path, code)
            )
            return [
                Found(table, language, path, labels, without) for path, labels in zip(paths, label_paths, strict=True)
            ]
    return []


def _find_prepared(table: Table, language: str, code: str, root: Path) -> list[Found]:
    local = table.path.replace('{language}', code)
    folder = tfds.find_prepared(local, root)
    if folder is None:
        return []
    return [Found(dataclasses.replace(table, path=local, format=tfds.FORMAT, explode=()), language, folder)]


def _missing(task: Task, table: Table, language: str, code: str, root: Path) -> str:
    path = root / table.path.replace('{language}', code)
    others = codes_present(root, table.path) if '{language}' in table.path else []
    hint = f'; there are files for other languages{closest(code, others)}' if others else ''
    nor = [
        alternative.path.replace('{language}', code).replace('{benchmark_language}', language)
        for alternative in table.alternatives
    ]
    if name := tfds.described(table.path.replace('{language}', code)):
        nor.append(f'TFDS {name} in {" or ".join(map(str, tfds.folders(root)))}')
    behind = f' (nor {", ".join(nor)})' if nor else ''
    return (
        f'{path}: no such file, needed for task {task.name!r} in {language!r}{behind}{hint}. '
        f'Licence: {task.licence or "not stated"}. Where to get it: {task.source or "not stated"}'
    )


def _matches(root: Path, pattern: str, code: str) -> list[Path]:
    path = pattern.replace('{language}', code)
    if any(c in path for c in '*?['):
        # By file name, as XTREME orders the treebanks of a language: en_partut before en_pud.
        return sorted((m for m in root.glob(path) if m.is_file()), key=lambda m: (m.name, m))
    return [root / path] if (root / path).is_file() else []


def _label_path(task: Task, table: Table, path: Path, code: str, root: Path) -> Path | None:
    if not table.label_file:
        return None
    label_path = root / table.label_file.replace('{language}', code)
    if not label_path.is_file():
        raise MissingFile(f'{label_path}: no such file, needed for the labels of {path} (task {task.name!r})')
    return label_path


def codes_present(root: Path, template: str) -> list[str]:
    """The language codes for which a file that matches the template exists."""
    any_part = {re.escape('*'): '[^/]*', re.escape('?'): '[^/]'}
    first, *rest = (re.escape(part) for part in template.split('{language}'))
    source = first + '([^/]+)' + r'\1'.join(rest)
    for escaped, wild in any_part.items():
        source = source.replace(escaped, wild)
    paths = (path.relative_to(root).as_posix() for path in root.glob(template.replace('{language}', '*')))
    return sorted({match[1] for match in map(re.compile(source).fullmatch, paths) if match})


def stand_in_notes(found: list[Found], root: Path, training: bool = True) -> list[str]:
    """Notes on stand-in files, without repetitions; [] for real data. A file is a stand-in if its table says so
    (`Table.stand_in`) or if the data root's MANIFEST.tsv marks it (`is_stand_in`).

    training: whether the files are training rows. A note with 'STAND-IN for training' marks them alone: dev rows that
    are trained on are what they are when they are scored.
    """
    notes = [item.table.stand_in or is_stand_in(item.path, root) for item in found]
    return [note for note in dict.fromkeys(notes) if note and (training or FOR_TRAINING not in note)]


def is_stand_in(path: Path, root: Path) -> str:
    """The note in MANIFEST.tsv (columns path and note) that marks a file as a stand-in (it contains STAND-IN); '' for
    any other file.

    If the manifest has a column sha256, the note holds only for a file with this checksum. So the dataset's own file at
    the same path is not a stand-in.
    """
    note, digest = _marked(root / MANIFEST, _stamp(root / MANIFEST)).get(_within(path, root), ('', ''))
    if note and digest and path.is_file() and _sha256(path, _stamp(path), path.stat().st_size) != digest:
        return ''
    return note


@lru_cache(maxsize=256)
def _sha256(path: Path, stamp: int, size: int) -> str:
    """sha256 (hex) of a file. stamp and size are only part of the cache key: a changed file is read again."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _within(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=8)
def _marked(path: Path, stamp: int) -> dict[str, tuple[str, str]]:
    """Reads the stand-in notes of a manifest: path of a file -> (note, sha256 or ''). stamp: part of the cache key."""
    if not stamp:
        return {}
    header, *rows = [line.split('\t') for line in read_lines(path)] or [[]]
    if not {'path', 'note'} <= set(header):
        return {}
    records = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    return {row['path']: (row['note'], row.get('sha256', '')) for row in records if STAND_IN_MARK in row['note']}
