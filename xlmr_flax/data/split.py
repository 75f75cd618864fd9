"""A handle for one split of a task in one language under a data root: gives its files, digest and rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from xlmr_flax.data.readers import tfds
from xlmr_flax.data.readers.paths import Found, resolve_data_root, split_files, split_tables, stand_in_notes
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import (
    TRAINING,
    BadRow,
    needs_data_root,
    read_gold,
    read_pairs,
    read_split,
    with_labels,
    world_rows,
)
from xlmr_flax.tasks.base import Embedded, Example, SentenceExample, Table, Task, TaskError, has_label
from xlmr_flax.util.stopping import check


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where the rows of a split come from.

    source: 'file', 'tfds' or 'world', joined by '+' in this order if there are several. builders: names of the TFDS
    builders with their version ('glue/mnli:2.0.0').
    """

    source: str
    builders: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a task in one language. name: 'train', 'dev', ... root: the data root, '' = that of the environment.

    The constructor reads and checks nothing. Every method call looks at the files again. All methods raise TaskError
    for a split or language that the task does not have, and DataError for files that are missing or cannot be read.
    """

    task: Task
    language: str
    name: str
    root: str | Path = ''

    def __str__(self) -> str:
        return f'{self.task.name} {self.name} {self.language}'

    @property
    def reads_files(self) -> bool:
        """Whether the split reads local files (the embedded world has none)."""
        return needs_data_root(self.task, self.name)

    def folder(self) -> Path:
        """The data root; the current folder if the split reads no files."""
        return resolve_data_root(self.root or None) if self.reads_files else Path()

    def tables(self) -> list[Table]:
        """The tables that the split reads, the table of gold pairs last; [] for the embedded world."""
        return split_tables(self.task, self.name)

    def found(self) -> list[Found]:
        """The split's files in reading order, gold pairs last."""
        return split_files(self.task, self.language, self.name, self.root)

    def files(self) -> list[Path]:
        """The paths of the split's files in reading order; for a dataset prepared by TFDS its folder."""
        return [file.path for file in self.found()]

    def is_there(self) -> bool:
        """Whether the task has this split and all its files exist. Raises TaskError for an unknown language."""
        self.task.local_code(self.language)
        try:
            return self.name in self.task.splits and self.found() is not None
        except (DataError, TaskError):
            return False

    def labelled(self) -> Split:
        """The same split with the task's labels filled in, if the task collects them from its files."""
        return dataclasses.replace(self, task=with_labels(self.task, self.root))

    def stand_in(self) -> str:
        """A note on the stand-in rows of the split, for the `stand_in` field of result rows; '' for real data."""
        training = self.name in TRAINING
        return '; '.join(stand_in_notes(self.found(), self.folder(), training)) if self.reads_files else ''

    def origin(self) -> Origin:
        """The origin of the rows: local files, TFDS or the embedded world."""
        files = self.found()
        prepared = [item for item in files if item.table.format == tfds.FORMAT]
        is_there = {
            'file': len(prepared) < len(files),
            'tfds': bool(prepared),
            'world': any(isinstance(source, Embedded) for source in self.task.sources(self.name)),
        }
        builders = dict.fromkeys(tfds.full_name(item.path, item.table.path) for item in prepared)
        return Origin('+'.join(kind for kind, there in is_there.items() if there), tuple(builders))

    def digest(self) -> str:
        """sha256 (hex) over the bytes of the files, in order; for the embedded world over its rows.

        The digest is part of the run id, so that changed data gives another run. Labels that were collected from files
        are included. A process reads a file again only if its size or modification time changes.
        """
        sources = tuple(source for source in self.task.sources(self.name) if isinstance(source, Embedded))
        paths = [path for file in self.found() for path in file.files]
        stats = [path.stat() for path in paths]
        stamps = tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in zip(paths, stats, strict=True))
        labels = with_labels(self.task, self.root).labels if self.task.labels_from else None
        return _digest(sources, self.language, self.name, stamps, labels)

    def has_gold(self, skip_bad_rows: bool = False) -> bool:
        """Whether the first row has a gold label; with skip_bad_rows, the first row that can be read. Returns True
        without reading for the embedded world and for kinds whose gold labels are not a column of the rows. Raises
        DataError for missing or unreadable files."""
        if not self.found() or self.task.embeds or self.task.is_text:
            return True
        return all(map(has_label, self.read(1, [] if skip_bad_rows else None)))

    def read(self, limit: int | None = None, bad_rows: list[BadRow] | None = None) -> list[Example]:
        """Reads the examples: `sources.read_split`."""
        return read_split(self.task, self.language, self.name, self.root, limit, bad_rows)

    def read_pairs(
        self, limit: int | None = None, bad_rows: list[BadRow] | None = None
    ) -> tuple[list[SentenceExample], list[SentenceExample]]:
        """Reads both sides of a retrieval task: `sources.read_pairs`."""
        return read_pairs(self.task, self.language, self.name, self.root, limit, bad_rows)

    def read_gold(self, sides: tuple[Collection[str], Collection[str]] | None = None) -> list[tuple[str, str]]:
        """Reads the gold pairs of a retrieval task: `sources.read_gold`."""
        return read_gold(self.task, self.language, self.name, self.root, sides)


# Cached, because every arm, target and seed of a plan needs the digests of the same files. The stamps (modification
# time and size) are part of the key, so that a changed file is read again.
@lru_cache(maxsize=4096)
def _digest(
    sources: tuple[Embedded, ...],
    language: str,
    name: str,
    stamps: tuple[tuple[Path, int, int], ...],
    labels: tuple[str, ...] | None,
) -> str:
    """Computes `Split.digest` over the embedded world's rows, then the files, then the labels. stamps: (path,
    modification time in ns, size) of each file."""
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
