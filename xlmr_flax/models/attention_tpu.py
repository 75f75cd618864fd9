"""Attention within segments as a Pallas kernel for TPUs: scores stay on the chip, dropout's mask is hashed there.

For rows of up to 512 tokens a whole [T, T] of scores fits into VMEM, so that neither pass needs the running maxima of
flash attention (Dao et al. 2022). A program of the grid takes the heads that fill the 128 lanes of a register, of one
or a few rows, out of [3, B, T, H * K] as the projection wrote it; no transposed copy is made on either pass.

What the vector unit has to do decides the time, so that
- scores lie as [keys, queries]: sums and maxima over keys go down the sublanes, what belongs to a query (its part of
  the hash, its maximum) is a row of lanes, and only arrays of [T, K] are transposed;
- a head is taken out of a register's lanes by zeros in queries, or in the gradient, and not by moving lanes: the matrix
  unit multiplies 128 lanes in the time of 64;
- the forward pass keeps, beside the mixed values, the logarithm of each query's sum, and dropout's mask as a bit for
  each weight, hashed in eight operations and read in two. The backward pass computes weights from q, k and these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from xlmr_flax.models.dropout import kept_at
from xlmr_flax.models.place import HEADS, ROWS, Place

MASKED = -1e30
WORK = ('vector_ops', 'integer_products')  # that a kernel says it has, the latter among the former
LANES = 128
_TOKENS = 512  # of a program of the grid, at least, where rows are shorter: starting one costs time
_QUERIES = {2: 256, 4: 64}  # at once in a backward pass, by bytes of a number: some are multiplied while others wait
_BITS = 32  # of a word of dropout's mask
_ROWS = 8  # of a register
_LOG2E = math.log2(math.e)
# Of a score, by (backward, with dropout), as the compiler's schedule for a v6e has them.
_WORK = {(False, False): (8.5, 0), (False, True): (19, 2), (True, False): (10.5, 0), (True, True): (14.5, 0)}
_VMEM = 14 << 20  # bytes that a program may use; a v4's core has 16 MiB, and the compiler uses some

Static = tuple[int, float, bool]  # heads of the model, dropout's rate (0: none), interpreted


def heads_together(heads: int, size: int) -> int:
    """How many heads a program takes: those of one register's lanes, or all where these cannot be cut so."""
    together = max(1, LANES // size)
    return together if heads % together == 0 and together * size % LANES == 0 else heads


def attention(
    qkv: jax.Array,
    bias: jax.Array,
    segments: jax.Array,
    seed: jax.Array,
    weight: jax.Array | None,
    *,
    heads: int,
    rate: float,
    place: Place,
    interpret: bool,
) -> jax.Array:
    """qkv [3, B, T, H * K], bias float32 [3, H * K] added to it, segments int32 [B, T], seed uint32 [2] of the dropout
    mask -> the values mixed, [B, T, H * K], or, given a weight [H * K, D], their product with it, [B, T, D].

    The mask is `models/dropout.py`'s of weights [B, H, T, T], wherever on a mesh a row and head are computed. Under the
    names in KEPT, jax.checkpoint finds what the backward pass reads beside qkv; the product is computed here because
    its gradient reads the same mixed values. From queries in padding no gradient goes back.
    """
    seed = jax.lax.bitcast_convert_type(seed, jnp.int32)
    return _attention(qkv, bias, segments, seed, weight, (heads, rate, interpret), place)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attention(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, weight: jax.Array | None,
    static: Static, place: Place,
) -> jax.Array:  # fmt: skip
    run = place.mapped(functools.partial(_call, static, False, ()), _INPUTS, (_MIXED,))
    return _times(run(*_operands(qkv, bias, segments, seed, static[0]))[0], weight)


def _forward(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, weight: jax.Array | None,
    static: Static, place: Place,
) -> Any:  # fmt: skip
    outputs = (_MIXED, _OF_HEADS, _OF_HEADS)[: 3 if static[1] else 2]
    run = place.mapped(functools.partial(_call, static, True, ()), _INPUTS, outputs)
    found = run(*_operands(qkv, bias, segments, seed, static[0]))
    kept = [checkpoint_name(x, name) for x, name in zip(found, KEPT, strict=False)]
    return _times(found[0], weight), (qkv, bias, segments, seed, weight, *kept)


def _backward(static: Static, place: Place, kept: Any, gradient: jax.Array) -> Any:
    qkv, bias, segments, seed, weight, mixed, *more = kept
    of_weight = None
    if weight is not None:
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_weight = mixed.reshape(-1, weight.shape[0]).T @ flat
        gradient = (flat @ weight.T).reshape(mixed.shape)

    def call(*arrays: jax.Array) -> Any:
        return _call(static, True, arrays[len(_INPUTS) :], *arrays[: len(_INPUTS)])

    inputs = (*_INPUTS, *[_OF_HEADS] * len(more), _MIXED, _MIXED)
    run = place.mapped(call, inputs, ((None, ROWS, None, HEADS), _MIXED))
    of_qkv, of_bias = run(*_operands(qkv, bias, segments, seed, static[0]), *more, mixed, gradient)
    return of_qkv, of_bias.sum(0), None, None, of_weight


_attention.defvjp(_forward, _backward)

# Numbers of rows and heads are arrays, so that a device that has a part of them knows which: the mask depends on them.
_INPUTS = (
    (None, ROWS, None, HEADS),  # qkv
    (None, HEADS),  # its bias
    (ROWS, None),  # segments
    (None,),  # seed
    (ROWS,),  # numbers of rows
    (HEADS,),  # and of heads
)
_MIXED = (ROWS, None, HEADS)  # mixed values, their gradient; sums of programs
_OF_HEADS = (ROWS, HEADS, None, None)  # what the forward pass keeps of each program's heads
KEPT = ('mixed', 'attention_sums', 'attention_mask')


def _times(x: jax.Array, weight: jax.Array | None) -> jax.Array:
    return x if weight is None else (x.reshape(-1, weight.shape[0]) @ weight).reshape(*x.shape[:-1], -1)


def _operands(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, heads: int
) -> tuple[jax.Array, ...]:
    rows = jnp.arange(qkv.shape[1], dtype=jnp.int32)
    return qkv, bias, segments, seed, rows, jnp.arange(heads, dtype=jnp.int32)


def _call(
    static: Static,
    keeps: bool,
    of_backward: Sequence[jax.Array],
    qkv: jax.Array,
    bias: jax.Array,
    segments: jax.Array,
    seed: jax.Array,
    rows: jax.Array,
    heads: jax.Array,
) -> Any:
    """The kernel on one device's rows and heads. Forward: the mixed values [B, T, D] and, if it keeps anything,
    logarithms of sums float32 [B, groups of heads, heads of one, T] and dropout's mask int32 [B, groups, words, T].
    Backward, given the latter, the mixed values and their gradient: the gradients of qkv and of the bias, the latter of
    each program's rows by itself, float32 [programs, 3, D]."""
    every_head, rate, interpret = static
    (_, b, t, width), h, is_backward = qkv.shape, heads.shape[0], bool(of_backward)
    together = heads_together(h, width // h)
    at_once = next(n for n in range(max(1, min(b, _TOKENS // t)), 0, -1) if b % n == 0)
    block, groups = together * (width // h), h // together

    def own(*lead: int) -> pl.BlockSpec:
        zeros = (0,) * len(lead)
        return pl.BlockSpec((*lead, at_once, t, block), lambda i, j, *_: (*zeros, i, 0, j))

    def of_heads(n: int) -> pl.BlockSpec:
        return pl.BlockSpec((at_once, 1, n, t), lambda i, j, *_: (i, j, 0, 0))

    kept = [(together, jnp.float32), (together * _words(t), jnp.int32)][: (2 if rate else 1) if keeps else 0]
    specs = [of_heads(n) for n, _ in kept]
    in_specs = [
        own(3),
        pl.BlockSpec((3, block), lambda i, j, *_: (0, j)),
        pl.BlockSpec((at_once, t, 1), lambda i, j, *_: (i, 0, 0)),
        pl.BlockSpec((at_once, 1, t), lambda i, j, *_: (i, 0, 0)),
    ]
    # Queries in padding have a number that no key has.
    operands = [qkv, bias, segments[:, :, None], jnp.where(segments > 0, segments, -1)[:, None, :], *of_backward]
    if is_backward:
        in_specs += [*specs, own(), own()]
        sums = jax.ShapeDtypeStruct((b // at_once, 3, width), jnp.float32)
        out_shape: Any = (jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), sums)
        out_specs: Any = (own(3), pl.BlockSpec((1, 3, block), lambda i, j, *_: (i, 0, j)))
    else:
        shapes = [jax.ShapeDtypeStruct((b, groups, n, t), dtype) for n, dtype in kept]
        out_shape = (jax.ShapeDtypeStruct(qkv.shape[1:], qkv.dtype), *shapes)
        out_specs = (own(), *specs)
    body = _gradients if is_backward else _mixed
    return pl.pallas_call(
        functools.partial(_kernel, together=together, every_head=every_head, rate=rate, body=body),
        out_shape=out_shape,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3, grid=(b // at_once, groups), in_specs=in_specs, out_specs=out_specs
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel'), vmem_limit_bytes=_VMEM),
        cost_estimate=_cost(qkv, h, is_backward),
        metadata={k: str(round(n * b * h * t * t)) for k, n in zip(WORK, _WORK[is_backward, rate > 0], strict=True)},
        interpret=interpret,
        name='attention_gradients' if is_backward else 'attention',
    )(seed, rows, heads, *operands)


def _words(t: int) -> int:
    """Words with a bit for each of t keys, in whole registers: bit n of word w is of key n * words + w."""
    return _ROWS * -(-t // (_ROWS * _BITS))


def _cost(qkv: jax.Array, heads: int, is_backward: bool) -> pl.CostEstimate:
    """A product over fewer than 128 takes the matrix unit as long as one over 128."""
    _, b, t, width = qkv.shape
    products, moved = (5, 7) if is_backward else (2, 4)
    return pl.CostEstimate(
        flops=products * 2 * b * heads * t * t * max(LANES, width // heads),
        bytes_accessed=moved * b * t * width * qkv.dtype.itemsize,
        transcendentals=b * heads * t * t,
    )


def _kernel(
    seed: Any, rows: Any, heads: Any, qkv: Any, bias: Any, keys: Any, queries: Any, *more: Any,
    together: int, every_head: int, rate: float, body: Callable[..., None],
) -> None:  # fmt: skip
    """One program: `body` for each of its rows. keys, queries: segments as [n, T, 1] and as [n, 1, T]."""
    _, at_once, t, block = qkv.shape
    row, group = pl.program_id(0) * at_once, pl.program_id(1) * together
    if body is _gradients:  # sums over this program's rows
        more[-1][...] = jnp.zeros_like(more[-1])

    def one(i: Any, carry: None) -> None:
        q, k, v = (qkv[n, i].astype(jnp.float32) + bias[n : n + 1] for n in range(3))
        q *= np.float32((block // together) ** -0.5 * _LOG2E)  # scores are those of powers of two
        own = [x.astype(qkv.dtype) for x in _heads(q, together)], k.astype(qkv.dtype), v.astype(qkv.dtype)

        def is_seen(first: int, n: int) -> jax.Array:
            return queries[i, :, first : first + n] == keys[i]

        def is_kept(j: int) -> jax.Array:
            first = (rows[row + i] * every_head + heads[group + j]) * t
            words = _words(t)
            shape = (words * -(-t // words), t)  # more than t keys where the last bits of words have none
            query = first + jax.lax.broadcasted_iota(jnp.int32, (1, t), 1)
            return kept_at((seed[0], seed[1]), query, jax.lax.broadcasted_iota(jnp.int32, shape, 0), rate)

        body(i, own, is_seen, is_kept, rate, *more)
        return carry

    jax.lax.fori_loop(0, at_once, one, None)


def _heads(x: jax.Array, together: int) -> list[jax.Array]:
    """float32 [T, heads * K] -> as many of that shape, with zeros for all heads but one."""
    if together == 1:
        return [x]
    size = x.shape[1] // together
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, x.shape[1]), 1)
    return [jnp.where((lane >= j * size) & (lane < (j + 1) * size), x, 0.0) for j in range(together)]


def _product(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
    """a and b multiplied over one dimension of each, in float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        a, b, (((over[0],), (over[1],)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _mixed(
    i: Any, own: Any, is_seen: Callable[..., jax.Array], is_kept: Callable[..., jax.Array], rate: float,
    out: Any, sums: Any = None, mask: Any = None,
) -> None:  # fmt: skip
    q, k, v = own
    (t, width), found = k.shape, []
    every = [_product(k, one, (1, 1)) for one in q]  # [keys, queries]
    for j, scores in enumerate(every):
        scores = jnp.where(is_seen(0, t), scores, MASKED)
        most = scores.max(0, keepdims=True)
        weights = jnp.exp2(scores - most)
        total = weights.sum(0, keepdims=True)
        if sums is not None:
            # A query in padding gets no weights in the backward pass.
            sums[i, 0, j : j + 1] = jnp.where(most > MASKED, most + jnp.log2(total), -MASKED)
        if rate:
            kept = is_kept(j)
            weights = jnp.where(kept[:t], weights, 0.0)
            if mask is not None:
                words = _words(t)
                mask[i, 0, j * words : (j + 1) * words] = _packed(kept, words)
        own_lanes = slice(j * (width // len(q)), (j + 1) * (width // len(q)))
        mixed = _product(v, weights.astype(v.dtype), (0, 0))[own_lanes]
        found.append(mixed * (1.0 / (total * np.float32(1.0 - rate))))
    out[i] = jnp.concatenate(found, 0).T.astype(out.dtype)


def _gradients(
    i: Any, own: Any, is_seen: Callable[..., jax.Array], is_kept: Callable[..., jax.Array], rate: float, *refs: Any
) -> None:  # fmt: skip
    sums, *mask, mixed, given, out, of_bias = refs
    del is_kept
    q, k, v = own
    t, width = k.shape
    size, words = width // len(q), _words(t)
    gradient = given[i].astype(jnp.float32)
    by_head = [x.astype(k.dtype) for x in _heads(gradient, len(q))]
    shares = (gradient * mixed[i].astype(jnp.float32)).T  # of which a head's sum is that of weights times theirs
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
        weights = jnp.exp2(jnp.where(is_seen(c, n), scores, MASKED) - sums[i, 0, j : j + 1, c : c + n])
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
    for n, (found, factor) in enumerate(zip((jnp.concatenate(turned, 0), of_k, of_v), factors, strict=True)):
        found *= np.float32(factor / (1.0 - rate))
        out[n, i] = found.astype(out.dtype)
        of_bias[0, n : n + 1] += found.sum(0, keepdims=True)


def _packed(kept: jax.Array, words: int) -> jax.Array:
    """bool [bits * words, T] -> int32 [words, T]."""
    parts = [kept[n * words : (n + 1) * words] for n in range(kept.shape[0] // words)]
    bits = [jnp.where(part, np.uint32(1 << n).astype(np.int32), 0) for n, part in enumerate(parts)]
    return functools.reduce(jnp.bitwise_or, bits)


def _spread(packed: jax.Array, t: int) -> jax.Array:
    """int32 [words, n] -> int32 [t, n]: all bits as the key's."""
    bits = [(packed << (_BITS - 1 - n)) >> (_BITS - 1) for n in range(-(-t // packed.shape[0]))]
    return jnp.concatenate(bits, 0)[:t]


def _where(kept: jax.Array, x: jax.Array) -> jax.Array:
    """float32 x where all bits of `kept` are set, 0 where none is: a boolean would cost more."""
    return pltpu.bitcast(pltpu.bitcast(x, jnp.int32) & kept, jnp.float32)
