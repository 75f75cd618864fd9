"""Paired bootstrap over test examples, with Holm's correction: is a difference between two systems significant?

Every metric here is a ratio of two sums over examples, sum(numerator) / sum(denominator): accuracy and exact match (the
denominator of each example is 1), token F1 of questions (also 1), and chunk F1, 2 TP / (predicted + gold), which is not
a mean over sentences. The bootstrap resamples examples and computes the ratio again, which works for all metrics.

Sources: Efron and Tibshirani 1993, An Introduction to the Bootstrap (chapters 13 and 15); paired over test examples as
in Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation; Holm 1979, A Simple Sequentially
Rejective Multiple Test Procedure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
ALPHA = 0.05
_CHUNK = 4_000_000  # draws in memory at a time
_ROUNDING = 2e-6


@dataclass(frozen=True)
class Part:
    """One test set (one language and metric) on which R runs were scored.

    units: int [n], the resampling unit of each example, from 0. Examples of one unit are drawn together, in all parts
    of a bootstrap. numerator, denominator: float [R, n]; the score of run r is the ratio of their sums.
    """

    units: np.ndarray
    numerator: np.ndarray
    denominator: np.ndarray

    def __post_init__(self) -> None:
        if self.numerator.shape != self.denominator.shape or self.numerator.shape[1:] != self.units.shape:
            shapes = [x.shape for x in (self.units, self.numerator, self.denominator)]
            raise ValueError(f'units, numerator and denominator have the shapes {shapes}, not [n], [R, n], [R, n]')


@dataclass(frozen=True)
class Interval:
    """A difference with its percentile interval, in the unit of the scores, and its two-sided p value."""

    difference: float
    low: float
    high: float
    p: float


def draws(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each unit is drawn, in chunks of float32 [b, units], with `resamples` rows in total. Each row
    sums to `units`."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(units, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, units, (rows, units), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * units  # a separate range per row, for a single bincount
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float32)


def bootstrap(
    parts: Sequence[Part], weights: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Computes V weighted averages over the parts for each run: (scores [V, R], resampled scores [V, resamples, R]).

    weights: float [V, P], the weight of each part in an average (rows that sum to 1 give means). Each resample draws
    units with replacement once for all parts and runs. A part without any drawn example has the score 0 / 0 = 0.
    """
    if not parts:
        raise ValueError('no parts to resample')
    units = 1 + max(int(part.units.max()) for part in parts)
    runs = len(parts[0].numerator)
    observed = np.stack([_ratio(p.numerator.sum(1), p.denominator.sum(1)) for p in parts])  # [P, R]
    stacked = [np.concatenate([p.numerator, p.denominator]).T.astype(np.float32) for p in parts]  # [n, 2 R] each
    replicates = np.zeros((len(weights), resamples, runs))
    done = 0
    for counts in draws(units, resamples, seed):
        here = slice(done, done + len(counts))
        for number, (part, columns) in enumerate(zip(parts, stacked, strict=True)):
            whole = len(part.units) == units and np.array_equal(part.units, np.arange(units))
            sums = (counts if whole else counts[:, part.units]) @ columns  # [b, 2 R]
            scores = _ratio(sums[:, :runs], sums[:, runs:])
            replicates[:, here] += weights[:, number, None, None] * scores
        done += len(counts)
    return weights @ observed, replicates


def interval(difference: float, resampled: np.ndarray, alpha: float = ALPHA) -> Interval:
    """Returns the percentile interval of a resampled difference, and the matching p value of 'no difference'.

    p is twice the share of resamples beyond 0 (Efron and Tibshirani 1993, 13.3 and 15.4), and never below 2 / (B + 1)
    for B resamples. Scores are fractions: a resampled difference below 2e-6 is rounding of float32 sums and counts as
    0.
    """
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    tail = min(np.count_nonzero(resampled <= _ROUNDING), np.count_nonzero(resampled >= -_ROUNDING))
    p = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
    return Interval(float(difference), float(low), float(high), float(p))


def holm(p: Sequence[float]) -> list[float]:
    """Returns Holm's adjusted p values of a family of tests, in the same order. Rejecting those below alpha keeps the
    family-wise error rate at alpha."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def enough_resamples(family: int) -> int:
    """Three times the number of resamples that a family of tests needs to be able to reject, at least RESAMPLES.

    The smallest p with B resamples is 2 / (B + 1), and Holm's correction multiplies it by the size of the family."""
    return max(RESAMPLES, 3 * math.ceil(2 * family / ALPHA))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
