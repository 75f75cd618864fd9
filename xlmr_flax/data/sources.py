"""Reads the examples of a task, language and split: from local files in the official layouts, from datasets that TFDS
has prepared (data/readers/tfds.py), or from the embedded world.

Real data is stored under a data root (--data_root or XLMR_DATA_ROOT). The embedded world's tasks need no data root.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from xlmr_flax.data import world
from xlmr_flax.data.readers.paths import Found, find_files, resolve_data_root, split_files
from xlmr_flax.data.readers.tables import Problem, read_rows
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.tasks.base import Embedded, Example, RowError, SentenceExample, Table, Task, TaskError, has_label
from xlmr_flax.util.errors import quote
from xlmr_flax.util.stopping import check

# Exceptions of a task's `parse` for a row that it cannot read: RowError, and those of Python for a nested JSON field
# that is missing or has another type.
_BAD = (RowError, KeyError, IndexError, TypeError, AttributeError)
TRAINING = ('train', 'translate_train')  # splits whose rows must have labels


@dataclasses.dataclass(frozen=True, slots=True)
class BadRow:
    """A skipped row: the file, the line from 1 (in the embedded world: the row from 0) and the reason."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        joint = ', ' if self.reason.startswith('column ') else ': '
        return f'{self.file}, {"row" if self.file.startswith("world ") else "line"} {self.line}{joint}{self.reason}'


def needs_data_root(task: Task, split: str) -> bool:
    """Whether a split reads local files."""
    return any(isinstance(source, Table) for source in task.sources(split))


def read_split(
    task: Task,
    language: str,
    split: str,
    data_root: str | Path | None = None,
    limit: int | None = None,
    skip_bad_rows: list[BadRow] | None = None,
) -> list[Example]:
    """Reads the examples of a split in file order, at most `limit` examples (rows after the limit are not read).

    Ids are those of the file, else 'TASK-SPLIT-LANGUAGE-ROW' with the row number from 0 over all files of the split. A
    row that the task drops gives no example, but it is counted in the row numbers. For retrieval tasks, which have two
    sides, use `read_pairs`.
    skip_bad_rows: a list to which rows that cannot be read are appended; None = the first such row raises an error.
    Raises TaskError for an unknown split or language and DataError for files that are missing or cannot be read.
    """
    if task.embeds:
        raise TaskError(f'task {task.name!r} has two sides of sentences: read it with read_pairs')
    task = with_labels(task, data_root)
    return _read(task, language, split, task.sources(split), data_root, limit, skip_bad_rows)


def are_labelled(
    task: Task, language: str, split: str, data_root: str | Path | None, examples: Sequence[Example]
) -> bool:
    """Whether the examples that were read from a split have gold labels: all of them or none (a benchmark's public test
    file). Raises DataError, which names file and line of the first without a label, if only some have one."""
    without = [example.id for example in examples if not has_label(example)]
    if not without or len(without) == len(examples):
        return not without
    places: dict[str, tuple[str, int]] = {}
    task = with_labels(task, data_root)
    _read(task, language, split, task.sources(split), data_root, None, [], places=places)
    reason = f'no gold label ({len(without)} of {len(examples)} rows of {task.name} {split} {language} have none)'
    raise DataError(str(BadRow(*places[without[0]], reason)))


def read_pairs(
    task: Task,
    language: str,
    split: str = 'test',
    data_root: str | Path | None = None,
    limit: int | None = None,
    skip_bad_rows: list[BadRow] | None = None,
) -> tuple[list[SentenceExample], list[SentenceExample]]:
    """Reads the two sides of a retrieval task: (queries, pool).

    Without gold pairs by id (Tatoeba), row i of both sides is a gold pair. Both sides must have the same length, and
    `limit` cuts both. The ids of both sides are 'TASK-SPLIT-LANGUAGE-ROW'; those of the queries end in '-en'.
    With gold pairs by id (`read_gold`), the sides have the ids of the files and may differ in length. `limit` cuts only
    the queries.
    skip_bad_rows: as for read_split if there are gold pairs by id. Without them a skipped row would shift the pairs, so
    a row that cannot be read is always an error.
    """
    if not task.embeds:
        raise TaskError(f'task {task.name!r} is not a retrieval task: read it with read_split')
    sources, by_id = task.sources(split), split in task.gold
    bad = skip_bad_rows if by_id else None
    sides = [
        _read(task, language, split, (source,), data_root, None, bad, suffix)
        for source, suffix in zip(sources, ('-en', ''), strict=True)
    ]
    if not by_id and len(sides[0]) != len(sides[1]):
        names = [_name(task, source, language, data_root) for source in sources]
        raise DataError(
            f'the two sides differ: {names[0]} has {len(sides[0])} lines, {names[1]} has {len(sides[1])}; '
            'line i of both must be a pair'
        )
    if not by_id:
        _check_pairs(task, language, sides)
    queries, pool = ([example for example in side if isinstance(example, SentenceExample)] for side in sides)
    return queries[:limit], pool if by_id else pool[:limit]


