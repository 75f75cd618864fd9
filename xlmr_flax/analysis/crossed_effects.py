"""Random-effects statistics with languages, seeds and test examples as crossed factors: intervals, tests, lines, power.

The model of the difference d[l, s] between two arms, for language l and seed s (the same seed in both arms), is

    d[l, s] = x[l] b + a[l] + z[s] + e[l, s]

Languages and seeds are random: another language or seed would have given another difference. With few seeds (such as
three), a percentile bootstrap over both factors is much too narrow if seeds differ: in simulations of this design it
covered 77 to 94 % (Owen 2007, The Pigeonhole Bootstrap, is correct only for many clusters). Here the variance of a
contrast over languages is computed from the mean squares of the two-way layout without replication, and p(difference)
is the mean of two tests:

* Satterthwaite 1946 (An Approximate Distribution of Estimates of Variance Components), for the REML estimates, which in
  a balanced layout are those of the analysis of variance with negative components set to 0 (Searle, Casella and
  McCulloch 1992, Variance Components, 4.4). It rejects up to 8 % if most of the variance comes from seeds;
* generalized inference (Weerahandi 1993, Generalized Confidence Intervals; for sums and differences of mean squares
  Burdick, Borror and Montgomery 2005, chapter 3). It rejects too rarely if no component is large.

Test examples are a third crossed factor. The mean squares above include the noise of examples that differs between
languages or seeds. What an example has in common in all languages and for all seeds shifts the whole table and is not
visible in them: its variance is estimated from the scores of the examples (`shared_variance`) and added (`Examples`).

tests/analysis/test_crossed_effects.py simulates studies of the reported shapes and checks coverage and false positives.
Taking the mean of both tests is a calibration by these simulations, not a theorem. All functions accept a leading axis
of studies, so that thousands can be simulated at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from xlmr_flax.analysis.bootstrap import ALPHA

POWER = 0.8
_DRAWS = 400
_HALVINGS = 40
_STEPS = 100


@dataclass(frozen=True)
class Examples:
    """The variance of a mean effect that comes from test examples which languages share: float [N] or a number, in
    squared units of the differences. units: number of examples."""

    variance: np.ndarray | float
    units: int


@dataclass(frozen=True)
class Effect:
    """Contrasts of N studies with their intervals; float [N] each, in the unit of the differences.

    p: two-sided p value of 'no effect'. error: standard error. df: Satterthwaite's degrees of freedom. seeds, examples:
    shares of the estimate's variance that come from seeds and from shared test examples, 0 to 1; examples is None if
    they were not given.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    error: np.ndarray
    df: np.ndarray
    seeds: np.ndarray
    examples: np.ndarray | None = None

    def row(self, number: int = 0) -> dict[str, float]:
        """Returns one study as a dict of plain numbers."""
        names = ('estimate', 'low', 'high', 'p', 'error', 'df')
        row = {name: float(getattr(self, name)[number]) for name in names} | {'seed_share': float(self.seeds[number])}
        return row if self.examples is None else row | {'example_share': float(self.examples[number])}


@dataclass(frozen=True)
class Components:
    """Mean squares of N studies [N] and their degrees of freedom: for languages, for seeds (for one contrast: its
    interaction with seeds) and for the residual. example: the variance of shared test examples on the same scale, None
    if it was not given.
    """

    language: np.ndarray
    seed: np.ndarray
    rest: np.ndarray
    df: tuple[int, int, int]
    example: np.ndarray | None = None
    example_df: int = 1

    @property
    def variance(self) -> np.ndarray:
        """The estimated variance of the contrast, times seeds / |w|^2. Negative components are set to 0."""
        both = self.rest + np.maximum(self.language - self.rest, 0) + np.maximum(self.seed - self.rest, 0)
        return both if self.example is None else both + self.example


def mean_effect(differences: np.ndarray, alpha: float = ALPHA, examples: Examples | None = None) -> Effect:
    """Estimates the mean over languages and seeds. differences: float [L, S] or [N, L, S], with L and S at least 2."""
    d = _studies(differences)
    languages = d.shape[1]
    return contrast(d, np.ones((languages, 1)), np.full(languages, 1 / languages), alpha, examples)


