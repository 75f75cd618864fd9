"""Mixture of datasets: the schedule of which dataset each step draws from, a pure function of (seed, step).

The schedule is the same on all hosts. Rates are jiant's (proj/main/components/task_sampler.py). Draws are not
independent: the counts follow the rates. At the end of every block, the number of draws of each stream differs from
rate * draws by less than one (Tijdeman, The chairman assignment problem, 1980; the bound is 1 - 1 / (2n - 2)). So a
stream with a low rate is drawn in some blocks and not in others. Within a block, the order is a seeded permutation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xlmr_flax.config import Arm
from xlmr_flax.data.expression import Expression
from xlmr_flax.util.errors import UserError

DEFAULT_BLOCK = 100
# Samplers with fixed rates, by jiant's formulas: (sizes of an arm's members float64 [n], the arm) -> rates float64 [n],
# not normalised.
SAMPLERS: dict[str, Callable[[np.ndarray, Arm], np.ndarray]] = {
    'uniform': lambda sizes, arm: np.ones(len(sizes)),
    'proportional': lambda sizes, arm: sizes,
    'capped': lambda sizes, arm: np.minimum(sizes, arm.cap),
    'temperature': lambda sizes, arm: (np.minimum(sizes, arm.cap) if arm.cap else sizes) ** (1.0 / arm.temperature),
    'weights': lambda sizes, arm: np.asarray([member.weight for member in arm.tasks.values()], np.float64),
}
CAPPED = ('capped', 'temperature')  # samplers for which `cap` also limits the number of steps, as in jiant
TIME_DEPENDENT = 'time_dependent'  # the sampler whose rates change with the step: `timed_quotas`
_SLACK = 1e-9  # tolerance for the float error of rate * steps
_RESOLUTION = 2**20  # draws after which the counts of fixed rates repeat
_AHEAD = 4096  # maximum number of blocks to search for the deadline of a stream whose rate falls towards 0
_NEVER = 2**40  # blocks ahead: the deadline of a stream that is not due again


class MixtureError(UserError, ValueError):
    """Raised for invalid sampling rates; the message names the sampler and the stream."""


def language_shares(sizes: Sequence[int], alpha: float) -> np.ndarray:
    """Shares float64 [n] of the languages in the rate of one dataset: size ** alpha, normalised to sum 1 (Conneau and
    Lample 2019, section 3.1).
    """
    if alpha > 0:
        return mixture_rates(Arm(sampler='temperature', temperature=1.0 / alpha), sizes)
    return np.full(len(sizes), 1 / len(sizes))


def mixture_rates(arm: Arm, sizes: Sequence[int]) -> np.ndarray:
    """Sampling probabilities float64 [n] of an arm's members, by its sampler of SAMPLERS. Raises MixtureError."""
    counts = np.asarray(sizes, np.float64)
    if not len(counts) or (counts <= 0).any():
        raise MixtureError(f'sampler {arm.sampler!r}: every dataset needs at least one example, got {list(sizes)}')
    mass = SAMPLERS[arm.sampler](counts, arm)
    if (mass < 0).any() or mass.sum() <= 0:
        raise MixtureError(
            f'sampler {arm.sampler!r}, cap {arm.cap}: rates {mass.tolist()}; expected: none below 0, and not all 0'
        )
    return mass / mass.sum()


class Quotas:
    """The number of draws of each stream up to the end of each block.

    `wanted(b)`: float64 [n], the exact number of draws that the rates give in the first b blocks; its sum is b * block.
    The counts are stored in a prefix table, which is extended lazily and read in O(1). If the schedule is periodic, the
    table holds one period.
    """

    def __init__(
        self,
        wanted: Callable[[int], np.ndarray],
        block: int,
        deadline: Callable[[int, float, int], int],
        period: int = 0,
    ):
        """deadline(i, x, b): the smallest number of blocks above b for which wanted(.)[i] exceeds x. period: number of
        blocks after which `wanted` is integral and the schedule repeats; 0 = not periodic.
        """
        self.wanted, self.block, self._deadline, self._period = wanted, block, deadline, period
        self.n = len(wanted(0))
        self._table: list[np.ndarray] = [np.zeros(self.n, np.int64)]
        self._bound = 1.0 - (1.0 / (2 * self.n - 2) if self.n > 1 else 0.0)

    def counts(self, blocks: int) -> np.ndarray:
        """Number of draws of each stream in the first `blocks` blocks, int64 [n]."""
        periods, blocks = divmod(blocks, self._period) if self._period else (0, blocks)
        while len(self._table) <= blocks:
            self._table.append(self._next(len(self._table) - 1))
        if not periods:
            return self._table[blocks]
        return self._table[blocks] + periods * np.rint(self.wanted(self._period)).astype(np.int64)

    def _next(self, done: int) -> np.ndarray:
        counts, wanted = self._table[done], self.wanted(done + 1)
        least = np.maximum(counts, np.ceil(wanted - self._bound - _SLACK).astype(np.int64))
        most = np.maximum(least, np.floor(wanted + self._bound + _SLACK).astype(np.int64))
        filled = least.copy()
        left = (done + 1) * self.block - int(filled.sum())
        # Earliest deadline first: a draw is due in the block in which its stream would otherwise lag by a whole draw.
        due = [self._due(i, int(filled[i]), done) if filled[i] < most[i] else math.inf for i in range(self.n)]
        for _ in range(left):
            i = min(range(self.n), key=lambda j: (due[j], j))
            filled[i] += 1
            due[i] = self._due(i, int(filled[i]), done) if filled[i] < most[i] else math.inf
        return filled

    def _due(self, i: int, count: int, done: int) -> float:
        return self._deadline(i, count + self._bound, done)


