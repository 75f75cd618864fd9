"""Compares two systems on the same test examples: scores per language, differences, and a paired bootstrap test.

A system is a folder of prediction files in XTREME's layout (ROOT/TASK/SPLIT-LANG.tsv or .json), from any program.
Several runs of one system (its seeds) are averaged. Test examples are drawn with replacement; an example that languages
share is drawn in all of them at once (as in analysis/significance.py). Holm's correction is over the languages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xlmr_flax.analysis.bootstrap import ALPHA, Interval, Part, bootstrap, enough_resamples, holm, interval
from xlmr_flax.config import Config
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.experiment.plan.arms import task_of
from xlmr_flax.experiment.plan.runs import evaluation_languages, evaluation_split
from xlmr_flax.experiment.result_rows import language_facts
from xlmr_flax.kinds import example_sums, kind_of, prediction_path, read_gold_set
from xlmr_flax.kinds.gold import GoldSet, NoGold, number_units
from xlmr_flax.report.rows import languages as in_table_order
from xlmr_flax.report.table import Column, Line, Table
from xlmr_flax.tasks.base import Task

__all__ = ['Pairing', 'pair_systems', 'prediction_files', 'score_names']


@dataclass(frozen=True)
class Compared:
    """The comparison in one language, or of a mean over languages (n = 0). first, second: scores in percent. change:
    first - second as a fraction."""

    name: str
    n: int
    first: float
    second: float
    change: Interval
    p_holm: float | None = None


@dataclass(frozen=True)
class Pairing:
    """The comparison of two systems on one target and metric. languages: in the order of the report's tables. means:
    over all languages, and over all except English. left_out: languages without a file in one of the systems.
    unlabelled: languages whose rows have no gold labels. unpredicted: a sentence for each file that lacks predictions;
    these examples are left out for both systems."""

    target: str
    metric: str
    split: str
    languages: tuple[Compared, ...]
    means: tuple[Compared, ...]
    resamples: int
    left_out: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    unpredicted: tuple[str, ...] = ()

    def table(self, first: str, second: str, title: str = '') -> Table:
        """Returns a table with one line per language, and the means. first, second: names of the systems."""
        columns = (
            Column('language'),
            Column('examples', 'count'),
            Column(first, 'score', decimals=2),
            Column(second, 'score', decimals=2),
            Column('difference', 'delta', decimals=2),
            Column(f'{100 * (1 - ALPHA):.0f} % interval', 'score'),
            Column('p', 'score', decimals=4),
            Column('p (Holm)', 'score', decimals=4),
        )
        lines = [Line(_cells(each), mean=each in self.means) for each in (*self.languages, *self.means)]
        notes = [
            f'difference: {first} - {second}, in points; interval and p by a paired bootstrap over test examples '
            f'({self.resamples:,} resamples); p (Holm): corrected over the {len(self.languages)} languages.'
        ]
        if self.left_out:
            notes.append(f'Left out because a file is missing: {", ".join(self.left_out)}.')
        if self.unlabelled:
            notes.append(f'Left out because the rows have no gold labels: {", ".join(self.unlabelled)}.')
        notes += self.unpredicted
        name = title or f'{self.target}, {self.metric.replace("_", " ")} ({self.split})'
        return Table(name, columns, tuple(lines), tuple(notes))


def _cells(each: Compared) -> tuple[str | int | float | None, ...]:
    change = each.change
    between = f'{100 * change.low:+.2f} to {100 * change.high:+.2f}'.replace('-', '−')
    return (each.name, each.n or None, each.first, each.second, 100 * change.difference, between, change.p, each.p_holm)


def score_names(task: Task) -> tuple[str, ...]:
    """Returns the metrics that are compared: F1 and exact match for question answering, else the main metric."""
    return kind_of(task).metric_pair or task.metrics[:1]


def prediction_files(root: Path, task: Task, languages: Sequence[str], split: str) -> dict[str, Path]:
    """Returns {language: prediction file} for the files that exist."""
    paths = {code: prediction_path(root, task, code, split) for code in languages}
    if task.embeds:  # rankings are JSON
        paths = {c: p if p.is_file() else p.with_suffix('.json') for c, p in paths.items()}
    return {code: path for code, path in paths.items() if path.is_file()}


def pair_systems(
    config: Config,
    target: str,
    first: Sequence[Path],
    second: Sequence[Path],
    *,
    allow_missing: bool = False,
    seed: int = 0,
) -> list[Pairing]:
    """Compares two systems on a target that a config evaluates, on its languages, split and rows.

    first, second: roots of their prediction folders, one per run. allow_missing: skip languages without a file in one
    of the systems. Languages without gold labels are left out. Questions and rankings have ids; only those with a
    prediction in every file are compared. Raises DataError if files are missing, do not match or have no example in
    common, if no language has gold labels, and if only some rows of a language have them. Raises NoExampleScores for a
    metric without scores per example.
    """
    task, split = task_of(config, target), evaluation_split(config, target)
    labelled, unlabelled = _gold_sets(config, task, evaluation_languages(config, target), split)
    languages = list(labelled)
    there = [prediction_files(root, task, languages, split) for root in (*first, *second)]
    missing = [code for code in languages if any(code not in found for found in there)]
    if missing and not (allow_missing and len(missing) < len(languages)):
        roots = [root for root, found in zip((*first, *second), there, strict=True) if len(found) < len(languages)]
        path = prediction_path(roots[0], task, missing[0], split)
        more = f', and {len(missing) - 1} more languages' if len(missing) > 1 else ''
        raise DataError(f'{path}: no such file, needed for {target!r} in {missing[0]!r}{more}')
    kept = [code for code in languages if code not in missing]
    golds = [labelled[code] for code in kept]
    paths = [[found[code] for found in there] for code in kept]
    golds, unpredicted = _common(golds, paths)
    cut = config.evaluation.max_examples > 0
    sums = {
        metric: [[_sums(g, p, metric, cut) for p in each] for g, each in zip(golds, paths, strict=True)]
        for metric in score_names(task)
    }
    found = [_pairing(task, name, split, golds, each, len(first), missing, seed) for name, each in sums.items()]
    return [replace(pairing, unlabelled=unlabelled, unpredicted=unpredicted) for pairing in found]


def _gold_sets(
    config: Config, task: Task, languages: Sequence[str], split: str
) -> tuple[dict[str, GoldSet], tuple[str, ...]]:
    """({language: gold set}, the languages without gold labels). Raises DataError if no language has any."""
    settings = (config.data_root, config.evaluation.max_examples, config.skip_bad_rows)
    labelled: dict[str, GoldSet] = {}
    unlabelled: list[str] = []
    for code in languages:
        try:
            labelled[code] = read_gold_set(task, code, split, *settings)
        except NoGold:
            if code == languages[-1] and not labelled:
                raise
            unlabelled.append(code)
    return labelled, tuple(unlabelled)


def _common(golds: Sequence[GoldSet], paths: Sequence[Sequence[Path]]) -> tuple[list[GoldSet], tuple[str, ...]]:
    """Restricts the gold sets to the examples that have predictions in all files of their language. Also returns a
    sentence for each file that lacks some. Raises DataError if no example is left."""
    kept, sentences = [], []
    for gold, each in zip(golds, paths, strict=True):
        there = [kind_of(gold.task).predicted(gold, path) for path in each]
        keep = [all(column) for column in zip(*there, strict=True)]
        if not any(keep):
            empty = [path for path, column in zip(each, there, strict=True) if not any(column)]
            which = 'an example' if empty else 'an example which the other files have, too'
            raise DataError(f'{[*empty, each[-1]][0]}: none of its ids is that of {which}')
        for path, column in zip(each, there, strict=True):
            if lacks := column.count(False):
                sentences.append(
                    f'{gold.language}: {path.parent.parent.name} has no prediction for {lacks} of {len(column)} '
                    f'examples; {keep.count(True)} are compared.'
                )
        kept.append(gold if all(keep) else gold.only(keep))
    return kept, tuple(sentences)


def _pairing(
    task: Task,
    metric: str,
    split: str,
    golds: Sequence[GoldSet],
    sums: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
    runs: int,
    missing: Sequence[str],
    seed: int,
) -> Pairing:
    """Makes the pairing of one metric. sums: for each language, those of the first system's `runs` runs, then those of
    the second system's runs."""
    units = number_units([gold.ids for gold in golds])
    parts = [
        Part(u, np.stack([over for over, _ in each]), np.stack([under for _, under in each]))
        for u, each in zip(units, sums, strict=True)
    ]
    codes = [gold.language for gold in golds]
    foreign = np.asarray([code not in ('en', 'eng') for code in codes])
    groups = {f'mean of {len(codes)}': np.ones(len(codes), bool)}
    if 0 < foreign.sum() < len(codes):
        groups[f'zero-shot mean of {foreign.sum()}'] = foreign
    weights = np.stack([*np.eye(len(codes)), *(keep / keep.sum() for keep in groups.values())])
    resamples = enough_resamples(len(codes))
    observed, resampled = bootstrap(parts, weights, resamples, seed)
    compared = []
    for v, name in enumerate([*codes, *groups]):
        sides = observed[v, :runs].mean(), observed[v, runs:].mean()
        drawn = resampled[v, :, :runs].mean(1) - resampled[v, :, runs:].mean(1)
        n = len(golds[v].ids) if v < len(codes) else 0
        compared.append(Compared(name, n, 100 * sides[0], 100 * sides[1], interval(sides[0] - sides[1], drawn)))
    adjusted = holm([each.change.p for each in compared[: len(codes)]])
    named = [Compared(e.name, e.n, e.first, e.second, e.change, p) for e, p in zip(compared, adjusted, strict=False)]
    order = in_table_order([{'language': code, **language_facts(code)} for code in codes])
    named.sort(key=lambda each: order.index(each.name))
    return Pairing(task.name, metric, split, tuple(named), tuple(compared[len(codes) :]), resamples, tuple(missing))


def _sums(gold: GoldSet, path: Path, metric: str, cut: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores per example. cut: the gold set has only the first rows of a file (evaluation.max_examples), so
    longer predictions are truncated to these rows. Questions are matched by id and need no truncation.
    """
    kind, n = kind_of(gold.task), len(gold.examples)
    with tempfile.TemporaryDirectory() as scratch:
        if cut and n and isinstance(predicted := kind.read(path), list) and len(predicted) > n:
            path = Path(scratch) / path.name
            kind.write(path, predicted[:n])
        return example_sums(gold, path, metric)
