"""Packing: every example once and whole, rows never too full, few shapes, the same whoever makes which rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_flax.data.batches import eval_batches, packed_batch, packed_eval_batches, train_batch, unit_lengths
from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.packing import Packing, batch_sizes, best_fit, pack_set, packed_batches, row_counts, slots_of
from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tagging import TagRows
from xlmr_flax.data.tokenize import Ragged

PAD, LENGTH = 1, 64


def encoded(kind: str, n: int = 40, group: int = 1, seed: int = 0) -> Encoded:
    """Rows of 3 to 64 tokens, none of them PAD."""
    random = np.random.default_rng(seed)
    rows = [random.integers(5, 999, random.integers(3, LENGTH + 1)) for _ in range(n * group)]
    tokens = Ragged.from_rows(rows)
    label = random.integers(1, 9, n).astype(np.int32)
    data = Encoded(kind, tokens, label, tuple(map(str, range(n))), group)
    if kind == 'tag':
        labels = Ragged(np.where(random.random(len(tokens.flat)) < 0.5, IGNORED, tokens.flat % 7), tokens.offsets)
        tags = TagRows(tokens, Ragged(np.ones_like(tokens.flat), tokens.offsets), labels, np.arange(n))
        return Encoded(kind, tokens, NO_LABELS, data.ids, group, tags)
    if kind == 'span':
        start, end = (random.integers(0, tokens.lengths).astype(np.int32) for _ in range(2))
        zeros = np.zeros(n, np.int32)
        spans = SpanRows(tokens, np.arange(n), start, end, zeros, zeros, zeros, ())
        return Encoded(kind, tokens, NO_LABELS, data.ids, group, None, spans)
    return data


def packing_of(data: Encoded, **more: Any) -> Packing:
    return Packing.of(data.tokens.lengths.reshape(-1, data.group), (16, 32, LENGTH), **more)


def segments_of(ids: np.ndarray, segments: np.ndarray) -> list[list[int]]:
    """The tokens of each segment, row by row."""
    return [row[own == n].tolist() for row, own in zip(ids, segments, strict=True) for n in range(1, own.max() + 1)]


LENGTHS = st.integers(1, 4).flatmap(
    lambda lines: st.lists(st.lists(st.integers(1, 50), min_size=lines, max_size=lines), min_size=1, max_size=40)
)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 8))
def test_every_example_has_a_place_of_its_own(lengths: list[list[int]], slots: int) -> None:
    sizes = np.asarray(lengths)
    row, slot, start = best_fit(sizes, 50, slots)
    assert set(row) == set(range(row.max() + 1)), 'no row is empty'
    assert slot.max() < slots and len(set(zip(row, slot, strict=True))) == len(sizes)
    for number in range(row.max() + 1):
        own = np.flatnonzero(row == number)
        own = own[np.argsort(slot[own])]
        assert slot[own].tolist() == list(range(len(own)))
        ends = np.cumsum(sizes[own], axis=0)  # one behind the other, without gaps, on each line
        np.testing.assert_array_equal(start[own], ends - sizes[own])
        assert ends[-1].max() <= 50
    if slots == 8 and sizes.shape[1] == 1 and len(sizes) < 9:  # best-fit decreasing: at most 11/9 of the best, and 6/9
        assert row.max() + 1 <= 11 / 9 * -(-sizes.sum() // 50) * 2


def test_short_examples_fill_what_long_ones_leave() -> None:
    row, slot, start = best_fit(np.asarray([[10], [40], [30], [20], [28]]), 50, 8)
    assert row.tolist() == [0, 0, 1, 1, 2]
    assert slot.tolist() == [1, 0, 0, 1, 0]
    assert start[:, 0].tolist() == [40, 0, 0, 30, 0]


def test_numbers_of_rows_are_few() -> None:
    assert row_counts(33) == (*range(1, 16), 16, 18, 20, 22, 24, 26, 28, 30, 32, 36)
    assert row_counts(1) == (1,)
    assert len(row_counts(4096)) == 16 + 8 * 8
    packing = Packing(128, mean=43.0)
    assert packing.rows(9, 32) == 10, 'little less than what the mean fills, 10.75 rows'
    assert [packing.rows(need, 32) for need in (11, 12, 13, 17, 31)] == [11, 12, 13, 18, 32]
    assert packing.rows(17, 17) == 17, 'never more rows than examples'
    assert Packing(128, 43.0, multiple=8).rows(12, 32) == 16
    assert packing.counts(32) == (10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(0, 10**6))
def test_batches_have_one_of_the_known_sizes(multiple: int, parts: int, seed: int) -> None:
    data, size = encoded('pair', 60, seed=seed % 5), 24
    packing = packing_of(data, multiple=multiple, parts=parts)
    units = np.random.default_rng(seed).integers(0, 60, size)
    layout = packing.layout(unit_lengths(data, units))
    assert layout.rows in packing.counts(size)
    assert layout.rows % (multiple * parts) == 0
    assert layout.rows <= -(-size // (multiple * parts)) * multiple * parts
    part = layout.row // (layout.rows // parts)
    np.testing.assert_array_equal(part, np.repeat(np.arange(parts), size // parts))
    assert 0 < layout.efficiency <= 1
    batch = packed_batch(data, units, layout, PAD)
    assert layout.efficiency == pytest.approx((batch['segments'] > 0).mean())


@pytest.mark.parametrize(('kind', 'group'), [('pair', 1), ('choice', 3), ('tag', 1), ('span', 1)])
def test_a_packed_batch_has_the_examples_of_the_padded_one(kind: str, group: int) -> None:
    data, size = encoded(kind, group=group), 16
    packing = packing_of(data)
    for step in range(4):
        plain = train_batch(data, step, size, 5, (16, 32, LENGTH), PAD)
        from xlmr_flax.data.batches import units_at

        layout = packing.layout(unit_lengths(data, units_at(step, len(data), size, 5)))
        batch = train_batch(data, step, size, 5, (16, 32, LENGTH), PAD, layout=layout)
        assert batch['ids'].shape == ((layout.rows, group, LENGTH) if kind == 'choice' else (layout.rows, LENGTH))
        assert layout.rows < size
        flat = [batch[name].reshape(-1, LENGTH) for name in ('ids', 'segments')]
        assert np.array_equal(flat[0] == PAD, flat[1] == 0)
        padded = [plain[name].reshape(size * group, -1) for name in ('ids', 'segments')]
        assert Counter(map(tuple, segments_of(*flat))) == Counter(map(tuple, segments_of(*padded)))
        at = layout.row, layout.slot
        if kind in ('pair', 'choice'):
            assert batch['valid'].sum() == size and batch['valid'][at].all()
            np.testing.assert_array_equal(batch['label'][at], plain['label'])
            starts = batch['starts'].reshape(layout.rows, group, -1)
            ids = batch['ids'].reshape(layout.rows, group, LENGTH)
            for n in range(group):  # the first token of each choice, by the example's slot
                first = ids[layout.row, n, starts[layout.row, n, layout.slot]]
                np.testing.assert_array_equal(first, plain['ids'].reshape(size, group, -1)[:, n, 0])
        elif kind == 'span':
            for name in ('start', 'end'):
                tokens = batch['ids'][layout.row, batch[name][at]]
                np.testing.assert_array_equal(tokens, plain['ids'][np.arange(size), plain[name]])
                own = batch['segments'][layout.row, batch[name][at]]
                np.testing.assert_array_equal(own, layout.slot + 1)
        else:
            pairs = [Counter(zip(b['ids'][s], b['labels'][s], strict=True)) for b in (batch, plain)
                     for s in [b['segments'] > 0]]  # fmt: skip
            assert pairs[0] == pairs[1]
            assert (batch['labels'][batch['segments'] == 0] == IGNORED).all()


@pytest.mark.parametrize(('kind', 'group'), [('pair', 1), ('choice', 3), ('tag', 1), ('span', 1)])
@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_make_parts_of_one_batch(kind: str, group: int, hosts: int) -> None:
    data = encoded(kind, group=group)
    units = np.arange(16)
    layout = packing_of(data, multiple=hosts).layout(unit_lengths(data, units))
    whole, each = packed_batch(data, units, layout, PAD), layout.rows // hosts
    parts = [packed_batch(data, units, layout, PAD, slice(i * each, (i + 1) * each)) for i in range(hosts)]
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value, name)


def test_more_devices_add_empty_rows_and_move_nothing() -> None:
    """So that dropout, which follows the place, is the same on every mesh."""
    data, units = encoded('pair'), np.arange(16)
    few, many = (packing_of(data, multiple=m).layout(unit_lengths(data, units)) for m in (1, 8))
    assert many.rows > few.rows and many.rows % 8 == 0
    for name in ('row', 'slot', 'start'):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name))
    found, more = (packed_batch(data, units, layout, PAD) for layout in (few, many))
    for name, value in found.items():
        np.testing.assert_array_equal(more[name][: few.rows], value)
    assert not more['segments'][few.rows :].any() and not more['valid'][few.rows :].any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 512), min_size=0, max_size=200), st.sampled_from([1, 3, 8]))
def test_a_set_is_packed_once_and_whole(lengths: list[int], multiple: int) -> None:
    sizes, classes = np.asarray(lengths, np.int64), (64, 128, 256, 512)
    rows = pack_set(sizes, classes)
    assert sorted(i for row in rows for i in row.items) == list(range(len(sizes)))
    for row in rows:
        assert row.length in classes[1:] and sizes[list(row.items)].sum() <= row.length
        assert len(row.items) <= slots_of(row.length)
        first = sizes[row.items[0]]
        assert first == sizes[list(row.items)].max() and row.length == min(n for n in classes[1:] if n >= first)
    seen: list[int] = []
    for batch in packed_batches(sizes, classes, 1024, multiple):
        seen += batch.item.tolist()
        assert batch.size in batch_sizes(batch.length, 1024, multiple) and batch.size % multiple == 0
        assert batch.row.max() < batch.size and (batch.start + sizes[batch.item]).max() <= batch.length
        own = list(zip(batch.row.tolist(), batch.slot.tolist(), strict=True))
        assert len(set(own)) == len(own) and sorted(own) == own
        ends = dict(zip(own, (batch.start + sizes[batch.item]).tolist(), strict=True))
        for (row, slot), start in zip(own, batch.start.tolist(), strict=True):
            assert start == (ends[row, slot - 1] if slot else 0)
    assert sorted(seen) == list(range(len(sizes)))


def test_a_set_is_packed_well_and_in_few_shapes() -> None:
    """Log-normal lengths, as of sentence pairs: less than 3 % padding where buckets have a fifth."""
    random = np.random.default_rng(0)
    sizes = np.clip(random.lognormal(3.6, 0.5, 5000), 8, 128).astype(np.int64)
    tokens = Ragged.from_rows([np.full(n, 7) for n in sizes])
    classes = (32, 64, 96, 128)
    packed = list(packed_batches(sizes, classes, 4096))
    computed = sum(batch.size * batch.length for batch in packed)
    buckets = sum(batch['ids'].size for _, batch in eval_batches(tokens, classes, 4096, PAD))
    assert sizes.sum() / computed > 0.97
    assert sizes.sum() / buckets < 0.85
    assert {batch.length for batch in packed} == {128} and len({batch.size for batch in packed}) <= 3


@pytest.mark.parametrize(('rows', 'sizes'), [
    (14, [8, 2, 2, 2]), (15, [8, 8]), (29, [32]), (32, [32]), (33, [32, 2]), (46, [32, 8, 2, 2, 2]), (1, [2]),
])  # fmt: skip
def test_what_is_left_of_a_set_is_cut_into_smaller_batches(rows: int, sizes: list[int]) -> None:
    """A few dozen rows a language, as in a selection or a trial, are not mostly padding."""
    packed = list(packed_batches(np.full(rows, 128), (128,), 4096))
    assert [batch.size for batch in packed] == sizes
    assert sorted(i for batch in packed for i in batch.item) == list(range(rows))


def test_few_rows_make_a_small_batch() -> None:
    (batch,) = packed_batches(np.asarray([5, 9, 7]), (64, 128), 4096)
    assert (batch.size, batch.length) == (2, 128)
    assert batch_sizes(128, 4096) == (2, 8, 32) and batch_sizes(128, 4096, 8) == (8, 32)
    assert batch_sizes(512, 64) == (1,)
    assert list(packed_batches(np.zeros(0, np.int64), (64,), 4096)) == []


@pytest.mark.parametrize('hosts', [1, 2, 3])
def test_rows_of_an_evaluation_batch(hosts: int) -> None:
    tokens = encoded('pair', 23).tokens
    whole = list(packed_eval_batches(tokens, (16, 32, 64), 256, PAD, hosts))
    for found, batch in whole:
        assert batch['ids'].shape == (found.size, found.length)
        for i, row, slot, start in zip(found.item, found.row, found.slot, found.start, strict=True):
            own = batch['segments'][row] == slot + 1
            np.testing.assert_array_equal(batch['ids'][row][own], tokens[i])
            assert start == np.flatnonzero(own)[0] == batch['starts'][row, slot]
        assert (batch['ids'][batch['segments'] == 0] == PAD).all()

    def of(host: int) -> Any:
        own = lambda size: slice(host * size // hosts, (host + 1) * size // hosts)  # noqa: E731
        return packed_eval_batches(tokens, (16, 32, 64), 256, PAD, hosts, own)

    for (_, batch), *parts in zip(whole, *map(of, range(hosts)), strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for _, part in parts]), value, name)
