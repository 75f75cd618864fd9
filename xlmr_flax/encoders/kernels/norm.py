"""A Pallas kernel for TPUs: bias, dropout, residual sum and layer norm in one pass over memory.

In jax.numpy the forward pass takes four passes over memory and the backward pass more, because a row's mean and
variance are needed between the sum and its use. The kernel's backward pass recomputes both from the sum, hashes the
dropout mask again, and adds up the gradients of scale and biases. Only the sum is kept.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from xlmr_flax.encoders.attention.tpu import WORK
from xlmr_flax.encoders.dropout import kept_by_halves
from xlmr_flax.encoders.logical_axes import ROWS, Constrain

_TOKENS = {2: 256, 4: 128}  # most tokens per grid program, by bytes of a number: as many as fit into a v4's VMEM
_SUBLANES = 16  # tokens in a bfloat16 register; a part of a row is a multiple of this
# Vector operations per element, and the integer products among them, as in attention/tpu.py. Each gradient after the
# first costs two more: it is converted and added.
_WORK = {(False, False): (16.5, 0), (False, True): (26.5, 1), (True, False): (21.5, 0), (True, True): (30.5, 1)}
_VMEM = 14 << 20  # bytes, as in attention/tpu.py

Static = tuple[float, float, str, bool, int]  # epsilon, dropout rate (0 = none), name of the sum, interpret mode, uses


def sum_and_norm(
    x: jax.Array,
    y: jax.Array,
    bias: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    seed: jax.Array,
    *,
    epsilon: float,
    rate: float,
    name: str,
    uses: int,
    place: Constrain,
    interpret: bool,
) -> tuple[jax.Array, ...]:
    """Computes layer_norm(x + dropout(y + bias)), [B, T, D] in x's dtype, for x, y [B, T, D]. Returns it `uses` times.

    bias, scale, shift: float32 [D]. Mean and variance are float32. seed: of `seed_of`; the mask is that of
    encoders/dropout.py for [B, T, D]. name: checkpoint name of the sum. uses: 1 or 2; each output has its own gradient,
    and the backward kernel adds them, which saves a pass over memory.
    """
    return _apply(x, y, bias, scale, shift, seed, (epsilon, rate, name, interpret, uses), place)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _apply(
    x: jax.Array, y: jax.Array, bias: jax.Array, scale: jax.Array, shift: jax.Array, seed: jax.Array,
    static: Static, place: Constrain,
) -> tuple[jax.Array, ...]:  # fmt: skip
    return _forward(x, y, bias, scale, shift, seed, static, place)[0]


_NUMBERS, _VECTOR, _WHOLE = ((None, None), (ROWS,)), (None, None), (ROWS, None, None)


def _forward(
    x: jax.Array, y: jax.Array, bias: jax.Array, scale: jax.Array, shift: jax.Array, seed: jax.Array,
    static: Static, place: Constrain,
) -> Any:  # fmt: skip
    vectors = [v[None] for v in (bias, scale, shift)]
    inputs = (*_NUMBERS, *[_VECTOR] * 3, _WHOLE, _WHOLE)
    run = place.mapped(functools.partial(_call, static, True), inputs, (_WHOLE, _WHOLE))
    out, total = run(seed, jnp.arange(x.shape[0], dtype=jnp.int32), *vectors, x, y)
    return (out,) * static[4], (checkpoint_name(total, static[2]), scale, seed)


def _backward(static: Static, place: Constrain, kept: Any, gradients: tuple[jax.Array, ...]) -> Any:
    total, scale, seed = kept
    inputs = (*_NUMBERS, _VECTOR, _WHOLE, *[_WHOLE] * len(gradients))
    outputs = (_WHOLE, _WHOLE, _WHOLE) if static[1] else (_WHOLE, _WHOLE)
    run = place.mapped(functools.partial(_call, static, False), inputs, outputs)
    *results, sums = run(seed, jnp.arange(total.shape[0], dtype=jnp.int32), scale[None], total, *gradients)
    of_bias, of_scale, of_shift = (sums[:, n].sum(0) for n in range(3))
    return results[0], results[-1], of_bias, of_scale, of_shift, None


_apply.defvjp(_forward, _backward)


def _call(static: Static, is_forward: bool, seed: jax.Array, rows: jax.Array, *operands: jax.Array) -> Any:
    """Runs the kernel on one device's rows.

    Forward: bias, scale, shift [1, D], x, y -> (normalised, sum).
    Backward: scale, the sum, the gradient of each output -> (gradient of x; with dropout, gradient of y; gradients of
    bias, scale and shift per grid program [programs, 3, D]). Without dropout, the gradient of y is that of x.
    """
    vectors = 3 if is_forward else 1
    given, (_, rate, _, interpret, _) = operands[vectors:], static
    a = given[0]
    n, t, d = a.shape
    most = _TOKENS[a.dtype.itemsize]
    at_once = next(k for k in range(max(1, min(n, most // t)), 0, -1) if n % k == 0)
    part = next((k for k in range(min(t, most), 0, -1) if t % k == 0 and k % _SUBLANES == 0), t)
    whole = pl.BlockSpec((at_once, part, d), lambda i, j, *_: (i, j, 0))
    arrays, (ops, products) = 2 if is_forward or rate else 1, _WORK[not is_forward, rate > 0]
    shapes: list[Any] = [jax.ShapeDtypeStruct(a.shape, a.dtype)] * arrays
    specs = [whole] * arrays
    if not is_forward:
        parts = t // part
        shapes.append(jax.ShapeDtypeStruct((n // at_once * parts, 3, d), jnp.float32))
        specs.append(pl.BlockSpec((1, 3, d), lambda i, j, *_: (i * parts + j, 0, 0)))
    return pl.pallas_call(
        functools.partial(_forward_kernel if is_forward else _backward_kernel, static=static, t=t),
        out_shape=tuple(shapes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(n // at_once, t // part),
            in_specs=[*[pl.BlockSpec((1, d), lambda i, j, *_: (0, 0))] * vectors, *[whole] * len(given)],
            out_specs=tuple(specs),
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel'), vmem_limit_bytes=_VMEM),
        cost_estimate=pl.CostEstimate(
            flops=0, bytes_accessed=(len(given) + arrays) * a.size * a.dtype.itemsize, transcendentals=n * t * d
        ),
        metadata={
            k: str(round(m * n * t * d)) for k, m in zip(WORK, (ops + 2 * (len(given) - 2), products), strict=True)
        },
        interpret=interpret,
        name='sum_and_norm' if is_forward else 'sum_and_norm_gradients',
    )(seed, rows, *operands)


def _drop(seed: Any, first: Any, x: jax.Array, rate: float) -> jax.Array:
    """Dropout for tokens [part, D]. first: the number of the first one among all tokens of all rows."""
    if rate == 0.0:
        return x
    tokens = first + jax.lax.broadcasted_iota(jnp.int32, (x.shape[0], 1), 0)
    kept = kept_by_halves(seed, tokens, x.shape[1], rate, axis=1)[:, : x.shape[1]]
    return jnp.where(kept, x * jnp.float32(1.0 / (1.0 - rate)), 0.0)


def _statistics(total: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """The statistics of layer norm: (total - mean, 1 / standard deviation) of rows [T, D], float32."""
    centred = total - total.mean(1, keepdims=True)
    return centred, jax.lax.rsqrt(jnp.square(centred).mean(1, keepdims=True) + epsilon)


def _forward_kernel(
    seed: Any, rows: Any, bias: Any, scale: Any, shift: Any, x: Any, y: Any, out: Any, total: Any,
    *, static: Static, t: int,
) -> None:  # fmt: skip
    epsilon, rate = static[:2]
    row, token, dtype = pl.program_id(0) * x.shape[0], pl.program_id(1) * x.shape[1], out.dtype

    def one(i: Any, carry: None) -> None:
        # Rounded at the same points as the jax.numpy version, so that both give the same numbers.
        added = (y[i].astype(jnp.float32) + bias[...]).astype(dtype).astype(jnp.float32)
        added = _drop(seed, rows[row + i] * t + token, added, rate).astype(dtype).astype(jnp.float32)
        summed = (x[i].astype(jnp.float32) + added).astype(dtype)
        total[i] = summed
        centred, inverse = _statistics(summed.astype(jnp.float32), epsilon)
        out[i] = (centred * inverse * scale[...] + shift[...]).astype(dtype)
        return carry

    jax.lax.fori_loop(0, x.shape[0], one, None)


def _backward_kernel(seed: Any, rows: Any, scale: Any, total: Any, *more: Any, static: Static, t: int) -> None:
    epsilon, rate, uses = *static[:2], static[4]
    given, (of_x, *of_y, sums) = more[:uses], more[uses:]
    row, token = pl.program_id(0) * total.shape[0], pl.program_id(1) * total.shape[1]
    sums[...] = jnp.zeros_like(sums)

    def one(i: Any, carry: None) -> None:
        centred, inverse = _statistics(total[i].astype(jnp.float32), epsilon)
        normed, gradient = centred * inverse, given[0][i].astype(jnp.float32)
        for another in given[1:]:
            gradient += another[i].astype(jnp.float32)
        scaled = gradient * scale[...]
        mean, slope = scaled.mean(1, keepdims=True), (scaled * normed).mean(1, keepdims=True)
        of_sum = inverse * (scaled - mean - normed * slope)
        of_x[i] = of_sum.astype(of_x.dtype)
        of_added = _drop(seed, rows[row + i] * t + token, of_sum, rate)
        if of_y:
            of_y[0][i] = of_added.astype(of_x.dtype)
        sums[0, 0:1] += of_added.sum(0, keepdims=True)
        sums[0, 1:2] += (gradient * normed).sum(0, keepdims=True)
        sums[0, 2:3] += gradient.sum(0, keepdims=True)
        return carry

    jax.lax.fori_loop(0, total.shape[0], one, None)
