"""Tokenizes everything that a plan reads before the run and stores it in the token cache (data/cache.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xlmr_flax.config import Config
from xlmr_flax.data.cache import Entry
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.plan.reads import LABELS, UNUSED, Read, reads
from xlmr_flax.experiment.plan.runs import find_data, make_plan
from xlmr_flax.kinds import cache_entry


@dataclass(frozen=True)
class Built:
    """A tokenized Read. side: for a retrieval task 'asks' or 'searched', else ''."""

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


def build(
    reads: Iterable[Read], tokenizer: Tokenizer, positions: int, bad_rows: list[BadRow] | None = None
) -> Iterator[Built]:
    """Tokenizes the reads that are not in the cache yet. positions: the encoder's position limit; longer rows are
    truncated to it. bad_rows: a list that collects rows that cannot be read; without it, they raise DataError."""
    for read in reads:
        for side, examples in read.examples(bad_rows).items():
            if examples:
                entry = cache_entry(read.split.task, examples, tokenizer, min(read.max_length, positions))
                yield Built(read, side, entry)
