"""The gold side of a split for scores by example: what a metric is a ratio of sums of, for resampling.

The official scorers give one number for a file. `Kind.example_sums` gives each example a numerator and a denominator
whose sums have that number as their ratio; experiment.significance checks that they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path

import numpy as np

from xlmr_flax.data.sources import DataError, read_split
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, Task

Sums = tuple[np.ndarray, np.ndarray]  # (numerator, denominator), float64 [n] each


class NoExampleScores(ValueError):
    """A metric that is no ratio of sums over examples; the message says which and why."""


@dataclass
class GoldSet:
    """The gold side of one task, language and split, read once for all systems.

    ids: of what is resampled. Where a file has no ids they are row numbers, so that row i is one unit in all
    languages; of retrieval without gold pairs by id, in the order of the prediction file (Task.query_order).
    answers: ranking: query -> right items. normalise: the scorer's normalisation of answers, cached.
    """

    task: Task
    language: str
    ids: list[str]
    examples: Sequence[Example] = ()
    answers: dict[str, list[str]] = field(default_factory=dict)
    normalise: Callable[[str], str] = str

    def only(self, keep: Sequence[bool]) -> GoldSet:
        """The examples of a file with ids that are kept."""
        examples = list(compress(self.examples, keep)) if self.examples else ()
        return replace(self, ids=list(compress(self.ids, keep)), examples=examples)


def read_gold_set(task: Task, language: str, split: str, data_root: str, limit: int, skip_bad: bool) -> GoldSet:
    """Labelled examples as a gold set; the arguments of Kind.gold. Raises DataError."""
    examples = read_split(task, language, split, data_root, limit or None, [] if skip_bad else None)
    start = f'{task.name}-{split}-{language}-'
    return GoldSet(task, language, [example.id.removeprefix(start) for example in examples], examples)


def number_units(sets: Iterable[Sequence[str]]) -> list[np.ndarray]:
    """Ids of each language -> int [n] of resampling units: an id that languages share is one unit."""
    numbers: dict[str, int] = {}
    return [np.asarray([numbers.setdefault(id_, len(numbers)) for id_ in ids]) for ids in sets]


def same_length(path: Path, predicted: int, gold: int) -> None:
    """Raises DataError where a file has another number of predictions than there are examples."""
    if predicted != gold:
        raise DataError(f'{path}: {predicted} predictions for {gold} examples')


def hits(path: Path, gold: Sequence[str], predicted: Sequence[str]) -> Sums:
    """Whether each prediction is right, for accuracy. Raises DataError for another number of predictions."""
    same_length(path, len(predicted), len(gold))
    return np.asarray([p == g for p, g in zip(predicted, gold, strict=True)], float), np.ones(len(gold))


def gold_labels(task: Task, examples: Sequence[Example]) -> list[int]:
    """The labels of examples that have one each. Raises DataError for one without."""
    labels = []
    for example in examples:
        assert isinstance(example, PairExample | ChoiceExample)
        if example.label is None:
            raise DataError(f'{task.name}: example {example.id!r} has no gold label')
        labels.append(example.label)
    return labels
