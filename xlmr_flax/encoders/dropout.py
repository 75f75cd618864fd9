"""Dropout whose mask is a hash of (key, site, position): no random state, no dependence on the sharding.

jax.random's threefry costs more than the matrix product beside it on a CPU. A mask needs no cryptographic quality, only
independent-looking bits with the right rate (tests/models/test_dropout.py checks rate and correlations). A word's upper
half decides for an element of the first half of a row, its lower half for one of the second: kernels, whose vector unit
has the hash to wait for, compute half as many.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive indices over all bits


def _mix(x: jax.Array) -> jax.Array:
    """A 32-bit bijective finaliser (xor-shift-multiply, constants of Chris Wellons' lowbias32)."""
    x = _mixed_above(x)
    return x ^ (x >> 16)


def _mixed_above(x: jax.Array) -> jax.Array:
    """`_mix` without its last step, which changes the lower 16 bits alone."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    return x * jnp.uint32(0x846CA68B)


def hash_bits(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint32 bits of `shape` from `seed` (of `seed_of`), the upper 16 of each to be used.

    The leading dimensions are hashed to one word per row and each row's columns after it, so that arrays of more
    than 2**32 elements do not repeat.
    """
    *lead, columns = shape
    row = jnp.zeros((*lead, 1), jnp.uint32)
    stride = 1
    for axis in reversed(range(len(lead))):
        row = row + jax.lax.broadcasted_iota(jnp.uint32, (*lead, 1), axis) * jnp.uint32(stride)
        stride *= lead[axis]
    return _row_bits(_words(seed), row, columns)


def _row_bits(seed: tuple[Any, Any], row: jax.Array, columns: int) -> jax.Array:
    """uint32 bits [..., columns] of rows with those numbers, uint32 [..., 1]. The upper halves are for use."""
    column, half = np.arange(columns, dtype=np.uint32), _half(columns)
    # Constants: computed in the loop over all elements, as of an iota, they took a sixth of its time on a CPU.
    words = _words_at(seed, row, jnp.asarray(column % half * np.uint32(_GOLDEN)))
    return words << jnp.asarray(column // half * np.uint32(16))


def _half(columns: int) -> int:
    """How many columns the first half of so many has: those of whole registers of eight."""
    return 8 * -(-columns // 16)


def _words_at(seed: tuple[Any, Any], row: jax.Array, spread: jax.Array) -> jax.Array:
    """The words of rows with those numbers, uint32. spread: numbers in a row times _GOLDEN. Without the last step
    of `_mix`: it would not change the upper half, and the lower is mixed well enough (tests/models/test_dropout.py)."""
    row = _mix(row * jnp.uint32(_GOLDEN) + seed[0]) ^ seed[1]
    # Not a sum: two rows a few steps apart would have the same words, only shifted.
    return _mixed_above(row ^ spread)


def seed_of(key: jax.Array, site: int) -> jax.Array:
    """int32 [1, 2]: the seed of one use of a jax.random key, as kernels take it, which have no unsigned numbers."""
    words = jax.random.key_data(jax.random.fold_in(key, site)).astype(jnp.uint32).reshape(-1)[:2]
    return jax.lax.bitcast_convert_type(words, jnp.int32)[None]


def no_seed() -> jax.Array:
    """In a seed's place where nothing is dropped."""
    return jnp.zeros((1, 2), jnp.int32)


def kept_in_rows(seed: jax.Array, row: jax.Array, columns: int, rate: float) -> jax.Array:
    """bool [..., columns]: what `dropout` keeps of rows with those numbers among all rows of the array, int32 [..., 1].
    For loops, which have a part of one."""
    return _row_bits(_words(seed), row.astype(jnp.uint32), columns) >= _threshold(rate)


def kept_by_halves(seed: Any, row: jax.Array, columns: int, rate: float, axis: int) -> jax.Array:
    """The same in a kernel, with half as many words. bool [n, columns] of rows int32 [n, 1] for axis 1, [columns, n] of
    [1, n] for axis 0, and up to 15 columns more that mean nothing. seed: what a kernel has of `seed_of`."""
    shape = [1, 1]
    shape[axis] = _half(columns)
    # Signed, as the kernels' compiler has no other, and of the same bits.
    number = jax.lax.broadcasted_iota(jnp.int32, shape, axis).astype(jnp.uint32)
    words = _words_at(_words(seed), row.astype(jnp.uint32), number * jnp.uint32(_GOLDEN))
    return jnp.concatenate([words, words << 16], axis) >= _threshold(rate)


def _words(seed: Any) -> tuple[jax.Array, jax.Array]:
    return seed[0, 0].astype(jnp.uint32), seed[0, 1].astype(jnp.uint32)


def _threshold(rate: float) -> jax.Array:
    """Of the upper 16 bits: rates are multiples of 1 / 65,536, 0.1 is 0.100006."""
    return jnp.uint32(min(round(rate * 2**16), 2**16 - 1) << 16)


def dropout(x: jax.Array, key: jax.Array | None, site: int, rate: float) -> jax.Array:
    """Inverted dropout. key: a jax.random key, or None for none; site: a number that differs between uses of one
    key.
    """
    return dropped(x, None if key is None else seed_of(key, site), rate)


def dropped(x: jax.Array, seed: jax.Array | None, rate: float) -> jax.Array:
    """Inverted dropout by a seed of `seed_of`, or None for none."""
    if seed is None or rate == 0.0:
        return x
    keep = hash_bits(seed, x.shape) >= _threshold(rate)
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))
