"""Bitext mining: exact nearest neighbours both ways in one blocked pass, ratio margin, threshold, one-to-one pairs.

BUCC as XTREME decides it (third_party/utils_retrieve.py, after LASER): cosine over the mean of both sides' k = 4
nearest neighbours; candidates from both directions; the threshold with the best F1 on the gold pairs of one split,
applied to another. Memory is bounded by the block, not by the product of the two sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

NEIGHBOURS = 4
_ROWS, _COLUMNS = 2048, 16384  # of a block: 128 MiB of float32 scores


@dataclass(frozen=True)
class Neighbours:
    """The k nearest by inner product, best first: values float32 [n, k], indices int32 [n, k] (-1 where there are
    fewer).
    """

    values: np.ndarray
    indices: np.ndarray


def _merge(
    values: jax.Array, indices: jax.Array, more: jax.Array, where: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    best, place = jax.lax.top_k(jnp.concatenate([values, more], 1), k)
    return best, jnp.take_along_axis(jnp.concatenate([indices, where], 1), place, axis=1)


@partial(jax.jit, static_argnames='k', donate_argnums=(2, 3, 4, 5))
def _block(
    x: jax.Array, y: jax.Array, xv: jax.Array, xi: jax.Array, yv: jax.Array, yi: jax.Array, sizes: jax.Array, k: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """One block [R, C] of scores merged into the running best of its rows and columns. sizes: (x0, n, y0, m)."""
    rows, columns = sizes[0] + jnp.arange(x.shape[0]), sizes[2] + jnp.arange(y.shape[0])
    real = (rows < sizes[1])[:, None] & (columns < sizes[3])[None]
    scores = jnp.where(real, x @ y.T, -jnp.inf)
    values, place = jax.lax.top_k(scores, k)
    xv, xi = _merge(xv, xi, values, columns[place], k)
    values, place = jax.lax.top_k(scores.T, k)
    yv, yi = _merge(yv, yi, values, rows[place], k)
    return xv, xi, yv, yi


def _padded(vectors: np.ndarray, start: int, size: int) -> np.ndarray:
    part = np.asarray(vectors[start : start + size], np.float32)
    return np.pad(part, ((0, size - len(part)), (0, 0))) if len(part) < size else part


def neighbours(
    x: np.ndarray, y: np.ndarray, k: int = NEIGHBOURS, *, tick: Callable[[int, int], None] | None = None
) -> tuple[Neighbours, Neighbours]:
    """(nearest rows of y for each row of x, nearest rows of x for each row of y), exact, both from one pass.

    x [n, D], y [m, D]: unit vectors, arrays or memory maps (read a block at a time). Equal scores: the lower index
    first.
    """
    n, m = len(x), len(y)
    rows, columns = min(_ROWS, max(k, n)), min(_COLUMNS, max(k, m))

    def empty(size: int) -> tuple[jax.Array, jax.Array]:
        return jnp.full((size, k), -jnp.inf), jnp.full((size, k), -1, jnp.int32)

    found = [empty(columns) for _ in range(0, m, columns)]
    x_values, x_indices = [], []
    for x0 in range(0, n, rows):
        part = jnp.asarray(_padded(x, x0, rows))
        xv, xi = empty(rows)
        for j, y0 in enumerate(range(0, m, columns)):
            sizes = jnp.asarray([x0, n, y0, m], jnp.int32)
            xv, xi, yv, yi = _block(part, jnp.asarray(_padded(y, y0, columns)), xv, xi, *found[j], sizes, k)
            found[j] = (yv, yi)
        x_values.append(np.asarray(xv))
        x_indices.append(np.asarray(xi))
        if tick:
            tick(min(x0 + rows, n), n)
    back = Neighbours(
        np.concatenate([np.asarray(v) for v, _ in found])[:m], np.concatenate([np.asarray(i) for _, i in found])[:m]
    )
    return _finished(Neighbours(np.concatenate(x_values)[:n], np.concatenate(x_indices)[:n])), _finished(back)


def _finished(found: Neighbours) -> Neighbours:
    return Neighbours(found.values, np.where(np.isfinite(found.values), found.indices, -1).astype(np.int32))


@dataclass(frozen=True)
class Candidates:
    """Candidate pairs, best margin first, each index at most once a side: x, y int32 [c], score float64 [c]."""

    x: np.ndarray
    y: np.ndarray
    score: np.ndarray


def ratio_candidates(forward: Neighbours, backward: Neighbours) -> Candidates:
    """Each side's best neighbour by ratio margin, united, then one-to-one from the best down (LASER's 'max'
    retrieval).
    """

    def mean(found: Neighbours) -> np.ndarray:
        real = found.indices >= 0
        return np.where(real, found.values, 0).sum(1, dtype=np.float64) / np.maximum(real.sum(1), 1)

    x_mean, y_mean = mean(forward), mean(backward)

    def best(found: Neighbours, own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margin = found.values / ((own[:, None] + other[found.indices]) / 2)
        margin = np.where(found.indices >= 0, margin, -np.inf)
        place = margin.argmax(1)[:, None]
        return np.take_along_axis(found.indices, place, 1)[:, 0], np.take_along_axis(margin, place, 1)[:, 0]

    to, forward_score = best(forward, x_mean, y_mean)
    origin, backward_score = best(backward, y_mean, x_mean)
    x = np.concatenate([np.arange(len(to)), origin])
    y = np.concatenate([to, np.arange(len(origin))])
    score = np.concatenate([forward_score, backward_score])
    order = np.argsort(-score, kind='stable')
    seen_x, seen_y = np.zeros(len(to), bool), np.zeros(len(origin), bool)
    kept = []
    for i in order:
        if np.isfinite(score[i]) and not seen_x[x[i]] and not seen_y[y[i]]:
            seen_x[x[i]] = seen_y[y[i]] = True
            kept.append(i)
    return Candidates(x[kept].astype(np.int32), y[kept].astype(np.int32), score[kept])


def best_threshold(
    scored: Sequence[tuple[str, str]], scores: Sequence[float], gold: Iterable[tuple[str, str]]
) -> tuple[float, float]:
    """(threshold, F1 in percent) of the best cut through pairs sorted by score, highest first; the threshold lies
    midway between two consecutive scores, or at the last score where all pairs are taken."""
    wanted, right, best, cut = set(gold), 0, 0.0, float('inf')
    for i, pair in enumerate(scored):
        right += pair in wanted
        f1 = 200.0 * right / (i + 1 + len(wanted)) if right else 0.0
        if f1 > best:
            best, cut = f1, (scores[i] + scores[i + 1]) / 2 if i + 1 < len(scores) else scores[i]
    return cut, best
