"""The feed-forward layer, with checkpoint names for its residuals (encoders/compute.py).

The operand of a product gets its name inside the product's custom forward pass: for a value that is both kept and used
afterwards, jax.checkpoint adds a rounding step, which is one more pass over memory.
"""

from __future__ import annotations

import functools

import jax
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.attention.choose import KERNELS
from xlmr_flax.encoders.compute import ComputeOptions
from xlmr_flax.encoders.kernels.gelu import gelu, twice_gelu
from xlmr_flax.encoders.layers import Dense
from xlmr_flax.encoders.logical_axes import FFN, ROWS


def feed_forward(x: jax.Array, first: Dense, second: Dense, options: ComputeOptions) -> jax.Array:
    """Feed-forward: x [B, T, D] -> gelu(x W_1 + b_1) W_2, [B, T, D]. `add_and_norm` adds the second bias."""
    (b, t, d), place = x.shape, options.place
    inner = _product(x.reshape(b * t, d), first.weight(x.dtype, place, (None, FFN)), 'normed', options)
    inner = place(inner + first.bias[...].astype(x.dtype), ROWS, FFN)
    keeps_slope = options.attention in KERNELS and options.unroll == 0
    active = twice_gelu(inner) if keeps_slope else gelu(checkpoint_name(inner, 'inner'))
    weight = second.weight(x.dtype, place, (FFN, None)) * (0.5 if keeps_slope else 1)
    return _product(active, weight, 'active' if keeps_slope else '', options).reshape(b, t, d)


def _product(x: jax.Array, weight: jax.Array, name: str, options: ComputeOptions) -> jax.Array:
    """x [N, in] @ weight [in, out]. name: the checkpoint name of x, used only with Pallas kernels; '' = none."""
    return _named_product(x, weight, name) if name and options.attention in KERNELS else x @ weight


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _named_product(x: jax.Array, weight: jax.Array, name: str) -> jax.Array:
    del name
    return x @ weight


def _named_forward(x: jax.Array, weight: jax.Array, name: str) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ weight, (checkpoint_name(x, name), weight)


def _named_backward(name: str, kept: tuple[jax.Array, jax.Array], given: jax.Array) -> tuple[jax.Array, jax.Array]:
    del name
    x, weight = kept
    return given @ weight.T, x.T @ given


_named_product.defvjp(_named_forward, _named_backward)
