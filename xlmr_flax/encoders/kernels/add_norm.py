"""Bias, dropout, residual sum and layer norm, norm(x + dropout(y + bias)): in jax.numpy or by the kernel in norm.py."""

from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.attention.choose import INTERPRET, KERNELS
from xlmr_flax.encoders.compute import ComputeOptions
from xlmr_flax.encoders.dropout import dropped, no_seed
from xlmr_flax.encoders.layers import LayerNorm
from xlmr_flax.encoders.logical_axes import ROWS


def add_and_norm(
    norm: LayerNorm, x: jax.Array, y: jax.Array, bias: jax.Array, options: ComputeOptions,
    *, seed: jax.Array | None, rate: float, name: str, uses: int,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """Computes norm(x + dropout(y + bias)), [B, T, D], for x, y [B, T, D], bias [D]. Returns it `uses` times.

    uses: 1 or 2; with one output per use, the kernel itself adds up their gradients. seed, rate: of dropout; seed None
    = no dropout. name: checkpoint name of the sum, which rematerialisation may keep.
    """
    y = options.place(y, ROWS, None, None)
    if options.attention in KERNELS:
        from xlmr_flax.encoders.kernels.norm import sum_and_norm

        results = sum_and_norm(
            x, y, bias, norm.scale[...], norm.bias[...], no_seed() if seed is None else seed, epsilon=norm.eps,
            rate=0.0 if seed is None else rate, name=name, uses=uses, place=options.place,
            interpret=options.attention == INTERPRET,
        )  # fmt: skip
        return tuple(options.place(x, ROWS, None, None) for x in results)
    x = checkpoint_name(x + dropped(y + bias.astype(y.dtype), seed, rate), name)
    return (options.place(norm(x), ROWS, None, None),) * uses
