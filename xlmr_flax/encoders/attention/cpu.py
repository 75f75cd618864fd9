"""Attention for XLA:CPU: products of the shapes that it hands to its fast matrix product, and scores in blocks.

The scores of a batch do not fit a core's cache, so that every pass over them (bias, exponential, sum, dropout, and as
many backwards) is a trip to memory. A loop takes as many rows, or heads of one row, as fit; backwards it computes their
weights again (as Dao et al. 2022, FlashAttention, section 3.1). Batches that are little more than a block take no loop.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xlmr_flax.encoders.attention.reference import exponentials
from xlmr_flax.encoders.dropout import kept_in_rows
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Dims, Place

MOST_SCORES = 1 << 20  # of a block: 4 MiB of float32
_NO_LOOP = 2 << 20  # scores of a batch that takes none


def cpu_attention(qkv: jax.Array, bias: jax.Array, seed: jax.Array, rate: float, place: Place) -> jax.Array:
    """qkv [B, T, 3, H, K] (queries, keys, values), bias float32 [B, 1, T, T] (0 where a token is seen, very low where
    not), seed of `seed_of` -> the values mixed, [B, T, H * K]. rate: of dropout on normalised weights; 0 = none.
    """
    b, t, _, h, _ = qkv.shape
    if b * h * t * t <= _NO_LOOP:
        return _joined(_mixed(_parts(qkv), bias, seed, _tokens(jnp.arange(b), jnp.arange(h), h, t), rate))
    return _blocked(qkv, bias, seed, rate, place)


def block(b: int, t: int, h: int) -> tuple[int, int]:
    """(rows, heads) of a block of a batch [b, t] with h heads: whole rows where one fits, else heads of one row."""

    def most(count: int, scores: int) -> int:
        return next(n for n in range(count, 0, -1) if count % n == 0 and (n == 1 or n * scores <= MOST_SCORES))

    return (most(b, h * t * t), h) if h * t * t <= MOST_SCORES else (1, most(h, t * t))


def _parts(qkv: jax.Array) -> jax.Array:
    """[B, T, 3, H, K] -> [3, B, H, T, K]"""
    return qkv.transpose(2, 0, 3, 1, 4)


def _joined(mixed: jax.Array) -> jax.Array:
    """[B, H, T, K] -> [B, T, H * K]"""
    return mixed.swapaxes(1, 2).reshape(mixed.shape[0], mixed.shape[2], -1)


def _tokens(rows: jax.Array, heads: jax.Array, of: int, t: int) -> jax.Array:
    """Numbers of rows and of heads (of so many) -> int32 [rows, heads, t, 1]: of queries among all in the batch, which
    decide what dropout drops."""
    return ((rows[:, None] * of + heads)[..., None] * t + jnp.arange(t))[..., None].astype(jnp.int32)


def _weights(q: jax.Array, k: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """q, k [B, H, T, K] -> `exponentials` of their scores."""
    return exponentials((q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)) @ k.swapaxes(2, 3), bias)


def _dropped(weights: jax.Array, seed: jax.Array, tokens: jax.Array, rate: float) -> jax.Array:
    if rate == 0.0:
        return weights
    # Chosen, not multiplied with 0: XLA:CPU makes a faster loop of it.
    kept = kept_in_rows(seed, tokens, weights.shape[-1], rate)
    return jnp.where(kept, weights * jnp.float32(1.0 / (1.0 - rate)), jnp.float32(0.0))


def _mixed(parts: jax.Array, bias: jax.Array, seed: jax.Array, tokens: jax.Array, rate: float) -> jax.Array:
    """parts [3, B, H, T, K] -> [B, H, T, K]"""
    weights, total = _weights(parts[0], parts[1], bias)
    dtype = parts.dtype
    return (_dropped(weights, seed, tokens, rate).astype(dtype) @ parts[2]) / total.astype(dtype)


def _gradients(
    parts: jax.Array, bias: jax.Array, seed: jax.Array, tokens: jax.Array, given: jax.Array, rate: float
) -> jax.Array:
    """parts [3, B, H, T, K], given [B, H, T, K]: the gradient of what `_mixed` returns -> that of parts."""
    (q, k, v), dtype = parts, parts.dtype
    weights, total = _weights(q, k, bias)
    weights = weights * (1.0 / total)
    # Products that leave the largest operand as it lies: its transpose would be a pass over memory.
    of_v = given.swapaxes(2, 3) @ _dropped(weights, seed, tokens, rate).astype(dtype)
    of_weights = _dropped((given @ v.swapaxes(2, 3)).astype(jnp.float32), seed, tokens, rate)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdims=True))
    of_scores = (of_scores * q.shape[-1] ** -0.5).astype(dtype)
    return jnp.stack([of_scores @ k, (q.swapaxes(2, 3) @ of_scores).swapaxes(2, 3), of_v.swapaxes(2, 3)])


# Numbers of rows and heads are arrays, so that a device that has a part of them knows which.
_INPUTS: tuple[Dims, ...] = (
    (ROWS, None, None, HEADS, None),  # qkv
    (ROWS, None, None, None),  # bias
    (None, None),  # seed
    (ROWS,),  # numbers of rows
    (HEADS,),  # and of heads
    (ROWS, None, HEADS),  # gradient
)


def _operands(qkv: jax.Array, bias: jax.Array, seed: jax.Array) -> tuple[jax.Array, ...]:
    return qkv, bias, seed, jnp.arange(qkv.shape[0], dtype=jnp.int32), jnp.arange(qkv.shape[3], dtype=jnp.int32)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _blocked(qkv: jax.Array, bias: jax.Array, seed: jax.Array, rate: float, place: Place) -> jax.Array:
    loop = partial(_loop, rate, qkv.shape[3], None)
    return place.mapped(loop, _INPUTS[:5], (ROWS, None, HEADS))(*_operands(qkv, bias, seed))


def _forward(qkv: jax.Array, bias: jax.Array, seed: jax.Array, rate: float, place: Place) -> Any:
    return _blocked(qkv, bias, seed, rate, place), (qkv, bias, seed)


def _backward(rate: float, place: Place, kept: Any, given: jax.Array) -> Any:
    heads = kept[0].shape[3]

    def loop(*arrays: jax.Array) -> jax.Array:
        return _loop(rate, heads, arrays[5], *arrays[:5])

    return place.mapped(loop, _INPUTS, _INPUTS[0])(*_operands(*kept), given), None, None


_blocked.defvjp(_forward, _backward)


def _loop(
    rate: float,
    of: int,
    given: jax.Array | None,
    qkv: jax.Array,
    bias: jax.Array,
    seed: jax.Array,
    rows: jax.Array,
    heads: jax.Array,
) -> jax.Array:
    """What `_mixed` gives, [B, T, H * K], block by block; with `given`, the gradient of qkv, [B, T, 3, H, K]."""
    b, t, _, h, k = qkv.shape
    r, c = block(b, t, h)
    groups, slice_of = h // c, jax.lax.dynamic_slice

    def one(index: jax.Array, found: jax.Array) -> jax.Array:
        row, head = index // groups * r, index % groups * c
        parts = _parts(slice_of(qkv, (row, 0, 0, head, 0), (r, t, 3, c, k)))
        tokens = _tokens(slice_of(rows, (row,), (r,)), slice_of(heads, (head,), (c,)), of, t)
        about = (parts, slice_of(bias, (row, 0, 0, 0), (r, 1, t, t)), seed, tokens)
        if given is None:
            return jax.lax.dynamic_update_slice(found, _joined(_mixed(*about, rate)), (row, 0, head * k))
        own = slice_of(given, (row, 0, head * k), (r, t, c * k)).reshape(r, t, c, k).swapaxes(1, 2)
        gradients = _gradients(*about, own, rate).transpose(1, 3, 0, 2, 4)
        return jax.lax.dynamic_update_slice(found, gradients, (row, 0, 0, head, 0))

    empty = jnp.zeros((b, t, h * k) if given is None else qkv.shape, qkv.dtype)
    return jax.lax.fori_loop(0, b // r * groups, one, empty)
