"""Masking: what is chosen, what becomes of it, in which numbers; and the same again for the same key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.masking import Masking, gather, mask_batch, mask_rows, mask_tokens
from xlmr_flax.data.tokenize import Ragged, Tokenizer, TokenizerError
from xlmr_flax.kinds import base

PLAIN = Masking(mask_id=99, special_ids=(0, 1, 2, 3, 99), vocab_size=100)


def text(rows: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(ids, segments) of rows `<s> A </s>` of different lengths, an unknown word in each."""
    random = np.random.default_rng(seed)
    ids = random.integers(4, 99, (rows, length)).astype(np.int32)
    ends = random.integers(4, length + 1, rows)
    segments = (np.arange(length) < ends[:, None]).astype(np.int32)
    ids[:, 0], ids[:, 2] = 0, 3
    ids[np.arange(rows), ends - 1] = 2
    return np.where(segments > 0, ids, 1).astype(np.int32), segments


def within(found: int, of: int, share: float) -> bool:
    """Five standard deviations of a binomial count."""
    return abs(found - of * share) < 5 * (of * share * (1 - share)) ** 0.5


@pytest.mark.parametrize('rate', [0.15, 0.4])
def test_shares(rate: float) -> None:
    ids, segments = text(4000, 60)
    masking = Masking(99, PLAIN.special_ids, 100, rate)
    new, labels = mask_tokens(ids, segments, (5, 7), masking)
    words = (segments > 0) & ~np.isin(ids, PLAIN.special_ids)
    chosen = labels != IGNORED
    assert not (chosen & ~words).any(), 'special tokens and padding are not predicted'
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(new[~chosen], ids[~chosen])
    n = int(chosen.sum())
    assert within(n, int(words.sum()), rate)
    masked, kept = int((new[chosen] == 99).sum()), int((new[chosen] == ids[chosen]).sum())
    assert within(masked, n, 0.8)
    assert within(kept, n, 0.1 + 0.1 / 95), 'a random word may be the word itself'
    others = new[chosen & (new != 99) & (new != ids)]
    counts = np.bincount(others, minlength=100)
    assert not counts[[*PLAIN.special_ids]].any()
    expected = len(others) / 95
    chi_square = float(((counts[4:99] - expected) ** 2 / expected).sum())
    assert chi_square < 94 + 5 * (2 * 94) ** 0.5, 'random words are uniform'
    per_position = chosen[:, 1:].sum(0) / np.maximum(words[:, 1:].sum(0), 1)
    assert np.abs(per_position[words[:, 1:].sum(0) > 0] - rate).max() < 6 * (rate * (1 - rate) / 300) ** 0.5


def test_a_key_decides() -> None:
    ids, segments = text(16, 40)
    before = ids.copy()
    first, again, step, seed = (mask_tokens(ids, segments, k, PLAIN) for k in ((3, 8), (3, 8), (3, 9), (4, 8)))
    np.testing.assert_array_equal(ids, before)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.int32
    for other in (step, seed):
        assert ((first[1] == IGNORED) != (other[1] == IGNORED)).mean() > 0.1


def test_what_a_key_gives_is_known() -> None:
    """Another machine or version of numpy masks the same tokens, or this fails."""
    ids = np.arange(4, 24, dtype=np.int32)[None]
    new, labels = mask_tokens(ids, np.ones_like(ids), (1, 4), Masking(99, PLAIN.special_ids, 100, 0.5))
    at = np.flatnonzero(labels[0] != IGNORED)
    assert at.tolist() == [0, 1, 2, 5, 6, 7, 8, 10, 13, 15]
    assert new[0, at].tolist() == [7, 99, 99, 9, 99, 99, 99, 99, 29, 99]


def test_packed_rows_are_masked_in_every_segment() -> None:
    ids = np.full((400, 12), 50, np.int32)
    segments = np.tile(np.repeat([1, 2, 0], 4), (400, 1)).astype(np.int32)
    chosen = mask_tokens(ids, segments, (0, 0), PLAIN)[1] != IGNORED
    assert chosen[:, :4].any() and chosen[:, 4:8].any() and not chosen[:, 8:].any()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32))
