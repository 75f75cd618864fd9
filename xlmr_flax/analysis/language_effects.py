"""Effects of a study's arms by language: group means, regression on properties of a language, and power.

A difference is that of a target's score (report/study.py) between two arms in one language and seed. The statistics are
those of analysis/crossed_effects.py, in which languages and seeds are both random. Holm's correction (1979) is applied
within a family of tests. A family of means has the arms of one target and group of languages; a family of regression
lines has all arms and properties of one target. Comparisons with a control arm instead of 'none' are separate families.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from xlmr_flax.analysis.bootstrap import holm
from xlmr_flax.analysis.crossed_effects import (
    ALPHA,
    Examples,
    contrast,
    deviations,
    line_weights,
    mean_effect,
    smallest_difference,
)
from xlmr_flax.report.rows import NONE, Row, Values, collapsed_runs, columns, distinct, facts, languages, select
from xlmr_flax.report.study import score_rows

Record = dict[str, Any]
FEWEST_LANGUAGES, FEWEST_SEEDS = 3, 2
UNSEEN_GIB = 0.05  # value on the log axis for languages that are not in CC-100: half of its smallest entry
IN_CC100, IN_PRETRAINING = 'in CC-100', 'in pretraining'  # XLM-R's pretraining data; that of the encoder that ran
_POINTS = 25  # number of points at which the confidence band of a line is computed
_LEVELS = {'low': 0.0, 'mid': 1.0, 'high': 2.0}

# Name -> function that computes the property from the facts in a language's result rows; None if not recorded.
PROPERTIES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    'log10 CC-100 GiB': lambda f: _log_size(f.get('cc100_gib')),
    'resource class': lambda f: _LEVELS.get(f.get('resource_level', '')),
    IN_CC100: lambda f: None if f.get('cc100_gib') is None else float(f['cc100_gib'] > 0),
    IN_PRETRAINING: lambda f: None if f.get('seen') is None else float(f['seen']),
    'script other than Latin': lambda f: _other(f.get('script'), ('Latn',)),
    'family other than Indo-European': lambda f: _other((f.get('family') or '').split(':')[0], ('IE',)),
    'tokens per word': lambda f: f.get('tokens_per_word'),
}
# Properties for the joint regression: those that are not nearly functions of each other.
JOINT = ('log10 CC-100 GiB', 'script other than Latin', 'family other than Indo-European', 'tokens per word')
GROUPS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    'all': lambda f: True,
    'low-resource': lambda f: f.get('resource_level') == 'low',
    f'not {IN_CC100}': lambda f: f.get('cc100_gib') == 0,
    IN_CC100: lambda f: bool(f.get('cc100_gib')),
    f'not {IN_PRETRAINING}': lambda f: f.get('seen') is False,
    IN_PRETRAINING: lambda f: f.get('seen') is True,
}


@dataclass(frozen=True)
class Comparison:
    """Two arms of one encoder and target that are compared over a group of languages, in seeds that both have.

    metric: name of the score in the rows. languages, seeds: those of which the mean is taken.
    """

    encoder: str
    target: str
    metric: str
    split: str
    arm: str
    against: str
    group: str
    languages: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """All fields as text, the key of a saved variance.

        It changes with the languages and seeds, so that a variance is never used for other rows.
        """
        about = (self.encoder, self.target, self.metric, self.split, self.arm, self.against, self.group)
        return (*about, '+'.join(self.languages), '+'.join(map(str, self.seeds)))


def comparisons(rows: Iterable[Row], contrasts: Sequence[tuple[str, str]] = ()) -> Iterator[Comparison]:
    """Yields the comparisons of which `effects` gives means: every arm with 'none', and `contrasts`."""
    rows = [row for row in rows if not row.get('collapsed')]
    for encoder, target in _places(rows):
        study = _Target(select(rows, encoder=encoder, target=target), target, {}, {})
        for pairs in study.pairs(contrasts):
            yield from (each for each, _ in study.compared(pairs))


def effects(
    rows: Iterable[Row],
    contrasts: Sequence[tuple[str, str]] = (),
    tokens_per_word: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    noise: Mapping[tuple[str, ...], Examples] | None = None,
) -> dict[str, list[Record]]:
    """Computes all effects: {'means', 'lines', 'joint', 'power', 'languages'}, each a list of `_Target.records`.

    The lists are empty without arms to compare or with one seed. The training language is not included. Runs whose
    training collapsed (docs/logic_study.md) are left out; 'excluded' has a record for each: encoder, target,
    intermediate, seed, collapsed, and `of`, the number of runs of its encoder and target. contrasts:
    (arm, other arm) pairs to compare, in addition to every arm with 'none'. tokens_per_word: encoder -> target ->
    language -> value (analysis/fertility.py). noise: Comparison.key -> variance of the mean from shared test examples
    (analysis/example_noise.py); means without an entry are without this component.
    """
    rows = list(rows)
    result: dict[str, list[Record]] = {'means': [], 'lines': [], 'joint': [], 'power': [], 'languages': []}
    result['excluded'] = _excluded(rows)
    rows = [row for row in rows if not row.get('collapsed')]
    for encoder, target in _places(rows):
        mine = select(rows, encoder=encoder, target=target)
        tokens = (tokens_per_word or {}).get(encoder, {}).get(target, {})
        study = _Target(mine, target, tokens, noise or {})
        for key, records in study.records(contrasts).items():
            result[key] += [{'encoder': encoder, 'target': target, **record} for record in records]
    return result


def _places(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns the (encoder, target) pairs that have rows, ordered by encoder."""
    there = {(row['encoder'], row['target']) for row in rows}
    return [(e, t) for e in distinct(rows, 'encoder') for t in distinct(rows, 'target') if (e, t) in there]


