"""Attention within segments and a window around each token, in blocks that hold no [T, T] scores.

A block of W queries, W being the window to one side, sees its own block of keys and the two beside it. So the scores
take [T, 3 W] per head. Written in einsums, for every platform.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlmr_flax.encoders.attention.reference import exponentials
from xlmr_flax.encoders.dropout import dropped
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Constrain

_MASKED = -1e30


def window_mask(segments: jax.Array, side: int) -> jax.Array:
    """The mask of `window_attention`: segments int32 [B, T] -> float32 [B, N, 1, W, 3 W], 0 = visible, else -1e30.

    side: W, the window to one side; a token sees those of its segment that are at most that far away.
    """
    own = _blocks(segments, side)[..., None]  # [B, N, W, 1]
    near = _neighbours(_blocks(segments, side))[:, :, None]  # [B, N, 1, 3 W]
    distance = jnp.arange(3 * side) - side - jnp.arange(side)[:, None]
    visible = (own == near) & (near > 0) & (jnp.abs(distance) <= side)
    return jnp.where(visible, 0.0, _MASKED).astype(jnp.float32)[:, :, None]


def window_attention(
    qkv: jax.Array, mask: jax.Array, seed: jax.Array | None, rate: float, place: Constrain
) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v within windows: qkv [3, B, T, H, K] -> [B, T, H * K].

    mask: from `window_mask`. seed, rate: of dropout on the normalised weights; seed None = no dropout.
    """
    _, b, t, h, size = qkv.shape
    side = mask.shape[-2]
    query, key, value = (_blocks(x, side) for x in (qkv[0] * jnp.asarray(size**-0.5, qkv.dtype), qkv[1], qkv[2]))
    scores = jnp.einsum('bnqhk,bnshk->bnhqs', query, _neighbours(key))
    weights, total = exponentials(scores, mask)
    weights = dropped(weights, seed, rate).astype(qkv.dtype)
    mixed = jnp.einsum('bnhqs,bnshk->bnqhk', weights, _neighbours(value))
    mixed = mixed / total.astype(qkv.dtype).swapaxes(2, 3)  # [B, N, W, H, K]
    return place(mixed.reshape(b, -1, h * size)[:, :t], ROWS, None, HEADS)


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """[B, T, ...] -> [B, N, W, ...], padded with zeros at the end."""
    b, t, *rest = x.shape
    count = -(-t // side)
    padded = jnp.pad(x, [(0, 0), (0, count * side - t), *[(0, 0)] * len(rest)])
    return padded.reshape(b, count, side, *rest)


def _neighbours(x: jax.Array) -> jax.Array:
    """Blocks [B, N, W, ...] -> each with the one before and the one after it, zeros at the ends: [B, N, 3 W, ...]."""
    edges = jnp.pad(x, [(0, 0), (1, 1), *[(0, 0)] * (x.ndim - 2)])
    return jnp.concatenate([edges[:, :-2], x, edges[:, 2:]], axis=2)
