"""Disentangled attention within segments (He et al. 2021, DeBERTa), in blocks that hold no [T, T] scores.

The score of a query at i for a key at j is (q_i k_j + q_i K_r + k_j Q_r) / sqrt(3 K), where r = i - j, and K_r and Q_r
are the key and the query of an embedding of r. Distances share embeddings in buckets, which grow with the distance.

All tokens of a diagonal have the same r. So for a tile of W queries and W keys, the products with the embeddings of its
2 W - 1 diagonals give the terms of position, shifted by one column from row to row. This takes no gather over scores,
which would be slow on a TPU. A loop over blocks of queries computes one row of tiles at a time, [W, T] scores per head,
and its backward pass computes them again (as Dao et al. 2022, FlashAttention). Written in einsums, for every platform.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.encoders.dropout import kept_in_rows
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Constrain

BLOCK = 128  # W: queries of a block, and keys of a tile
_MASKED = -1e30


def buckets_of(distances: np.ndarray, buckets: int, furthest: int) -> np.ndarray:
    """The signed bucket of each distance i - j, int32: itself up to buckets / 2, further away on a log scale.

    furthest: the number of distances that the buckets of one side cover. As make_log_bucket_position of
    transformers' modeling_deberta_v2.py, in float32.
    """
    middle = buckets // 2
    size = np.maximum(np.abs(distances), middle).astype(np.float32)
    ratio = np.log(size / np.float32(middle)) / np.log(np.float32((furthest - 1) / middle))
    far = np.ceil(ratio * np.float32(middle - 1)) + middle
    return np.where(np.abs(distances) <= middle, distances, np.sign(distances) * far).astype(np.int32)


def disentangled_attention(
    qkv: jax.Array, position: jax.Array, segments: jax.Array, furthest: int,
    seed: jax.Array | None, rate: float, place: Constrain,
) -> jax.Array:  # fmt: skip
    """Attention: qkv [3, B, T, H, K] (queries, keys, values), segments int32 [B, T] -> [B, T, H * K].

    position: [2, 2 S, H, K], the queries and keys of the embeddings of S buckets to each side. furthest: as for
    `buckets_of`. seed, rate: of dropout on the normalised weights; seed None = no dropout. Segments are contiguous, so
    that distances within one are those in the row.
    """
    _, b, t, h, k = qkv.shape
    w = max(2, min(BLOCK, t))
    n = -(-t // w)
    qkv = jnp.pad(qkv, [(0, 0), (0, 0), (0, n * w - t), (0, 0), (0, 0)]).reshape(3, b, n, w, h, k)
    blocks = jnp.pad(segments, [(0, 0), (0, n * w - t)]).reshape(b, n, w)
    scale = jnp.asarray((3 * k) ** -0.5, qkv.dtype)
    tiles = position[:, _rows_of_tiles(n, w, position.shape[1] // 2, furthest)]  # [2, 2 N - 1, 2 W - 1, H, K]
    of_query, of_key = tiles[0] * scale, tiles[1, :, ::-1]
    query, key, value = qkv[0] * scale, qkv[1], qkv[2]
    dropping = None if seed is None or rate == 0.0 else (seed, rate)

    def one(_: None, item: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        number, own, own_segments = item
        near = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=n - 1 - number, slice_size=n)
        scores = _scores(own, key, near(of_query), near(of_key))  # float32 [B, H, W, N, W]
        visible = (own_segments[:, :, None, None] == blocks[:, None]) & (blocks[:, None] > 0)  # [B, W, N, W]
        scores = jnp.where(visible[:, None], scores, _MASKED).reshape(b, h, w, n * w)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        total = weights.sum(-1, keepdims=True)  # [B, H, W, 1]
        weights = _dropped(weights, dropping, number * w, t).astype(qkv.dtype).reshape(b, h, w, n, w)
        mixed = jnp.einsum('bhanc,bnchk->bahk', weights, value) / total.astype(qkv.dtype).swapaxes(1, 2)
        return None, place(mixed.reshape(b, w, h * k), ROWS, None, HEADS)

    items = (jnp.arange(n, dtype=jnp.int32), query.swapaxes(0, 1), blocks.swapaxes(0, 1))
    step = jax.checkpoint(one)
    if n == 1:
        return step(None, jax.tree.map(lambda x: x[0], items))[1][:, :t]
    mixed = jax.lax.scan(step, None, items)[1]  # [N, B, W, H * K]
    return place(mixed.swapaxes(0, 1).reshape(b, n * w, h * k)[:, :t], ROWS, None, HEADS)


def _rows_of_tiles(n: int, w: int, span: int, furthest: int) -> np.ndarray:
    """The row of the table of relative embeddings for each diagonal of each tile: int32 [2 N - 1, 2 W - 1].

    Tiles are in the order of keys: the queries come N - 1 - p blocks after the keys of tile p. Diagonals are in the
    order of distance. span: S, buckets to one side; the table has 2 S rows, and distance 0 has row S.
    """
    blocks = np.arange(n - 1, -n, -1)[:, None] * w
    distances = blocks + np.arange(-(w - 1), w)
    return np.clip(buckets_of(distances, span, furthest) + span, 0, 2 * span - 1)


def _scores(query: jax.Array, key: jax.Array, of_query: jax.Array, of_key: jax.Array) -> jax.Array:
    """Scores of a block of queries: query [B, W, H, K], key [B, N, W, H, K] -> float32 [B, H, W, N, W].

    of_query, of_key: queries and keys of each tile's diagonals [N, 2 W - 1, H, K]; by rising distance, by falling.
    """
    content = jnp.einsum('bahk,bnchk->bhanc', query, key)
    to_position = _shifted(jnp.einsum('bahk,nmhk->bhnam', query, of_key))  # [B, H, N, W (query), W (key)]
    from_position = _shifted(jnp.einsum('bnchk,nmhk->bhncm', key, of_query))  # [B, H, N, W (key), W (query)]
    # In the compute dtype, as in `reference.attention`: shifting float32 numbers would move twice the bytes.
    return (content + to_position.swapaxes(2, 3) + from_position.transpose(0, 1, 4, 2, 3)).astype(jnp.float32)


def _shifted(x: jax.Array) -> jax.Array:
    """Reads diagonals as columns: x [..., W, 2 W - 1] -> y [..., W, W] with y[i, j] = x[i, W - 1 - i + j].

    The flat numbers from W - 1 on are cut into rows of 2 W - 2 numbers: row i then begins with x[i, W - 1 - i].
    """
    *lead, w, m = x.shape
    flat = x.reshape(*lead, w * m)[..., w - 1 : w - 1 + w * (m - 1)]
    return flat.reshape(*lead, w, m - 1)[..., :w]


def _dropped(weights: jax.Array, dropping: tuple[jax.Array, float] | None, first: jax.Array, t: int) -> jax.Array:
    """Dropout for a block's weights [B, H, W, keys], with the mask of encoders/dropout.py for weights [B, H, T, T].

    first: the number of the block's first query. t: T. Keys that fill up the last tile have weight 0: their mask does
    not matter.
    """
    if dropping is None:
        return weights
    seed, rate = dropping
    b, h, w, keys = weights.shape
    row = jnp.arange(b * h, dtype=jnp.int32).reshape(b, h, 1, 1) * t + (first + jnp.arange(w, dtype=jnp.int32))[:, None]
    kept = jnp.pad(kept_in_rows(seed, row, t, rate), [(0, 0), (0, 0), (0, 0), (0, keys - t)])
    return jnp.where(kept, weights * jnp.float32(1.0 / (1.0 - rate)), 0.0)