def _check_pairs(task: Task, language: str, sides: list[list[Example]]) -> None:
    """Raises DataError for the first row whose two sides have different ids, if the files have ids (SIB-200's)."""
    for row, (query, found) in enumerate(zip(*sides, strict=True)):
        if query.id not in (found.id, f'{found.id}-en'):  # ids that are row numbers
            raise DataError(
                f'{task.name} in {language!r}, row {row}: the ids of the two sides are {query.id!r} and {found.id!r}; '
                'row i of both must be a pair'
            )


def read_gold(
    task: Task,
    language: str,
    split: str = 'test',
    data_root: str | Path | None = None,
    sides: tuple[Collection[str], Collection[str]] | None = None,
) -> list[tuple[str, str]]:
    """Reads the gold pairs (query id, id of the right item) of a retrieval task; a query may have several right items.

    sides: the ids of the queries and of the pool, in which the pairs must be; None = not checked.
    Raises TaskError for a task or split without gold pairs by id, DataError for a file or row that cannot be read or
    has an id that is not in its side.
    """
    if split not in task.gold or task.parse_gold is None:
        raise TaskError(f'task {task.name!r} has no gold pairs by id for split {split!r}: row i of both is a pair')
    pairs: list[tuple[str, str]] = []
    for file, place, row in _file_rows(task, task.gold[split], language, data_root):
        if isinstance(row, Problem):
            raise DataError(str(BadRow(*place, row.reason)))
        try:
            found = task.parse_gold({**row, '#language': language}, task, file.language)
            if sides:
                for pair in found:
                    _check_sides(pair, *sides)
            pairs += found
        except _BAD as error:
            raise DataError(str(BadRow(*place, _reason(error)))) from None
    return pairs


def _check_sides(pair: tuple[str, str], queries: Collection[str], pool: Collection[str]) -> None:
    for id_, side, other in ((pair[0], queries, pool), (pair[1], pool, queries)):
        if id_ not in side:
            where = 'the file of the other side: are the columns exchanged?' if id_ in other else 'neither side'
            raise RowError('gold', f'id {quote(id_)} is in {where}')


def with_labels(task: Task, data_root: str | Path | None = None) -> Task:
    """Fills in the labels of a task that collects them from its files (`labels_from`); other tasks are returned as is.

    Heads, training and scoring of such a task (CCG) need the result. Raises DataError if none of the files exists.
    """
    if not task.labels_from or task.labels:
        return task
    files: list[Found] = []
    for split in task.labels_from:
        with contextlib.suppress(DataError):
            files += split_files(task, task.languages[0], split, data_root)
    if not files:
        files = split_files(task, task.languages[0], task.labels_from[0], data_root)  # raises
    stamps = tuple((file.path, file.table.format, file.path.stat().st_mtime_ns) for file in files)
    return dataclasses.replace(task, labels=_collect_labels(stamps))


@lru_cache(maxsize=8)
def _collect_labels(files: tuple[tuple[Path, str, int], ...]) -> tuple[str, ...]:
    """Collects tags in the order of their first appearance. Sentences that cannot be read are skipped."""
    labels: dict[str, None] = {}
    for path, kind, _ in files:
        for _, row in read_rows(path, Table(path.name, kind, ())):
            check()
            if not isinstance(row, Problem):
                labels.update(dict.fromkeys(row.get('tags', ())))
    return tuple(labels)


