"""Scores by example from prediction files: what a metric is a ratio of sums of, for resampling.

The official scorers (scoring/score.py) give one number for a file. Here each example has a numerator and a denominator,
and the ratio of their sums is that number; `experiment.significance` checks that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import compress
from pathlib import Path

import numpy as np

from xlmr_flax.data.sources import DataError, read_gold, read_pairs, read_split
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import qa, retrieval, tagging
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, SpanExample, TagExample, Task, has_label

Sums = tuple[np.ndarray, np.ndarray]  # (numerator, denominator), float64 [n] each


class NoExampleScores(ValueError):
    """A metric that is no ratio of sums over examples; the message says which and why."""


@dataclass
class GoldSet:
    """The gold side of one task, language and split, read once for all systems.

    ids: of what is resampled. Where a file has no ids they are row numbers, so that row i is one unit in all
    languages; of retrieval without gold pairs by id, in the order of the prediction file (Task.query_order).
    """

    task: Task
    language: str
    ids: list[str]
    examples: Sequence[Example]
    answers: dict[str, list[str]]  # ranking: query -> right items
    normalise: Callable[[str], str] | None

    def sums(self, path: Path, metric: str) -> Sums:
        """One prediction file -> (numerator, denominator). Raises DataError for a file that does not fit, and
        NoExampleScores."""
        kind = self.task.kind
        if kind in ('pair', 'choice') and metric == 'accuracy':
            numerator = self._right(path)
        elif kind == 'tag' and metric in ('f1', 'accuracy'):
            return self._tags(path, metric)
        elif kind == 'span' and metric in ('f1', 'exact_match') and self.task.scorer != 'squad_v2':
            numerator = self._answers(path, metric)
        elif kind == 'retrieval' and metric == 'accuracy':
            said, gold = np.asarray(files.read_indices(path)), np.asarray(self.ids, int)
            _same_length(path, len(said), len(gold))
            _refuse_row_order(path, said, gold)
            numerator = said == gold
        elif kind == 'retrieval' and metric == f'map@{_K}' and self.answers:
            rankings = files.read_rankings(path.with_suffix('.json'))
            numerator = [retrieval.average_precision(self.answers[q], rankings.get(q, ())) for q in self.ids]
        else:
            raise NoExampleScores(_why_not(self.task, metric))
        return np.asarray(numerator, float), np.ones(len(self.ids))

    def predicted(self, path: Path) -> list[bool]:
        """For each id whether a prediction file has it; where a file has no ids, its lines are the examples."""
        if self.task.kind == 'span':
            said = files.read_answers(path)
            return [example.id in said for example in self.examples]
        if self.answers:
            ranked = files.read_rankings(path.with_suffix('.json'))
            return [id_ in ranked for id_ in self.ids]
        return [True] * len(self.ids)

    def only(self, keep: Sequence[bool]) -> GoldSet:
        """The examples of a file with ids that are kept."""
        examples = list(compress(self.examples, keep)) if self.examples else ()
        return replace(self, ids=list(compress(self.ids, keep)), examples=examples)

    def _right(self, path: Path) -> list[bool]:
        if self.task.kind == 'choice':
            said = [str(index) for index in files.read_choices(path)]
        else:
            said = files.read_labels(path)
        _same_length(path, len(said), len(self.examples))
        gold = []
        for example in self.examples:
            assert isinstance(example, PairExample | ChoiceExample)
            label = example.label if example.label is not None else -1
            gold.append(str(label) if self.task.kind == 'choice' else self.task.labels[label])
        return [s == g for s, g in zip(said, gold, strict=True)]

    def _tags(self, path: Path, metric: str) -> Sums:
        """Chunks by sentence: 2 TP and predicted + gold; or right tags and tags."""
        said = files.read_tags(path)
        _same_length(path, len(said), len(self.examples))
        over, under = [], []
        for example, tags in zip(self.examples, said, strict=True):
            assert isinstance(example, TagExample)
            gold = [self.task.labels[tag] for tag in example.tags or ()]
            if len(gold) != len(tags):
                raise DataError(f'{path}: {len(tags)} tags for the {len(gold)} words of {example.id!r}')
            if metric == 'accuracy':
                over.append(sum(map(str.__eq__, gold, tags)))
                under.append(len(gold))
            else:
                right, found = set(tagging.chunks(gold)), set(tagging.chunks(tags))
                over.append(2 * len(right & found))
                under.append(len(right) + len(found))
        return np.asarray(over, float), np.asarray(under, float)

    def _answers(self, path: Path, metric: str) -> list[float]:
        said, measure = files.read_answers(path), qa.token_f1 if metric == 'f1' else qa.exact
        assert self.normalise is not None
        scores = []
        for example in self.examples:
            assert isinstance(example, SpanExample)
            answer = said.get(example.id)
            texts = [text for text, _ in example.answers] if answer is not None else []
            scores.append(max((measure(text, answer or '', self.normalise) for text in texts), default=0.0))
        return scores


_K = 20
_ENOUGH = 50  # queries from which the order of a file can be told from luck


def read_gold_set(
    task: Task, language: str, split: str, data_root: str, limit: int, skip_bad_rows: bool = False
) -> GoldSet:
    """The gold side of a split, its first `limit` rows (0 = all), without those that cannot be read where they were
    left out of the predictions too. Raises DataError and TaskError."""
    if task.kind == 'retrieval':
        answers: dict[str, list[str]] = {}
        if split in task.gold and 'f1' not in task.metrics:
            for query, right in read_gold(task, language, split, data_root):
                answers.setdefault(query, []).append(right)
            return GoldSet(task, language, list(answers), (), answers, None)
        if split in task.gold:  # mining: no sum over examples
            return GoldSet(task, language, [], (), answers, None)
        queries = read_pairs(task, language, split, data_root, limit or None)[0]
        if not all(map(has_label, queries)):
            raise DataError(f'{task.name} {split} {language}: the files do not say which lines are translations')
        order = task.query_order([query.text for query in queries])
        return GoldSet(task, language, [str(row) for row in order], (), answers, None)
    examples = read_split(task, language, split, data_root, limit or None, [] if skip_bad_rows else None)
    start = f'{task.name}-{split}-{language}-'
    return GoldSet(
        task, language, [e.id.removeprefix(start) for e in examples], examples, {}, normaliser(task, language)
    )


def normaliser(task: Task, language: str) -> Callable[[str], str] | None:
    """The scorer's, which remembers: gold answers and frequent predictions come again for every system."""
    if task.kind != 'span':
        return None
    if task.scorer == 'mlqa':
        return cache(partial(qa.normalise_mlqa, language=task.answer_language(language)))
    return cache(qa.normalise_squad)


