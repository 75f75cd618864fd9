"""Mining: exact neighbours across block borders and devices, hand-worked margins, thresholds, planted pairs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from simulated_devices import output_of

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.eval import mining
from xlmr_flax.eval.mining import Neighbours, best_threshold, neighbours, ratio_candidates


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d), np.float32)
    for start in range(0, n, 1024):  # in place: the slow test counts memory
        x[start : start + 1024] /= np.linalg.norm(x[start : start + 1024], axis=1, keepdims=True)
    return x


def _brute(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """In float64, sorted whole, of equal scores the lower index first; -inf and -1 where there are fewer than k."""
    table = x.astype(np.float64) @ y.astype(np.float64).T
    order = np.argsort(-table, axis=1, kind='stable')[:, :k]
    missing = ((0, 0), (0, k - order.shape[1]))
    values = np.pad(np.take_along_axis(table, order, 1), missing, constant_values=-np.inf)
    return values, np.pad(order, missing, constant_values=-1)


SIZES = [(50, 70), (64, 32), (33, 129), (5, 3), (1, 1), (1, 40), (200, 2)]


@pytest.mark.parametrize('block', [16, 2048])
@pytest.mark.parametrize(('n', 'm'), SIZES)
def test_neighbours_equal_brute_force_whatever_the_blocks(
    n: int, m: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, '_CPU_BLOCK', block)
    x, y = _unit(n, 8, 0), _unit(m, 8, 1)
    for found, (values, indices) in zip(neighbours(x, y), (_brute(x, y, 4), _brute(y, x, 4)), strict=True):
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_allclose(found.values, values, atol=1e-6)
        assert found.indices.dtype == np.int32 and found.values.dtype == np.float32


@pytest.mark.parametrize('k', [1, 2, 4, 20, 100])
@pytest.mark.parametrize('block', [16, 64, 2048])
def test_of_equal_scores_the_lower_index_comes_first(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within groups, between groups, between blocks; more neighbours than there are sentences (90)."""
    monkeypatch.setattr(mining, '_CPU_BLOCK', block)
    x, y = _with_ties(333, 90)
    for found, (values, indices) in zip(neighbours(x, y, k), (_brute(x, y, k), _brute(y, x, k)), strict=True):
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_array_equal(found.values, values)


def test_all_scores_equal_or_below_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding scores zero and must not win; all equal: the first ones."""
    monkeypatch.setattr(mining, '_CPU_BLOCK', 16)
    x, y = np.full((37, 3), 1, np.float32), np.full((21, 3), -1, np.float32)
    for found in neighbours(x, y):
        np.testing.assert_array_equal(found.indices, np.broadcast_to(np.arange(4), found.indices.shape))
        assert (found.values == -3).all()


def test_memory_maps_and_vectors_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read-only .npy files, a side in half precision; cosine=True is the search over unit vectors."""
    monkeypatch.setattr(mining, '_CPU_BLOCK', 16)
    x, y = _unit(100, 8, 0), _unit(77, 8, 1)
    stretch = np.random.default_rng(2).uniform(0.1, 9, (100, 1)).astype(np.float32)
    np.save(tmp_path / 'x.npy', x * stretch)
    np.save(tmp_path / 'y.npy', y.astype(np.float16))
    maps = [np.load(tmp_path / f'{side}.npy', mmap_mode='r') for side in 'xy']
    for found, want in zip(neighbours(*maps, cosine=True), neighbours(x, y), strict=True):
        assert (found.indices == want.indices).mean() > 0.97  # half precision may swap close ones
        np.testing.assert_allclose(found.values, want.values, atol=2e-3)
    exact = neighbours(maps[0], y, cosine=True)[0]
    np.testing.assert_array_equal(exact.indices, neighbours(x, y)[0].indices)


def test_empty_sides() -> None:
    forward, backward = neighbours(_unit(3, 4, 0), np.zeros((0, 4), np.float32))
    assert forward.indices.tolist() == [[-1] * 4] * 3 and backward.indices.shape == (0, 4)


@pytest.mark.parametrize('masked', [False, True])
def test_a_block_takes_little_more_than_its_scores(masked: bool) -> None:
    """What XLA sets aside for it: no second copy of the scores, masked or transposed."""
    size = mining._CPU_BLOCK
    vectors, sizes = jax.ShapeDtypeStruct((size, 1024), np.float32), jax.ShapeDtypeStruct((4,), np.int32)
    best = jax.ShapeDtypeStruct((size, 4), np.float32), jax.ShapeDtypeStruct((size, 4), np.int32)
    program = mining._block.lower(vectors, vectors, best, best, sizes, k=4, masked=masked, mesh=None).compile()
    memory = program.memory_analysis()
    assert 4 * size**2 <= memory.temp_size_in_bytes < 1.5 * 4 * size**2


@pytest.mark.parametrize('side', ['first', 'second'])
def test_a_vector_that_is_not_finite_is_named(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, '_CPU_BLOCK', 16)
    x, y = _unit(40, 4, 0), _unit(40, 4, 1)
    (x if side == 'first' else y)[35, 2] = np.nan
    with pytest.raises(ModelError, match=rf'sentence vector 35 of the {side} side \(from 0\) is not finite'):
        neighbours(x, y)