def contrast(
    differences: np.ndarray, design: np.ndarray, weights: np.ndarray, alpha: float = ALPHA,
    examples: Examples | None = None,
) -> Effect:  # fmt: skip
    """Estimates a contrast: the sum over l of weights[l] times the mean over s of d[l, s].

    design: float [L, P], the regressors of the expected difference, with a column of ones. weights: float [L] in the
    space of the columns: from `line_weights` for a coefficient or a point of the line, or 1 / L for the mean; or
    float [N, L] for several contrasts of one study, or one per study. examples: their variance in this contrast; None
    leaves them out. Raises ValueError for fewer than two seeds, if there are not more languages than columns, and for
    values that are not finite.
    """
    d = _studies(differences)
    parts = components(d, design, weights)
    estimate = np.atleast_1d((d.mean(axis=2) * weights).sum(axis=1))
    scale = np.square(weights).sum(axis=-1) / d.shape[2]
    if examples is not None:
        added = np.broadcast_to(np.maximum(examples.variance, 0) / scale, parts.rest.shape)
        parts = replace(parts, example=added, example_df=max(examples.units - 1, 1))
    variance = parts.variance
    df = _satterthwaite(parts)
    draws = _generalized(parts)
    half = _half_width(np.sqrt(variance), df, draws, alpha) * np.sqrt(scale)
    error = np.sqrt(variance * scale)
    p = _p(np.abs(estimate) / np.sqrt(scale), np.sqrt(variance), df, draws)
    shares = [
        None if x is None else np.divide(x, variance, out=np.zeros_like(variance), where=variance > 0)
        for x in (np.maximum(parts.seed - parts.rest, 0), parts.example)
    ]
    assert shares[0] is not None
    return Effect(estimate, estimate - half, estimate + half, p, error, df, shares[0], shares[1])


