"""Intervals over languages and seeds: their arithmetic against textbook formulas, their coverage by simulation.

Studies of the shapes that are reported (languages of a target or a group of them, three seeds), with components of
variance from small to those of noisy scores: 2,000 each.
"""

from __future__ import annotations

import numpy as np
import pytest

from xlmr_flax.analysis.crossed_effects import (
    components,
    contrast,
    deviations,
    line_weights,
    mean_effect,
    simulate,
    smallest_difference,
)

STUDIES = 2000
# (languages, seeds) and the standard deviations of languages, seeds and what is left over, in points.
SHAPES = [
    ((10, 3), (2.0, 2.0, 4.0)),
    ((12, 3), (2.0, 1.0, 2.0)),
    ((12, 3), (1.0, 2.0, 3.0)),
    ((19, 3), (2.0, 0.5, 2.0)),
    ((19, 3), (2.0, 1.0, 4.0)),
    ((19, 3), (2.0, 2.0, 4.0)),
    ((19, 3), (3.0, 2.0, 2.0)),
    ((36, 3), (2.0, 1.0, 2.0)),
    ((19, 5), (2.0, 1.0, 2.0)),
]


def _design(languages: int) -> np.ndarray:
    """A line through sizes as they are: half of the languages in one place, the others spread."""
    x = np.concatenate([np.full(languages // 2, -1.3), np.linspace(-0.7, 2.4, languages - languages // 2)])
    return np.stack([np.ones(languages), x], axis=1)


@pytest.mark.parametrize(('shape', 'sds'), SHAPES)
def test_the_interval_of_a_mean_covers_and_does_not_cry_wolf(
    shape: tuple[int, int], sds: tuple[float, float, float]
) -> None:
    d = simulate(np.random.default_rng(1), STUDIES, shape, *sds)
    found = mean_effect(d + 1.5)
    covered = np.mean((found.low <= 1.5) & (found.high >= 1.5))
    rejected = np.mean(mean_effect(d).p < 0.05)
    power = smallest_difference(*sds, shape, studies=1000)
    print(f'{shape} {sds}: coverage {covered:.1%}, false positives {rejected:.1%}, 80 % power at {power:.1f} points')
    assert 0.92 <= covered <= 0.98
    assert rejected <= 0.06


@pytest.mark.parametrize('wander', [0.0, 0.5])
def test_the_interval_of_a_slope_covers(wander: float) -> None:
    """wander: how much the slope itself differs from seed to seed (standard deviation)."""
    rng, (languages, seeds) = np.random.default_rng(2), (19, 3)
    design = _design(languages)
    d = simulate(rng, STUDIES, (languages, seeds), 1.0, 1.0, 2.0) + 0.8 * design[:, 1][:, None]
    d += design[:, 1][:, None] * rng.normal(0, wander, (STUDIES, 1, seeds))
    found = contrast(d, design, line_weights(design, (0, 1)))
    assert 0.92 <= np.mean((found.low <= 0.8) & (found.high >= 0.8)) <= 0.99
    band = contrast(d, design, line_weights(design, (1, 2.0)))
    assert 0.92 <= np.mean((band.low <= 1.6) & (band.high >= 1.6)) <= 0.99


@pytest.mark.parametrize(('shape', 'sds'), [((19, 3), (0.0, 0.0, 3.0)), ((7, 3), (2.0, 0.0, 4.0))])
def test_of_few_languages_or_without_seed_variance_it_errs_on_the_safe_side(
    shape: tuple[int, int], sds: tuple[float, float, float]
) -> None:
    found = mean_effect(simulate(np.random.default_rng(3), STUDIES, shape, *sds))
    assert np.mean(found.p < 0.05) <= 0.03


def test_a_percentile_bootstrap_over_both_clusters_is_too_narrow() -> None:
    """Why it is not what is used."""
    rng, (languages, seeds) = np.random.default_rng(4), (19, 3)
    d = simulate(rng, 500, (languages, seeds), 2.0, 2.0, 2.0)
    by_language = rng.multinomial(languages, np.ones(languages) / languages, 400) / languages
    by_seed = rng.multinomial(seeds, np.ones(seeds) / seeds, 400) / seeds
    low, high = np.quantile(np.einsum('nls,bl,bs->nb', d, by_language, by_seed, optimize=True), [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.9


def test_mean_squares_are_those_of_the_two_way_analysis_of_variance() -> None:
    d = np.asarray([[1.0, 3.0, 2.0], [4.0, 4.0, 7.0], [0.0, 2.0, 4.0], [5.0, 6.0, 4.0]])
    parts = components(d, np.ones((4, 1)), np.full(4, 0.25))
    rows, columns, grand = d.mean(1), d.mean(0), d.mean()
    assert parts.df == (3, 2, 6)
    assert parts.language[0] == pytest.approx(3 * ((rows - grand) ** 2).sum() / 3)
    assert parts.seed[0] == pytest.approx(4 * ((columns - grand) ** 2).sum() / 2)
    assert parts.rest[0] == pytest.approx(((d - rows[:, None] - columns + grand) ** 2).sum() / 6)
    sds = deviations(d)
    assert sds[0] == pytest.approx(np.sqrt((parts.language[0] - parts.rest[0]) / 3))
    assert sds[2] == pytest.approx(np.sqrt(parts.rest[0]))


def test_contrasts_are_least_squares() -> None:
    design = _design(12)
    d = np.random.default_rng(5).normal(size=(12, 3)) + 2 * design[:, 1][:, None]
    slope, intercept = np.polyfit(design[:, 1], d.mean(axis=1), 1)
    assert contrast(d, design, line_weights(design, (0, 1))).estimate[0] == pytest.approx(slope)
    at = contrast(d, design, line_weights(design, (1, 0.7)))
    assert at.estimate[0] == pytest.approx(intercept + 0.7 * slope)


def test_p_and_interval_agree_and_scale() -> None:
    d = simulate(np.random.default_rng(6), 300, (14, 3), 2.0, 1.0, 2.0) + 1
    found, larger = mean_effect(d), mean_effect(10 * d)
    assert np.array_equal(found.p < 0.05, (found.low > 0) | (found.high < 0))
    np.testing.assert_allclose(larger.high, 10 * found.high, rtol=1e-6)
    np.testing.assert_allclose(larger.p, found.p, rtol=1e-6)
    np.testing.assert_allclose(mean_effect(-d).low, -found.high, rtol=1e-9)


def test_more_languages_and_more_seeds_see_smaller_differences() -> None:
    sds = (2.0, 1.0, 2.0)
    few = smallest_difference(*sds, (8, 3), studies=500)
    assert smallest_difference(*sds, (30, 3), studies=500) < few
    assert smallest_difference(*sds, (8, 10), studies=500) < few
    power = np.mean(mean_effect(simulate(np.random.default_rng(7), STUDIES, (8, 3), *sds) + few).p < 0.05)
    assert power == pytest.approx(0.8, abs=0.05)


def test_the_same_difference_everywhere_is_certain() -> None:
    found = mean_effect(np.full((6, 3), 2.0))
    assert (found.low[0], found.high[0]) == pytest.approx((2.0, 2.0))
    assert found.p[0] < 1e-12
    assert mean_effect(np.zeros((6, 3))).p[0] == 1


@pytest.mark.parametrize(
    ('d', 'said'),
    [
        (np.zeros((5, 1)), 'too few for an interval'),
        (np.zeros((1, 3)), 'too few for an interval'),
        (np.full((5, 3), np.nan), 'not finite'),
        (np.zeros(5), r'of the shape \(5,\)'),
    ],
)
def test_what_has_no_interval_is_refused(d: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        if d.ndim == 1:
            contrast(d, np.ones((5, 1)), np.full(5, 0.2))
        mean_effect(d)
