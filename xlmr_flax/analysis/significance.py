"""Significance tests of a study's differences from arm 'none': paired bootstrap over test examples, Holm's correction.

For each intermediate arm and target, the difference is the target's score (report/study.py), averaged over languages,
with the arm minus that without it ('none'). With several seeds, it is the mean over the seeds that both have. Test
examples are drawn with replacement. An example that several languages share (by its id, or by its row if the file has
no ids) is drawn in all of them, so that translations of one example do not count as independent. Training runs are not
resampled: the interval covers the variation of test examples, and the spread over seeds that of training.

The family of Holm's correction has all arms and targets of one encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_flax.analysis.bootstrap import ALPHA, Part, bootstrap, enough_resamples, holm, interval
from xlmr_flax.config import NONE, Config, digest
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.experiment.plan.arms import task_of
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.kinds import example_sums, prediction_path, read_gold_set
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, number_units
from xlmr_flax.report.rows import Row, columns, distinct, is_english, languages, scored, select
from xlmr_flax.report.study import ALL_LANGUAGES, ZERO_SHOT, score_metrics, score_rows
from xlmr_flax.tasks.base import Task, TaskError
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import warn
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import write_atomically

_FORMAT = 1
# Fields of a saved test. A test without p has a reason instead of the numbers.
_NAMES = ('encoder', 'intermediate', 'target', 'split', 'metric', 'languages')
_NUMBERS = ('p', 'difference', 'low', 'high', 'n', 'parts', 'seeds', 'resamples', 'alpha')
_TOLERANCE = 0.005  # allowed difference, in points, between the score of a prediction file and its result row


def significance(
    workdir: Workdir, config: Config, rows: Iterable[Row], cache: Path | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Tests each encoder, arm (except 'none'), target and set of languages ('all', 'zero-shot'). Returns rows with:

    encoder, intermediate, target, split, metric, languages, parts (test sets), n (examples in them), seeds,
    difference, low, high (points; a 95 % interval), p, p_holm, family, resamples, alpha. A row without a test has
    'reason' instead of the numbers. Returns [] for a workdir without prediction files.

    cache: a JSON file with earlier tests; targets with unchanged result rows are taken from it.
    """
    rows = list(rows)
    if not (workdir.path / 'predictions').is_dir():
        return []
    known, tests = _read_cache(cache), []
    saved: dict[str, Any] = {}
    for encoder in distinct(rows, 'encoder'):
        mine = select(rows, encoder=encoder)
        family = _family(mine)
        for target in distinct(mine, 'target') if family else ():
            study = _Target(workdir, config, mine, target, enough_resamples(family), seed)
            key = study.key()
            tested = known[key] if key in known else study.tests()
            if all(row.get('p') is not None or row.get('final') for row in tested):
                saved[key] = tested
            tests += tested
    if cache is not None and saved != known:
        write_atomically(cache, json.dumps({'format': _FORMAT, 'targets': saved}, indent=1) + '\n')
    return [row for encoder in distinct(tests, 'encoder') for row in _corrected(select(tests, encoder=encoder))]


def read_tests(path: Path) -> list[dict[str, Any]]:
    """Reads the tests that `significance` saved in its cache and applies Holm's correction; [] if there are none."""
    found = [row for rows in _read_cache(path).values() for row in rows]
    return [row for encoder in distinct(found, 'encoder') for row in _corrected(select(found, encoder=encoder))]


def _family(rows: Sequence[Row]) -> int:
    """Counts the differences of one encoder: pairs of arm and target that can be compared with 'none'."""
    pairs = {(row['intermediate'], row['target']) for row in rows}
    return sum(name != NONE and (NONE, target) in pairs for name, target in pairs)


