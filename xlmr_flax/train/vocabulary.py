"""Training only the word rows that a run's data use; exact, not an approximation.

A row of the word table that no token names has a zero gradient, so AdamW's moments for it stay zero and weight decay
alone
moves it: by the same factor for every such row, known in closed form. XLM-R's table is half of its parameters, and a
fine-tuning run uses a few per cent of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.models.model import Params
from xlmr_flax.train.optimizer import schedule

_SPECIAL = 5  # the lowest ids keep their numbers: padding, <s> and </s> mean the same before and after
_MULTIPLE = 512  # table rows are a multiple of this, so that a sharded table divides


@dataclass(frozen=True)
class ActiveRows:
    """`rows` int32 [A], ascending: the word ids that stay; token id rows[i] becomes i."""

    rows: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[Ragged], vocab_size: int) -> ActiveRows:
        """The rows that occur in `tokens`, filled up with unused ones to a round number."""
        used = np.zeros(vocab_size, bool)
        used[:_SPECIAL] = True
        for ragged in tokens:
            used[ragged.flat] = True
        wanted = min(vocab_size, -(-int(used.sum()) // _MULTIPLE) * _MULTIPLE)
        spare = np.flatnonzero(~used)[: wanted - int(used.sum())]
        used[spare] = True
        return cls(np.flatnonzero(used).astype(np.int32))

    def remap(self, tokens: Ragged) -> Ragged:
        """Token ids -> row numbers of the small table. Raises ValueError for a token whose row is not in it."""
        index = np.searchsorted(self.rows, tokens.flat)
        if len(tokens.flat) and not np.array_equal(self.rows[np.minimum(index, len(self.rows) - 1)], tokens.flat):
            raise ValueError('a token lies outside the active rows')
        return Ragged(index.astype(np.int32), tokens.offsets)

    def cut(self, params: Params) -> Params:
        """Parameters with the small word table (host arrays)."""
        return _with_word(params, np.asarray(params['encoder']['embeddings']['word'])[self.rows])

    def restore(self, params: Params, full: np.ndarray, factor: float) -> Params:
        """Parameters with the whole table: trained rows in place, the others of `full` times `factor`."""
        word = np.asarray(full) * np.float32(factor)
        word[self.rows] = np.asarray(params['encoder']['embeddings']['word'])
        return _with_word(params, word)


def _with_word(params: Params, word: np.ndarray) -> Params:
    encoder = params['encoder']
    return {**params, 'encoder': {**encoder, 'embeddings': {**encoder['embeddings'], 'word': word}}}


def decay_factor(spec: OptimizerSpec, steps: int, done: int) -> float:
    """What weight decay multiplies an unused row by in the first `done` of `steps` steps: prod(1 - lr_s * decay)."""
    rate = schedule(spec, steps)
    rates = np.asarray(rate(np.arange(done)), np.float64)
    return float(np.prod(1.0 - rates * spec.weight_decay))
