"""Result rows of a study with its planned arms, targets and seeds: one score for each target, and missing scores.

A target's score is that of XTREME: its metric, or for question answering the mean of F1 and exact match (Hu et al.
2020; evaluate.py). A mean over languages includes English unless it is called 'zero-shot'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from xlmr_flax.report.rows import (
    NONE,
    Row,
    RowsError,
    Values,
    columns,
    distinct,
    is_english,
    language_mean,
    languages,
    latest,
    major_metric,
    scored,
    select,
)

F1_AND_EM = 'mean of F1 and EM'
TO_ENGLISH = 'accuracy_to_en'  # retrieval of English; 'accuracy' is the other direction (eval.zero_shot)
DIRECTIONS = {
    'accuracy': 'English asks, the language answers',
    TO_ENGLISH: 'the language asks, English answers',
}
METRIC_NAMES = {
    'accuracy': 'accuracy',
    'f1': 'F1',
    'exact_match': 'exact match',
    'em': 'exact match',
    'map': 'mAP',
    TO_ENGLISH: 'accuracy to English',
}
STAND_IN = '§'
MARKED = '*'
ALL_LANGUAGES, ZERO_SHOT = 'all', 'zero-shot'


def metric_name(metric: str) -> str:
    """Name of a metric in headings."""
    return METRIC_NAMES.get(metric, metric.replace('_', ' '))


def has_both_directions(rows: Iterable[Row]) -> bool:
    """Whether the rows of a target have scores of retrieval in both directions."""
    return any(row['metric'] == TO_ENGLISH for row in rows)


def metric_title(metric: str, rows: Iterable[Row]) -> str:
    """Title of a metric, with the direction of retrieval if the rows have both directions."""
    way = DIRECTIONS.get(metric) if has_both_directions(rows) else None
    return f'{"accuracy" if way else metric_name(metric)}{f" ({way})" if way else ""}'


def score_metrics(rows: Iterable[Row], target: str) -> tuple[str, ...]:
    """The metrics whose mean is the target's score: F1 and exact match if the rows have both, else the major metric."""
    rows = list(rows)
    major = major_metric(rows, target)
    there = distinct(select(rows, target=target), 'metric')
    return ('f1', 'exact_match') if {'f1', 'exact_match'} <= set(there) else (major,)


def score_rows(rows: Iterable[Row], target: str, split: str | None = None) -> list[Row]:
    """The rows with a target's score, one for each encoder, intermediate, language and seed.

    Their metric is the target's metric, or F1_AND_EM for question answering. Raises RowsError if there is no such row.
    """
    rows = list(rows)
    metrics = score_metrics(rows, target)
    if len(metrics) == 1:
        return scored(rows, target, metrics[0], split)
    other = {_place(row): row for row in scored(rows, target, metrics[1], split)}
    first = scored(rows, target, metrics[0], split)
    pairs = [(row, twin) for row in first if (twin := other.get(_place(row)))]
    if not pairs:
        raise RowsError(f'no {first[0]["split"]} row of {target!r} has both f1 and exact_match')
    return [{**row, 'metric': F1_AND_EM, 'value': fmean([row['value'], twin['value']])} for row, twin in pairs]


def _place(row: Row) -> tuple:
    return tuple(row[name] for name in ('encoder', 'intermediate', 'language', 'split', 'seed'))