def number_units(sets: Iterable[Sequence[str]]) -> list[np.ndarray]:
    """Ids of each language -> int [n] of resampling units: an id that languages share is one unit."""
    numbers: dict[str, int] = {}
    return [np.asarray([numbers.setdefault(id_, len(numbers)) for id_ in ids]) for ids in sets]


def _same_length(path: Path, said: int, gold: int) -> None:
    if said != gold:
        raise DataError(f'{path}: {said} predictions for {gold} examples')


def _refuse_row_order(path: Path, said: np.ndarray, gold: np.ndarray) -> None:
    """Raises DataError for a file with the queries in the order of rows where they are to be sorted: such a file would
    score about zero without a word. Workdirs of versions before 0.2 have them."""
    in_rows, sorted_ = (int((said == right).sum()) for right in (np.arange(len(said)), gold))
    if len(said) >= _ENOUGH and in_rows > max(len(said) // 20, 4 * sorted_):
        raise DataError(
            f'{path}: the queries stand in the order of the rows ({in_rows} of {len(said)} right), not sorted as '
            "XTREME's files have them; evaluate again"
        )


def _why_not(task: Task, metric: str) -> str:
    if task.mines:
        return f'{task.name}: F1 over mined pairs is no sum over examples, and its threshold is tuned'
    if task.scorer == 'squad_v2':
        return f'{task.name}: its no-answer scores are thresholded over the whole set'
    return f'{task.name}: {metric} is no ratio of sums over examples'
