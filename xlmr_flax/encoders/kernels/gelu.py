"""gelu for compilers: in narrow dtypes by a polynomial, and with its slope kept for the backward pass."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


def gelu(x: jax.Array) -> jax.Array:
    """gelu, computed in float32 as torch does for bfloat16: exact (erf) for float32, as torch's default; for
    narrower dtypes to 3e-5, which is a hundredth of bfloat16's rounding at 1."""
    if x.dtype == jnp.float32:
        return 0.5 * x * _twice_cdf(x, x.dtype)
    return _narrow_gelu(x)


@jax.custom_jvp
def _narrow_gelu(x: jax.Array) -> jax.Array:
    return 0.5 * _twice(x)[0]


@_narrow_gelu.defjvp
def _narrow_tangent(x: tuple[jax.Array], tangent: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # A slope in x's dtype: by itself a backward pass would keep several arrays in float32.
    value, slope = _twice(x[0])
    return 0.5 * value, 0.5 * slope * tangent[0]


def _twice(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twice gelu and twice its slope, in x's dtype."""
    wide = x.astype(jnp.float32)
    cdf = _twice_cdf(wide, x.dtype)
    slope = cdf + wide * jnp.float32((2 / math.pi) ** 0.5) * jnp.exp(-0.5 * (wide * wide))
    return (wide * cdf).astype(x.dtype), slope.astype(x.dtype)


def _twice_cdf(x: jax.Array, dtype: Any) -> jax.Array:
    """2 P(X <= x) of a standard normal X, float32, as exactly as values in `dtype` need it."""
    if dtype == jnp.float32:
        return 1.0 + jax.lax.erf(x * jnp.float32(0.5**0.5))
    # For a v6e the compiler estimates 4 % more for a training step with erf, and a tenth for a forward pass. The odd
    # polynomial is fitted to the least largest error of x P(X <= x), 2.6e-5; beyond 8 it would turn.
    square = x * x
    few = jnp.minimum(square, 64.0)
    return 1.0 + jnp.tanh(x * (0.79750787 + few * (0.03700566 - few * 0.00035151887)))


# A chip whose matrix unit is fast waits for what comes behind the first product of the feed-forward, so that each
# operation less counts; a backward pass from `inner` would compute gelu and its derivative again for each product that
# reads them. Keeping gelu and slope instead takes twice the memory of `inner`, and in a scan over the layers more time
# for copies than it saves.
@jax.custom_vjp
def twice_gelu(x: jax.Array) -> jax.Array:
    """2 gelu(x), of which half the next weights make gelu without rounding; its backward pass reads the derivative,
    kept in x's dtype under the name 'slope'."""
    return _twice(x)[0]


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, slope = _twice(x)
    return value, checkpoint_name(slope, 'slope')


def _gelu_backward(slope: jax.Array, given: jax.Array) -> tuple[jax.Array]:
    return (given * slope,)


twice_gelu.defvjp(_gelu_forward, _gelu_backward)
