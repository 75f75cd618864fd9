"""Attention within segments as a Pallas kernel for NVIDIA GPUs (Triton): no array of scores in the device's memory.

The forward pass keeps the log-sum-exp of each query; the backward pass computes weights and dropout mask again. A
program reads its head from the projection's output [3, B, T, H * K]; neither pass makes a transposed copy.
kernels/gpu_attention.py has the bodies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from xlmr_flax.encoders.attention import fused
from xlmr_flax.encoders.attention.fused import Fused
from xlmr_flax.encoders.kernels.gpu_attention import Shape, backward, forward, shares
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Dims

MaskArrays = tuple[jax.Array, jax.Array, jax.Array]
_MASK: tuple[Dims, ...] = ((ROWS, None), (ROWS,), (HEADS,))
_SUMS: Dims = (ROWS, HEADS, None)
# (queries, keys) of a block and warps of a program, by bytes of a number, for the forward and the backward pass.
_FORWARD = {2: (64, 64, 4), 4: (32, 32, 4)}
_BACKWARD = {2: (64, 64, 8), 4: (32, 16, 4)}
# Products over scores; operations for a score, counted in the body, an exponential as four; and what dropout adds. The
# backward pass computes the scores twice: for keys and values, and for queries.
_WORK = {'forward': (2, 10, 6), 'shares': (2, 9, 6), 'backward': (7, 24, 14)}
_NAMES = {'forward': 'attention', 'shares': 'attention_shares', 'backward': 'attention_gradients'}


def mask_arrays(segments: jax.Array, heads: int) -> MaskArrays:
    """The argument `mask` of `fused.attention` from segments int32 [B, T].

    Returns segments [B, T], row numbers [B], head numbers [H]: which rows and heads a device's shard has, on which the
    dropout mask depends.
    """
    return segments, jnp.arange(segments.shape[0], dtype=jnp.int32), jnp.arange(heads, dtype=jnp.int32)


def fused_kernel(heads: int, rate: float, interpret: bool) -> Fused:
    """The kernel for `fused.attention`, for rows of any length. rate: of dropout, 0 = none."""
    return Fused(_call, (heads, rate, interpret), _MASK, (_SUMS,))


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
    """Runs the kernel on one device's rows and heads. segments, rows, heads: of `mask_arrays`.

    Forward: returns attention's output [B, T, D] and, if `keeps`, the log-sum-exps float32 [B, H, T]. Backward:
    of_backward has these, the output and its gradient; returns the gradient of qkv and that of the bias, float32
    [1, 3, D].
    """
    h, (b, t, width) = heads.shape[0], qkv.shape[1:]
    inputs = (seed, rows, heads, segments, _cut(qkv, h), _cut(bias, h))
    if not of_backward:
        mixed, *sums = _run(forward, static, ['mixed', 'row'][: 2 if keeps else 1], *inputs)
        return (mixed.reshape(b, t, width), *sums)
    more = (of_backward[0], _cut(of_backward[2], h))
    (share,) = _run(shares, static, ['row'], *inputs, *more)
    (of_qkv,) = _run(backward, static, ['qkv'], *inputs, *more, share)
    of_qkv = of_qkv.reshape(qkv.shape)
    return of_qkv, of_qkv.astype(jnp.float32).sum((1, 2))[None]


def _cut(x: jax.Array, heads: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], heads, -1)


def _run(body: Callable[..., None], static: fused.Static, results: Sequence[str], *operands: jax.Array) -> Any:
    """Runs one kernel. operands: seed, rows, heads, segments, qkv [3, B, T, H, K], bias [3, H, K]; then log-sum-exps
    [B, H, T], the output's gradient [B, T, H, K], shares [B, H, T]. results: 'mixed' and 'row' a block of queries at a
    time, or 'qkv'."""
    every_head, rate, interpret = static
    qkv = operands[4]
    _, b, t, h, size = qkv.shape
    shape, warps = block_shape(t, size, every_head, rate, qkv.dtype.itemsize, body is backward)
    whole, lanes, queries = shape.padded, shape.lanes, shape.queries
    of_row = pl.BlockSpec((3, None, whole, None, lanes), lambda i, j, n: (0, n, 0, j, 0))
    numbers_of_row = pl.BlockSpec((None, None, whole), lambda i, j, n: (n, j, 0))
    in_specs = [
        pl.BlockSpec((1, 2), lambda i, j, n: (0, 0)),
        pl.BlockSpec((1,), lambda i, j, n: (n,)),
        pl.BlockSpec((1,), lambda i, j, n: (j,)),
        pl.BlockSpec((None, whole), lambda i, j, n: (n, 0)),
        of_row,
        pl.BlockSpec((3, None, lanes), lambda i, j, n: (0, j, 0)),
        numbers_of_row,
        pl.BlockSpec((None, whole, None, lanes), lambda i, j, n: (n, 0, j, 0)),
        numbers_of_row,
    ]
    outputs = {
        'mixed': (
            jax.ShapeDtypeStruct(qkv.shape[1:], qkv.dtype),
            pl.BlockSpec((None, queries, None, lanes), lambda i, j, n: (n, i, j, 0)),
        ),
        'row': (
            jax.ShapeDtypeStruct((b, h, t), jnp.float32),
            pl.BlockSpec((None, None, queries), lambda i, j, n: (n, j, i)),
        ),
        'qkv': (jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), of_row),
    }
    return pl.pallas_call(
        functools.partial(body, shape=shape),
        out_shape=[outputs[name][0] for name in results],
        grid=(shape.pairs if body is backward else pl.cdiv(t, queries), h, b),
        in_specs=in_specs[: len(operands)],
        out_specs=[outputs[name][1] for name in results],
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=2),
        interpret=interpret,
        metadata=_work(body.__name__, b, t, h, size, rate),
        name=_NAMES[body.__name__],
    )(*operands)


def _work(name: str, rows: int, tokens: int, heads: int, size: int, rate: float) -> dict[str, str]:
    """FLOP of the products and elementwise operations, for tools/estimate/, which reads them in the compiled text."""
    products, plain, dropout = _WORK[name]
    scores = rows * heads * tokens * tokens
    operations = plain + (dropout if rate else 0)
    return {'flops': str(2 * products * scores * size), 'vector_ops': str(operations * scores)}
