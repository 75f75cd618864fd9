"""Attention within segments as a Pallas kernel for TPUs: scores stay on the chip, dropout's mask is hashed there.

For rows of up to 512 tokens a whole [T, T] of scores fits into VMEM, so that neither pass needs the running maxima of
flash attention (Dao et al. 2022), and the backward pass computes scores and weights again from q, k and v
alone: nothing else is kept. A program of the grid takes the heads that fill the 128 lanes of a register, of one or a
few rows, out of [3, B, T, H * K] as the projection wrote it; no transposed copy is made on either pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from xlmr_flax.models.dropout import drop_factor
from xlmr_flax.models.place import HEADS, ROWS, Place

MASKED = -1e30
LANES = 128
_TOKENS = 512  # of a program of the grid, at least, where rows are shorter: starting one costs time
# Of a score, by (backward, with dropout): as the code below is written, an exponential counted as six.
_VECTOR_OPS = {(False, False): 12, (False, True): 24, (True, False): 19, (True, True): 32}
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
    *,
    heads: int,
    rate: float,
    place: Place,
    interpret: bool,
) -> jax.Array:
    """qkv [3, B, T, H * K], bias float32 [3, H * K] added to it, segments int32 [B, T], seed uint32 [2] of the dropout
    mask -> [B, T, H * K].

    The mask is `models/dropout.py`'s of weights [B, H, T, T], wherever on a mesh a row and head are computed.
    """
    seed = jax.lax.bitcast_convert_type(seed, jnp.int32)
    return _attention(qkv, bias, segments, seed, (heads, rate, interpret), place)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, static: Static, place: Place
) -> jax.Array:
    run = place.mapped(functools.partial(_call, static, None), _INPUTS[:6], (ROWS, None, HEADS))
    return run(*_operands(qkv, bias, segments, seed, static[0]))


def _forward(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, static: Static, place: Place
) -> Any:
    return _attention(qkv, bias, segments, seed, static, place), (qkv, bias, segments, seed)


def _backward(static: Static, place: Place, kept: Any, gradient: jax.Array) -> Any:
    def call(*arrays: jax.Array) -> Any:
        return _call(static, arrays[6], *arrays[:6])

    run = place.mapped(call, _INPUTS, ((None, ROWS, None, HEADS), (ROWS, None, HEADS)))
    qkv, bias, segments, seed = kept
    of_qkv, of_bias = run(*_operands(qkv, bias, segments, seed, static[0]), gradient)
    return of_qkv, of_bias.sum(0), None, None


_attention.defvjp(_forward, _backward)

# Numbers of rows and heads are arrays, so that a device that has a part of them knows which: the mask depends on them.
_INPUTS = (
    (None, ROWS, None, HEADS),  # qkv
    (None, HEADS),  # its bias
    (ROWS, None),  # segments
    (None,),  # seed
    (ROWS,),  # numbers of rows
    (HEADS,),  # and of heads
    (ROWS, None, HEADS),  # gradient
)


def _operands(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, heads: int
) -> tuple[jax.Array, ...]:
    rows = jnp.arange(qkv.shape[1], dtype=jnp.int32)
    return qkv, bias, segments, seed, rows, jnp.arange(heads, dtype=jnp.int32)


def _call(
    static: Static,
    gradient: jax.Array | None,
    qkv: jax.Array,
    bias: jax.Array,
    segments: jax.Array,
    seed: jax.Array,
    rows: jax.Array,
    heads: jax.Array,
) -> Any:
    """The kernel on one device's rows and heads: the mixed values [B, T, D]; or, given their gradient, those of qkv and
    of the bias, the latter of each program's rows by itself, float32 [programs, 3, D]."""
    every_head, rate, interpret = static
    (_, b, t, width), h = qkv.shape, heads.shape[0]
    together = heads_together(h, width // h)
    at_once = next(n for n in range(max(1, min(b, _TOKENS // t)), 0, -1) if b % n == 0)
    block = together * (width // h)

    def own(*lead: int) -> pl.BlockSpec:
        zeros = (0,) * len(lead)
        return pl.BlockSpec((*lead, at_once, t, block), lambda i, j, *_: (*zeros, i, 0, j))

    in_specs = [
        own(3),
        pl.BlockSpec((3, block), lambda i, j, *_: (0, j)),
        pl.BlockSpec((at_once, 1, t), lambda i, j, *_: (i, 0, 0)),
        pl.BlockSpec((at_once, t, 1), lambda i, j, *_: (i, 0, 0)),
    ]
    operands = [qkv, bias, segments[:, None, :], segments[:, :, None]]
    out_shape: Any = jax.ShapeDtypeStruct(qkv.shape[1:], qkv.dtype)
    out_specs: Any = own()
    is_backward = gradient is not None
    if gradient is not None:
        in_specs.append(own())
        operands.append(gradient)
        sums = jax.ShapeDtypeStruct((b // at_once, 3, width), jnp.float32)
        out_shape = (jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), sums)
        out_specs = (own(3), pl.BlockSpec((1, 3, block), lambda i, j, *_: (i, 0, j)))
    kernel = functools.partial(
        _kernel, together=together, every_head=every_head, rate=rate, body=_gradients if is_backward else _mixed
    )
    return pl.pallas_call(
        kernel,
        out_shape=out_shape,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(b // at_once, h // together),
            in_specs=in_specs,
            out_specs=out_specs,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel'), vmem_limit_bytes=_VMEM),
        cost_estimate=_cost(qkv, h, is_backward),
        metadata={'vector_ops': str(_VECTOR_OPS[is_backward, rate > 0] * b * h * t * t)},
        interpret=interpret,
        name='attention_gradients' if is_backward else 'attention',
    )(seed, rows, heads, *operands)


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
    """One program: `body` for each of its rows' heads. keys, queries: segments as [n, 1, T] and as [n, T, 1]."""
    _, at_once, t, block = qkv.shape
    size = block // together
    row, group = pl.program_id(0) * at_once, pl.program_id(1) * together
    if len(more) == 3:  # sums over this program's rows
        more[2][...] = jnp.zeros_like(more[2])

    def one(i: Any, carry: None) -> None:
        is_seen = (queries[i] == keys[i]) & (keys[i] > 0)  # [T, T]
        for j in range(together):
            first = (rows[row + i] * every_head + heads[group + j]) * t
            lanes = slice(j * size, (j + 1) * size)
            own = [(qkv[n, i, :, lanes] + bias[n : n + 1, lanes]).astype(qkv.dtype) for n in range(3)]
            body(own, is_seen, _factor(seed, first, rate, t), i, lanes, *more)
        return carry

    jax.lax.fori_loop(0, at_once, one, None)


def _factor(seed: Any, first: Any, rate: float, t: int) -> jax.Array | float:
    """What dropout multiplies weights [T, T] with, whose first row has that number among all rows of the model's."""
    if rate == 0.0:
        return 1.0
    row = first + jax.lax.broadcasted_iota(jnp.int32, (t, 1), 0)
    return drop_factor((seed[0], seed[1]), row, t, rate)


def _product(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
    """a and b multiplied over one dimension of each, in float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        a, b, (((over[0],), (over[1],)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _weights(q: jax.Array, k: jax.Array, is_seen: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(scaled q [T, K], weights before their division by the sum [T, T], the sums [T, 1])."""
    q = q * np.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.where(is_seen, _product(q, k, (1, 1)), MASKED)
    weights = jnp.exp(scores - scores.max(1, keepdims=True))
    return q, weights, weights.sum(1, keepdims=True)


def _mixed(own: list[jax.Array], is_seen: jax.Array, factor: Any, i: Any, lanes: slice, out: Any) -> None:
    q, k, v = own
    _, weights, total = _weights(q, k, is_seen)
    out[i, :, lanes] = (_product((weights * factor).astype(v.dtype), v, (1, 0)) / total).astype(out.dtype)


def _gradients(
    own: list[jax.Array], is_seen: jax.Array, factor: Any, i: Any, lanes: slice, given: Any, out: Any, sums: Any
) -> None:
    q, k, v = own
    q, weights, total = _weights(q, k, is_seen)
    gradient, weights = given[i, :, lanes], weights * (1.0 / total)
    of_v = _product((weights * factor).astype(v.dtype), gradient, (0, 0))
    of_weights = _product(gradient, v, (1, 1)) * factor
    of_scores = weights * (of_weights - (of_weights * weights).sum(1, keepdims=True))
    of_scores = of_scores.astype(q.dtype)
    of_q = _product(of_scores, k, (1, 0)) * np.float32(q.shape[-1] ** -0.5)
    for n, found in enumerate((of_q, _product(of_scores, q, (0, 0)), of_v)):
        out[n, i, :, lanes] = found.astype(out.dtype)
        sums[0, n : n + 1, lanes] += found.sum(0, keepdims=True)
