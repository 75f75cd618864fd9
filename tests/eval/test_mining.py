"""Mining: exact neighbours across block borders, hand-worked margins, thresholds, planted pairs."""

from __future__ import annotations

import numpy as np
import pytest

from xlmr_flax.eval import mining
from xlmr_flax.eval.mining import Neighbours, best_threshold, neighbours, ratio_candidates


def _unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(('n', 'm'), [(50, 70), (64, 32), (33, 129), (5, 3)])
def test_neighbours_equal_brute_force_whatever_the_blocks(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, '_ROWS', 16)
    monkeypatch.setattr(mining, '_COLUMNS', 32)
    x, y = _unit(n, 8, 0), _unit(m, 8, 1)
    forward, backward = neighbours(x, y)
    scores = x @ y.T
    for found, table in ((forward, scores), (backward, scores.T)):
        k = min(4, table.shape[1])
        want = np.argsort(-table, axis=1, kind='stable')[:, :k]
        np.testing.assert_array_equal(found.indices[:, :k], want)
        np.testing.assert_allclose(found.values[:, :k], np.take_along_axis(table, want, 1), atol=1e-6)
        assert (found.indices[:, k:] == -1).all()


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


@pytest.mark.slow
def test_every_planted_pair_of_200000_is_found_in_little_memory() -> None:
    """About ten minutes on two cores; 2 GiB beyond the vectors is the bound."""
    import resource

    x, y, i, j = _planted(200_000, 2000, 1024, 0.9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = ratio_candidates(*neighbours(x, y))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    top = set(zip(found.x[:2000].tolist(), found.y[:2000].tolist(), strict=True))
    assert top == set(zip(i.tolist(), j.tolist(), strict=True))
    assert grown < 2, f'{grown:.2f} GiB beyond the vectors'
