"""Tokenizes everything that a plan reads before the run and stores it in the token cache (data/cache.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.config import Config
from xlmr_flax.data.cache import Entry
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.plan.reads import LABELS, UNUSED, Read, reads
from xlmr_flax.experiment.plan.runs import find_data, make_plan
from xlmr_flax.kinds import cache_entry


@dataclass(frozen=True)
class Built:
    """A tokenized Read. side: for a retrieval task 'queries' or 'pool', else ''."""

    read: Read
    side: str
    entry: Entry

    @property
    def tokens(self) -> int:
        return len(self.entry.data.tokens.flat)

    def __str__(self) -> str:
        read, split = self.read, self.read.split
        drawn = [f'{read.fraction:g} of the rows'] if read.fraction < 1 else []
        drawn += ['shuffled labels'] if read.is_shuffled else []
        drawn += [f'seed {read.seed}'] if drawn else []
        name = f'{split} {self.side}'.rstrip()
        return f'{name} ({", ".join(drawn)})' if drawn else name


def encoded_reads(config: Config) -> list[Read]:
    """Returns the reads that the runs of a config encode, in order. Raises TaskError, ConfigError and DataError."""
    all_reads = reads(find_data(make_plan(config)))
    return [read for read in all_reads if read.purpose not in (LABELS, UNUSED) and read.is_taken()]


class Progress:
    """Progress of `build`, in bytes of the data files, so that the time left does not depend on which sets come first.

    show: called with (bytes of the files that are done, bytes of all files, rows so far).
    """

    def __init__(self, reads: Sequence[Read], show: Callable[[int, int, int], None]):
        sizes = [max(1, sum(map(_size, read.split.files()))) for read in reads]
        self._sizes, self.total = iter(sizes), sum(sizes)
        self._show, self._done, self._size, self._rows = show, 0, 0, 0
        self._calls, self._part = 0, 0.0

    def begin(self) -> None:
        """Begins the next read."""
        self._size, self._calls, self._part = next(self._sizes), 0, 0.0
        self._show(self._done, self.total, self._rows)

    def texts(self, done: int, total: int) -> None:
        """Records that `done` of `total` texts of a call of the tokenizer are encoded. Most kinds make two calls."""
        self._part = max(self._part, (self._calls + done / total) / max(2, self._calls + 1))
        self._calls += done == total
        self._show(self._done + int(self._size * self._part), self.total, self._rows)

    def end(self, rows: int) -> None:
        """Ends a read. rows: the number of its examples."""
        self._done, self._rows = self._done + self._size, self._rows + rows
        self._show(self._done, self.total, self._rows)


def build(
    reads: Sequence[Read],
    tokenizer: Tokenizer,
    positions: int,
    bad_rows: list[BadRow] | None = None,
    show: Callable[[int, int, int], None] = lambda done, total, rows: None,
) -> Iterator[Built]:
    """Tokenizes the reads that are not in the cache yet, each on all cores. positions: the encoder's position limit;
    longer rows are truncated to it. bad_rows: a list that collects rows that cannot be read; without it, they raise
    DataError. show: that of `Progress`."""
    progress = Progress(reads, show)
    tokenizer.on_texts = progress.texts
    try:
        for read in reads:
            progress.begin()
            rows = 0
            for side, examples in read.examples(bad_rows).items():
                if examples:
                    entry = cache_entry(read.split.task, examples, tokenizer, min(read.max_length, positions))
                    rows += len(examples)
                    yield Built(read, side, entry)
            progress.end(rows)
    finally:
        tokenizer.on_texts = None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