def test_ratio_margin_by_hand() -> None:
    """Two by two with k = 2: x means (0.7, 0.5), y means (0.75, 0.45)."""
    scores = np.asarray([[0.9, 0.5], [0.6, 0.4]], np.float32)
    order = np.asarray([[0, 1], [0, 1]], np.int32)
    found = ratio_candidates(Neighbours(scores, order), Neighbours(scores.T.copy(), order))
    # margins: x0y0 .9/.725, x0y1 .5/.575, x1y0 .6/.625, x1y1 .4/.475. x0 takes y0; x1 wanted y0 too; y1's best is x0.
    assert list(zip(found.x, found.y, strict=True)) == [(0, 0)]
    np.testing.assert_allclose(found.score, [0.9 / 0.725], rtol=1e-6)


def test_threshold_lies_midway_and_maximises_f1() -> None:
    pairs = [('a', 'a'), ('b', 'b'), ('c', 'x'), ('d', 'd'), ('e', 'x')]
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    cut, f1 = best_threshold(pairs, scores, [('a', 'a'), ('b', 'b'), ('d', 'd')])
    assert cut == 1.5 and f1 == pytest.approx(200 * 3 / 7)
    assert best_threshold(pairs[:2], scores[:2], [('a', 'a'), ('b', 'b')]) == (4.0, 100.0)  # all taken: no next score
    assert best_threshold(pairs, scores, [('z', 'z')]) == (float('inf'), 0.0)


def _planted(
    n: int, pairs: int, d: int, cosine: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y = _unit(n, d, seed + 1), _unit(n, d, seed + 2)
    i, j = random.permutation(n)[:pairs], random.permutation(n)[:pairs]
    noise = y[j] - (y[j] * x[i]).sum(1, keepdims=True) * x[i]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    y[j] = cosine * x[i] + np.sqrt(1 - cosine**2) * noise
    return x, y, i, j


def test_every_planted_pair_is_found() -> None:
    x, y, i, j = _planted(3000, 200, 128, 0.9)
    found = ratio_candidates(*neighbours(x, y))
    top = set(zip(found.x[:200].tolist(), found.y[:200].tolist(), strict=True))
    assert top == set(zip(i.tolist(), j.tolist(), strict=True))


# Run by this file as a program: on eight devices, and with 200,000 vectors a side.
MESHES = [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)]


def _with_ties(n: int, m: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of small whole numbers: few different scores, all of them exact however they are summed."""
    random = np.random.default_rng(seed)
    x, y = (random.integers(-2, 3, (size, 6)).astype(np.float32) for size in (n, m))
    return x, y


def _on_meshes() -> dict[str, list]:
    from xlmr_flax.parallel.mesh import make_mesh

    assert jax.device_count() == 8
    x, y = _with_ties(700, 301)
    mining._CPU_BLOCK = 64
    return {
        str(sizes): [
            [found.values.tolist(), found.indices.tolist()] for found in neighbours(x, y, mesh=make_mesh(*sizes))
        ]
        for sizes in MESHES
    }


def _many() -> dict[str, float]:
    """Mines 2 * 200,000 vectors of 1024 numbers; recall of the planted pairs, GiB beyond the vectors (interpreter and
    libraries among them), seconds."""
    from time import perf_counter

    from xlmr_flax.tools.bench.memory import peak_memory

    x, y, i, j = _planted(200_000, 2000, 1024, 0.9)
    start = perf_counter()
    found = ratio_candidates(*neighbours(x, y))
    seconds = perf_counter() - start
    top = set(zip(found.x[:2000].tolist(), found.y[:2000].tolist(), strict=True))
    right = len(top & set(zip(i.tolist(), j.tolist(), strict=True)))
    return {'recall': right / 2000, 'gib': (peak_memory() - x.nbytes - y.nbytes) / 2**30, 'seconds': seconds}


def _child(what: str, devices: int = 1) -> dict:
    return json.loads(output_of(__file__, what, devices=devices))


def test_eight_devices_find_what_one_does_ties_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, '_CPU_BLOCK', 64)
    want = neighbours(*_with_ties(700, 301))
    found = _child('meshes', devices=8)
    assert found.keys() == {str(sizes) for sizes in MESHES}
    for sides in found.values():
        for (values, indices), side in zip(sides, want, strict=True):
            np.testing.assert_array_equal(indices, side.indices)
            np.testing.assert_array_equal(values, side.values)


@pytest.mark.slow
def test_every_planted_pair_of_200000_is_found_in_little_memory() -> None:
    """Half an hour on two busy cores (once: 1783 s); less than 2 GiB beyond the vectors (0.51)."""
    found = _child('many')
    assert found['recall'] == 1
    assert found['gib'] < 2, f'{found["gib"]:.2f} GiB beyond the vectors'


if __name__ == '__main__':
    print(json.dumps({'meshes': _on_meshes, 'many': _many}[sys.argv[1]]()))
