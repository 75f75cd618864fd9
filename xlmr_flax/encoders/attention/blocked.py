"""Attention within segments in blocks of queries, for rows that are too long for whole matrices of scores.

A loop over blocks of W queries computes their scores for all keys, [W, T] per head; its backward pass computes them
again (as Dao et al. 2022, FlashAttention, section 3.1). So neither pass holds a [T, T] array. The products have shapes
for which XLA:CPU uses its fast matmul, and nothing depends on a platform.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlmr_flax.encoders.attention.reference import exponentials
from xlmr_flax.encoders.dropout import kept_in_rows
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Constrain

BLOCK = 128  # W: queries of a block
_MASKED = -1e30


def blocked_attention(
    qkv: jax.Array, segments: jax.Array, seed: jax.Array | None, rate: float, place: Constrain
) -> jax.Array:
    """Attention: qkv [3, B, T, H, K] (queries, keys, values), segments int32 [B, T] -> [B, T, H * K].

    seed, rate: of dropout on the normalised weights; seed None = no dropout. The dropout mask is that of
    encoders/dropout.py for weights [B, H, T, T].
    """
    _, b, t, h, size = qkv.shape
    w = min(BLOCK, t)
    n = -(-t // w)
    query, key, value = (place(x.swapaxes(1, 2), ROWS, HEADS, None, None) for x in qkv)  # [B, H, T, K]
    query = jnp.pad(query * jnp.asarray(size**-0.5, qkv.dtype), [(0, 0), (0, 0), (0, n * w - t), (0, 0)])
    own = jnp.pad(segments, [(0, 0), (0, n * w - t)]).reshape(b, n, w)

    def one(_: None, item: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        number, queries, of_queries = item
        visible = (of_queries[:, None, :, None] == segments[:, None, None]) & (segments[:, None, None] > 0)
        bias = jnp.where(visible, 0.0, _MASKED).astype(jnp.float32)  # [B, 1, W, T]
        weights, total = exponentials(queries @ key.swapaxes(2, 3), bias)
        if seed is not None and rate:
            row = jnp.arange(b * h, dtype=jnp.int32).reshape(b, h, 1, 1) * t
            row = row + number * w + jnp.arange(w, dtype=jnp.int32)[:, None]
            weights = jnp.where(kept_in_rows(seed, row, t, rate), weights * jnp.float32(1.0 / (1.0 - rate)), 0.0)
        return None, (weights.astype(qkv.dtype) @ value) / total.astype(qkv.dtype)  # [B, H, W, K]

    blocks = query.reshape(b, h, n, w, size).transpose(2, 0, 1, 3, 4)
    items = (jnp.arange(n, dtype=jnp.int32), blocks, own.swapaxes(0, 1))
    mixed = jax.lax.scan(jax.checkpoint(one), None, items)[1]  # [N, B, H, W, K]
    mixed = mixed.transpose(1, 0, 3, 2, 4).reshape(b, n * w, h * size)[:, :t]
    return place(mixed, ROWS, None, HEADS)