def fixed_quotas(rates: np.ndarray, block: int = DEFAULT_BLOCK) -> Quotas:
    """Quotas of constant rates float64 [n] (sum 1), rounded to multiples of 1 / P.

    P is the period: the smallest number of draws in whole blocks that is at least 2 ** 20. After P draws every count is
    an exact integer. So the schedule is periodic, and any position is computed in O(1).
    """
    period = -(-_RESOLUTION // block)
    per_block = _largest_remainder(rates, period * block) / period

    def deadline(i: int, level: float, done: int) -> int:
        return math.floor(level / per_block[i]) + 1 if per_block[i] > 0 else done + _NEVER

    return Quotas(lambda blocks: per_block * blocks, block, deadline, period)


def _largest_remainder(rates: np.ndarray, total: int) -> np.ndarray:
    """Rounds rates * total to integers that sum to `total`, largest remainders first; rates above 0 get at least 1."""
    wanted = rates * total
    counts = np.where(rates > 0, np.maximum(np.floor(wanted), 1), 0)
    order = np.argsort(counts - wanted, kind='stable')
    left = int(total - counts.sum())
    if left >= 0:
        counts[order[:left]] += 1
    else:
        counts[np.argmax(counts)] += left
    return counts


def timed_quotas(
    expressions: Sequence[Expression],
    names: Sequence[str],
    block: int = DEFAULT_BLOCK,
    *,
    shares: Sequence[float] = (),
    per_step: int = 1,
    steps: int = 0,
) -> Quotas:
    """Quotas of time-dependent rates share_i * f_i(t) / sum share * f(t) at step t; each step has `per_step` draws.

    steps: number of training steps, 0 = unlimited; after the last step the rates stay constant. Raises MixtureError if
    a rate is negative or not finite, or if all rates are 0. The training steps are checked immediately.
    """
    sums: list[np.ndarray] = [np.zeros(len(expressions))]

    def wanted(blocks: int) -> np.ndarray:
        while len(sums) <= blocks:
            t = np.arange((len(sums) - 1) * block, len(sums) * block) // per_step
            t = np.minimum(t, steps - 1) if steps else t
            values = np.stack([np.broadcast_to(e(t), t.shape) for e in expressions])
            for name, row, expression in zip(names, values, expressions, strict=True):
                if not np.isfinite(row).all() or (row < 0).any():
                    at = int(t[np.flatnonzero(~np.isfinite(row) | (row < 0))[0]])
                    raise MixtureError(f'rate of {name!r}, {expression.text!r}: negative or not finite at step {at}')
            values = values * np.asarray(shares or [1.0] * len(names))[:, None]
            total = values.sum(0)
            if (total <= 0).any():
                raise MixtureError(f'all rates are 0 at step {int(t[np.flatnonzero(total <= 0)[0]])}')
            sums.append(sums[-1] + (values / total).sum(1))
        return sums[blocks]

    def deadline(i: int, level: float, done: int) -> int:
        low, high = done, done + 1
        while wanted(high)[i] <= level:
            low, high = high, done + 2 * (high - done)
            if high - done > _AHEAD:
                return done + _NEVER
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if sums[middle][i] > level else (middle, high)
        return high

    wanted(-(-steps * per_step // block))
    return Quotas(wanted, block, deadline)


@dataclass(frozen=True)
class Mixture:
    """The schedule of a mixture: assigns each draw to a stream. names: names of the n streams. seed: seed of the order
    of draws within a block."""

    names: tuple[str, ...]
    quotas: Quotas
    seed: int

    def at(self, position: int) -> tuple[int, int]:
        """(stream, number of its earlier draws) of the draw at a position, computed without replaying earlier draws."""
        if len(self.names) == 1:
            return 0, position
        block, offset = divmod(position, self.quotas.block)
        order = self._order(block)
        stream = int(order[offset])
        return stream, int(self.quotas.counts(block)[stream]) + int((order[:offset] == stream).sum())

    def counts(self, positions: int) -> np.ndarray:
        """int64 [n]: number of draws of each stream among the first `positions` draws."""
        if len(self.names) == 1:
            return np.asarray([positions])
        block, offset = divmod(positions, self.quotas.block)
        return self.quotas.counts(block) + np.bincount(self._order(block)[:offset], minlength=len(self.names))

    def _order(self, block: int) -> np.ndarray:
        counts = self.quotas.counts(block + 1) - self.quotas.counts(block)
        return _shuffled(tuple(counts.tolist()), self.seed, block)


@lru_cache(maxsize=64)
def _shuffled(counts: tuple[int, ...], seed: int, block: int) -> np.ndarray:
    order = np.repeat(np.arange(len(counts)), counts)
    return np.random.Generator(np.random.Philox(key=[seed ^ 0x6D69780000000000, block])).permutation(order)


def stream_seed(seed: int, name: str, streams: int) -> int:
    """The seed of a stream's row order. Each stream has its own seed, so that streams of equal size (translations of
    one dataset) are read in different orders. A single stream uses the run's seed.
    """
    return seed if streams == 1 else int.from_bytes(hashlib.sha256(f'{seed}/{name}'.encode()).digest()[:7], 'big')
