"""The reference implementation of attention within segments, in einsums: softmax(q k^T / sqrt(K)) v."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlmr_flax.encoders.dropout import dropped
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Constrain

_MASKED = -1e30  # finite, so that a row of only padding gives numbers and not NaN


def attention(qkv: jax.Array, segments: jax.Array, seed: jax.Array | None, rate: float, place: Constrain) -> jax.Array:
    """Attention: qkv [3, B, T, H, K] (queries, keys, values), segments int32 [B, T] -> [B, T, H * K].

    seed, rate: of dropout on the normalised weights; seed None = no dropout.
    """
    _, b, t, h, size = qkv.shape
    scores = jnp.einsum('bqhk,bshk->bhqs', qkv[0] * jnp.asarray(size**-0.5, qkv.dtype), qkv[1])
    weights, total = exponentials(scores, segment_bias(segments))
    weights = dropped(weights, seed, rate).astype(qkv.dtype)
    mixed = jnp.einsum('bhqs,bshk->bqhk', weights, qkv[2]) / total.astype(qkv.dtype).swapaxes(1, 2)
    return place(mixed.reshape(b, t, h * size), ROWS, None, HEADS)


def exponentials(scores: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The unnormalised softmax: scores [B, H, T, T], bias -> float32 exponentials [B, H, T, T], sums [B, H, T, 1].

    The caller divides the product with v by the sums: T * K divisions instead of T * T.
    """
    scores = scores.astype(jnp.float32) + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    return weights, weights.sum(-1, keepdims=True)


def same_segment(segments: jax.Array) -> jax.Array:
    """The attention mask: segments int32 [B, T] -> bool [B, 1, T (query), T (key)], True for visible keys."""
    return (segments[:, None, :, None] == segments[:, None, None, :]) & (segments[:, None, None, :] > 0)


def segment_bias(segments: jax.Array) -> jax.Array:
    """The attention mask as a bias: segments int32 [B, T] -> float32 [B, 1, T, T], 0 for visible keys, else -1e30."""
    return jnp.where(same_segment(segments), 0.0, _MASKED).astype(jnp.float32)
