"""The mixture: exact counts, no starvation, any position without replay, one stream on all hosts, rates by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlmr_flax.config import Arm, Member
from xlmr_flax.data.batches import units_at
from xlmr_flax.data.expression import Expression, ExpressionError
from xlmr_flax.data.mixture import (
    Mixture,
    MixtureError,
    Quotas,
    fixed_quotas,
    language_shares,
    mixture_rates,
    stream_seed,
    timed_quotas,
)

RATES = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=11).map(lambda r: np.asarray(r) / np.sum(r))
BLOCKS = st.sampled_from([1, 2, 3, 7, 10, 64, 100])
TEXTS = ('1', 't/50', 'exp(-t/200)', 'max(0, 1 - t/300)', 'min(t, 40) + 0.01', 'sqrt(t)', '1/(1+t)')


def mixture(rates: np.ndarray, block: int, seed: int = 0) -> Mixture:
    return Mixture(tuple(f't{i}' for i in range(len(rates))), fixed_quotas(rates, block), seed)


def check_quotas(quotas: Quotas, blocks: int) -> None:
    before = np.zeros(quotas.n, np.int64)
    for b in range(1, blocks):
        counts = quotas.counts(b)
        assert counts.sum() == b * quotas.block
        assert (counts >= before).all()
        assert np.abs(counts - quotas.wanted(b)).max() < 1
        before = counts


@settings(deadline=None, max_examples=25)
@given(RATES, BLOCKS)
def test_counts_are_within_one_of_the_wanted_ones_at_every_block_end(rates: np.ndarray, block: int) -> None:
    quotas = fixed_quotas(rates, block)
    check_quotas(quotas, 120)
    np.testing.assert_allclose(quotas.wanted(120), rates * block * 120, atol=0.02)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6), BLOCKS)
def test_time_dependent_counts_too(texts: list[str], block: int) -> None:
    texts = [*texts, '0.3']
    quotas = timed_quotas([Expression(t) for t in texts], texts, block)
    check_quotas(quotas, 60)
    t = np.arange(59 * block, dtype=float)
    rates = np.stack([np.broadcast_to(Expression(text)(t), t.shape) for text in texts])
    np.testing.assert_allclose(quotas.wanted(59), (rates / rates.sum(0)).sum(1), rtol=1e-9)


def test_no_stream_starves() -> None:
    """A rate of one in 10,000 is drawn once in every 10,000, give or take a draw at its ends."""
    rates = np.asarray([0.7, 0.2999, 0.0001])
    mix = mixture(rates, 100)
    drawn = np.flatnonzero([mix.at(p)[0] == 2 for p in range(40_000)])
    assert len(drawn) in (3, 4)
    counts = mix.quotas.counts(10_000)  # a million draws
    assert abs(int(counts[2]) - 100) <= 1


@settings(deadline=None, max_examples=20)
@given(RATES, BLOCKS, st.integers(0, 2**31), st.integers(0, 3000))
def test_a_position_needs_no_replay(rates: np.ndarray, block: int, seed: int, position: int) -> None:
    """at(p) of a fresh mixture is what a walk from 0 finds, draws are numbered without a gap, and counts agree."""
    found = mixture(rates, block, seed).at(position)
    walk = mixture(rates, block, seed)
    start = max(0, position - 50)
    seen = walk.counts(start)
    for p in range(start, position + 1):
        stream, draw = walk.at(p)
        assert draw == seen[stream]
        seen[stream] += 1
    assert (stream, draw) == found
    np.testing.assert_array_equal(walk.counts(position + 1), seen)


def test_a_far_position_costs_what_a_near_one_does() -> None:
    far = mixture(np.asarray([0.5, 0.3, 0.2]), 100)
    far.at(10**6)  # one period of the table
    start = time.monotonic()
    found = [far.at(p)[1] for p in range(10**15, 10**15 + 100)]
    assert time.monotonic() - start < 1.0
    assert max(found) == pytest.approx(10**15 / 2, rel=1e-5)


@pytest.mark.parametrize('hosts', [1, 2, 4, 8])
def test_all_hosts_see_one_stream(hosts: int) -> None:
    """Each takes its rows of the same draw by index; together they are the batch of one host."""
    names, sizes, batch = ('a', 'b', 'c'), (50, 333, 1000), 16
    rates = mixture_rates(Arm(sampler='proportional'), sizes)
    for step in (0, 7, 123, 4567):
        whole: list[tuple[int, int]] = []
        for host in range(hosts):
            stream, draw = Mixture(names, fixed_quotas(rates), 3).at(step)
            rows = units_at(draw, sizes[stream], batch, stream_seed(3, names[stream], 3))
            whole += [(stream, int(r)) for r in rows[host * batch // hosts : (host + 1) * batch // hosts]]
        stream, draw = Mixture(names, fixed_quotas(rates), 3).at(step)
        assert whole == [
            (stream, int(r)) for r in units_at(draw, sizes[stream], batch, stream_seed(3, names[stream], 3))
        ]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 99))
def test_every_example_of_an_epoch_comes_once(sizes: list[int], seed: int) -> None:
    """Whatever else is drawn between, a stream's draws cut its epochs end to end."""
    mix, batch = mixture(mixture_rates(Arm(sampler='uniform'), sizes), 10, seed), 4
    seen: list[list[int]] = [[] for _ in sizes]
    for position in range(40 * len(sizes)):
        stream, draw = mix.at(position)
        seen[stream] += units_at(draw, sizes[stream], batch, stream_seed(seed, mix.names[stream], len(sizes))).tolist()
    for size, rows in zip(sizes, seen, strict=True):
        for start in range(0, len(rows) - size + 1, size):
            assert sorted(rows[start : start + size]) == list(range(size))


