"""Losses of every head kind against torch's cross_entropy, as transformers' classes call it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the reference is torch's cross_entropy")

from xlmr_flax.kinds import KINDS  # noqa: E402

B, T, C = 5, 7, 4
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(B, T, C)).astype(np.float32)
LABELS = RANDOM.integers(0, C, (B, T)).astype(np.int32)
VALID = np.array([1, 1, 0, 1, 0], np.float32)
KEPT = VALID > 0


def cross_entropy(logits: np.ndarray, labels: np.ndarray, **options: object) -> float:
    return float(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels).long(), **options))


@pytest.mark.parametrize('kind', ['pair', 'choice'])
@pytest.mark.parametrize('valid', [np.ones(B, np.float32), VALID])
def test_one_class_an_example(kind: str, valid: np.ndarray) -> None:
    batch = {'label': LABELS[:, 0], 'valid': valid}
    total, n, right = KINDS[kind].loss_sums(LOGITS[:, 0], batch)
    real = valid > 0
    assert float(total / n) == pytest.approx(cross_entropy(LOGITS[real, 0], LABELS[real, 0]), rel=1e-6)
    assert float(n) == float(KINDS[kind].count(batch)) == real.sum()
    assert float(right) == (LOGITS[real, 0].argmax(-1) == LABELS[real, 0]).sum()


@pytest.mark.parametrize('kind', ['tag', 'mlm'])
def test_one_class_a_token_where_there_is_a_label(kind: str) -> None:
    labels = np.where(RANDOM.random((B, T)) < 0.4, -1, LABELS).astype(np.int32)
    batch = {'labels': labels, 'valid': VALID}
    total, n, right = KINDS[kind].loss_sums(LOGITS, batch)
    kept = labels[KEPT].reshape(-1)
    want = cross_entropy(LOGITS[KEPT].reshape(-1, C), kept, ignore_index=-1)
    assert float(total / n) == pytest.approx(want, rel=1e-6)
    assert float(n) == float(KINDS[kind].count(batch)) == (kept >= 0).sum()
    assert float(right) == ((LOGITS[KEPT].reshape(-1, C).argmax(-1) == kept) & (kept >= 0)).sum()


def test_spans_are_the_mean_of_start_and_end() -> None:
    """Over the tokens of each window: padding is no place that an answer may begin at."""
    start, end = RANDOM.integers(0, 4, (2, B)).astype(np.int32)
    lengths = [4, 7, 5, 6, 4]
    segments = (np.arange(T) < np.asarray(lengths)[:, None]).astype(np.int32)
    batch = {'start': start, 'end': end, 'valid': VALID, 'segments': segments}
    logits = LOGITS[..., :2]
    total, n, right = KINDS['span'].loss_sums(logits, batch)
    both, hits = 0.0, 0
    for i, gold in enumerate((start, end)):
        for row in np.flatnonzero(KEPT):
            own = logits[row : row + 1, : lengths[row], i]
            both += cross_entropy(own, gold[row : row + 1])
            hits += int(own.argmax() == gold[row])
    assert float(total) == pytest.approx(both / 2, rel=1e-6)
    assert float(n) == float(KINDS['span'].count(batch)) == 3
    assert float(right) == hits / 2


def test_packed_spans_are_each_windows_own() -> None:
    """Three windows in two rows, and a slot that is empty; against the same windows in rows of their own."""
    segments = np.array([[1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1]], np.int32)
    start, end = np.array([[2, 3], [0, 0]], np.int32), np.array([[1, 5], [6, 0]], np.int32)
    valid = np.array([[1, 1], [1, 0]], np.float32)
    logits = LOGITS[:2, :, :2]
    packed = KINDS['span'].loss_sums(logits, {'start': start, 'end': end, 'valid': valid, 'segments': segments})
    alone = np.zeros((3, T, 2), np.float32)
    alone[0, :3], alone[1, :3], alone[2] = logits[0, :3], logits[0, 3:6], logits[1]
    own = (np.arange(T) < np.array([[3], [3], [7]])).astype(np.int32)
    plain = {'start': np.array([2, 0, 0]), 'end': np.array([1, 2, 6]), 'valid': np.ones(3, np.float32), 'segments': own}
    for a, b in zip(packed, KINDS['span'].loss_sums(alone, plain), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-6)
    assert float(packed[1]) == 3


def test_large_logits_stay_finite() -> None:
    batch = {'label': np.array([0, 1], np.int32), 'valid': np.ones(2, np.float32)}
    total, _, _ = KINDS['pair'].loss_sums(np.array([[1e4, 0.0], [1e4, 0.0]], np.float32), batch)
    assert float(total) == pytest.approx(1e4)
