"""Gold labels of a split, for scores by example, which resampling (bootstrap tests) needs.

The official scorers give one number for a file. `Kind.example_sums` gives each example a numerator and a denominator;
the ratio of their sums is that number, which analysis/significance checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import are_labelled, read_split
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, Task

Sums = tuple[np.ndarray, np.ndarray]  # (numerator, denominator), float64 [n] each


class NoGold(DataError):
    """Raised for a split without gold labels (a benchmark's public test file)."""


class NoExampleScores(ValueError):
    """Raised for a metric that is not a ratio of sums over examples. The message names the metric and the reason."""


@dataclass
class GoldSet:
    """The gold labels of one task, language and split, read once for all systems.

    ids: ids of the resampling units. If a file has no ids, they are row numbers, so that row i is the same unit in all
    languages. For retrieval without gold pairs by id, they have the order of the prediction file (Task.query_order).
    answers: for ranking, {query: correct items}. normalise: the scorer's normalisation of answers, cached. queries: for
    retrieval without gold pairs by id, the texts that are searched for, in the order of the rows.
    """

    task: Task
    language: str
    ids: list[str]
    examples: Sequence[Example] = ()
    answers: dict[str, list[str]] = field(default_factory=dict)
    normalise: Callable[[str], str] = str
    queries: tuple[str, ...] = ()

    def only(self, keep: Sequence[bool]) -> GoldSet:
        """Returns a GoldSet of the examples for which `keep` is true. Only for files with ids."""
        examples = list(compress(self.examples, keep)) if self.examples else ()
        return replace(self, ids=list(compress(self.ids, keep)), examples=examples)


def read_gold_set(task: Task, language: str, split: str, data_root: str, limit: int, skip_bad_rows: bool) -> GoldSet:
    """Reads labelled examples as a GoldSet. Takes the arguments of Kind.gold.

    Raises NoGold if no example has a label, and DataError if some have none.
    """
    examples = read_split(task, language, split, data_root, limit or None, [] if skip_bad_rows else None)
    if examples and not are_labelled(task, language, split, data_root, examples):
        raise NoGold(f'{task.name} {split} {language}: the files have no gold labels')
    start = f'{task.name}-{split}-{language}-'
    return GoldSet(task, language, [example.id.removeprefix(start) for example in examples], examples)


def number_units(sets: Iterable[Sequence[str]]) -> list[np.ndarray]:
    """Numbers the resampling units: ids of each language -> int [n]. An id that languages share is one unit."""
    numbers: dict[str, int] = {}
    return [np.asarray([numbers.setdefault(id_, len(numbers)) for id_ in ids]) for ids in sets]


def mean_of(scores: Sequence[float] | np.ndarray) -> Sums:
    """The sums of a metric that is the mean of scores of examples: (score, 1), float64 [n] each."""
    return np.asarray(scores, float), np.ones(len(scores))


def gold_labels(task: Task, examples: Sequence[Example]) -> list[int]:
    """Returns the labels of examples with one label each. Raises DataError for an example without a label."""
    labels = []
    for example in examples:
        assert isinstance(example, PairExample | ChoiceExample)
        if example.label is None:
            raise DataError(f'{task.name}: example {example.id!r} has no gold label')
        labels.append(example.label)
    return labels
