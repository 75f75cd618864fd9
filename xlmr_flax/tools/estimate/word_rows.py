"""Estimates how many rows of the word table a training keeps (train/vocabulary.py), from the first rows of its data."""

from __future__ import annotations

import math

import numpy as np

from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.experiment.plan.cost import Estimator
from xlmr_flax.experiment.plan.reads import TRAIN, Read, training_reads
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.kinds import encode

_SAMPLE = 4096  # rows of a dataset that are encoded
_STEP = 4096  # rows of the word table; runs of about the same size share a program


class WordRows:
    """Estimates the active rows of runs of a plan. Samples are cached and shared by seeds and arms."""

    def __init__(self, estimator: Estimator):
        self.estimator = estimator
        self._samples: dict[Read, tuple[Ragged, float]] = {}

    def __call__(self, run: Run) -> int:
        """Returns the number of active rows, rounded up to a multiple of 4,096; at most the whole vocabulary. Raises
        DataError."""
        samples = [self._sample(read) for read in training_reads(run) if read.purpose == TRAIN]
        half = np.concatenate([tokens.flat[: tokens.offsets[len(tokens) // 2]] for tokens, _ in samples])
        whole = np.concatenate([tokens.flat for tokens, _ in samples])
        # In a mixture, the dataset with the smallest share read decides for all: rather too many rows than too few.
        found = extrapolated(len(np.unique(half)), len(np.unique(whole)), max(share for _, share in samples))
        return min(_STEP * math.ceil(found / _STEP), self.estimator.shape.vocab_size)

    def _sample(self, read: Read) -> tuple[Ragged, float]:
        """The tokens of the first rows of a dataset, and how many times as many rows it has."""
        if read not in self._samples:
            n = self.estimator.count(read.split)
            n = min(n, read.limit) if read.limit else n
            examples = read.split.read(min(n, _SAMPLE), [])
            tokens = encode(read.split.task, examples, self.estimator.tokenizer, read.max_length).tokens
            self._samples[read] = tokens, max(1.0, n / max(1, len(examples)))
        return self._samples[read]


def extrapolated(half: int, whole: int, times: float) -> float:
    """Returns the number of distinct tokens of `times` as much text, from those of half of the text and of the whole.

    Heaps' law (Heaps 1978): the number grows as a power of the length of the text.
    """
    if not half:
        return float(whole)
    return whole * times ** math.log2(min(2.0, whole / half))