@dataclass(frozen=True)
class Study:
    """Result rows, with the order of the plan and what is missing of it.

    arms: 'none' first, then as planned, then arms that only the rows have. tested: rows of `analysis.significance`
    (plain dicts; () = no tests). dev: (intermediate, target) -> score on the target's English dev set, for choosing the
    best arm.
    """

    rows: Sequence[Row]
    arms: list[str]
    targets: list[str]
    seeds: list[int]
    tested: tuple[Mapping[str, Any], ...] = ()
    dev: Mapping[tuple[str, str], float] = field(default_factory=dict)
    wanted: Mapping[str, Sequence[str]] = field(default_factory=dict)  # target -> planned languages
    _found: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # cache

    @property
    def encoders(self) -> list[str]:
        return distinct(self.rows, 'encoder')

    @property
    def scored_targets(self) -> list[str]:
        """The targets that have rows."""
        return [target for target in self.targets if self.of_target(target)]

    def of_target(self, target: str) -> list[Row]:
        """The rows of a target."""
        if 'rows' not in self._found:
            by_target: dict[str, list[Row]] = {}
            for row in self.rows:
                by_target.setdefault(row['target'], []).append(row)
            self._found['rows'] = by_target
        return self._found['rows'].get(target, [])

    def values(self, target: str, encoder: str, metric: str | None = None) -> dict[str, Values]:
        """{intermediate: values} of one target: of its score, or of one metric."""
        rows = self.of_target(target)
        if not rows:
            return {}
        if (target, metric) not in self._found:
            self._found[target, metric] = columns(
                score_rows(rows, target) if metric is None else scored(rows, target, metric)
            )
        return {name: values for (e, name), values in self._found[target, metric].items() if e == encoder}

    def codes(self, target: str, zero_shot: bool = False) -> list[str]:
        """The languages of a target, planned or scored, in the order of tables."""
        key = ('codes', target, zero_shot)
        if key not in self._found:
            rows = self.of_target(target)
            every = languages(rows)
            english = {row['language'] for row in self.rows if is_english(row)}
            more = [c for c in self.wanted.get(target, ()) if c not in every and not (zero_shot and c in english)]
            self._found[key] = [*languages(rows, zero_shot), *more]
        return self._found[key]

    def behind(self, encoder: str, name: str, target: str) -> list[Row]:
        """The rows of one encoder, intermediate and target."""
        if 'places' not in self._found:
            places: dict[tuple, list[Row]] = {}
            for row in self.rows:
                places.setdefault((row['encoder'], row['intermediate'], row['target']), []).append(row)
            self._found['places'] = places
        return self._found['places'].get((encoder, name, target), [])

    def stands_in(self, name: str | None = None, target: str | None = None) -> bool:
        """Whether every row of an intermediate, a target, or of both together has the field stand_in."""
        key = ('stands in', name, target)
        if key not in self._found:
            chosen = self.rows if target is None else self.of_target(target)
            chosen = chosen if name is None else select(chosen, intermediate=name)
            self._found[key] = bool(chosen) and all(row.get('stand_in') for row in chosen)
        return self._found[key]

    def test(self, encoder: str, name: str, target: str, zero_shot: bool) -> Mapping[str, Any] | None:
        """The significance test of a difference, None if it was not tested."""
        wanted = ZERO_SHOT if zero_shot else ALL_LANGUAGES
        for row in self.tested:
            if (row['encoder'], row['intermediate'], row['target'], row['languages']) == (
                encoder, name, target, wanted,
            ):  # fmt: skip
                return row if row.get('p_holm') is not None else None
        return None

    def missing(self, encoder: str) -> dict[tuple[str, str], tuple[int, int]]:
        """{(intermediate, target): (missing, planned)} numbers of scores, for pairs with a missing score.

        A score is one language and seed.
        """
        if ('missing', encoder) in self._found:
            return self._found['missing', encoder]
        found = self._found['missing', encoder] = {}
        for target in self.targets:
            values, codes = self.values(target, encoder), self.codes(target)
            for name in self.arms:
                planned = max(1, len(codes)) * len(self.seeds)
                there = sum(seed in values.get(name, {}).get(code, {}) for code in codes for seed in self.seeds)
                if there < planned:
                    found[name, target] = (planned - there, planned)
        return found


def make_study(
    rows: Iterable[Row],
    plan: Mapping[str, Any] | None = None,
    tested: Iterable[Mapping[str, Any]] = (),
    curves: Iterable[Mapping[str, Any]] = (),
) -> Study:
    """Makes a Study from rows and a plan.

    plan: any of intermediate, targets, seeds (lists) and languages (target -> list), as in a config, and keep (target
    -> 'best' or 'last'), which checkpoint was scored. Without a plan the rows decide order and extent. curves: points
    with a dev metric, see `dev_scores`.
    """
    rows, plan = latest(rows), plan or {}

    def order(field_name: str, planned: Iterable[Any]) -> list[Any]:
        return list(dict.fromkeys([*planned, *distinct(rows, field_name)]))

    arms = order('intermediate', plan.get('intermediate', ()))
    arms = [name for name in arms if name == NONE] + [name for name in arms if name != NONE]
    dev = dev_scores(rows, curves, plan.get('keep', {}))
    wanted = dict(plan.get('languages', {}))
    return Study(
        rows, arms, order('target', plan.get('targets', ())), sorted(order('seed', plan.get('seeds', ()))),
        tuple(tested), dev, wanted,
    )  # fmt: skip


def dev_scores(
    rows: Sequence[Row], curves: Iterable[Mapping[str, Any]], keep: Mapping[str, str] | None = None
) -> dict[tuple[str, str], float]:
    """{(intermediate, target): score on the dev set, mean over seeds}, to choose an arm without the test scores.

    The score comes from rows of split 'dev' if tables show another split. Otherwise it comes from the curves: the best
    dev value of each run, or the last one if `keep` is 'last', which is the value of the checkpoint that was kept. {}
    for a study with several encoders.
    """
    if len(distinct(rows, 'encoder')) > 1:
        return {}
    best: dict[tuple[str, str], dict[int, float]] = {}
    for point in curves:
        if point.get('value') is not None and point.get('target'):
            seeds = best.setdefault((str(point['intermediate']), str(point['target'])), {})
            last = (keep or {}).get(point['target']) == 'last'  # points come in the order of steps
            seeds[point['seed']] = point['value'] if last else max(point['value'], seeds.get(point['seed'], -math.inf))
    found = {place: fmean(seeds.values()) for place, seeds in best.items()}
    for target in distinct(rows, 'target'):
        mine = select(rows, target=target, split='dev')
        if mine and score_rows(rows, target)[0]['split'] != 'dev':
            for (_, name), values in columns(score_rows(mine, target, 'dev')).items():
                if score := language_mean(values, languages(mine)):
                    found[name, target] = score.mean
    return found