def _read(
    task: Task,
    language: str,
    split: str,
    sources: tuple[Table | Embedded, ...],
    data_root: str | Path | None,
    limit: int | None,
    bad: list[BadRow] | None,
    suffix: str = '',
    places: dict[str, tuple[str, int]] | None = None,
) -> list[Example]:
    """Reads one side of a split. places: a dict that collects (file, line) of each id."""
    task.local_code(language, split)
    examples: list[Example] = []
    places = {} if places is None else places
    number = -1
    for ids, file_language, place, row in _rows(task, sources, language, split, data_root):
        check()
        if limit is not None and len(examples) >= limit:
            return examples
        number += 1
        example = _parse(task, file_language, place, row, number)
        if split in TRAINING and not isinstance(example, BadRow | None) and not has_label(example):
            example = BadRow(*place, 'a training row without a label')
        if isinstance(example, BadRow):
            leave_out(bad, example)
        elif example is not None:
            if not example.id or not ids:
                example = dataclasses.replace(example, id=f'{task.name}-{split}-{language}-{number}{suffix}')
            if example.id in places:
                used = '{}, line {}'.format(*places[example.id])
                leave_out(bad, BadRow(*place, f'id {example.id!r} was used already in {used}'))
                continue
            places[example.id] = place
            examples.append(example)
    return examples


def leave_out(bad: list[BadRow] | None, row: BadRow) -> None:
    """Appends a row that cannot be read to `bad`; raises DataError if `bad` is None."""
    if bad is None:
        raise DataError(str(row))
    bad.append(row)


def _parse(
    task: Task, language: str, place: tuple[str, int], row: dict[str, Any] | Problem, number: int
) -> Example | BadRow | None:
    if isinstance(row, Problem):
        return BadRow(*place, row.reason)
    try:
        return task.parse({**row, '#': number}, task, language)
    except _BAD as error:
        return BadRow(place[0], getattr(error, 'line', None) or place[1], _reason(error))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RowError) else f'a field is missing or has another form ({quote(error)})'


def _rows(
    task: Task, sources: tuple[Table | Embedded, ...], language: str, split: str, data_root: str | Path | None
) -> Iterator[tuple[bool, str, tuple[str, int], dict[str, Any] | Problem]]:
    """Yields (whether to use the row's own id, language of the file, (file, line), row)."""
    for source in sources:
        if isinstance(source, Embedded):
            for number, row in enumerate(world_rows(source, language, split)):
                yield True, language, (f'world {source.task}', number), row
        else:
            for file, place, row in _file_rows(task, source, language, data_root):
                yield file.table.ids, file.language, place, row


def _file_rows(
    task: Task, table: Table, language: str, data_root: str | Path | None
) -> Iterator[tuple[Found, tuple[str, int], dict[str, Any] | Problem]]:
    known: dict[tuple[tuple[Path, str], ...], dict[str, set[str]]] = {}
    for file in find_files(task, table, language, resolve_data_root(data_root)):
        if file.without not in known:
            known[file.without] = _left_out(file)
        taken = known[file.without].items()
        for line, row in read_rows(file.path, file.table, file.label_path):
            if isinstance(row, Problem) or not any(_plain(row.get(column)) in texts for column, texts in taken):
                yield file, (str(file.path), line), row


def _left_out(file: Found) -> dict[str, set[str]]:
    """The texts of test files, by column: {column: texts}. A row of `file` with one of them is left out
    (`Table.without`)."""
    taken: dict[str, set[str]] = {}
    for path, column in file.without:
        rows = read_rows(path, dataclasses.replace(file.table, columns=(column,)))
        taken.setdefault(column, set()).update(_plain(row[column]) for _, row in rows if not isinstance(row, Problem))
    return taken


def _plain(text: Any) -> str:
    """A text in lower case with single spaces, as the check for overlap compares texts."""
    return ' '.join(str(text).lower().split())


def world_rows(source: Embedded, language: str, split: str) -> list[dict[str, Any]]:
    """The rows of the embedded world for one split of a task."""
    return world.rows(source.task, source.language or language, source.split or split, source.rows)


def _name(task: Task, source: Table | Embedded, language: str, data_root: str | Path | None) -> str:
    if isinstance(source, Embedded):
        return f'world {source.task} in {source.language or language}'
    return str(find_files(task, source, language, resolve_data_root(data_root))[0].path)
