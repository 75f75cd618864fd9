"""The kernel bodies of attention/gpu.py, for Triton: flash attention (Dao 2023, FlashAttention-2) with hashed dropout.

A program has a block of queries (forward) or of keys (backward) and loops over the others, so that scores are never in
the memory of the device. Each step of a loop takes two blocks of keys, one of the first and one of the second half of
the row: they share the hash words of the dropout mask (encoders/dropout.py), which the backward pass computes again.

Triton takes blocks of powers of two and products over at least 16: what a row or a head lacks is masked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from xlmr_flax.encoders.dropout import half, kept_of, words_of

_MASKED = -1e30
_LOG2E = math.log2(math.e)
PARTS = (0, 1)  # the halves of a row


@dataclass(frozen=True)
class Shape:
    """Sizes of a kernel. tokens: T. size: K. every_head: H of the model, over all devices. queries, keys: rows of a
    block, powers of 2. rate: of dropout, 0 = none."""

    tokens: int
    size: int
    every_head: int
    queries: int
    keys: int
    rate: float

    @property
    def half(self) -> int:
        return half(self.tokens)

    @property
    def pairs(self) -> int:
        """Number of key blocks in a half."""
        return pl.cdiv(self.half, self.keys)

    @property
    def lanes(self) -> int:
        """Head size as Triton computes it."""
        return max(16, pl.next_power_of_2(self.size))

    @property
    def padded(self) -> int:
        """Tokens of a row with what the last blocks of queries and of keys have beyond it."""
        return max(pl.cdiv(self.tokens, self.queries) * self.queries, self.half + self.pairs * self.keys)


@dataclass(frozen=True)
class _Refs:
    """The references of a kernel that all of its blocks read."""

    shape: Shape
    seed: Any
    segments: Any
    qkv: Any
    bias: Any
    number: jax.Array  # int32: number of this row and head's first query among all rows of weights

    def places(self, start: Any, count: int, end: int) -> tuple[jax.Array, jax.Array]:
        """int32 [count]: tokens from `start` on, and which of them are before `end` and in the row."""
        place = start + jnp.arange(count, dtype=jnp.int32)
        return place, (place < end) & (place < self.shape.tokens)

    def block(self, ref: Any, start: Any, there: jax.Array, *lead: Any) -> jax.Array:
        """Rows of an array [*lead, padded, lanes]: [count, lanes], 0 where not `there` and beyond a head."""
        lane = jnp.arange(self.shape.lanes, dtype=jnp.int32) < self.shape.size
        mask = there[:, None] & lane[None]
        return triton.load(ref.at[*lead, pl.ds(start, there.shape[0]), :], mask=mask, other=0)

    def bias_of(self, n: int) -> jax.Array:
        """float32 [lanes]: the bias of queries (n = 0), keys or values, 0 beyond a head."""
        lane = jnp.arange(self.shape.lanes, dtype=jnp.int32) < self.shape.size
        return triton.load(self.bias.at[jnp.int32(n), :], mask=lane, other=0)

    def vectors(self, n: int, start: Any, there: jax.Array) -> jax.Array:
        """Queries (n = 0), keys or values with their bias, in the dtype of qkv: [count, lanes]."""
        x = self.block(self.qkv, start, there, jnp.int32(n)).astype(jnp.float32) + self.bias_of(n)[None]
        # Beyond the row, the bias alone would be left.
        return jnp.where(there[:, None], x, 0.0).astype(self.qkv.dtype)

    def scores(self, a: jax.Array, b: jax.Array, is_seen: jax.Array) -> jax.Array:
        """Scores for a softmax with exp2, a @ b.T, scaled in float32: scaled queries would be rounded again."""
        return jnp.where(is_seen, _product(a, b.T) * np.float32(self.shape.size**-0.5 * _LOG2E), _MASKED)

    def segments_of(self, start: Any, there: jax.Array, padding: int) -> jax.Array:
        """int32 [count]: segment numbers, `padding` for tokens of none."""
        found = triton.load(self.segments.at[pl.ds(start, there.shape[0])], mask=there, other=0)
        return jnp.where(found > 0, found, padding)

    def words(self, queries: jax.Array, keys: jax.Array) -> jax.Array | None:
        """Hash words for queries and numbers of keys in a half, int32 arrays that broadcast; None without dropout."""
        return words_of(self.seed, self.number + queries, keys) if self.shape.rate else None

    def kept(self, words: jax.Array | None, part: int, x: jax.Array) -> jax.Array:
        """x where dropout keeps a weight, else 0."""
        return x if words is None else jnp.where(kept_of(words, part, self.shape.rate), x, 0.0)


def _refs(shape: Shape, seed: Any, rows: Any, heads: Any, segments: Any, qkv: Any, bias: Any) -> _Refs:
    number = (rows[0] * shape.every_head + heads[0]) * shape.tokens
    return _Refs(shape, seed, segments, qkv, bias, number)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b in float32; float32 operands are not rounded to TF32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def forward(
    seed: Any, rows: Any, heads: Any, segments: Any, qkv: Any, bias: Any, out: Any, *sums: Any, shape: Shape
) -> None:
    """Forward pass of one block of queries. sums: the reference for log-sum-exps, or nothing."""
    refs = _refs(shape, seed, rows, heads, segments, qkv, bias)
    start = pl.program_id(0) * shape.queries
    query, there = refs.places(start, shape.queries, shape.tokens)
    q, own = refs.vectors(0, start, there), refs.segments_of(start, there, -1)

    def step(j: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        mixed, most, total = carry
        first = j * shape.keys
        number, in_half = refs.places(first, shape.keys, shape.half)
        words = refs.words(query[:, None], number[None])
        for part in PARTS:
            begin = first + part * shape.half
            seen = refs.places(begin, shape.keys, shape.tokens)[1] & in_half
            k, v = refs.vectors(1, begin, seen), refs.vectors(2, begin, seen)
            scores = refs.scores(q, k, own[:, None] == refs.segments_of(begin, seen, 0)[None])
            higher = jnp.maximum(most, scores.max(1))
            weights, old = jnp.exp2(scores - higher[:, None]), jnp.exp2(most - higher)
            total = total * old + weights.sum(1)
            mixed = mixed * old[:, None] + _product(refs.kept(words, part, weights).astype(v.dtype), v)
            most = higher
        return mixed, most, total

    begin = (
        jnp.zeros((shape.queries, shape.lanes), jnp.float32),
        jnp.full((shape.queries,), _MASKED, jnp.float32),
        jnp.zeros((shape.queries,), jnp.float32),
    )
    mixed, most, total = jax.lax.fori_loop(0, shape.pairs, step, begin)
    mixed = mixed / (total * np.float32(1.0 - shape.rate))[:, None]
    lane = jnp.arange(shape.lanes, dtype=jnp.int32) < shape.size
    triton.store(out, mixed.astype(out.dtype), mask=there[:, None] & lane[None])
    if sums:
        # For a query in padding, this makes the weights 0 in the backward pass.
        kept = jnp.where(most > _MASKED, most + jnp.log2(total), -_MASKED)
        triton.store(sums[0], kept, mask=there)


def shares(
    seed: Any, rows: Any, heads: Any, segments: Any, qkv: Any, bias: Any, sums: Any, given: Any, out: Any,
    *, shape: Shape,
) -> None:  # fmt: skip
    """The sum over keys of weight times its gradient, float32, for one block of queries: softmax's gradient needs it.

    The usual formula, the output times its gradient, has the rounding of a bfloat16 output. Where a weight is near 1,
    the difference from this sum cancels, and the error of the gradients of queries and keys was twice as large.
    """
    refs = _refs(shape, seed, rows, heads, segments, qkv, bias)
    start = pl.program_id(0) * shape.queries
    query, there = refs.places(start, shape.queries, shape.tokens)
    q, own = refs.vectors(0, start, there), refs.segments_of(start, there, -1)
    gradient = refs.block(given, start, there)
    total = triton.load(sums.at[pl.ds(start, shape.queries)], mask=there, other=-_MASKED)

    def step(j: Any, found: jax.Array) -> jax.Array:
        for weights, of_weights, _ in _of_pair(refs, j, query, q, own, gradient, total):
            found += (weights * of_weights).sum(1)
        return found

    triton.store(out, jax.lax.fori_loop(0, shape.pairs, step, jnp.zeros((shape.queries,), jnp.float32)), mask=there)


def _of_pair(
    refs: _Refs, j: Any, query: jax.Array, q: jax.Array, own: jax.Array, gradient: jax.Array, total: jax.Array
) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """Yields (weights, their gradients times 1 - rate, keys) of the pair j of key blocks, for a block of queries."""
    shape = refs.shape
    number, in_half = refs.places(j * shape.keys, shape.keys, shape.half)
    words = refs.words(query[:, None], number[None])
    for part in PARTS:
        start = j * shape.keys + part * shape.half
        seen = refs.places(start, shape.keys, shape.tokens)[1] & in_half
        k, v = refs.vectors(1, start, seen), refs.vectors(2, start, seen)
        is_seen = own[:, None] == refs.segments_of(start, seen, 0)[None]
        weights = jnp.exp2(refs.scores(q, k, is_seen) - total[:, None])
        yield weights, refs.kept(words, part, _product(gradient, v.T)), k


def backward(
    seed: Any, rows: Any, heads: Any, segments: Any, qkv: Any, bias: Any, sums: Any, given: Any, share: Any, out: Any,
    *, shape: Shape,
) -> None:  # fmt: skip
    """Backward pass: gradients of keys and values of one block of each half, then of the queries of these blocks."""
    refs = _refs(shape, seed, rows, heads, segments, qkv, bias)
    first = pl.program_id(0) * shape.keys
    number, in_half = refs.places(first, shape.keys, shape.half)
    lane = jnp.arange(shape.lanes, dtype=jnp.int32) < shape.size
    loss = 1.0 / (1.0 - shape.rate)

    def about(start: Any, there: jax.Array) -> tuple[jax.Array, ...]:
        """What both loops need of queries: the queries, output's gradient, log-sum-exps, shares, segments."""
        gradient, place = refs.block(given, start, there), pl.ds(start, there.shape[0])
        total = triton.load(sums.at[place], mask=there, other=-_MASKED)
        found = triton.load(share.at[place], mask=there, other=0)
        return refs.vectors(0, start, there), gradient, total, found, refs.segments_of(start, there, -1)

    def put(n: int, begin: Any, there: jax.Array, x: jax.Array, factor: float) -> None:
        x = (x * np.float32(factor)).astype(out.dtype)
        triton.store(out.at[jnp.int32(n), pl.ds(begin, shape.keys), :], x, mask=there[:, None] & lane[None])

    blocks = []
    for part in PARTS:
        begin = first + part * shape.half
        there = refs.places(begin, shape.keys, shape.tokens)[1] & in_half
        blocks.append((begin, there, refs.vectors(1, begin, there), refs.vectors(2, begin, there)))

    def of_keys(i: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        start = i * shape.queries
        query, there = refs.places(start, shape.queries, shape.tokens)
        q, gradient, total, found, own = about(start, there)
        words = refs.words(query[None], number[:, None])
        results = []
        for part, (begin, seen, k, v) in enumerate(blocks):
            scores = refs.scores(k, q, refs.segments_of(begin, seen, 0)[:, None] == own[None])  # [keys, queries]
            weights = jnp.exp2(scores - total[None])
            of_weights = refs.kept(words, part, _product(v, gradient.T))
            of_scores = (weights * (of_weights - found[None])).astype(q.dtype)
            dropped = refs.kept(words, part, weights).astype(q.dtype)
            results += [carry[2 * part] + _product(of_scores, q), carry[2 * part + 1] + _product(dropped, gradient)]
        return tuple(results)

    zeros = jnp.zeros((shape.keys, shape.lanes), jnp.float32)
    sums_of = jax.lax.fori_loop(0, pl.cdiv(shape.tokens, shape.queries), of_keys, (zeros,) * 4)
    for part, (begin, there, _, _) in enumerate(blocks):
        put(1, begin, there, sums_of[2 * part], loss * shape.size**-0.5)
        put(2, begin, there, sums_of[2 * part + 1], loss)

    for begin, there, _, _ in blocks:
        _of_queries(refs, begin, there, about(begin, there), put, loss)


def _of_queries(refs: _Refs, begin: Any, there: jax.Array, about: tuple[jax.Array, ...], put: Any, loss: Any) -> None:
    """The gradient of one block of queries.

    The gradients of a query's scores sum to 0, so that the bias of the keys has no part in the sum over keys. Rounded
    to bfloat16 they do not: what the bias contributes by that is subtracted. It was a third of the error.
    """
    shape, (q, gradient, total, share, own) = refs.shape, about
    query = begin + jnp.arange(shape.keys, dtype=jnp.int32)

    def step(j: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        of_q, rest = carry
        for weights, of_weights, k in _of_pair(refs, j, query, q, own, gradient, total):
            of_scores = (weights * (of_weights - share[:, None])).astype(k.dtype)
            of_q += _product(of_scores, k)
            rest += of_scores.astype(jnp.float32).sum(1)
        return of_q, rest

    begins = (jnp.zeros((shape.keys, shape.lanes), jnp.float32), jnp.zeros((shape.keys,), jnp.float32))
    of_q, rest = jax.lax.fori_loop(0, shape.pairs, step, begins)
    of_q -= rest[:, None] * refs.bias_of(1)[None]
    put(0, begin, there, of_q, shape.size**-0.5 * loss)
