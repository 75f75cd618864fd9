"""Dropout whose mask is a hash of (key, site, position): no random state, no dependence on the sharding.

jax.random's threefry costs more than the matrix product beside it on a CPU. A mask needs no cryptographic quality, only
independent-looking bits with the right rate (tests/models/test_dropout.py checks rate and correlations).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive indices over all bits


def _mix(x: jax.Array) -> jax.Array:
    """A 32-bit bijective finaliser (xor-shift-multiply, constants of Chris Wellons' lowbias32)."""
    x = _mixed_above(x)
    return x ^ (x >> 16)


def _mixed_above(x: jax.Array) -> jax.Array:
    """`_mix` for who reads the upper 16 bits: all of it but the last step, which changes the lower."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    return x * jnp.uint32(0x846CA68B)


def hash_bits(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 bits of `shape` from `seed` (uint32 [2]), the upper 16 of each to be used.

    The leading dimensions are hashed to one word per row and each row's columns after it, so that arrays of more
    than 2**32 elements do not repeat.
    """
    *lead, columns = shape
    row = jnp.zeros((*lead, 1), jnp.uint32)
    stride = 1
    for axis in reversed(range(len(lead))):
        row = row + jax.lax.broadcasted_iota(jnp.uint32, (*lead, 1), axis) * jnp.uint32(stride)
        stride *= lead[axis]
    return _row_bits((seed[0], seed[1]), row, columns)


def _row_bits(seed: tuple[Any, Any], row: jax.Array, columns: int) -> jax.Array:
    """uint32 bits [..., columns] of rows with those numbers, uint32 [..., 1]."""
    # Signed, as the kernels' compiler has no other, and of the same bits.
    column = jax.lax.broadcasted_iota(jnp.int32, (*([1] * (row.ndim - 1)), columns), row.ndim - 1)
    return _bits_at(seed, row, column)


def _bits_at(seed: tuple[Any, Any], row: jax.Array, column: jax.Array) -> jax.Array:
    """uint32 bits of the elements with those numbers of rows, uint32, and columns, int32. The upper half is for use:
    the last step of `_mix` would change the lower one alone."""
    row = _mix(row * jnp.uint32(_GOLDEN) + seed[0]) ^ seed[1]
    return _mixed_above(row + column.astype(jnp.uint32) * jnp.uint32(_GOLDEN))


def seed_of(key: jax.Array, site: int) -> jax.Array:
    """uint32 [2]: the seed of one use of a jax.random key."""
    return jax.random.key_data(jax.random.fold_in(key, site)).astype(jnp.uint32).reshape(-1)[:2]


def kept_in_rows(seed: tuple[Any, Any], row: jax.Array, columns: int, rate: float) -> jax.Array:
    """bool [..., columns]: what `dropout` keeps of rows with those numbers among all rows of the array, int32 [..., 1].
    For kernels, which have a part of one. seed: two int32 scalars, of `seed_of`'s bits."""
    return _row_bits(_words(seed), row.astype(jnp.uint32), columns) >= _threshold(rate)


def kept_at(seed: tuple[Any, Any], row: jax.Array, column: jax.Array, rate: float) -> jax.Array:
    """bool: whether `dropout` keeps the elements with those numbers of rows and columns, int32 arrays of any shapes
    that broadcast, such as those of a transposed array."""
    return _bits_at(_words(seed), row.astype(jnp.uint32), column) >= _threshold(rate)


def _words(seed: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    return seed[0].astype(jnp.uint32), seed[1].astype(jnp.uint32)


def _threshold(rate: float) -> jax.Array:
    """Of the upper 16 bits: rates are multiples of 1 / 65,536, 0.1 is 0.100006."""
    return jnp.uint32(min(round(rate * 2**16), 2**16 - 1) << 16)


def dropout(x: jax.Array, key: jax.Array | None, site: int, rate: float) -> jax.Array:
    """Inverted dropout. key: a jax.random key, or None for none; site: a number that differs between uses of one
    key.
    """
    if key is None or rate == 0.0:
        return x
    keep = hash_bits(seed_of(key, site), x.shape) >= _threshold(rate)
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))
