"""The stream of training rows as a function of seed and step, and padding."""

from __future__ import annotations

import numpy as np
import pytest

from xlmr_flax.data.batches import (
    eval_batches,
    pad_rows,
    padded_length,
    pass_tokens,
    row_lengths,
    train_batch,
    units_at,
)
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.tokenize import Ragged

PAD = 1


def ragged(lengths: list[int]) -> Ragged:
    return Ragged.from_rows([np.arange(n) + 10 * (i + 1) for i, n in enumerate(lengths)])


@pytest.mark.parametrize(('n', 'size'), [(10, 4), (7, 7), (3, 8), (100, 32), (1, 5)])
def test_every_row_once_per_pass_across_batch_borders(n: int, size: int) -> None:
    steps = 3 * n  # three passes at least
    stream = np.concatenate([units_at(s, n, size, seed=5) for s in range(steps)])
    assert all(len(units_at(s, n, size, seed=5)) == size for s in range(steps))
    for start in range(0, len(stream) - n + 1, n):
        assert sorted(stream[start : start + n]) == list(range(n)), start
    if n > 6:
        assert not np.array_equal(stream[:n], stream[n : 2 * n]), 'every pass has an order of its own'
        assert not np.array_equal(stream[:n], np.arange(n))


def test_rows_of_a_step_depend_on_seed_and_step_alone() -> None:
    want = units_at(13, 50, 8, seed=3)
    for seed in range(20):  # pushes the kept permutations out
        units_at(2, 50, 8, seed)
    np.testing.assert_array_equal(units_at(13, 50, 8, seed=3), want)
    assert not np.array_equal(units_at(13, 50, 8, seed=4), want)
    assert not np.array_equal(units_at(14, 50, 8, seed=3), want)
    # Two batches of 4 are one batch of 8: the stream does not know the batch size.
    halves = [units_at(26, 50, 4, seed=3), units_at(27, 50, 4, seed=3)]
    np.testing.assert_array_equal(np.concatenate(halves), want)


def test_the_stream_is_the_same_next_year() -> None:
    """A change here changes every run; raise experiment.plan._FORMAT with it."""
    assert units_at(0, 10, 6, seed=1).tolist() == [6, 0, 7, 9, 4, 1]
    assert units_at(1, 10, 6, seed=1).tolist() == [8, 5, 2, 3, 2, 7]


@pytest.mark.parametrize(
    ('max_length', 'lengths', 'want'),
    [
        (128, (), (32, 64, 96, 128)),
        (100, (), (32, 64, 96, 100)),
        (64, (48, 32), (32, 48, 64)),
        (8, (), (8,)),
        (1000, (), (32, 64, 96, 128, 192, 256, 384, 512, 768, 1000)),
    ],
)
def test_row_lengths(max_length: int, lengths: tuple[int, ...], want: tuple[int, ...]) -> None:
    assert row_lengths(max_length, lengths) == want


@pytest.mark.parametrize(('longest', 'want'), [(1, 32), (32, 32), (33, 64), (64, 64)])
def test_the_shortest_length_that_holds(longest: int, want: int) -> None:
    assert padded_length(longest, (32, 64)) == want


def test_padding() -> None:
    batch = pad_rows(ragged([3, 1, 5]), [2, 0], 6, PAD)
    np.testing.assert_array_equal(batch['ids'], [[30, 31, 32, 33, 34, PAD], [10, 11, 12, PAD, PAD, PAD]])
    np.testing.assert_array_equal(batch['segments'], [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    assert {v.dtype for v in batch.values()} == {np.dtype(np.int32)}


def test_a_training_batch_holds_the_steps_rows_at_the_right_length() -> None:
    lengths = [3, 9, 4, 17, 2, 5, 30, 8]
    data = Encoded('pair', ragged(lengths), np.arange(8, dtype=np.int32) % 3, tuple('abcdefgh'))
    widths = set()
    for step in range(12):
        rows = units_at(step, 8, 2, seed=2)
        batch = train_batch(data, step, 2, 2, (8, 16, 32), PAD)
        longest = max(lengths[r] for r in rows)
        assert batch['ids'].shape == (2, padded_length(longest, (8, 16, 32)))
        widths.add(batch['ids'].shape[1])
        np.testing.assert_array_equal(batch['label'], data.label[rows])
        np.testing.assert_array_equal(batch['valid'], np.ones(2))
        for i, row in enumerate(rows):
            assert batch['ids'][i, : lengths[row]].tolist() == data.tokens[row].tolist()
            assert batch['segments'][i].sum() == lengths[row]
    assert widths == {8, 16, 32}


@pytest.mark.parametrize('multiple', [1, 4])
@pytest.mark.parametrize('batch_tokens', [1, 64, 100, 4096])
def test_evaluation_sees_every_row_once_in_few_shapes(batch_tokens: int, multiple: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 33, 61).tolist()
    tokens, seen, shapes = ragged(lengths), [], set()
    for rows, batch in eval_batches(tokens, (8, 16, 32), batch_tokens, PAD, multiple):
        size, width = batch['ids'].shape
        shapes.add((size, width))
        assert size % multiple == 0
        assert size * width <= max(batch_tokens, multiple * width) + (multiple - 1) * width
        assert len(rows) <= size
        for i, row in enumerate(rows):
            assert batch['ids'][i, : lengths[row]].tolist() == tokens[int(row)].tolist()
            assert (batch['ids'][i, lengths[row] :] == PAD).all()
            assert batch['segments'][i].sum() == lengths[row]
        assert not batch['segments'][len(rows) :].any()
        seen += rows.tolist()
    assert sorted(seen) == list(range(61))
    assert len(shapes) <= 3, 'one shape a length'
    assert len({width for _, width in shapes}) == len(shapes)


def test_no_rows_no_batches() -> None:
    assert list(eval_batches(Ragged.from_rows([]), (8,), 64, PAD)) == []


def test_a_pass_is_as_large_as_the_platform_likes_unless_said() -> None:
    assert [pass_tokens(0, platform, 8) for platform in ('cpu', 'gpu', 'tpu')] == [1024, 8 * 8192, 8 * 8192]
    assert pass_tokens(512, 'cpu') == pass_tokens(512, 'tpu') == 512
