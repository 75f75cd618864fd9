"""The variance of mean effects that comes from test examples which languages share, from a workdir's predictions.

Result rows do not tell examples apart, so that this needs prediction files and gold labels. What is computed is saved
beside the rows (example_noise.json), and reports made from rows alone read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_flax.analysis.crossed_effects import Examples, shared_variance
from xlmr_flax.analysis.language_effects import Comparison, comparisons
from xlmr_flax.config import Config
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.experiment.plan.arms import task_of
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.kinds import example_sums, prediction_path, read_gold_set
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores
from xlmr_flax.report.rows import Row
from xlmr_flax.tasks.base import TaskError
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import warn
from xlmr_flax.util.errors import quote

FILE = 'example_noise.json'
Noise = dict[tuple[str, ...], Examples]  # by Comparison.key
_FIELDS = {'key': list, 'variance': (int, float), 'units': int}


def example_noise(
    workdir: Workdir,
    config: Config,
    rows: Iterable[Row],
    contrasts: Sequence[tuple[str, str]] = (),
    known: Noise | None = None,
) -> Noise:
    """Computes the variance of every comparison of the workdir's rows that is not in `known`, in squared points.

    Left out are comparisons whose score is not a ratio of sums over examples or is the mean of two metrics, or whose
    files are missing. contrasts: as for `language_effects.effects`.
    """
    found: Noise = {}
    cache: dict[tuple[str, ...], np.ndarray | None] = {}
    for comparison in comparisons(rows, contrasts):
        if comparison.key in (known or {}):
            continue
        influence = _influence(workdir, config, comparison, cache)
        if influence is not None:
            units = np.count_nonzero(np.any(influence != 0, axis=(0, 1)))
            found[comparison.key] = Examples(float(shared_variance(influence)), int(units))
    return found


def to_json(noise: Mapping[tuple[str, ...], Examples]) -> list[dict[str, Any]]:
    """Returns the content of example_noise.json."""
    return [
        {'key': list(key), 'variance': float(each.variance), 'units': each.units} for key, each in sorted(noise.items())
    ]


def read_noise(path: Path) -> Noise:
    """Reads example_noise.json; {} without the file. Warns of a damaged file or entry, and leaves it out."""
    try:
        saved = strict_json.read(path)
    except FileNotFoundError:
        return {}
    except strict_json.JsonError as error:
        warn(f'{error}; the effects are without the noise of test examples')
        return {}
    noise: Noise = {}
    for number, entry in enumerate(saved if isinstance(saved, list) else [saved]):
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(name), kind) and not isinstance(entry.get(name), bool)
            for name, kind in _FIELDS.items()
        ):
            warn(f'{path}: entry {number} is left out: {quote(entry)} does not have the fields key, variance and units')
            continue
        noise[tuple(map(str, entry['key']))] = Examples(float(entry['variance']), entry['units'])
    return noise


def _influence(
    workdir: Workdir, config: Config, of: Comparison, cache: dict[tuple[str, ...], np.ndarray | None]
) -> np.ndarray | None:
    """Returns the influence of each unit on each difference, float [L, S, U] in points, or None."""
    golds = _golds(config, of)
    if golds is None:
        return None
    numbers = _units(golds)
    size = 1 + max(int(number.max()) for number in numbers)
    result = np.zeros((len(of.languages), len(of.seeds), size))
    for row, (gold, number) in enumerate(zip(golds, numbers, strict=True)):
        for column, seed in enumerate(of.seeds):
            for arm, sign in ((of.arm, 1.0), (of.against, -1.0)):
                key = (of.target, of.split, arm, str(seed), gold.language)
                if key not in cache:
                    cache[key] = _of_file(workdir, gold, of, arm, seed)
                linear = cache[key]
                if linear is None:
                    return None
                np.add.at(result[row, column], number, sign * linear)
    return result


def _golds(config: Config, of: Comparison) -> list[GoldSet] | None:
    settings = (config.data_root, config.evaluation.max_examples, config.skip_bad_rows)
    try:
        task = task_of(config, of.target)  # some tasks read their labels from their files
        return [read_gold_set(task, code, of.split, *settings) for code in of.languages]
    except (DataError, TaskError) as error:
        warn(f'{of.target}: the effects are without the noise of test examples: {error}')
        return None


def _of_file(workdir: Workdir, gold: GoldSet, of: Comparison, arm: str, seed: int) -> np.ndarray | None:
    """Returns the influence of each example on the score of one prediction file, float [n] in points, or None."""
    run = Run('', arm, of.target, '', seed, None, None)
    path = prediction_path(workdir.predictions(run), gold.task, gold.language, of.split)
    try:
        over, under = example_sums(gold, path, of.metric)
    except (DataError, NoExampleScores, OSError):
        return None
    whole = max(float(under.sum()), 1e-9)
    return 100 * (over - under * float(over.sum()) / whole) / whole


def _units(golds: Sequence[GoldSet]) -> list[np.ndarray]:
    """Numbers the examples of each language. Two languages have the same examples if their gold labels, or the queries
    of retrieval, agree in every row. Ids alone would also join unrelated benchmarks that number their rows alike.
    """
    numbers: dict[tuple[Any, ...], int] = {}
    result = []
    for gold in golds:
        labels = tuple(str(getattr(example, 'label', None)) for example in gold.examples)
        own = labels if set(labels) - {'None'} else gold.queries or (gold.language, *gold.ids)
        block = numbers.setdefault(own, len(numbers))
        result.append((block, len(gold.ids)))
    starts, size = {}, 0
    for block, count in result:
        if block not in starts:
            starts[block] = size
            size += count
    return [starts[block] + np.arange(count) for block, count in result]