def shared_variance(influence: np.ndarray) -> np.ndarray:
    """Estimates the variance of the mean difference that comes from examples which languages share.

    influence: float [..., L, S, U], the change of the difference of language l and seed s with example u: (x[u] - mean)
    / n for a mean over n examples, the linear term for other scores, 0 for examples that the language does not have.
    Returns [...]: the mean covariance of the differences of two languages and two seeds. If all languages share the
    examples, this is the component of examples, divided by their number. If groups of languages have their own
    examples, the mean square of languages includes the rest, so that the sum is unbiased. It can be negative by
    chance. Needs two languages and two seeds.
    """
    x = np.asarray(influence, float)
    languages, seeds = x.shape[-3:-1]
    units = np.count_nonzero(np.any(x != 0, axis=-2), axis=-1).mean(axis=-1)  # of a language
    over, between = x.sum(axis=-2), x.sum(axis=-3)

    def squares(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return np.square(values).sum(axis=axes)

    pairs = squares(over.sum(axis=-2), (-1,)) - squares(over, (-1, -2)) - squares(between, (-1, -2))
    pairs = pairs + squares(x, (-1, -2, -3))
    return pairs / (languages * (languages - 1) * seeds * (seeds - 1)) * units / np.maximum(units - 1, 1)


def components(differences: np.ndarray, design: np.ndarray, weights: np.ndarray) -> Components:
    """Computes the three mean squares for a contrast. With a design of ones and equal weights, they are those of the
    two-way analysis of variance without replication.
    """
    d = _studies(differences)
    _, languages, seeds = d.shape
    rank = int(np.linalg.matrix_rank(design))
    if seeds < 2 or languages <= rank:
        raise ValueError(f'{languages} languages, {seeds} seeds, {rank} coefficients: too few for an interval')
    if not np.isfinite(d).all():
        raise ValueError('differences that are not finite: every language is needed in every seed')
    hat = design @ np.linalg.pinv(design)  # [L, L]
    means = d.mean(axis=2)  # [N, L]
    left = means - means @ hat
    language = seeds * np.square(left).sum(axis=1) / (languages - rank)
    by_seed = (d * np.asarray(weights)[..., None]).sum(axis=1)  # [N, S], the contrast in each seed
    seed = np.square(by_seed - by_seed.mean(axis=1, keepdims=True)).sum(axis=1) / (seeds - 1)
    seed = seed / np.square(weights).sum(axis=-1)
    inner = d - means[:, :, None]
    inner = inner - np.einsum('lk,nks->nls', hat, inner)
    rest = np.square(inner).sum(axis=(1, 2)) / ((languages - rank) * (seeds - 1))
    language, seed, rest = np.broadcast_arrays(language, seed, rest)
    return Components(language, seed, rest, (languages - rank, seeds - 1, (languages - rank) * (seeds - 1)))


def line_weights(design: np.ndarray, at: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns the contrast weights [L] of a combination `at` [P] of the least-squares coefficients: (0, 1) is the
    slope, (1, x) the value of the line at x. For K combinations [K, P], returns [K, L]."""
    return np.asarray(at, float) @ np.linalg.pinv(design)


def smallest_difference(
    language: float, seed: float, rest: float, shape: tuple[int, int], *,
    power: float = POWER, alpha: float = ALPHA, studies: int = 2000, random: int = 0, examples: Examples | None = None,
) -> float:  # fmt: skip
    """Computes the smallest true mean difference that a study of `shape` (languages, seeds) detects with this power.

    language, seed, rest: standard deviations of the components. examples: the variance that they add to the mean. Uses
    a simulation of `studies` studies.
    """
    rng = np.random.default_rng(random)
    d = simulate(rng, studies, shape, language, seed, rest)
    if examples is not None:
        d = d + rng.normal(0, np.sqrt(max(float(examples.variance), 0)), (studies, 1, 1))
    effect = mean_effect(d, alpha, examples)
    half = effect.high - effect.estimate
    low, high = 0.0, float(np.max(half) + np.max(np.abs(effect.estimate))) + 1e-9
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rejected = np.mean(np.abs(effect.estimate + middle) > half)
        low, high = (low, middle) if rejected >= power else (middle, high)
    return high


def simulate(
    rng: np.random.Generator, studies: int, shape: tuple[int, int], language: float, seed: float, rest: float
) -> np.ndarray:
    """Simulates differences [studies, L, S] with mean 0 and these standard deviations."""
    languages, seeds = shape
    return (
        rng.normal(0, language, (studies, languages, 1))
        + rng.normal(0, seed, (studies, 1, seeds))
        + rng.normal(0, rest, (studies, languages, seeds))
    )


def deviations(differences: np.ndarray) -> tuple[float, float, float]:
    """Estimates the standard deviations of the components (languages, seeds, residual) from the mean squares.

    For several studies of one shape (the arms of a target), the mean squares are averaged. A negative component is 0.
    """
    d = _studies(differences)
    _, languages, seeds = d.shape
    parts = components(d, np.ones((languages, 1)), np.full(languages, 1 / languages))
    over, between, rest = (float(np.mean(x)) for x in (parts.language, parts.seed, parts.rest))
    return (max(over - rest, 0) / seeds) ** 0.5, (max(between - rest, 0) / languages) ** 0.5, rest**0.5


def _studies(differences: np.ndarray) -> np.ndarray:
    d = np.asarray(differences, float)
    if d.ndim not in (2, 3):
        raise ValueError(f'differences of the shape {d.shape}, expected [languages, seeds] or [studies, ...]')
    return d[None] if d.ndim == 2 else d


def _satterthwaite(parts: Components) -> np.ndarray:
    """Returns the degrees of freedom of `Components.variance`; a component that is set to 0 is not included."""
    kept = [np.where(x > parts.rest, x, 0.0) for x in (parts.language, parts.seed)]
    under = sum(np.square(x) / n for x, n in zip([*kept, parts.rest], parts.df, strict=True))
    if parts.example is not None:
        under = under + np.square(parts.example) / parts.example_df
    return np.divide(np.square(parts.variance), under, out=np.full_like(under, parts.df[0]), where=under > 0)


def _generalized(parts: Components) -> np.ndarray:
    """Draws samples [N, draws] of the standard deviation from the generalized distribution of the components' sum."""
    rng = np.random.default_rng(20)
    chi = [rng.chisquare(n, _DRAWS) for n in parts.df]
    language, seed, rest = (
        x[:, None] * n / u for x, n, u in zip((parts.language, parts.seed, parts.rest), parts.df, chi, strict=True)
    )
    total = np.maximum(language + seed - rest, rest)
    if parts.example is not None:
        total = total + parts.example[:, None] * parts.example_df / rng.chisquare(parts.example_df, _DRAWS)
    return np.sqrt(total)


def _p(distance: np.ndarray, sd: np.ndarray, df: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Returns the two-sided p value, the mean of both tests. distance: |estimate| in the unit of its standard
    deviation `sd` [N]."""
    with np.errstate(divide='ignore', invalid='ignore'):
        t = np.where(sd > 0, distance / sd, np.where(distance > 0, np.inf, 0.0))
        z = np.where(draws > 0, distance[:, None] / draws, np.where(distance[:, None] > 0, np.inf, 0.0))
    return special.stdtr(df, -t) + special.ndtr(-z).mean(axis=1)


def _half_width(sd: np.ndarray, df: np.ndarray, draws: np.ndarray, alpha: float) -> np.ndarray:
    """Finds the distance at which p equals alpha; 0 where all components are 0.

    Newton's method from 0: p falls and is convex, so each step ends at or below the root.
    """
    half = np.zeros_like(sd)
    some = np.flatnonzero(sd > 0)  # draws are positive there, too
    sd, df, draws = sd[some], df[some], draws[some]
    top = np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) / np.sqrt(df * np.pi) / sd
    distance = np.zeros_like(sd)
    for _ in range(_STEPS):
        normal = np.exp(-np.square(distance[:, None] / draws) / 2) / draws
        slope = top * (1 + np.square(distance / sd) / df) ** (-(df + 1) / 2) + normal.mean(axis=1) / np.sqrt(2 * np.pi)
        step = (_p(distance, sd, df, draws) - alpha) / slope
        distance = distance + step
        if np.all(np.abs(step) <= 1e-12 * distance):
            break
    half[some] = distance
    return half
