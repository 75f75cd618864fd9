"""Bitext mining: exact nearest neighbours in both directions in one blocked pass, ratio margin, one-to-one pairs.

BUCC is mined as in XTREME (third_party/utils_retrieve.py, after LASER): the margin is the cosine divided by the mean of
both sides' k = 4 nearest neighbours; candidates come from both directions; the threshold with the best F1 on the gold
pairs of one split is applied to another split.

Each block of scores is computed once and used for its rows and its columns. Besides the vectors, which may be memory
maps, memory holds a few blocks and k values and indices per sentence, so it does not grow with the product of the
lengths of the two sides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.models.model import unit_vectors
from xlmr_flax.parallel.mesh import BATCH_AXES, batch_devices, replicate
from xlmr_flax.util import stopping

P = PartitionSpec
NEIGHBOURS = 4
# Rows and columns of a block of scores. On a CPU, the 16 MiB of a block are reused from the heap, while larger blocks
# are mapped anew each time. An accelerator needs larger blocks to amortise the call overhead.
_CPU_BLOCK, _BLOCK = 2048, 8192
_HELD = 4  # number of blocks of x that are on the devices at the same time; y is read once for all of them


@dataclass(frozen=True)
class Neighbours:
    """The k nearest neighbours by inner product, best first: values float32 [n, k], indices int32 [n, k] (-1 if there
    are fewer than k).
    """

    values: np.ndarray
    indices: np.ndarray


def _group(size: int, k: int) -> int:
    """Group size for the two-stage top-k: the largest power of two g with k * g * g <= size. It minimises the number of
    values for top_k: size / g group maxima, then k * g members of the best groups."""
    g = 1
    while 4 * g * g * k <= size:
        g *= 2
    return g


# The k best of n values are in the k groups with the largest maxima: if one of them were in another group, each of
# these k groups would contain a better value. Groups are consecutive indices and top_k prefers the lower index, so this
# also holds for equal values, where the lower index counts as better. The maximum is memory-bound; top_k is slower.
def _row_contenders(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Candidates for the k best values of each row: scores [X, Y] -> (values, columns) [X, k * g]; columns
    ascending."""
    rows, size = scores.shape
    g = _group(size, k)
    grouped = scores.reshape(rows, size // g, g)
    groups = jnp.sort(jax.lax.top_k(grouped.max(2), k)[1], axis=1)[:, :, None]  # [X, k, 1]
    values = jnp.take_along_axis(grouped, groups, axis=1, mode='promise_in_bounds')  # [X, k, g]
    return values.reshape(rows, -1), (groups * g + jnp.arange(g)).reshape(rows, -1)


def _column_contenders(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Candidates for the k best values of each column: scores [X, Y] -> (values, rows) [Y, k * g]; rows ascending."""
    size, columns = scores.shape
    g = _group(size, k)
    largest = scores.reshape(size // g, g, columns).max(1).T  # [Y, X / g]
    groups = jnp.sort(jax.lax.top_k(largest, k)[1], axis=1)[:, :, None]  # [Y, k, 1]
    rows = groups * g + jnp.arange(g)  # [Y, k, g]
    values = scores.at[rows, jnp.arange(columns)[:, None, None]].get(mode='promise_in_bounds')
    return values.reshape(columns, -1), rows.reshape(columns, -1)


def _merge(
    values: jax.Array, indices: jax.Array, more: jax.Array, where: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """Merges two candidate lists to the k best; among equal values, the first ones win."""
    best, place = jax.lax.top_k(jnp.concatenate([values, more], 1), k)
    return best, jnp.take_along_axis(jnp.concatenate([indices, where], 1), place, axis=1, mode='promise_in_bounds')


Best = tuple[jax.Array, jax.Array]  # running k best of some sentences: values float32 [n, k], indices int32 [n, k]


def _one_block(
    x: jax.Array, y: jax.Array, of_x: Best, of_y: Best, sizes: jax.Array, *, k: int, masked: bool, sharded: bool
) -> tuple[Best, Best]:
    # With the default precision, an accelerator would round the vectors to fewer bits.
    scores = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)  # [X, Y]
    x0, n, y0, m = sizes
    if sharded:
        x0 += jax.lax.axis_index(BATCH_AXES) * x.shape[0]
    if masked:
        real = (x0 + jnp.arange(x.shape[0]) < n)[:, None] & (y0 + jnp.arange(y.shape[0]) < m)[None]
        scores = jnp.where(real, scores, -jnp.inf)
    values, columns = _row_contenders(scores, k)
    of_x = _merge(*of_x, values, y0 + columns, k)
    values, rows = _column_contenders(scores, k)
    rows += x0
    if sharded:  # all-gather only each device's own k best; the devices' rows are in ascending order
        values, place = jax.lax.top_k(values, k)
        rows = jnp.take_along_axis(rows, place, axis=1)
        values, rows = (jax.lax.all_gather(part, BATCH_AXES, axis=1, tiled=True) for part in (values, rows))
    return of_x, _merge(*of_y, values, rows, k)


@partial(jax.jit, static_argnames=('k', 'masked', 'mesh'))
def _block(
    x: jax.Array, y: jax.Array, of_x: Best, of_y: Best, sizes: jax.Array, *, k: int, masked: bool, mesh: Mesh | None
) -> tuple[Best, Best]:
    """Computes one block [X, Y] of scores and merges it into the running best of its rows and columns.

    sizes: int32 (index of the first row, n, index of the first column, m). masked: the block extends beyond n or m.
    """
    function = partial(_one_block, k=k, masked=masked, sharded=mesh is not None)
    if mesh is not None:
        rows = P(BATCH_AXES)
        function = jax.shard_map(
            function, mesh=mesh, in_specs=(rows, P(), rows, P(), P()), out_specs=(rows, P()), check_vma=False
        )
    return function(x, y, of_x, of_y, sizes)


_unit = jax.jit(unit_vectors)


def _put(part: np.ndarray, mesh: Mesh | None, spec: PartitionSpec) -> jax.Array:
    if mesh is None:
        return jnp.asarray(part)
    return jax.make_array_from_callback(part.shape, NamedSharding(mesh, spec), lambda index: part[index])


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


@dataclass(frozen=True)
class _Side:
    """The vectors of one side, read block by block. There are few block sizes, so that few programs are compiled."""

    name: str
    vectors: np.ndarray
    size: int  # rows of a block
    spec: PartitionSpec
    mesh: Mesh | None
    cosine: bool

    def block(self, start: int, check: bool = True) -> jax.Array:
        """The block float32 [size, D] from row `start` on, padded with zero rows. Raises ModelError if not finite."""
        part = np.asarray(self.vectors[start : start + self.size], np.float32)
        if check and not np.isfinite(part).all():
            row = start + int(np.flatnonzero(~np.isfinite(part).all(1))[0])
            raise ModelError(f'sentence vector {row} of the {self.name} side (from 0) is not finite')
        if len(part) < self.size:
            part = np.pad(part, ((0, self.size - len(part)), (0, 0)))
        block = _put(part, self.mesh, self.spec)
        return _unit(block) if self.cosine else block

    def empty(self, k: int) -> Best:
        values, indices = np.full((self.size, k), -np.inf, np.float32), np.full((self.size, k), -1, np.int32)
        return _put(values, self.mesh, self.spec), _put(indices, self.mesh, self.spec)


def neighbours(
    x: np.ndarray,
    y: np.ndarray,
    k: int = NEIGHBOURS,
    *,
    cosine: bool = False,
    mesh: Mesh | None = None,
) -> tuple[Neighbours, Neighbours]:
    """Exact k nearest neighbours in both directions from one pass: (nearest rows of y for each row of x, nearest rows
    of x for each row of y).

    x [n, D], y [m, D]: unit vectors, or any vectors with cosine=True; arrays or memory maps, read block by block. Among
    equal scores, the lower index comes first. mesh: the rows of x are sharded over its data and fsdp axes; the results
    are the same as on one device. Raises ModelError if a vector is not finite.

    Memory besides the vectors, float32: on each device a few blocks of scores (2048 * 2048 on a CPU, 8192 * 8192 on an
    accelerator), four blocks of x and two of y; on the host the results, 8 k (n + m) bytes. n and m must be below 2^31.
    """
    n, m = len(x), len(y)
    shards = batch_devices(mesh) if mesh is not None else 1
    mesh = mesh if shards > 1 else None
    most = max(_power_of_two(k), _CPU_BLOCK if jax.default_backend() == 'cpu' else _BLOCK)
    rows, columns = (min(most, _power_of_two(max(k, size))) for size in (-(-n // shards), m))
    first = _Side('first', x, rows * shards, P(BATCH_AXES), mesh, cosine)
    second = _Side('second', y, columns, P(), mesh, cosine)

    of_y = [second.empty(k) for _ in range(0, m, second.size)]
    of_x: list[tuple[np.ndarray, ...]] = []
    running: deque[Best] = deque()
    for start in range(0, n, first.size * _HELD):
        places = range(start, min(n, start + first.size * _HELD), first.size)
        held, best = [first.block(x0) for x0 in places], [first.empty(k) for _ in places]
        for j, y0 in enumerate(range(0, m, second.size)):
            stopping.check()
            part = second.block(y0, check=not start)
            for i, x0 in enumerate(places):
                sizes = np.asarray([x0, n, y0, m], np.int32)
                masked = x0 + first.size > n or y0 + second.size > m
                best[i], of_y[j] = _block(held[i], part, best[i], of_y[j], sizes, k=k, masked=masked, mesh=mesh)
                running.append(of_y[j])
                if len(running) > 2:  # limits the host to a few blocks ahead of the devices
                    jax.block_until_ready(running.popleft())
        of_x += [_host(each if mesh is None else replicate(each, mesh)) for each in best]
    return _joined(of_x, n, k), _joined([_host(each) for each in of_y], m, k)


def _host(best: Best) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(part) for part in best)


def _joined(parts: Sequence[tuple[np.ndarray, ...]], n: int, k: int) -> Neighbours:
    if not parts:
        return Neighbours(np.zeros((0, k), np.float32), np.zeros((0, k), np.int32))
    values, indices = (np.concatenate(side)[:n] for side in zip(*parts, strict=True))
    return Neighbours(values, np.where(np.isfinite(values), indices, -1).astype(np.int32))


@dataclass(frozen=True)
class Candidates:
    """Candidate pairs, best margin first: x, y int32 [c], score float64 [c]. An index occurs at most once per side."""

    x: np.ndarray
    y: np.ndarray
    score: np.ndarray


def ratio_candidates(forward: Neighbours, backward: Neighbours) -> Candidates:
    """Selects candidate pairs by ratio margin: joins the best neighbours of both sides, then takes one-to-one pairs
    from the best margin down (LASER's 'max' retrieval).
    """

    def mean(side: Neighbours) -> np.ndarray:
        real = side.indices >= 0
        return np.where(real, side.values, 0).sum(1, dtype=np.float64) / np.maximum(real.sum(1), 1)

    x_mean, y_mean = mean(forward), mean(backward)

    def best(side: Neighbours, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margin = side.values / ((own[:, None] + other[side.indices]) / 2)
        margin = np.where(side.indices >= 0, margin, -np.inf)
        place = margin.argmax(1)[:, None]
        return np.take_along_axis(side.indices, place, 1)[:, 0], np.take_along_axis(margin, place, 1)[:, 0]

    to, forward_score = best(forward, x_mean, y_mean)
    nearest_x, backward_score = best(backward, y_mean, x_mean)
    x = np.concatenate([np.arange(len(to)), nearest_x])
    y = np.concatenate([to, np.arange(len(nearest_x))])
    score = np.concatenate([forward_score, backward_score])
    order = np.argsort(-score, kind='stable')
    seen_x, seen_y = np.zeros(len(to), bool), np.zeros(len(nearest_x), bool)
    kept = []
    for i in order:
        if np.isfinite(score[i]) and not seen_x[x[i]] and not seen_y[y[i]]:
            seen_x[x[i]] = seen_y[y[i]] = True
            kept.append(i)
    return Candidates(x[kept].astype(np.int32), y[kept].astype(np.int32), score[kept])


def best_threshold(
    scored: Sequence[tuple[str, str]], scores: Sequence[float], gold: Iterable[tuple[str, str]]
) -> tuple[float, float]:
    """The threshold with the best F1: (threshold, F1 in percent), for pairs sorted by score, highest first. The
    threshold is midway between two consecutive scores, or the last score if all pairs are taken."""
    wanted, right, best, cut = set(gold), 0, 0.0, float('inf')
    for i, pair in enumerate(scored):
        right += pair in wanted
        f1 = 200.0 * right / (i + 1 + len(wanted)) if right else 0.0
        if f1 > best:
            best, cut = f1, (scores[i] + scores[i + 1]) / 2 if i + 1 < len(scores) else scores[i]
    return cut, best
