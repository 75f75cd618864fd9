"""The kernel body of attention/tpu.py: a grid program computes the heads of one register's lanes for one or a few rows.

The vector unit is the bottleneck. Therefore:
- Scores have the layout [keys, queries]. Sums and maxima over keys reduce over sublanes; values per query (its part of
  the hash, its maximum) are rows of lanes; only arrays of [T, K] are transposed.
- A head is selected by zeros in the other lanes of the queries (or of the gradient), and not by moving lanes: the
  matrix unit multiplies 128 lanes in the time of 64.
- Besides the output, the forward pass keeps the log-sum-exp of each query, and the dropout mask with one bit per
  weight, which takes five operations to hash and two to read. The backward pass recomputes the weights from q, k and
  the log-sum-exp.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from xlmr_flax.encoders.dropout import kept_by_halves

_MASKED = -1e30
# Queries per block of the backward pass, by bytes of a number: the matrix unit multiplies one block while the vector
# unit computes another.
_QUERIES = {2: 256, 4: 64}
_BITS = 32  # bits in a word of the dropout mask
_ROWS = 8  # sublanes of a register
_LOG2E = math.log2(math.e)


def mask_words(t: int) -> int:
    """The number of mask words for t keys, in whole registers. Bit n of word w belongs to key n * words + w."""
    return _ROWS * -(-t // (_ROWS * _BITS))


def kernel(
    seed: Any, rows: Any, heads: Any, qkv: Any, bias: Any, keys: Any, queries: Any, *more: Any,
    together: int, every_head: int, rate: float, is_backward: bool,
) -> None:  # fmt: skip
    """The kernel: one grid program. keys, queries: segments as [n, T, 1] and [n, 1, T]. more: references to the other
    operands of attention/tpu.py's `_call`, then to the results."""
    _, at_once, t, block = qkv.shape
    row, group = pl.program_id(0) * at_once, pl.program_id(1) * together
    if is_backward:  # sums over this program's rows
        more[-1][...] = jnp.zeros_like(more[-1])

    def one(i: Any, carry: None) -> None:
        q, k, v = (qkv[n, i].astype(jnp.float32) + bias[n : n + 1] for n in range(3))
        q *= np.float32((block // together) ** -0.5 * _LOG2E)  # so that the softmax can use exp2
        own = [x.astype(qkv.dtype) for x in _heads(q, together)], k.astype(qkv.dtype), v.astype(qkv.dtype)

        def is_seen(first: int, n: int) -> jax.Array:
            return queries[i, :, first : first + n] == keys[i]

        def is_kept(j: int) -> jax.Array:
            first = (rows[row + i] * every_head + heads[group + j]) * t
            query = first + jax.lax.broadcasted_iota(jnp.int32, (1, t), 1)
            return kept_by_halves(seed, query, t, rate, axis=0)

        if is_backward:
            _gradients(i, own, is_seen, rate, *more)
        else:
            _mixed(i, own, is_seen, is_kept, rate, *more)
        return carry

    jax.lax.fori_loop(0, at_once, one, None)


def _heads(x: jax.Array, together: int) -> list[jax.Array]:
    """Splits heads by masking: float32 [T, heads * K] -> one array of this shape per head, zero for all other heads."""
    if together == 1:
        return [x]
    size = x.shape[1] // together
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, x.shape[1]), 1)
    return [jnp.where((lane >= j * size) & (lane < (j + 1) * size), x, 0.0) for j in range(together)]


