"""Dropout whose mask is a hash of (key, site, position): it has no random state and does not depend on the sharding.

On a CPU, jax.random's threefry costs more than the neighbouring matrix product. A mask needs no cryptographic quality,
only independent-looking bits with the right rate (tests/encoders/test_dropout.py checks rate and correlations).

Each 32-bit hash word decides two elements of a row: its upper 16 bits one of the first half, its lower 16 bits one of
the second half. So kernels, where the hash limits the speed of the vector unit, compute half as many hashes.

Micro-batches of one step may share a key (`PartKey`): their rows are then numbered through the step. Row numbers enter
the hash as a sum with the seed, so that the seed of a micro-batch is that of the step plus a number, and what computes
a mask knows nothing of micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive indices over all bits


@dataclass(frozen=True)
class PartKey:
    """The dropout key of one of several micro-batches of a step, whose masks are parts of the step's.

    A row has the mask that it would have if the whole step were one batch: merging micro-batches changes no mask.
    step: the jax.random key of the step. part: int32 scalar, the number of the micro-batch. All have equally many rows.
    """

    step: jax.Array
    part: jax.Array


jax.tree_util.register_dataclass(PartKey)
Key = jax.Array | PartKey  # a jax.random key, for a whole step; or that of a micro-batch


def of_step(key: Key) -> jax.Array:
    """The jax.random key of the whole step, for a mask that all of its rows share."""
    return key.step if isinstance(key, PartKey) else key


def fold_in(key: Key, number: int) -> Key:
    """jax.random.fold_in for either kind of key."""
    if isinstance(key, PartKey):
        return PartKey(jax.random.fold_in(key.step, number), key.part)
    return jax.random.fold_in(key, number)


def _mix(x: jax.Array) -> jax.Array:
    """Bijective 32-bit hash finaliser (xor-shift-multiply with the constants of Chris Wellons' lowbias32)."""
    x = _mixed_above(x)
    return x ^ (x >> 16)


def _mixed_above(x: jax.Array) -> jax.Array:
    """`_mix` without its last step, which changes only the lower 16 bits."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    return x * jnp.uint32(0x846CA68B)


def hash_bits(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns uint32 hash words of `shape` for a seed of `seed_of`. Use only the upper 16 bits of each.

    The leading dimensions are hashed to one word per row, then the columns of each row with this word, so that arrays
    of more than 2**32 elements do not repeat.
    """
    *lead, columns = shape
    row = jnp.zeros((*lead, 1), jnp.uint32)
    stride = 1
    for axis in reversed(range(len(lead))):
        row = row + jax.lax.broadcasted_iota(jnp.uint32, (*lead, 1), axis) * jnp.uint32(stride)
        stride *= lead[axis]
    return _row_bits(_words(seed), row, columns)


def _row_bits(seed: tuple[Any, Any], row: jax.Array, columns: int) -> jax.Array:
    """Row numbers uint32 [..., 1] -> hash words uint32 [..., columns]. Use only the upper 16 bits of each."""
    column, first = np.arange(columns, dtype=np.uint32), half(columns)
    # These are constants: computed from an iota in the loop over all elements, they took a sixth of its time on a CPU.
    words = _words_at(seed, row, jnp.asarray(column % first * np.uint32(_GOLDEN)))
    return words << jnp.asarray(column // first * np.uint32(16))


def half(columns: int) -> int:
    """The size of the first half of `columns`, rounded up to whole registers of 8."""
    return 8 * -(-columns // 16)


def _words_at(seed: tuple[Any, Any], row: jax.Array, spread: jax.Array) -> jax.Array:
    """Hash words (uint32) for row numbers `row`. spread: column numbers times _GOLDEN.

    The last step of `_mix` is left out: it does not change the upper half, and the lower half is mixed well enough
    without it (tests/encoders/test_dropout.py).
    """
    row = _mix(row * jnp.uint32(_GOLDEN) + seed[0]) ^ seed[1]
    # xor, not a sum: with a sum, two rows a few steps apart would have the same words, only shifted.
    return _mixed_above(row ^ spread)


def seed_of(key: jax.Array, site: int) -> jax.Array:
    """Derives the seed int32 [1, 2] of one dropout site from a jax.random key. Kernels have no unsigned integers."""
    words = jax.random.key_data(jax.random.fold_in(key, site)).astype(jnp.uint32).reshape(-1)[:2]
    return jax.lax.bitcast_convert_type(words, jnp.int32)[None]


def layer_seeds(key: Key, layers: int, rows: Sequence[int | np.ndarray]) -> tuple[jax.Array, ...]:
    """Dropout seeds int32 [layers, 1, 2] for each site of a layer.

    rows: for each site, the number of rows of its mask, of any layer or int [layers]; the rows of an array are all of
    its dimensions but the last. Computed for all layers at once, outside of their scan: otherwise each layer would
    compute its own in several small operations, and rematerialisation would repeat them.
    """
    keys = jax.random.split(of_step(key), layers)
    seeds = jax.vmap(lambda own: tuple(seed_of(own, site) for site in range(len(rows))))(keys)
    return tuple(_moved(seed, key, count) for seed, count in zip(seeds, rows, strict=True))


def _moved(seed: jax.Array, key: Key, rows: int | np.ndarray) -> jax.Array:
    """The seed [..., 1, 2] for a micro-batch whose mask has `rows` rows: row n gets the words of n + part * rows."""
    if not isinstance(key, PartKey):
        return seed
    spread = np.asarray(rows, np.uint64) * np.uint64(_GOLDEN) % np.uint64(2**32)
    shift = jax.lax.bitcast_convert_type(key.part.astype(jnp.uint32) * spread.astype(np.uint32), jnp.int32)
    return seed.at[..., 0, 0].add(shift)


def another_seed(seed: jax.Array) -> jax.Array:
    """Derives a second seed from one of `seed_of`, for two dropouts of one site."""
    return seed ^ jnp.asarray([[0x3C6EF372, 0x1B873593]], jnp.int32)


def no_seed() -> jax.Array:
    """A placeholder seed int32 [1, 2], for calls without dropout."""
    return jnp.zeros((1, 2), jnp.int32)


def kept_in_rows(seed: jax.Array, row: jax.Array, columns: int, rate: float) -> jax.Array:
    """The keep mask of `dropout`, bool [..., columns], for some rows of an array.

    row: int32 [..., 1], the numbers of these rows among all rows. For loops that process a part of the array at a time.
    """
    return _row_bits(_words(seed), row.astype(jnp.uint32), columns) >= _threshold(rate)


def kept_by_halves(seed: Any, row: jax.Array, columns: int, rate: float, axis: int) -> jax.Array:
    """`kept_in_rows` for Pallas kernels, with half as many hash words.

    axis 1: rows int32 [n, 1] -> bool [n, columns]. axis 0: rows int32 [1, n] -> bool [columns, n]. The column axis has
    up to 15 more entries, to be ignored. seed: the kernel's reference to a seed of `seed_of`.
    """
    shape = [1, 1]
    shape[axis] = half(columns)
    # The iota is signed, because the kernels' compiler has no unsigned one; the bits are the same.
    words = words_of(seed, row, jax.lax.broadcasted_iota(jnp.int32, shape, axis))
    return jnp.concatenate([words, words << 16], axis) >= _threshold(rate)


def words_of(seed: Any, row: jax.Array, number: jax.Array) -> jax.Array:
    """The uint32 hash words of `kept_by_halves`, for kernels that compute a block of columns at a time.

    row, number: int32 arrays that broadcast against each other: numbers of rows and of words. Word n decides the
    columns n and n + half(columns). seed: as in `kept_by_halves`.
    """
    return _words_at(_words(seed), row.astype(jnp.uint32), number.astype(jnp.uint32) * jnp.uint32(_GOLDEN))


def kept_of(words: jax.Array, part: int, rate: float) -> jax.Array:
    """The keep mask that the words of `words_of` give for the first (part 0) or second half (1) of the columns."""
    return (words << (16 * part) if part else words) >= _threshold(rate)


def _words(seed: Any) -> tuple[jax.Array, jax.Array]:
    return seed[0, 0].astype(jnp.uint32), seed[0, 1].astype(jnp.uint32)


def _threshold(rate: float) -> jax.Array:
    """The uint32 threshold below which an element is dropped.

    It compares the upper 16 bits, so that rates are rounded to multiples of 1 / 65,536: 0.1 becomes 0.100006.
    """
    return jnp.uint32(min(round(rate * 2**16), 2**16 - 1) << 16)


def dropout(x: jax.Array, key: Key | None, site: int, rate: float) -> jax.Array:
    """Inverted dropout. key: None = no dropout. site: a number, different for each use of a key."""
    if key is None:
        return x
    return dropped(x, _moved(seed_of(of_step(key), site), key, math.prod(x.shape[:-1])), rate)


def dropped(x: jax.Array, seed: jax.Array | None, rate: float) -> jax.Array:
    """Inverted dropout with a seed of `seed_of`; None = no dropout."""
    if seed is None or rate == 0.0:
        return x
    keep = hash_bits(seed, x.shape) >= _threshold(rate)
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))
