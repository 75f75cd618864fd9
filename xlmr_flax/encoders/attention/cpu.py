"""Attention for XLA:CPU: products in shapes for which XLA uses its fast matmul, and scores computed in blocks.

The scores of a batch do not fit into a core's cache, so that every pass over them (bias, exponential, sum, dropout, and
the same again in the backward pass) reads main memory. So a loop processes as many rows, or heads of one row, as fit.
Its backward pass recomputes the weights of a block (as Dao et al. 2022, FlashAttention, section 3.1). Batches that are
little larger than a block are computed without a loop.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xlmr_flax.encoders.attention.reference import exponentials
from xlmr_flax.encoders.dropout import kept_in_rows
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Constrain, Dims

MOST_SCORES = 1 << 20  # most scores in a block: 4 MiB of float32
_NO_LOOP = 2 << 20  # most scores in a batch that is computed without a loop


def cpu_attention(qkv: jax.Array, bias: jax.Array, seed: jax.Array, rate: float, place: Constrain) -> jax.Array:
    """Attention in blocks: qkv [B, T, 3, H, K] (queries, keys, values) -> [B, T, H * K].

    bias: float32 [B, 1, T, T], 0 for visible tokens and very low for the others. seed: of `seed_of`. rate: of dropout
    on the normalised weights; 0 = none.
    """
    b, t, _, h, _ = qkv.shape
    if b * h * t * t <= _NO_LOOP:
        return _joined(_mixed(_parts(qkv), bias, seed, _tokens(jnp.arange(b), jnp.arange(h), h, t), rate))
    return _blocked(qkv, bias, seed, rate, place)


def block(b: int, t: int, h: int) -> tuple[int, int]:
    """The block size (rows, heads) for a batch [b, t] with h heads: whole rows if one fits, else heads of one row."""

    def most(count: int, scores: int) -> int:
        return next(n for n in range(count, 0, -1) if count % n == 0 and (n == 1 or n * scores <= MOST_SCORES))

    return (most(b, h * t * t), h) if h * t * t <= MOST_SCORES else (1, most(h, t * t))


def _parts(qkv: jax.Array) -> jax.Array:
    """Splits queries, keys and values: [B, T, 3, H, K] -> [3, B, H, T, K]."""
    return qkv.transpose(2, 0, 3, 1, 4)


def _joined(mixed: jax.Array) -> jax.Array:
    """Joins the heads: [B, H, T, K] -> [B, T, H * K]."""
    return mixed.swapaxes(1, 2).reshape(mixed.shape[0], mixed.shape[2], -1)


def _tokens(rows: jax.Array, heads: jax.Array, of: int, t: int) -> jax.Array:
    """Row numbers and head numbers -> int32 [rows, heads, t, 1]: the number of each query in the whole batch.

    The dropout mask is a function of these numbers. of: number of heads in all. t: tokens per row.
    """
    return ((rows[:, None] * of + heads)[..., None] * t + jnp.arange(t))[..., None].astype(jnp.int32)


def _weights(q: jax.Array, k: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unnormalised attention weights: q, k [B, H, T, K] -> `exponentials` of their scaled scores."""
    return exponentials((q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)) @ k.swapaxes(2, 3), bias)


def _dropped(weights: jax.Array, seed: jax.Array, tokens: jax.Array, rate: float) -> jax.Array:
    if rate == 0.0:
        return weights
    # jnp.where instead of a product with 0: XLA:CPU compiles it to a faster loop.
    kept = kept_in_rows(seed, tokens, weights.shape[-1], rate)
    return jnp.where(kept, weights * jnp.float32(1.0 / (1.0 - rate)), jnp.float32(0.0))


def _mixed(parts: jax.Array, bias: jax.Array, seed: jax.Array, tokens: jax.Array, rate: float) -> jax.Array:
    """Attention of one block: parts [3, B, H, T, K] -> [B, H, T, K]."""
    weights, total = _weights(parts[0], parts[1], bias)
    dtype = parts.dtype
    return (_dropped(weights, seed, tokens, rate).astype(dtype) @ parts[2]) / total.astype(dtype)


def _gradients(
    parts: jax.Array, bias: jax.Array, seed: jax.Array, tokens: jax.Array, given: jax.Array, rate: float
) -> jax.Array:
    """The backward pass of `_mixed`: given [B, H, T, K], its output's gradient -> that of parts, [3, B, H, T, K]."""
    (q, k, v), dtype = parts, parts.dtype
    weights, total = _weights(q, k, bias)
    weights = weights * (1.0 / total)
    # These products do not transpose the largest operand: a transpose would be one more pass over memory.
    of_v = given.swapaxes(2, 3) @ _dropped(weights, seed, tokens, rate).astype(dtype)
    of_weights = _dropped((given @ v.swapaxes(2, 3)).astype(jnp.float32), seed, tokens, rate)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdims=True))
    of_scores = (of_scores * q.shape[-1] ** -0.5).astype(dtype)
    return jnp.stack([of_scores @ k, (q.swapaxes(2, 3) @ of_scores).swapaxes(2, 3), of_v.swapaxes(2, 3)])


# Row and head numbers are passed as arrays, so that under shard_map each device has the numbers of its own shard.
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
def _blocked(qkv: jax.Array, bias: jax.Array, seed: jax.Array, rate: float, place: Constrain) -> jax.Array:
    loop = partial(_loop, rate, qkv.shape[3], None)
    return place.mapped(loop, _INPUTS[:5], (ROWS, None, HEADS))(*_operands(qkv, bias, seed))


def _forward(qkv: jax.Array, bias: jax.Array, seed: jax.Array, rate: float, place: Constrain) -> Any:
    return _blocked(qkv, bias, seed, rate, place), (qkv, bias, seed)


def _backward(rate: float, place: Constrain, kept: Any, given: jax.Array) -> Any:
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
    """Computes `_mixed` block by block: [B, T, H * K]; or, with `given`, the gradient of qkv: [B, T, 3, H, K].

    rows, heads: numbers of the rows and heads on this device. of: number of heads on all devices.
    """
    b, t, _, h, k = qkv.shape
    r, c = block(b, t, h)
    groups, slice_of = h // c, jax.lax.dynamic_slice

    def one(index: jax.Array, out: jax.Array) -> jax.Array:
        row, head = index // groups * r, index % groups * c
        parts = _parts(slice_of(qkv, (row, 0, 0, head, 0), (r, t, 3, c, k)))
        tokens = _tokens(slice_of(rows, (row,), (r,)), slice_of(heads, (head,), (c,)), of, t)
        about = (parts, slice_of(bias, (row, 0, 0, 0), (r, 1, t, t)), seed, tokens)
        if given is None:
            return jax.lax.dynamic_update_slice(out, _joined(_mixed(*about, rate)), (row, 0, head * k))
        own = slice_of(given, (row, 0, head * k), (r, t, c * k)).reshape(r, t, c, k).swapaxes(1, 2)
        gradients = _gradients(*about, own, rate).transpose(1, 3, 0, 2, 4)
        return jax.lax.dynamic_update_slice(out, gradients, (row, 0, 0, head, 0))

    empty = jnp.zeros((b, t, h * k) if given is None else qkv.shape, qkv.dtype)
    return jax.lax.fori_loop(0, b // r * groups, one, empty)