def test_streams_of_one_size_are_not_read_in_step() -> None:
    """A dataset and its translation have the same rows: their orders differ."""
    orders = [units_at(0, 200, 200, stream_seed(1, name, 2)).tolist() for name in ('mnli/en', 'mnli/de')]
    assert orders[0] != orders[1]


def test_the_seed_changes_the_order_and_not_the_counts() -> None:
    rates = np.asarray([0.5, 0.5])
    a, b = ([mixture(rates, 50, seed).at(p)[0] for p in range(200)] for seed in (1, 2))
    assert a != b
    assert sum(a) == sum(b) == 100
    assert len({tuple(a[i : i + 50]) for i in range(0, 200, 50)}) == 4, 'every block has an order of its own'


WEIGHTS = {'a': Member(weight=1.0), 'b': Member(weight=0.0), 'c': Member(weight=3.0)}


@pytest.mark.parametrize(
    ('sampler', 'more', 'want'),
    [
        ('uniform', {}, [1 / 3, 1 / 3, 1 / 3]),
        ('proportional', {}, [0.1, 0.3, 0.6]),  # 100, 300, 600 of 1000
        ('capped', {'cap': 200}, [0.2, 0.4, 0.4]),  # 100, 200, 200 of 500
        ('temperature', {'temperature': 2.0}, [10 / 51.8154, 17.3205 / 51.8154, 24.4949 / 51.8154]),  # square roots
        ('temperature', {'temperature': 2.0, 'cap': 400}, [10 / 47.3205, 17.3205 / 47.3205, 20 / 47.3205]),
        ('temperature', {'temperature': 1.0, 'cap': 200}, [0.2, 0.4, 0.4]),  # the same as capped
        ('weights', {'tasks': WEIGHTS}, [0.25, 0.0, 0.75]),
    ],
)
def test_rates_by_hand(sampler: str, more: dict, want: list[float]) -> None:
    np.testing.assert_allclose(mixture_rates(Arm(sampler=sampler, **more), [100, 300, 600]), want, atol=1e-5)


def test_language_shares() -> None:
    """size ** alpha: 1 is proportional, 0 uniform; 0.3 of 1000 and 10 gives 7.943 and 1.995."""
    np.testing.assert_allclose(language_shares([1000, 10], 1.0), [1000 / 1010, 10 / 1010])
    np.testing.assert_allclose(language_shares([1000, 10], 0.0), [0.5, 0.5])
    np.testing.assert_allclose(language_shares([1000, 10], 0.3), [0.79924, 0.20076], atol=1e-4)


def test_time_dependent_rates_by_hand() -> None:
    """t against 100 at t = 0, 1, 2: 0, 1/101, 2/102."""
    quotas = timed_quotas([Expression('t'), Expression('100')], ['a', 'b'], 3)
    np.testing.assert_allclose(quotas.wanted(1), [1 / 101 + 2 / 102, 3 - 1 / 101 - 2 / 102])


@pytest.mark.parametrize(
    'text', ['__import__("os")', 't.real', 'x + 1', 'lambda: 1', 't if t else 1', '[1]', 'exp(t, t)', '1 +', 't > 1']
)  # fmt: skip
def test_an_expression_is_arithmetic_and_nothing_else(text: str) -> None:
    with pytest.raises(ExpressionError, match='rate'):
        Expression(text)


def test_expressions() -> None:
    t = np.asarray([0.0, 4.0])
    np.testing.assert_allclose(Expression('-t**2 + 3*(1-t)/2')(t), [1.5, -20.5])
    np.testing.assert_allclose(Expression('max(min(t, 2), 1) + sqrt(t) + exp(0) + log(1)')(t), [2.0, 5.0])


@pytest.mark.parametrize(
    ('texts', 'message'),
    [(['1', '1 - t'], "'b', '1 - t': negative or not finite at step 2"), (['0', '0*t'], 'all rates are 0 at step 0'),
     (['1', '1/t'], 'negative or not finite at step 0')],
)  # fmt: skip
def test_rates_that_are_no_rates(texts: list[str], message: str) -> None:
    with pytest.raises(MixtureError, match=message.replace('*', r'\*')):
        timed_quotas([Expression(t) for t in texts], ['a', 'b'], 4).counts(1)


def test_samplers_say_what_they_lack() -> None:
    with pytest.raises(MixtureError, match='at least one example'):
        mixture_rates(Arm(sampler='uniform'), [10, 0])
    with pytest.raises(MixtureError, match='cap 0'):
        mixture_rates(Arm(sampler='capped'), [10])
    with pytest.raises(MixtureError, match='not all 0'):
        mixture_rates(Arm({'a': Member(weight=0.0)}, 'weights'), [10])
