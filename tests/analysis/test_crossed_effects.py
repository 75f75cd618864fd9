"""Intervals over languages and seeds: their arithmetic against textbook formulas, their coverage by simulation.

Studies of the shapes that are reported (languages of a target or a group of them, three seeds), with components of
variance from small to those of noisy scores: 2,000 each.
"""

from __future__ import annotations

import numpy as np
import pytest

from xlmr_flax.analysis.crossed_effects import (
    Examples,
    components,
    contrast,
    deviations,
    line_weights,
    mean_effect,
    shared_variance,
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
    # The shapes and the rounded components of the third logic study (results/logic_low_resource/effects-power.csv).
    ((18, 8), (1.3, 1.4, 2.7)),
    ((18, 5), (1.5, 2.3, 2.6)),
    ((25, 8), (0.9, 2.3, 2.5)),
    ((25, 5), (4.0, 2.3, 2.6)),
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


def _scores(
    shape: tuple[int, int, int],
    blocks: int,
    shared: float,
    studies: int,
    sds: tuple[float, float, float] = (1.0, 0.7, 0.7),
) -> np.ndarray:
    """Differences by example [studies, L, S, E], in points: each of `blocks` groups of languages has its own examples.

    shared: standard deviation over examples of what all languages of a group and all seeds have in common.
    sds: standard deviations of languages, seeds and what is left over, without the examples.
    """
    rng, (languages, seeds, examples) = np.random.default_rng(8), shape
    block = np.arange(languages) % blocks
    common = rng.normal(0, shared, (studies, blocks, 1, examples))[:, block]
    by_language = rng.normal(0, 10, (studies, languages, 1, examples))
    by_seed = rng.normal(0, 5, (studies, blocks, seeds, examples))[:, block]
    own = rng.normal(0, 30, (studies, languages, seeds, examples))
    return simulate(rng, studies, shape[:2], *sds)[..., None] + common + by_language + by_seed + own


def _influence(scores: np.ndarray, blocks: int) -> np.ndarray:
    """[N, L, S, blocks * E]: the influence of every example, 0 for those of other groups."""
    number, languages, seeds, examples = scores.shape
    result = np.zeros((number, languages, seeds, blocks, examples))
    for language in range(languages):
        x = scores[:, language]
        result[:, language, :, language % blocks] = (x - x.mean(axis=-1, keepdims=True)) / examples
    return result.reshape(number, languages, seeds, -1)


@pytest.mark.parametrize(('shape', 'blocks'), [((12, 5, 80), 1), ((12, 3, 80), 1), ((12, 5, 80), 2)])
def test_the_interval_covers_where_languages_share_their_examples(shape: tuple[int, int, int], blocks: int) -> None:
    scores, studies = _scores(shape, blocks, 20.0, 600), 600
    d, influence = scores.mean(axis=-1), _influence(scores, blocks)
    examples = Examples(shared_variance(influence), blocks * shape[2])
    with_them, without = mean_effect(d, examples=examples), mean_effect(d)
    covered, narrow = (np.mean((e.low <= 0) & (e.high >= 0)) for e in (with_them, without))
    print(f'{shape}, {blocks} sets: coverage {covered:.1%}, without the examples {narrow:.1%}')
    assert 0.93 <= covered <= 0.99
    assert narrow < 0.90 if blocks == 1 else narrow < covered
    assert len(scores) == studies


# (languages, seeds, examples), groups that share examples, their standard deviation, and the components without them:
# the low-resource languages of the third logic study's targets, rounded (results/logic_low_resource/effects-power.csv).
WITH_EXAMPLES = [
    ((18, 8, 200), 3, 5.0, (1.3, 1.4, 1.5)),
    ((18, 5, 200), 3, 17.0, (1.5, 2.3, 1.5)),
    ((25, 8, 200), 1, 6.0, (0.9, 2.3, 1.2)),
    ((25, 5, 200), 1, 16.0, (4.0, 2.3, 1.4)),
]


@pytest.mark.parametrize(('shape', 'blocks', 'shared', 'sds'), WITH_EXAMPLES)
def test_the_interval_covers_in_the_shapes_of_the_study(
    shape: tuple[int, int, int], blocks: int, shared: float, sds: tuple[float, float, float]
) -> None:
    scores = _scores(shape, blocks, shared, 300, sds)
    examples = Examples(shared_variance(_influence(scores, blocks)), blocks * shape[2])
    found = mean_effect(scores.mean(axis=-1), examples=examples)
    covered = np.mean((found.low <= 0) & (found.high >= 0))
    print(f'{shape}, {blocks} sets: coverage {covered:.1%}')
    assert 0.92 <= covered <= 0.99


def test_shared_variance_is_that_of_the_examples_that_are_shared() -> None:
    """Without bias: 20 points an example, over 80 examples, are a variance of 5; of two halves, 5 * 5 / 11."""
    for blocks, expected in ((1, 5.0), (2, 5.0 * 5 / 11), (12, 0.0)):
        found = shared_variance(_influence(_scores((12, 3, 80), blocks, 20.0, 400), blocks))
        assert found.mean() == pytest.approx(expected, abs=0.25)


def test_shared_variance_of_a_small_table_by_hand() -> None:
    """Two languages, two seeds, two examples: the four products of one language and seed with the other ones."""
    x = np.asarray([[[0.1, -0.1], [0.3, -0.3]], [[0.2, -0.2], [0.5, -0.5]]])
    products = 2 * (0.1 * 0.5 + 0.3 * 0.2) * 2  # (l, s) with (l', s'), in both orders, of two examples
    assert shared_variance(x) == pytest.approx(products / 4 * 2)  # n / (n - 1) = 2


def test_examples_widen_the_interval_and_are_in_the_power() -> None:
    d = simulate(np.random.default_rng(9), 50, (12, 5), 2.0, 1.0, 2.0)
    plain, none, some = (
        mean_effect(d),
        mean_effect(d, examples=Examples(0.0, 200)),
        mean_effect(d, examples=Examples(1.0, 200)),
    )
    np.testing.assert_allclose(none.high, plain.high)
    assert np.all(some.high > plain.high)
    assert plain.examples is None and some.examples is not None
    np.testing.assert_allclose(some.examples, 1.0 / np.square(some.error))
    assert 'example_share' not in plain.row() and some.row()['example_share'] == pytest.approx(some.examples[0])
    sds = (2.0, 1.0, 2.0)
    assert smallest_difference(*sds, (12, 5), examples=Examples(1.0, 200)) > smallest_difference(*sds, (12, 5))
