"""The dense layer and layer norm, with and without bias."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.encoders.logical_axes import UNCONSTRAINED, Constrain, Dims


class Dense(nnx.Module):
    """Dense layer: y = x @ kernel + bias, with a float32 kernel [in, out] that is cast to x's dtype."""

    def __init__(self, features_in: int, features_out: int, std: float, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (features_in, features_out)) * std)
        self.bias = nnx.Param(jnp.zeros(features_out))

    def __call__(self, x: jax.Array, place: Constrain = UNCONSTRAINED, dims: Dims = (None, None)) -> jax.Array:
        """x [..., in] -> [..., out]. dims: logical axes of the kernel (encoders/logical_axes.py)."""
        return x @ self.weight(x.dtype, place, dims) + self.bias[...].astype(x.dtype)

    def weight(self, dtype: jnp.dtype, place: Constrain, dims: Dims) -> jax.Array:
        """The kernel [in, out] in the compute dtype, with its sharding constraint."""
        return place(self.kernel[...].astype(dtype), *dims)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, computed in float32, with PyTorch's two-pass variance."""

    def __init__(self, features: int, eps: float):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return (_standardised(x, self.eps) * self.scale[...] + self.bias[...]).astype(x.dtype)


class Linear(nnx.Module):
    """Dense layer without bias: y = x @ kernel, with a float32 kernel [in, out] that is cast to x's dtype."""

    def __init__(self, kernel: jax.Array):
        self.kernel = nnx.Param(kernel)

    def __call__(self, x: jax.Array, place: Constrain = UNCONSTRAINED, dims: Dims = (None, None)) -> jax.Array:
        """x [..., in] -> [..., out]. dims: logical axes of the kernel (encoders/logical_axes.py)."""
        return x @ place(self.kernel[...].astype(x.dtype), *dims)


class ScaleNorm(nnx.Module):
    """Layer norm without bias, otherwise as `LayerNorm`."""

    def __init__(self, features: int, eps: float):
        self.scale = nnx.Param(jnp.ones(features))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return (_standardised(x, self.eps) * self.scale[...]).astype(x.dtype)


def _standardised(x: jax.Array, eps: float) -> jax.Array:
    """(x - mean) / sqrt(variance + eps) over the last axis, float32."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)
