"""A handle for one split of a task in one language under a data root: its files, its digest, its rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import lru_cache
from pathlib import Path

from xlmr_flax.data.readers import tfds
from xlmr_flax.data.readers.paths import Found, resolve_data_root, split_files, split_tables, stand_in_notes
from xlmr_flax.data.readers.tables import DataError
from xlmr_flax.data.sources import BadRow, needs_data_root, read_gold, read_pairs, read_split, with_labels, world_rows
from xlmr_flax.tasks.base import Embedded, Example, SentenceExample, Table, Task, TaskError, has_label
from xlmr_flax.util.stopping import check


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows of a split come from.

    source: 'file', 'tfds' or 'world', several with a '+' between them, in this order. builders: of what came from TFDS,
    as its own names with the version ('glue/mnli:2.0.0').
    """

    source: str
    builders: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a task in one language. name: 'train', 'dev', ... root: the data root, '' = the environment's.

    Making one reads nothing and checks nothing. Methods look at the files each time; all of them raise TaskError for a
    split or language that the task does not have, and DataError for files that are missing or cannot be read.
    """

    task: Task
    language: str
    name: str
    root: str | Path = ''

    def __str__(self) -> str:
        return f'{self.task.name} {self.name} {self.language}'

    @property
    def reads_files(self) -> bool:
        """Whether it reads local files (the embedded world has none)."""
        return needs_data_root(self.task, self.name)

    def folder(self) -> Path:
        """The data root as a folder; the current one where no file is read."""
        return resolve_data_root(self.root or None) if self.reads_files else Path()

    def tables(self) -> list[Table]:
        """Those that it reads, that of the gold pairs last; [] for the embedded world."""
        return split_tables(self.task, self.name)

    def found(self) -> list[Found]:
        """Its files in the order in which they are read, gold pairs last."""
        return split_files(self.task, self.language, self.name, self.root)

    def files(self) -> list[Path]:
        """The paths of `found`; of a dataset prepared by TFDS its folder."""
        return [found.path for found in self.found()]

    def is_there(self) -> bool:
        """Whether the task has this split and all its files are there. Raises TaskError for an unknown language."""
        self.task.local_code(self.language)
        try:
            return self.name in self.task.splits and self.found() is not None
        except (DataError, TaskError):
            return False

    def labelled(self) -> Split:
        """The same with the task's labels filled in, where the task takes them from its files."""
        return dataclasses.replace(self, task=with_labels(self.task, self.root))

    def stand_in(self) -> str:
        """What the rows stand in for, for the `stand_in` field of result rows; '' for real data."""
        return '; '.join(stand_in_notes(self.found(), self.folder())) if self.reads_files else ''

    def origin(self) -> Origin:
        """Where the rows come from."""
        found = self.found()
        prepared = [item for item in found if item.table.format == tfds.FORMAT]
        is_there = {
            'file': len(prepared) < len(found),
            'tfds': bool(prepared),
            'world': any(isinstance(source, Embedded) for source in self.task.sources(self.name)),
        }
        builders = dict.fromkeys(tfds.full_name(item.path, item.table.path) for item in prepared)
        return Origin('+'.join(kind for kind, there in is_there.items() if there), tuple(builders))

    def digest(self) -> str:
        """sha256 (hex) over the bytes of the files, in order; of the embedded world over its rows.

        Part of what names a run, so that changed data means another run. Labels that were collected from files count
        too. A file is read once a process, as long as its size and time of change stay.
        """
        sources = tuple(source for source in self.task.sources(self.name) if isinstance(source, Embedded))
        paths = [path for found in self.found() for path in found.files]
        stats = [path.stat() for path in paths]
        stamps = tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in zip(paths, stats, strict=True))
        labels = with_labels(self.task, self.root).labels if self.task.labels_from else None
        return _digest(sources, self.language, self.name, stamps, labels)

    def has_gold(self, skip_bad_rows: bool = False) -> bool:
        """Whether the first row (skip_bad_rows: that can be read) has a gold label. True without reading for the
        embedded world, and for kinds whose gold is no column of a row."""
        if (self.task.embeds or self.task.is_text) or not self.found():
            return True
        return all(map(has_label, self.read(1, [] if skip_bad_rows else None)))

    def read(self, limit: int | None = None, bad_rows: list[BadRow] | None = None) -> list[Example]:
        """`sources.read_split`."""
        return read_split(self.task, self.language, self.name, self.root, limit, bad_rows)

    def read_pairs(
        self, limit: int | None = None, bad_rows: list[BadRow] | None = None
    ) -> tuple[list[SentenceExample], list[SentenceExample]]:
        """`sources.read_pairs`."""
        return read_pairs(self.task, self.language, self.name, self.root, limit, bad_rows)

    def read_gold(self) -> list[tuple[str, str]]:
        """`sources.read_gold`."""
        return read_gold(self.task, self.language, self.name, self.root)


# Pure: the stamps stand for the contents. Every arm, target and seed of a plan asks for the digests of the same files.
@lru_cache(maxsize=4096)
def _digest(
    sources: tuple[Embedded, ...],
    language: str,
    name: str,
    stamps: tuple[tuple[Path, int, int], ...],
    labels: tuple[str, ...] | None,
) -> str:
    """`Split.digest` of the embedded world's sources, then of files as (path, time of change, size), then of labels."""
    digest = hashlib.sha256()
    for source in sources:
        for row in world_rows(source, language, name):
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b'\n')
    for path, _, _ in stamps:
        with path.open('rb') as file:
            while chunk := file.read(1 << 20):
                check()
                digest.update(chunk)
    if labels is not None:
        digest.update('\n'.join(labels).encode())
    return digest.hexdigest()
