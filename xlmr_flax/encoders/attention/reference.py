"""Attention within segments as it is defined, in einsums: softmax(q k^T / sqrt(K)) v over the tokens of a segment."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlmr_flax.encoders.dropout import dropped
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Place

_MASKED = -1e30  # finite, so that a row of padding alone gives numbers and not NaN


def attention(qkv: jax.Array, segments: jax.Array, seed: jax.Array | None, rate: float, place: Place) -> jax.Array:
    """qkv [3, B, T, H, K] (queries, keys, values), segments int32 [B, T] -> the values mixed, [B, T, H * K]. seed,
    rate: of dropout on normalised weights."""
    _, b, t, h, size = qkv.shape
    scores = jnp.einsum('bqhk,bshk->bhqs', qkv[0] * jnp.asarray(size**-0.5, qkv.dtype), qkv[1])
    weights, total = exponentials(scores, segment_bias(segments))
    weights = dropped(weights, seed, rate).astype(qkv.dtype)
    mixed = jnp.einsum('bhqs,bshk->bqhk', weights, qkv[2]) / total.astype(qkv.dtype).swapaxes(1, 2)
    return place(mixed.reshape(b, t, h * size), ROWS, None, HEADS)


def exponentials(scores: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores [B, H, T, T] and their bias -> float32 weights [B, H, T, T] and sums [B, H, T, 1], by which the product
    with v is divided: T * K divisions, not T * T."""
    scores = scores.astype(jnp.float32) + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    return weights, weights.sum(-1, keepdims=True)


def same_segment(segments: jax.Array) -> jax.Array:
    """int32 [B, T] -> bool [B, 1, T, T]: which tokens (last) a token (last but one) sees."""
    return (segments[:, None, :, None] == segments[:, None, None, :]) & (segments[:, None, None, :] > 0)


def segment_bias(segments: jax.Array) -> jax.Array:
    """int32 [B, T] -> float32 [B, 1, T, T], 0 where a token is seen and -1e30 where not."""
    return jnp.where(same_segment(segments), 0.0, _MASKED).astype(jnp.float32)
