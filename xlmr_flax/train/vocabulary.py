"""The active vocabulary: trains only the rows of the word table that occur in a run's data, with exact results.

A row that does not occur has a zero gradient, so that its moments stay zero and only weight decay changes it. The
factor is the same for all such rows and has a closed form, which the optimizer states (`Optimizer.untouched_factor`);
with an optimizer that has none, all rows are active. XLM-R's table has half of its parameters, and a fine-tuning run
uses a few per cent of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.models.model import Params

_SPECIAL = 5  # the lowest ids keep their numbers, so that padding, <s> and </s> of XLM-R have the same ids in the cut
_MULTIPLE = 512  # the number of rows is a multiple of this, so that the table can be sharded evenly


@dataclass(frozen=True)
class ActiveRows:
    """The active rows of the word table. rows: int32 [A], ascending ids that are kept; token id rows[i] becomes i."""

    rows: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[Ragged], vocab_size: int) -> ActiveRows:
        """Collects the rows that occur in `tokens`, plus unused ones up to a multiple of 512 or the whole table."""
        used = np.zeros(vocab_size, bool)
        used[:_SPECIAL] = True
        for ragged in tokens:
            used[ragged.flat] = True
        wanted = min(vocab_size, -(-int(used.sum()) // _MULTIPLE) * _MULTIPLE)
        spare = np.flatnonzero(~used)[: wanted - int(used.sum())]
        used[spare] = True
        return cls(np.flatnonzero(used).astype(np.int32))

    @classmethod
    def all(cls, vocab_size: int) -> ActiveRows:
        """The whole table."""
        return cls(np.arange(vocab_size, dtype=np.int32))

    def remap(self, tokens: Ragged) -> Ragged:
        """Converts token ids to rows of the small table. Raises ValueError for a token outside the active rows."""
        index = np.searchsorted(self.rows, tokens.flat)
        if len(tokens.flat) and not np.array_equal(self.rows[np.minimum(index, len(self.rows) - 1)], tokens.flat):
            raise ValueError('a token lies outside the active rows')
        return Ragged(index.astype(np.int32), tokens.offsets)

    def number(self, token: int) -> int:
        """The row of one token in the small table. Raises ValueError for a token outside the active rows."""
        return int(self.remap(Ragged.from_rows([[token]])).flat[0])

    def cut(self, params: Params) -> Params:
        """Returns the parameters with the small word table (host arrays)."""
        return _with_word(params, np.asarray(params['encoder']['embeddings']['word'])[self.rows])

    def restore(self, params: Params, full: np.ndarray, factor: float) -> Params:
        """Returns the parameters with the full word table: trained rows in place, the other rows `full` * `factor`."""
        word = np.asarray(full) * np.float32(factor)
        word[self.rows] = np.asarray(params['encoder']['embeddings']['word'])
        return _with_word(params, word)


def _with_word(params: Params, word: np.ndarray) -> Params:
    encoder = params['encoder']
    return {**params, 'encoder': {**encoder, 'embeddings': {**encoder['embeddings'], 'word': word}}}