def _product(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
    """The product of a and b, contracted over one dimension of each, in float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        a, b, (((over[0],), (over[1],)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _mixed(
    i: Any, own: Any, is_seen: Callable[[int, int], jax.Array], is_kept: Callable[[int], jax.Array], rate: float,
    out: Any, sums: Any = None, mask: Any = None,
) -> None:  # fmt: skip
    q, k, v = own
    (t, width), outputs = k.shape, []
    every = [_product(k, one, (1, 1)) for one in q]  # [keys, queries]
    for j, scores in enumerate(every):
        scores = jnp.where(is_seen(0, t), scores, _MASKED)
        most = scores.max(0, keepdims=True)
        weights = jnp.exp2(scores - most)
        total = weights.sum(0, keepdims=True)
        if sums is not None:
            # For a query in padding, this makes the weights 0 in the backward pass.
            sums[i, 0, j : j + 1] = jnp.where(most > _MASKED, most + jnp.log2(total), -_MASKED)
        if rate:
            kept = is_kept(j)
            weights = jnp.where(kept[:t], weights, 0.0)
            if mask is not None:
                words = mask_words(t)
                mask[i, 0, j * words : (j + 1) * words] = _packed(kept, t)
        own_lanes = slice(j * (width // len(q)), (j + 1) * (width // len(q)))
        mixed = _product(v, weights.astype(v.dtype), (0, 0))[own_lanes]
        outputs.append(mixed * (1.0 / (total * np.float32(1.0 - rate))))
    out[i] = jnp.concatenate(outputs, 0).T.astype(out.dtype)


def _gradients(i: Any, own: Any, is_seen: Callable[[int, int], jax.Array], rate: float, *refs: Any) -> None:
    sums, *mask, mixed, given, out, of_bias = refs
    q, k, v = own
    t, width = k.shape
    size, words = width // len(q), mask_words(t)
    gradient = given[i].astype(jnp.float32)
    by_head = [x.astype(k.dtype) for x in _heads(gradient, len(q))]
    # Summed over the lanes of a head: the sum over keys of weight times its gradient, which softmax's gradient needs.
    shares = (gradient * mixed[i].astype(jnp.float32)).T
    queries = _QUERIES[k.dtype.itemsize]
    units = [(j, c, min(queries, t - c)) for j in range(len(q)) for c in range(0, t, queries)]
    of_q, of_k, of_v = {}, 0.0, 0.0

    def begun(j: int, c: int, n: int) -> tuple[jax.Array, jax.Array]:
        return _product(k, q[j][c : c + n], (1, 1)), _product(v, by_head[j][c : c + n], (1, 1))

    ahead = begun(*units[0])
    for number, (j, c, n) in enumerate(units):
        scores, of_weights = ahead
        if number + 1 < len(units):
            ahead = begun(*units[number + 1])
        weights = jnp.exp2(jnp.where(is_seen(c, n), scores, _MASKED) - sums[i, 0, j : j + 1, c : c + n])
        dropped = weights
        if rate:
            kept = _spread(mask[0][i, 0, j * words : (j + 1) * words, c : c + n], t)
            dropped, of_weights = _where(kept, weights), _where(kept, of_weights)
        share = shares[j * size : (j + 1) * size, c : c + n].sum(0, keepdims=True) * np.float32(1.0 - rate)
        of_scores = (weights * (of_weights - share)).astype(k.dtype)
        of_q[j, c] = _product(k, of_scores, (0, 0))[j * size : (j + 1) * size]
        of_k += _product(of_scores, q[j][c : c + n], (1, 0))
        of_v += _product(dropped.astype(v.dtype), by_head[j][c : c + n], (1, 0))
    turned = [jnp.concatenate([of_q[j, c] for j in range(len(q))], 0).T for c in range(0, t, queries)]
    factors = (size**-0.5, 1.0 / _LOG2E, 1.0)
    for n, (of_input, factor) in enumerate(zip((jnp.concatenate(turned, 0), of_k, of_v), factors, strict=True)):
        of_input *= np.float32(factor / (1.0 - rate))
        out[n, i] = of_input.astype(out.dtype)
        of_bias[0, n : n + 1] += of_input.sum(0, keepdims=True)


def _packed(kept: jax.Array, t: int) -> jax.Array:
    """Packs a mask of T keys into bits: bool [T or a few more, n] -> int32 [words, n]."""
    words = mask_words(t)
    parts = [kept[n * words : (n + 1) * words] for n in range(-(-t // words))]
    bits = [jnp.where(part, np.uint32(1 << n).astype(np.int32), 0) for n, part in enumerate(parts)]
    return functools.reduce(jnp.bitwise_or, bits)


def _spread(packed: jax.Array, t: int) -> jax.Array:
    """Unpacks a mask: int32 [words, n] -> int32 [t, n], with all bits equal to the key's bit."""
    bits = [(packed << (_BITS - 1 - n)) >> (_BITS - 1) for n in range(-(-t // packed.shape[0]))]
    return jnp.concatenate(bits, 0)[:t]


def _where(kept: jax.Array, x: jax.Array) -> jax.Array:
    """float32 x where all bits of `kept` are set, 0 where none is. This is cheaper than a boolean mask."""
    return pltpu.bitcast(pltpu.bitcast(x, jnp.int32) & kept, jnp.float32)
