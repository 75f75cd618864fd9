"""The hash's statistics: rate, independence of positions, sites and keys, no repeats."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.encoders.dropout import dropout, hash_bits, kept_by_halves, kept_in_rows, seed_of

SHAPE = (64, 16, 256)
N = int(np.prod(SHAPE))


def _kept(key: int, site: int = 0, rate: float = 0.1) -> np.ndarray:
    return np.asarray(dropout(jnp.ones(SHAPE), jax.random.key(key), site, rate)) > 0


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_rate_and_scale(rate: float) -> None:
    out = np.asarray(dropout(jnp.ones(SHAPE), jax.random.key(0), 0, rate))
    sd = np.sqrt(rate * (1 - rate) / N)
    assert abs((out == 0).mean() - rate) < 4 * sd
    np.testing.assert_allclose(out[out > 0], 1 / (1 - rate), rtol=1e-6)
    for axis in range(3):  # no row, head or column is favoured: the largest of some hundred means, 5 sd
        other = tuple(a for a in range(3) if a != axis)
        means = (out == 0).mean(other)
        assert np.abs(means - rate).max() < 5 * np.sqrt(rate * (1 - rate) * len(means) / N)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_neighbours_sites_and_keys_are_uncorrelated() -> None:
    limit = 4.5 / np.sqrt(N)
    base = _kept(0, rate=0.5).astype(float)
    for axis in range(3):
        for lag in (1, 2, 8):
            a, b = np.roll(base, lag, axis), base
            assert abs(_correlation(a, b)) < limit * 1.1, (axis, lag)
    for other in (_kept(1, rate=0.5), _kept(0, site=1, rate=0.5), _kept(0, site=2, rate=0.5)):
        assert abs(_correlation(base, other.astype(float))) < limit


def test_bits_are_balanced_and_do_not_repeat() -> None:
    bits = np.asarray(hash_bits(jnp.asarray([[123, 456]], jnp.int32), (1024, 512)))
    first, second = bits[:, :256].ravel(), bits[:, 256:].ravel()
    np.testing.assert_array_equal(first << 16, second)  # the two halves of one word
    ones = ((first[:, None] >> np.arange(32)) & 1).mean(0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(len(first))
    expected = len(first) - len(first) ** 2 / 2**33  # birthday collisions of 2**18 draws from 2**32: about 8
    assert abs(len(np.unique(first)) - expected) < 20


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_what_a_word_decides_for_is_uncorrelated(rate: float) -> None:
    """Both halves of a row, and all pairs of columns: as far apart as those of independent draws."""
    n, columns = 20_000, 96
    rows = jnp.arange(n, dtype=jnp.int32)[:, None]
    kept = np.asarray(kept_in_rows(seed_of(jax.random.key(1), 0), rows, columns, rate))
    centred = (kept - kept.mean(0)) / kept.std(0)
    scores = (centred.T @ centred / np.sqrt(n))[np.triu_indices(columns, 1)]
    assert np.abs(scores).max() < 5.5
    assert abs(np.square(scores).mean() - 1) < 5 * np.sqrt(2 / len(scores))


@pytest.mark.parametrize('columns', [1, 8, 13, 16, 40, 200, 300, 512])
def test_halves_are_the_same_mask(columns: int) -> None:
    seed, rows = seed_of(jax.random.key(3), 1), jnp.arange(5, dtype=jnp.int32)[:, None]
    want = kept_in_rows(seed, rows, columns, 0.3)
    np.testing.assert_array_equal(kept_by_halves(seed, rows, columns, 0.3, axis=1)[:, :columns], want)
    np.testing.assert_array_equal(kept_by_halves(seed, rows.T, columns, 0.3, axis=0)[:columns], want.T)


def test_no_key_or_rate_zero_is_the_identity() -> None:
    x = jnp.arange(6.0)
    assert dropout(x, None, 0, 0.5) is x
    assert dropout(x, jax.random.key(0), 0, 0.0) is x