def _excluded(rows: Sequence[Row]) -> list[Record]:
    runs = {(row['encoder'], row['intermediate'], row['target'], row['seed']) for row in rows}
    return [
        {'encoder': encoder, 'target': target, 'intermediate': arm, 'seed': seed, 'collapsed': how}
        | {'of': sum((run[0], run[2]) == (encoder, target) for run in runs)}
        for (encoder, arm, target, seed), how in collapsed_runs(rows).items()
        if how
    ]


class _Target:
    """Computes the effects for one encoder and target."""

    def __init__(
        self, rows: Sequence[Row], target: str, tokens_per_word: Mapping[str, float],
        noise: Mapping[tuple[str, ...], Examples],
    ):  # fmt: skip
        self.rows, self.target, self.noise = score_rows(rows, target), target, noise
        self.values = {name: values for (_, name), values in columns(self.rows).items()}
        self.codes = languages(self.rows, zero_shot=True)
        self.about = {'metric': self.rows[0]['metric'], 'split': self.rows[0]['split']}
        fields = ('cc100_gib', 'seen', 'resource_level', 'script', 'family', 'language_name')
        known = {field: facts(self.rows, field) for field in fields}
        known = {field: values for field, values in known.items() if values or field != 'seen'}
        self.facts: dict[str, dict[str, Any]] = {
            code: {f: values.get(code) for f, values in known.items()} | {'tokens_per_word': tokens_per_word.get(code)}
            for code in self.codes
        }

    def records(self, contrasts: Sequence[tuple[str, str]]) -> dict[str, list[Record]]:
        """Returns the records of each kind, with these fields.

        means: against, group, languages, seeds, estimate, low, high, p, p_holm, family, error, df, seed_share, and
        example_share where the noise of test examples is known.
        lines: property, languages, slope, low, high, p, p_holm, family, at ([x, estimate, low, high] of the line),
        points ([code, x, difference]). joint: the same slopes with JOINT in one regression, without at and points.
        power: group, arms (joined by +), shape, standard deviations, the smallest difference, and error_examples, the
        part of the standard error that comes from shared test examples. languages: each with its facts and, by arm,
        difference and standard deviation over seeds.
        """
        pairs, further = self.pairs(contrasts)
        return {
            'means': self._means(pairs) + self._means(further),
            'lines': self._lines(pairs),
            'joint': self._joint(pairs),
            'power': self._power(pairs),
            'languages': self._languages(pairs),
        }

    def pairs(self, contrasts: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Returns the pairs of arms whose means are compared: every arm with 'none', and those of `contrasts`."""
        with_none = [(name, NONE) for name in self.values if name != NONE and NONE in self.values]
        return with_none, [pair for pair in contrasts if set(pair) <= set(self.values)]

    def compared(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[Comparison, np.ndarray]]:
        """Yields the comparisons that have enough languages and seeds, with their differences [L, S]."""
        encoder, metric, split = (self.rows[0][name] for name in ('encoder', 'metric', 'split'))
        for group, codes in self.groups():
            for arm, against in pairs:
                whole, seeds, d = self.differences((arm, against), codes)
                if len(whole) >= FEWEST_LANGUAGES and len(seeds) >= FEWEST_SEEDS:
                    about = (encoder, self.target, metric, split, arm, against, group, tuple(whole), tuple(seeds))
                    yield Comparison(*about), d

    def groups(self) -> list[tuple[str, list[str]]]:
        """Returns (name, languages) of GROUPS, without a group that has the same languages as an earlier one."""
        result: list[tuple[str, list[str]]] = []
        for group, belongs in GROUPS.items():
            codes = [code for code in self.codes if belongs(self.facts[code])]
            if codes not in [other for _, other in result]:
                result.append((group, codes))
        return result

    def differences(self, pair: tuple[str, str], codes: Sequence[str]) -> tuple[list[str], list[int], np.ndarray]:
        """Returns (languages, seeds, differences [L, S]) of two arms: the seeds that both have in any language, and the
        languages that have all of these seeds in both."""
        ours, base = (self.values[name] for name in pair)
        shared = {code: set(ours.get(code, {})) & set(base.get(code, {})) for code in codes}
        seeds = sorted(set().union(*shared.values()))
        whole = [code for code in codes if seeds and shared[code] == set(seeds)]
        return whole, seeds, _matrix(ours, whole, seeds) - _matrix(base, whole, seeds)

    def _means(self, pairs: Sequence[tuple[str, str]]) -> list[Record]:
        by_group: dict[str, list[Record]] = {}
        for each, d in self.compared(pairs):
            about = {'intermediate': each.arm, 'against': each.against, 'group': each.group, **self.about}
            about |= {'languages': len(each.languages), 'seeds': len(each.seeds)}
            found = mean_effect(d, examples=self.noise.get(each.key))
            by_group.setdefault(each.group, []).append(about | found.row())
        return [record for records in by_group.values() for record in _corrected(records)]

    def _lines(self, pairs: Sequence[tuple[str, str]]) -> list[Record]:
        records: list[Record] = []
        measured: dict[str, dict[str, float]] = {}
        for name, measure in PROPERTIES.items():
            at = {code: x for code in self.codes if (x := measure(self.facts[code])) is not None}
            measured[name] = at
            if name == IN_PRETRAINING and at == measured[IN_CC100]:  # of an encoder whose pretraining data is CC-100
                continue
            for pair in pairs:
                whole, seeds, d = self.differences(pair, list(at))
                x = np.asarray([at[code] for code in whole])
                if len(whole) < FEWEST_LANGUAGES + 1 or len(seeds) < FEWEST_SEEDS or np.ptp(x) < 1e-9:
                    continue
                about = {'intermediate': pair[0], 'against': pair[1], 'property': name, **self.about}
                records.append(about | {'languages': len(whole), 'seeds': len(seeds)} | line(x, d))
                records[-1]['points'] = [
                    [code, float(v), float(m)] for code, v, m in zip(whole, x, d.mean(axis=1), strict=True)
                ]
        return _corrected(records)

    def _joint(self, pairs: Sequence[tuple[str, str]]) -> list[Record]:
        """Estimates the slopes of the properties in JOINT in one regression, to separate their effects."""
        at = {code: [PROPERTIES[name](self.facts[code]) for name in JOINT] for code in self.codes}
        at = {code: x for code, x in at.items() if None not in x}
        records: list[Record] = []
        for pair in pairs:
            whole, seeds, d = self.differences(pair, list(at))
            x = np.asarray([at[code] for code in whole], float).reshape(len(whole), len(JOINT))
            design = np.column_stack([np.ones(len(whole)), x])
            if len(whole) < 2 * design.shape[1] or len(seeds) < FEWEST_SEEDS:
                continue
            if np.linalg.matrix_rank(design) < design.shape[1]:  # properties are collinear for these languages
                continue
            slopes = contrast(d, design, line_weights(design, np.eye(design.shape[1])[1:]))
            about = {'intermediate': pair[0], 'against': pair[1], **self.about}
            about |= {'languages': len(whole), 'seeds': len(seeds)}
            for number, name in enumerate(JOINT):
                row = slopes.row(number)
                row = {'slope': row['estimate']} | {key: row[key] for key in ('low', 'high', 'p')}
                records.append(about | {'property': name} | row)
        return _corrected(records)

    def _power(self, pairs: Sequence[tuple[str, str]]) -> list[Record]:
        """Computes the smallest mean difference that the design can detect, from the average variances of arms.

        Arms may differ in shape (languages, seeds): a collapsed run removes its seed from its arm, and seeds may be
        added to some arms. Each shape has a record, the one with most seeds and languages first.
        """
        by_shape: dict[str, dict[tuple[int, int], list[tuple[Comparison, np.ndarray]]]] = {}
        for each, d in self.compared(pairs):
            by_shape.setdefault(each.group, {}).setdefault(d.shape, []).append((each, d))
        records: list[Record] = []
        for group, shapes in by_shape.items():
            for shape in sorted(shapes, key=lambda each: each[::-1], reverse=True):
                members, more = shapes[shape], {}
                sds = deviations(np.stack([d for _, d in members]))
                noise = [self.noise[each.key] for each, _ in members if each.key in self.noise]
                examples = None
                if noise:
                    examples = replace(noise[0], variance=max(fmean(float(n.variance) for n in noise), 0.0))
                    more = {'error_examples': float(examples.variance) ** 0.5}
                smallest = smallest_difference(*sds, shape, examples=examples)
                about = {'group': group, 'arms': '+'.join(each.arm for each, _ in members)}
                about |= dict(zip(('languages', 'seeds'), shape, strict=True))
                about |= dict(zip(('sd_language', 'sd_seed', 'sd_rest'), sds, strict=True)) | more
                records.append({**self.about, **about, 'smallest': smallest})
        return records

    def _languages(self, pairs: Sequence[tuple[str, str]]) -> list[Record]:
        records = []
        for code in self.codes:
            for pair in pairs:
                whole, seeds, d = self.differences(pair, [code])
                if whole:
                    spread = float(d.std(ddof=1)) if len(seeds) > 1 else None
                    about = {'language': code, 'intermediate': pair[0], **self.about, 'seeds': len(seeds)}
                    records.append(about | {'difference': float(d.mean()), 'sd': spread} | self.facts[code])
        return records


def line(x: np.ndarray, differences: np.ndarray) -> Record:
    """Fits a regression line over x [L]: slope, low, high, p, and `at`, the line with its confidence band at points
    from the lowest to the highest x."""
    design = np.stack([np.ones_like(x), x], axis=1)
    slope = contrast(differences, design, line_weights(design, (0, 1))).row()
    places = np.linspace(x.min(), x.max(), _POINTS)
    band = contrast(differences, design, line_weights(design, np.stack([np.ones_like(places), places], axis=1)))
    at = np.stack([places, band.estimate, band.low, band.high], axis=1).tolist()
    return {'slope': slope['estimate'], 'low': slope['low'], 'high': slope['high'], 'p': slope['p'], 'at': at}


def _corrected(records: Sequence[Record]) -> list[Record]:
    """Adds Holm's p over all records."""
    adjusted = holm([record['p'] for record in records])
    return [
        record | {'p_holm': p, 'family': len(records), 'alpha': ALPHA}
        for record, p in zip(records, adjusted, strict=True)
    ]


def _matrix(values: Values, codes: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    return np.asarray([[values[code][seed] for seed in seeds] for code in codes]).reshape(len(codes), len(seeds))


def _log_size(gib: float | None) -> float | None:
    return None if gib is None else math.log10(max(gib, UNSEEN_GIB))


def _other(value: str | None, usual: Sequence[str]) -> float | None:
    return None if not value or value == 'unknown' else float(value not in usual)
