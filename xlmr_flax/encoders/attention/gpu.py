"""Attention within segments as a Pallas kernel for NVIDIA GPUs (Triton): no array of scores in the device's memory.

The forward pass keeps the log-sum-exp of each query; the backward pass computes weights and dropout mask again. A
program reads its head from the projection's output [3, B, T, H * K]; neither pass makes a transposed copy.
kernels/gpu_attention.py has the bodies.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from xlmr_flax.encoders.attention import fused
from xlmr_flax.encoders.attention.fused import Fused
from xlmr_flax.encoders.kernels.gpu_attention import Shape, backward, forward
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Dims, Place

Numbers = tuple[jax.Array, jax.Array, jax.Array]
_NUMBERS: tuple[Dims, ...] = ((ROWS, None), (ROWS,), (HEADS,))
_SUMS: Dims = (ROWS, HEADS, None)
# (queries, keys) of a block and warps of a program, by bytes of a number, for the forward and the backward pass.
_FORWARD = {2: (64, 64, 4), 4: (32, 32, 4)}
_BACKWARD = {2: (64, 64, 8), 4: (32, 16, 4)}
# Operations for a score, counted in the body, an exponential as four: without dropout, and what dropout adds. The
# backward pass computes the scores twice: for keys and values, and for queries.
_OPERATIONS = {False: (10, 6), True: (22, 14)}
_PRODUCTS = {False: 2, True: 7}


def numbers(segments: jax.Array, heads: int) -> Numbers:
    """Precomputes the argument `about` of `attention` from segments int32 [B, T].

    Returns segments [B, T], row numbers [B], head numbers [H]: which rows and heads a device's shard has, on which the
    dropout mask depends.
    """
    return segments, jnp.arange(segments.shape[0], dtype=jnp.int32), jnp.arange(heads, dtype=jnp.int32)


def attention(
    qkv: jax.Array,
    bias: jax.Array,
    about: Numbers,
    seed: jax.Array,
    weight: jax.Array | None,
    *,
    heads: int,
    rate: float,
    place: Place,
    interpret: bool,
) -> jax.Array:
    """Attention by the Triton kernel, for rows of any length; arguments and result as attention/tpu.py's `attention`.

    The dropout mask is that of encoders/dropout.py for weights [B, H, T, T].
    """
    kernel = Fused(_call, (heads, rate, interpret), _NUMBERS, (_SUMS,))
    return fused.attention(qkv, bias, about, seed, weight, kernel, place)


def block_shape(
    tokens: int, size: int, every_head: int, rate: float, itemsize: int, is_backward: bool
) -> tuple[Shape, int]:
    """The kernel's blocks for rows of `tokens` and heads of `size`, and the warps of a program. itemsize: bytes."""
    queries, keys, warps = (_BACKWARD if is_backward else _FORWARD)[itemsize]

    def block(most: int, needed: int) -> int:
        return min(most, max(16, pl.next_power_of_2(needed)))

    shape = Shape(tokens, size, every_head, block(queries, tokens), block(keys, -(-tokens // 2)), rate)
    return shape, warps


def _call(
    static: fused.Static,
    keeps: bool,
    of_backward: Sequence[jax.Array],
    qkv: jax.Array,
    bias: jax.Array,
    seed: jax.Array,
    segments: jax.Array,
    rows: jax.Array,
    heads: jax.Array,
) -> Any:
    """Runs the kernel on one device's rows and heads. Forward: returns attention's output [B, T, D] and, if `keeps`,
    the log-sum-exps float32 [B, H, T]. Backward: of_backward has these, the output and its gradient; returns the
    gradient of qkv and that of the bias, float32 [1, 3, D]."""
    every_head, rate, interpret = static
    (_, b, t, width), h = qkv.shape, heads.shape[0]
    size, is_backward = width // h, bool(of_backward)
    shape, warps = block_shape(t, size, every_head, rate, qkv.dtype.itemsize, is_backward)
    whole, lanes = shape.padded, shape.lanes

    def of_row(*lead: int) -> pl.BlockSpec:
        return pl.BlockSpec((*lead, None, whole, None, lanes), lambda i, j, n: (*[0] * len(lead), n, 0, j, 0))

    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], h, size)

    in_specs = [
        pl.BlockSpec((1, 2), lambda i, j, n: (0, 0)),
        pl.BlockSpec((1,), lambda i, j, n: (n,)),
        pl.BlockSpec((1,), lambda i, j, n: (j,)),
        pl.BlockSpec((None, whole), lambda i, j, n: (n, 0)),
        of_row(3),
        pl.BlockSpec((3, None, lanes), lambda i, j, n: (0, j, 0)),
    ]
    operands = [seed, rows, heads, segments, cut(qkv), cut(bias)]
    if is_backward:
        in_specs += [pl.BlockSpec((None, None, whole), lambda i, j, n: (n, j, 0)), of_row(), of_row()]
        operands += [of_backward[0], *map(cut, of_backward[1:])]
        blocks, out_specs = shape.pairs, [of_row(3)]
        out_shape = [jax.ShapeDtypeStruct((3, b, t, h, size), qkv.dtype)]
    else:
        blocks = pl.cdiv(t, shape.queries)
        out_specs = [
            pl.BlockSpec((None, shape.queries, None, lanes), lambda i, j, n: (n, i, j, 0)),
            pl.BlockSpec((None, None, shape.queries), lambda i, j, n: (n, j, i)),
        ][: 2 if keeps else 1]
        out_shape = [jax.ShapeDtypeStruct((b, t, h, size), qkv.dtype), jax.ShapeDtypeStruct((b, h, t), jnp.float32)]
        out_shape = out_shape[: len(out_specs)]
    results = pl.pallas_call(
        functools.partial(backward if is_backward else forward, shape=shape),
        out_shape=out_shape,
        grid=(blocks, h, b),
        in_specs=in_specs,
        out_specs=out_specs,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2),
        interpret=interpret,
        metadata=_work(qkv, h, rate, is_backward),
        name='attention_gradients' if is_backward else 'attention',
    )(*operands)
    if is_backward:
        of_qkv = results[0].reshape(qkv.shape)
        return of_qkv, of_qkv.astype(jnp.float32).sum((1, 2))[None]
    return (results[0].reshape(b, t, width), *results[1:])


def _work(qkv: jax.Array, heads: int, rate: float, is_backward: bool) -> dict[str, str]:
    """FLOP of the products and elementwise operations, for tools/estimate/, which reads them in the compiled text."""
    _, b, t, width = qkv.shape
    plain, dropout = _OPERATIONS[is_backward]
    flops = 2 * _PRODUCTS[is_backward] * b * t * t * width
    return {'flops': str(flops), 'vector_ops': str((plain + (dropout if rate else 0)) * b * heads * t * t)}
