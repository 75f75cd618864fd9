"""Attention within segments as a Pallas kernel for TPUs: scores stay in VMEM, and the kernel hashes the dropout mask.

For rows of up to 512 tokens, all scores [T, T] fit into VMEM, so that neither pass needs the running maxima of flash
attention (Dao et al. 2022). A grid program reads the heads that fill the 128 lanes of a register, of one or a few rows,
directly from the projection's output [3, B, T, H * K]; neither pass makes a transposed copy. kernels/attention.py has
the body of a grid program.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from xlmr_flax.encoders.attention import fused
from xlmr_flax.encoders.attention.fused import Fused
from xlmr_flax.encoders.kernels.attention import kernel, mask_words
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Dims

WORK = ('vector_ops', 'integer_products')  # operation counts in a kernel's metadata; the first includes the second
LANES = 128
_TOKENS = 512  # tokens per grid program: with shorter rows, a program takes several, because starting one costs time
# WORK per score, by (backward, with dropout), from the compiler's schedule for a v6e.
_WORK = {(False, False): (8.5, 0), (False, True): (16, 1), (True, False): (10.5, 0), (True, True): (14.5, 0)}
_VMEM = 14 << 20  # bytes that a grid program may use; a v4's core has 16 MiB, of which the compiler uses some

MaskArrays = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
# Logical axes of segments of keys, of queries, row numbers, head numbers.
_MASK: tuple[Dims, ...] = ((ROWS, None, None), (ROWS, None, None), (ROWS,), (HEADS,))
_OF_HEADS: Dims = (ROWS, HEADS, None, None)  # residuals that the forward pass keeps for each program's heads


def heads_together(heads: int, size: int) -> int:
    """The number of heads per grid program: as many as fill a register's lanes, or all if that does not divide them."""
    together = max(1, LANES // size)
    return together if heads % together == 0 and together * size % LANES == 0 else heads


def mask_arrays(segments: jax.Array, heads: int) -> MaskArrays:
    """The argument `mask` of `fused.attention` from segments int32 [B, T].

    Returns segments of keys [B, T, 1], segments of queries [B, 1, T], row numbers [B], head numbers [H]. The numbers
    tell a device which rows and heads its shard has; the dropout mask depends on them.
    """
    # Queries in padding get a segment number that no key has.
    queries = jnp.where(segments > 0, segments, -1)[:, None, :]
    rows, every_head = (jnp.arange(n, dtype=jnp.int32) for n in (segments.shape[0], heads))
    # Without the barrier, XLA would compute a separate iota before each kernel.
    return segments[:, :, None], queries, rows, jax.lax.optimization_barrier(every_head)


def fused_kernel(heads: int, rate: float, interpret: bool) -> Fused:
    """The kernel for `fused.attention`, for rows of up to 512 tokens. rate: of dropout, 0 = none."""
    return Fused(_call, (heads, rate, interpret), _MASK, (_OF_HEADS,) * (2 if rate else 1))


def _call(
    static: fused.Static,
    keeps: bool,
    of_backward: Sequence[jax.Array],
    qkv: jax.Array,
    bias: jax.Array,
    seed: jax.Array,
    keys: jax.Array,
    queries: jax.Array,
    rows: jax.Array,
    heads: jax.Array,
) -> Any:
    """Runs the kernel on one device's rows and heads. Forward: returns attention's output [B, T, D] and, if `keeps`,
    the log-sum-exps float32 [B, head groups, heads per group, T] and, with dropout, the mask int32 [B, head groups,
    words, T]. Backward: of_backward has these residuals, the output and its gradient; returns the gradient of qkv and,
    for the rows of each grid program separately, that of the bias, float32 [programs, 3, D]."""
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

    kept = [(together, jnp.float32), (together * mask_words(t), jnp.int32)][: (2 if rate else 1) if keeps else 0]
    specs = [of_heads(n) for n, _ in kept]
    in_specs = [
        own(3),
        pl.BlockSpec((3, block), lambda i, j, *_: (0, j)),
        pl.BlockSpec((at_once, t, 1), lambda i, j, *_: (i, 0, 0)),
        pl.BlockSpec((at_once, 1, t), lambda i, j, *_: (i, 0, 0)),
    ]
    operands = [qkv, bias, keys, queries, *of_backward]
    if is_backward:
        in_specs += [*specs, own(), own()]
        sums = jax.ShapeDtypeStruct((b // at_once, 3, width), jnp.float32)
        out_shape: Any = (jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), sums)
        out_specs: Any = (own(3), pl.BlockSpec((1, 3, block), lambda i, j, *_: (i, 0, j)))
    else:
        shapes = [jax.ShapeDtypeStruct((b, groups, n, t), dtype) for n, dtype in kept]
        out_shape = (jax.ShapeDtypeStruct(qkv.shape[1:], qkv.dtype), *shapes)
        out_specs = (own(), *specs)
    return pl.pallas_call(
        functools.partial(kernel, together=together, every_head=every_head, rate=rate, is_backward=is_backward),
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


def _cost(qkv: jax.Array, heads: int, is_backward: bool) -> pl.CostEstimate:
    """The cost estimate of a kernel. The matrix unit takes as long for a product over fewer than 128 as over 128."""
    _, b, t, width = qkv.shape
    products, moved = (5, 7) if is_backward else (2, 4)
    return pl.CostEstimate(
        flops=products * 2 * b * heads * t * t * max(LANES, width // heads),
        bytes_accessed=moved * b * t * width * qkv.dtype.itemsize,
        transcendentals=b * heads * t * t,
    )
