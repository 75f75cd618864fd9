"""Attention by a kernel with its gradient: the code that tpu.py and gpu.py share.

The product with the output projection is computed here, because its gradient reads the kernel's output as well. What
the forward pass keeps besides qkv has checkpoint names (KEPT).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.logical_axes import HEADS, ROWS, Constrain, Dims

Static = tuple[int, float, bool]  # number of heads of the model, dropout rate (0 = none), interpret mode
KEPT = ('mixed', 'attention_sums', 'attention_mask')
_QKV: Dims = (None, ROWS, None, HEADS)
_MIXED: Dims = (ROWS, None, HEADS)  # attention's output, its gradient; the bias gradients of programs


@dataclass(frozen=True)
class Fused:
    """A kernel for one device's rows and heads.

    call: (static, keeps, of_backward, qkv, bias, seed, *mask) -> the output and, if `keeps`, the residuals; with
    of_backward (the residuals, the output, its gradient), the gradients of qkv and of the bias [programs, 3, D].
    mask, residuals: the logical axes of the arrays of `mask_arrays` and of the residuals.
    """

    call: Callable[..., Any]
    static: Static
    mask: tuple[Dims, ...]
    residuals: tuple[Dims, ...]

    @property
    def inputs(self) -> tuple[Dims, ...]:
        return (_QKV, (None, HEADS), (None, None), *self.mask)

    def run(self, place: Constrain, keeps: bool) -> Callable[..., Any]:
        """The forward pass on each device's shard."""
        call = functools.partial(self.call, self.static, keeps, ())
        return place.mapped(call, self.inputs, (_MIXED, *(self.residuals if keeps else ())))

    def run_backward(self, place: Constrain) -> Callable[..., Any]:
        """The backward pass on each device's shard; takes of_backward after the inputs."""
        count = len(self.inputs)

        def call(*arrays: jax.Array) -> Any:
            return self.call(self.static, True, arrays[count:], *arrays[:count])

        return place.mapped(call, (*self.inputs, *self.residuals, _MIXED, _MIXED), (_QKV, _MIXED))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attention(
    qkv: jax.Array, bias: jax.Array, mask: tuple[jax.Array, ...], seed: jax.Array, weight: jax.Array | None,
    kernel: Fused, place: Constrain,
) -> jax.Array:  # fmt: skip
    """qkv [3, B, T, H * K] -> [B, T, H * K]; with a weight [H * K, D], times it, [B, T, D].

    bias: float32 [3, H * K], added to qkv. mask: from `mask_arrays` of tpu.py or gpu.py. seed: of `seed_of`. The
    dropout mask is that of encoders/dropout.py for weights [B, H, T, T]; it does not depend on the device that computes
    a row and head. Queries in padding get no gradient.
    """
    return _times(kernel.run(place, False)(qkv, bias, seed, *mask)[0], weight)


def _forward(
    qkv: jax.Array, bias: jax.Array, mask: tuple[jax.Array, ...], seed: jax.Array, weight: jax.Array | None,
    kernel: Fused, place: Constrain,
) -> Any:  # fmt: skip
    results = kernel.run(place, True)(qkv, bias, seed, *mask)
    kept = [checkpoint_name(x, name) for x, name in zip(results, KEPT, strict=False)]
    return _times(results[0], weight), (qkv, bias, mask, seed, weight, *kept)


def _backward(kernel: Fused, place: Constrain, kept: Any, gradient: jax.Array) -> Any:
    qkv, bias, mask, seed, weight, mixed, *more = kept
    of_weight = None
    if weight is not None:
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_weight = mixed.reshape(-1, weight.shape[0]).T @ flat
        gradient = (flat @ weight.T).reshape(mixed.shape)
    of_qkv, of_bias = kernel.run_backward(place)(qkv, bias, seed, *mask, *more, mixed, gradient)
    return of_qkv, of_bias.sum(0), None, None, of_weight


attention.defvjp(_forward, _backward)


def _times(x: jax.Array, weight: jax.Array | None) -> jax.Array:
    return x if weight is None else (x.reshape(-1, weight.shape[0]) @ weight).reshape(*x.shape[:-1], -1)
