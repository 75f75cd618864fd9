"""The bootstrap on simulated data whose truth is known, and Holm's correction on a worked family."""

from __future__ import annotations

import numpy as np
import pytest

from xlmr_flax.analysis.bootstrap import RESAMPLES, Interval, Part, bootstrap, draws, enough_resamples, holm, interval


def paired_bootstrap(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The test of second - first, two systems with one score an example, on the same examples."""
    part = Part(np.arange(len(first)), np.stack([first, second]), np.ones((2, len(first))))
    observed, replicates = bootstrap([part], np.ones((1, 1)), resamples, seed)
    return interval(observed[0, 1] - observed[0, 0], replicates[0, :, 1] - replicates[0, :, 0])


def accuracy_part(right: np.ndarray, units: np.ndarray | None = None) -> Part:
    """right: [R, n] zeros and ones."""
    right = right.astype(float)
    return Part(np.arange(right.shape[1]) if units is None else units, right, np.ones_like(right))


def simulate(rng: np.random.Generator, n: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Two systems that agree on most examples: the second is right where the first is, but for some that flip."""
    hard = rng.random(n)
    first = (hard + rng.normal(0, 0.15, n) < 0.6).astype(float)
    second = (hard + rng.normal(0, 0.15, n) < 0.6 + gain).astype(float)
    return first, second


def true_difference(gain: float) -> float:
    first, second = simulate(np.random.default_rng(99), 2_000_000, gain)
    return second.mean() - first.mean()


def test_draws_are_resamples_of_all_units():
    chunks = list(draws(2_500_000, 3, seed=1))
    assert [len(chunk) for chunk in chunks] == [1, 1, 1]
    counts = np.concatenate(list(draws(50, 400, seed=1)))
    assert counts.shape == (400, 50)
    assert (counts.sum(1) == 50).all()
    assert abs(counts.var() - 0.98) < 0.05  # of a binomial of 50 tries at 1/50
    np.testing.assert_array_equal(counts, np.concatenate(list(draws(50, 400, seed=1))))
    assert not np.array_equal(counts, np.concatenate(list(draws(50, 400, seed=2))))


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng, truth, covered = np.random.default_rng(0), true_difference(0.05), 0
    for seed in range(400):
        found = paired_bootstrap(*simulate(rng, 300, 0.05), resamples=400, seed=seed)
        covered += found.low <= truth <= found.high
    assert 0.915 <= covered / 400 <= 0.98  # 95 % and three standard errors of 1.1 %


def test_equal_systems_are_told_apart_about_5_times_in_100():
    rng, rejected = np.random.default_rng(1), 0
    for seed in range(400):
        rejected += paired_bootstrap(*simulate(rng, 300, 0.0), resamples=400, seed=seed).p < 0.05
    assert 0.01 <= rejected / 400 <= 0.085


def test_a_real_difference_is_found():
    first, second = simulate(np.random.default_rng(2), 1000, 0.1)
    found = paired_bootstrap(first, second)
    assert found.difference == pytest.approx(second.mean() - first.mean())
    assert found.low < found.difference < found.high
    assert found.p == pytest.approx(2 / 2001)  # the least there is
    worse = paired_bootstrap(second, first)
    assert worse.difference == pytest.approx(-found.difference)
    assert worse.p == found.p


def test_the_same_system_differs_by_nothing():
    same = np.random.default_rng(3).random(777)
    found = paired_bootstrap(same, same.copy())
    assert (found.difference, found.p) == (0.0, 1.0)
    assert abs(found.low) < 2e-6 and abs(found.high) < 2e-6


def test_f1_is_a_ratio_of_sums_not_a_mean_of_ratios():
    """Against resampling the sentences one by one."""
    rng = np.random.default_rng(4)
    gold, found = rng.integers(0, 5, 60), rng.integers(0, 5, (2, 60))
    right = np.minimum(np.minimum(gold, found), rng.integers(0, 5, (2, 60)))
    part = Part(np.arange(60), 2.0 * right, (gold + found).astype(float))
    scores, resampled = bootstrap([part], np.ones((1, 1)), 50, seed=5)
    np.testing.assert_allclose(scores[0], 2 * right.sum(1) / (gold.sum() + found.sum(1)))
    for row, counts in zip(resampled[0], np.concatenate(list(draws(60, 50, seed=5))).astype(int), strict=True):
        drawn = np.repeat(np.arange(60), counts)
        expected = 2 * right[:, drawn].sum(1) / (gold[drawn].sum() + found[:, drawn].sum(1))
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_translations_of_an_example_are_drawn_together():
    """Ten copies of one test set say no more than one; ten different ones say sqrt(10) times as much."""
    rng = np.random.default_rng(6)
    copies = rng.random((2, 200)) < 0.5
    weights = np.full((1, 10), 0.1)

    def spread(parts: list[Part]) -> float:
        _, resampled = bootstrap(parts, weights, 1000)
        return float((resampled[0, :, 1] - resampled[0, :, 0]).std())

    once = float(np.diff(bootstrap([accuracy_part(copies)], np.ones((1, 1)), 1000)[1][0]).std())
    assert spread([accuracy_part(copies) for _ in range(10)]) == pytest.approx(once, rel=1e-4)
    others = [accuracy_part(rng.random((2, 200)) < 0.5, np.arange(200) + 200 * i) for i in range(10)]
    assert spread(others) == pytest.approx(once / 10**0.5, rel=0.2)


def test_averages_take_their_parts_by_weight():
    rng = np.random.default_rng(7)
    parts = [accuracy_part(rng.random((3, 40)) < 0.5, np.arange(40) + 40 * i) for i in range(2)]
    weights = np.array([[0.5, 0.5], [0.0, 1.0]])
    scores, resampled = bootstrap(parts, weights, 20)
    each = [part.numerator.mean(1) for part in parts]
    np.testing.assert_allclose(scores, [(each[0] + each[1]) / 2, each[1]])
    assert resampled.shape == (2, 20, 3)


def test_interval_by_hand():
    resampled = np.arange(-1, 99) / 100  # one below 0, one at 0
    found = interval(0.5, resampled, alpha=0.1)
    assert (found.low, found.high) == (pytest.approx(0.0395), pytest.approx(0.9305))
    assert found.p == pytest.approx(2 * 3 / 101)


def test_holm_on_a_worked_family():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_there_are_resamples_enough_to_reject_in_a_large_family():
    assert enough_resamples(2) == 2000
    resamples = enough_resamples(90)
    assert holm([2 / (resamples + 1)] * 90)[0] < 0.05 / 2
    assert holm([2 / 2001] * 90)[0] > 0.05  # with fewer nothing could be found


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='shapes'):
        Part(np.arange(3), np.ones((1, 4)), np.ones((1, 4)))
    with pytest.raises(ValueError, match='no parts'):
        bootstrap([], np.ones((1, 0)))