def test_gathered_labels_are_the_labels(rows: int, length: int, most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    most = min(most, length)
    labels = np.where(random.random((rows, length)) < 0.3, random.integers(0, 99, (rows, length)), IGNORED)
    positions, found = gather(labels.astype(np.int32), most)
    assert positions.shape == found.shape == (rows, most)
    assert positions.dtype == found.dtype == np.int32
    for row in range(rows):
        want = np.flatnonzero(labels[row] != IGNORED)[:most]
        np.testing.assert_array_equal(positions[row, : len(want)], want)
        np.testing.assert_array_equal(found[row, : len(want)], labels[row, want])
        assert not positions[row, len(want) :].any()
        assert (found[row, len(want) :] == IGNORED).all()


@pytest.mark.parametrize('length', [16, 32, 64, 128, 256, 512])
def test_rows_have_places_enough(length: int) -> None:
    """The tail of the binomial distribution beyond them, summed exactly."""
    most = PLAIN.most(length)
    assert most % 8 == 0 and most <= max(16, 0.45 * length)
    log = np.cumsum(np.log(np.r_[1.0, np.arange(1, length + 1)]))
    k = np.arange(most + 1, length + 1)
    tail = np.exp(log[length] - log[k] - log[length - k] + k * np.log(0.15) + (length - k) * np.log(0.85)).sum()
    assert tail < 1e-5


def test_a_short_row_has_a_place_for_every_token() -> None:
    assert PLAIN.most(5) == 5
    assert Masking(99, (), 100, 0.9).most(64) == 64


def test_a_batch_is_both_together() -> None:
    ids, segments = text(8, 64)
    batch = mask_batch(ids, segments, (1, 5), PLAIN)
    new, labels = mask_tokens(ids, segments, (1, 5), PLAIN)
    np.testing.assert_array_equal(batch['ids'], new)
    assert batch['labels'].shape == batch['positions'].shape == (8, 24)
    real = batch['labels'] != IGNORED
    assert real.sum() == (labels != IGNORED).sum() > 0
    np.testing.assert_array_equal(np.take_along_axis(ids, batch['positions'], 1)[real], batch['labels'][real])


def test_rows_for_evaluation_do_not_depend_on_the_rows_behind() -> None:
    random = np.random.default_rng(0)
    rows = [np.r_[0, random.integers(4, 99, n), 2] for n in random.integers(1, 40, 30)]
    ids, labels = mask_rows(Ragged.from_rows(rows), 3, PLAIN)
    fewer, fewer_labels = mask_rows(Ragged.from_rows(rows[:11]), 3, PLAIN)
    for i in range(11):
        np.testing.assert_array_equal(ids[i], fewer[i])
        np.testing.assert_array_equal(labels[i], fewer_labels[i])
    assert (labels.flat != IGNORED).sum() > 30
    assert ids.flat.dtype == labels.flat.dtype == np.int32
    np.testing.assert_array_equal(ids.lengths, labels.lengths)


def test_what_is_read_from_a_tokenizer(tiny_tokenizer: Path) -> None:
    tokenizer = Tokenizer(tiny_tokenizer, 5000)
    masking = Masking.of(tokenizer, 0.2)
    assert masking == Masking(mask_id=2047, special_ids=(0, 1, 2, 3, 2047), vocab_size=2048, rate=0.2)
    ids = np.full((200, 500), 40, np.int32)
    new, _ = mask_tokens(ids, np.ones_like(ids), (0, 0), masking)
    assert 2000 < new[new != 2047].max() < 2047, 'no id of the table beyond the vocabulary'


def test_the_embedded_tokenizer() -> None:
    from xlmr_flax.encoders.config import ModelError
    from xlmr_flax.models import embedded

    try:
        path, rows = embedded.tokenizer_path(), embedded.load_config().vocab_size
    except ModelError as e:
        pytest.skip(str(e))
    masking = Masking.of(Tokenizer(path, rows))
    assert (masking.mask_id, masking.special_ids) == (250001, (0, 1, 2, 3, 250001))
    assert masking.vocab_size == 250002 < rows


def test_a_tokenizer_without_a_mask(tiny_tokenizer: Path, tmp_path: Path) -> None:
    raw = json.loads(tiny_tokenizer.read_text(encoding='utf-8'))
    raw['added_tokens'] = [token for token in raw['added_tokens'] if token['content'] != '<mask>']
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(raw), encoding='utf-8')
    tokenizer = Tokenizer(path, 2048)
    assert (tokenizer.mask, tokenizer.special_ids) == (None, (0, 1, 2, 3))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: no token '<mask>', which masked language modelling"):
        Masking.of(tokenizer)


@pytest.mark.parametrize('rate', [0.0, 1.0, -0.1, 15.0])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match=f'masking rate {rate} does not lie between 0 and 1'):
        Masking(99, (), 100, rate)


def test_the_label_that_the_loss_leaves_out() -> None:
    assert IGNORED == base.IGNORED