def _corrected(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds Holm's p to the rows, over those with the same set of languages."""
    out = [dict(row) for row in rows]
    for which in (ALL_LANGUAGES, ZERO_SHOT):
        mine = [row for row in out if row['languages'] == which and row.get('p') is not None]
        for row, p in zip(mine, holm([row['p'] for row in mine]), strict=True):
            row |= {'p_holm': p, 'family': len(mine)}
    return out


class _Target:
    """The tests of one encoder and target."""

    def __init__(self, workdir: Workdir, config: Config, rows: Sequence[Row], target: str, resamples: int, seed: int):
        self.workdir, self.config, self.target, self.resamples, self.seed = workdir, config, target, resamples, seed
        self.encoder = rows[0]['encoder']
        self.metrics = score_metrics(rows, target)
        self.shown = score_rows(rows, target)  # one row a language and seed
        self.rows = [row for metric in self.metrics for row in scored(rows, target, metric)]
        names = ('intermediate', 'language', 'metric', 'seed')
        self.given = {tuple(row[n] for n in names): row['value'] for row in self.rows}
        self.split = self.rows[0]['split']
        self.values = {name: values for (_, name), values in columns(self.shown).items()}
        self.codes = languages(self.shown)

    def seeds(self, name: str) -> list[int]:
        """Returns the seeds of an arm, or [] if they are not the same in every language."""
        sets = {frozenset(self.values.get(name, {}).get(code, ())) for code in self.codes}
        return sorted(sets.pop()) if len(sets) == 1 else []

    def path(self, name: str, seed: int, language: str, task: Task) -> Path:
        run = Run('', name, self.target, '', seed, None, None)
        return prediction_path(self.workdir.predictions(run), task, language, self.split)

    def key(self) -> str:
        """Returns the cache key: a digest of the scores, their runs, the method and the settings of the bootstrap."""
        names = ('intermediate', 'language', 'metric', 'seed', 'value', 'n', 'run')
        decides = [[row.get(name) for name in names] for row in self.rows]
        return digest(
            ['seeds in common', self.encoder, self.target, self.split, self.resamples, self.seed, ALPHA, decides]
        )

    def tests(self) -> list[dict[str, Any]]:
        arms = [name for name in self.values if name != NONE]
        whole = {name: self.seeds(name) for name in self.values}
        skipped = {name: 'not scored in every language and seed' for name in arms if not whole[name]}
        if not whole.get(NONE):
            return self._without(arms, 'without intermediate training it is not scored in every language and seed')
        skipped |= {n: "no seed in common with 'none'" for n in arms if whole[n] and not {*whole[n]} & {*whole[NONE]}}
        compared = [name for name in arms if name not in skipped]
        runs = [(name, seed) for name in [NONE, *compared] for seed in whole[name]]
        out = [row for name, reason in skipped.items() for row in self._without([name], reason)]
        try:
            task = task_of(self.config, self.target)
            parts, in_training_language = self._parts(task, runs)
        except NoExampleScores as e:
            return self._without(arms, str(e), final=True)
        except (DataError, TaskError) as e:
            return self._without(arms, f'no scores by example: {e}')
        kept = {ALL_LANGUAGES: np.ones(len(parts)), ZERO_SHOT: ~np.asarray(in_training_language)}
        kept = {which: keep for which, keep in kept.items() if keep.any()}
        weights = np.stack([keep / keep.sum() for keep in kept.values()])
        observed, resampled = bootstrap(parts, weights, self.resamples, self.seed)
        for number, (which, keep) in enumerate(kept.items()):
            sizes = [len(part.units) for part, there in zip(parts, keep, strict=True) if there]
            about = {'parts': len(sizes) // len(self.metrics), 'n': sum(sizes) // len(self.metrics)}
            tested = self._differences(which, observed[number], resampled[number], runs, compared)
            out += [row | about for row in tested]
        return out

    def _parts(self, task: Task, runs: Sequence[tuple[str, int]]) -> tuple[list[Part], list[bool]]:
        """Returns a part for each metric and language, and for each whether it is in the training language."""
        config = self.config
        settings = (config.data_root, config.evaluation.max_examples, config.skip_bad_rows)
        sums: list[tuple[np.ndarray, np.ndarray]] = []
        golds: list[GoldSet] = []
        in_training_language: list[bool] = []
        for code in self.codes:
            gold = read_gold_set(task, code, self.split, *settings)
            for metric in self.metrics:
                pairs = [self._sums(gold, metric, name, seed, task) for name, seed in runs]
                sums.append((np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])))
                golds.append(gold)
                in_training_language.append(any(is_english(row) for row in self.shown if row['language'] == code))
        units = number_units([gold.ids for gold in golds])
        return [Part(u, over, under) for u, (over, under) in zip(units, sums, strict=True)], in_training_language

    def _sums(self, gold: GoldSet, metric: str, name: str, seed: int, task: Task) -> tuple[np.ndarray, np.ndarray]:
        path = self.path(name, seed, gold.language, task)
        over, under = example_sums(gold, path, metric)
        value = 100 * over.sum() / max(under.sum(), 1e-9)
        shown = self.given[name, gold.language, metric, seed]
        if abs(value - shown) > _TOLERANCE:
            raise DataError(f'{path.name} of {name}, seed {seed}, gives {value:.2f} and results.jsonl {shown:.2f}')
        return over, under

    def _differences(
        self,
        which: str,
        observed: np.ndarray,
        resampled: np.ndarray,
        runs: Sequence[tuple[str, int]],
        compared: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Tests each arm against 'none'. observed: [R], resampled: [B, R], the means over languages of every run."""
        place = {run: i for i, run in enumerate(runs)}
        out = []
        for name in compared:
            seeds = [seed for n, seed in runs if n == name and (NONE, seed) in place]
            ours, base = ([place[n, seed] for seed in seeds] for n in (name, NONE))
            tested = interval(
                observed[ours].mean() - observed[base].mean(),
                resampled[:, ours].mean(1) - resampled[:, base].mean(1),
            )
            out.append(
                self._row(name, which)
                | {'difference': 100 * tested.difference, 'low': 100 * tested.low, 'high': 100 * tested.high}
                | {'p': tested.p, 'seeds': len(seeds), 'resamples': self.resamples, 'alpha': ALPHA}
            )
        return out

    def _row(self, name: str, which: str) -> dict[str, Any]:
        return {
            'encoder': self.encoder, 'intermediate': name, 'target': self.target, 'split': self.split,
            'metric': self.shown[0]['metric'], 'languages': which,
        }  # fmt: skip

    def _without(self, names: Iterable[str], reason: str, final: bool = False) -> list[dict[str, Any]]:
        """Returns rows without a test. final: only other scores could change this, so the rows can be cached."""
        more = {'reason': reason} | ({'final': True} if final else {})
        return [self._row(name, which) | more for name in names for which in (ALL_LANGUAGES, ZERO_SHOT)]


def _read_cache(path: Path | None) -> dict[str, Any]:
    """Reads the saved targets by key; {} without the file. Warns of a damaged file, of one of another format, and of
    each damaged target, and leaves it out.
    """
    try:
        saved = strict_json.read_object(path) if path else {'format': _FORMAT, 'targets': {}}
    except FileNotFoundError:
        return {}
    except strict_json.JsonError as error:
        warn(f'{error}; its tests are left out')
        return {}
    targets = saved.get('targets')
    if saved.get('format') != _FORMAT or not isinstance(targets, dict):
        warn(f'{path}: its tests are left out: `format` {_FORMAT} and an object `targets` are expected')
        return {}
    whole = {key: rows for key, rows in targets.items() if isinstance(rows, list) and all(map(_is_test, rows))}
    for key in targets.keys() - whole.keys():
        warn(f'{path}: target {quote(key)} is left out: a test lacks a field or has one of the wrong type')
    return whole


def _is_test(row: Any) -> bool:
    """Returns whether a saved row has the fields that the tables need, with the right types."""
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in _NAMES):
        return False
    if row['languages'] not in (ALL_LANGUAGES, ZERO_SHOT):
        return False
    if row.get('p') is None:
        return isinstance(row.get('reason'), str)
    numbers = [row.get(name) for name in _NUMBERS]
    return all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) and 0 <= row['p'] <= 1
