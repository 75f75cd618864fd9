"""Dropout whose mask is a hash of (key, site, position): no random state, no dependence on the sharding.

jax.random's threefry costs more than the matrix product beside it on a CPU. A mask needs no cryptographic quality, only
independent-looking bits with the right rate (tests/models/test_dropout.py checks rate and correlations).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive indices over all bits


def _mix(x: jax.Array) -> jax.Array:
    """A 32-bit bijective finaliser (xor-shift-multiply, constants of Chris Wellons' lowbias32)."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def hash_bits(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 bits of `shape` from `seed` (uint32 [2]).

    The leading dimensions are hashed to one word per row and each row's columns after it, so that arrays of more
    than 2**32 elements do not repeat.
    """
    *lead, columns = shape
    row = jnp.zeros((*lead, 1), jnp.uint32)
    stride = 1
    for axis in reversed(range(len(lead))):
        row = row + jax.lax.broadcasted_iota(jnp.uint32, (*lead, 1), axis) * jnp.uint32(stride)
        stride *= lead[axis]
    row = _mix(row * jnp.uint32(_GOLDEN) + seed[0]) ^ seed[1]
    column = jax.lax.broadcasted_iota(jnp.uint32, (*([1] * len(lead)), columns), len(lead))
    return _mix(row + column * jnp.uint32(_GOLDEN))


def dropout(x: jax.Array, key: jax.Array | None, site: int, rate: float) -> jax.Array:
    """Inverted dropout. key: a jax.random key, or None for none; site: a number that differs between uses of one
    key.
    """
    if key is None or rate == 0.0:
        return x
    seed = jax.random.key_data(jax.random.fold_in(key, site)).astype(jnp.uint32).reshape(-1)[:2]
    keep = hash_bits(seed, x.shape) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))
