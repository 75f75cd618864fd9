"""Whether a difference between two systems could come of the test examples alone: paired bootstrap, Holm's correction.

Every metric here is a ratio of two sums over examples, sum(numerator) / sum(denominator): accuracy and exact match
(1 below), token F1 of questions (1 below), and the F1 of chunks, 2 TP / (predicted + gold), which is no mean over
sentences. Resampling examples and taking the ratio again treats all of them alike.

Sources: Efron and Tibshirani 1993, An Introduction to the Bootstrap (chapters 13 and 15); paired over test examples as
Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation; Holm 1979, A Simple Sequentially
Rejective Multiple Test Procedure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
ALPHA = 0.05
_CHUNK = 4_000_000  # draws held at a time
_ROUNDING = 2e-6


@dataclass(frozen=True)
class Part:
    """One test set (a language, a metric) on which R runs have been scored.

    units: int [n], which resampling unit an example is (from 0): examples of one unit are drawn together, over all
    parts of a bootstrap. numerator, denominator: float [R, n]; the score of run r is the ratio of their sums.
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
    """A difference with its percentile interval and two-sided p; all in the unit of the scores."""

    difference: float
    low: float
    high: float
    p: float


def draws(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn: float32 [b, units] in chunks, each row summing to `units`; `resamples` rows."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(units, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, units, (rows, units), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * units  # a row's own range, so that one bincount will do
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float32)


def bootstrap(
    parts: Sequence[Part], weights: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(scores [V, R], scores of every resample [V, resamples, R]): V averages over the parts of each run's scores.

    weights: float [V, P], what each part counts for in an average (rows that sum to 1 give means). Units are drawn
    with replacement once for all parts and runs; a part that gets none of its examples counts as 0 / 0 = 0.
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
    """The percentile interval of a resampled difference, and the p of 'no difference' that goes with it: twice the
    share of resamples on the far side of 0 (Efron and Tibshirani 1993, 13.3 and 15.4), never below 2 / (B + 1).

    Scores are fractions: below 2e-6 a resampled difference is rounding of float32 sums, and counts as 0.
    """
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    tail = min(np.count_nonzero(resampled <= _ROUNDING), np.count_nonzero(resampled >= -_ROUNDING))
    p = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
    return Interval(float(difference), float(low), float(high), float(p))


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, alpha: float = ALPHA
) -> Interval:
    """The difference of two systems' mean scores, second - first, on the same examples: float [n] each."""
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f'scores of the same examples are expected, not of shapes {first.shape} and {second.shape}')
    numerator = np.stack([first, second]).astype(float)
    part = Part(np.arange(len(first)), numerator, np.ones_like(numerator))
    observed, replicates = bootstrap([part], np.ones((1, 1)), resamples, seed)
    return interval(observed[0, 1] - observed[0, 0], replicates[0, :, 1] - replicates[0, :, 0], alpha)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values of a family, in its order: those below alpha are rejected at a family-wise error of
    alpha."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def enough_resamples(family: int, alpha: float = ALPHA, least: int = RESAMPLES) -> int:
    """Resamples with which a family of tests can reject at all, and with three times the room: the smallest p is
    2 / (B + 1), and Holm multiplies it by the size of the family."""
    return max(least, 3 * math.ceil(2 * family / alpha))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
