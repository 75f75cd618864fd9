"""Sentence retrieval by embeddings: bitext mining, parallel sentences, question to passage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.inputs import JSON_ENDINGS, InputForm, input_text
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_gold, read_pairs
from xlmr_flax.data.tokenize import Tokenizer, pair_rows, single_rows
from xlmr_flax.kinds.base import Kind, Scores, example_ids
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, NoGold, Sums, mean_of
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import classification, retrieval
from xlmr_flax.tasks.base import SentenceExample, Task, has_label
from xlmr_flax.tasks.parsers import Row, id_of

_K = 20
_ENOUGH = 50  # least number of queries from which the order of a file can be recognised


def _from_input(row: Row) -> SentenceExample:
    return SentenceExample(id_of(row, 'id'), input_text(row, 'text'))


class Retrieval(Kind):
    """Retrieval by sentence embeddings, without a head.

    Prediction file: the index of the nearest sentence, one per line; JSON for rankings.
    """

    name = 'retrieval'
    input = InputForm('retrieval', {'.txt': 'lines', **JSON_ENDINGS}, ('text',), _from_input)
    suffix = 'tsv'
    settings = ('retrieval_layer', 'retrieval_layers', 'pooling', 'max_length', 'repeated_sentences')

    def encode(self, task: Task, examples: Sequence[SentenceExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
        texts = [e.text for e in examples]
        if any(e.context for e in examples):
            tokens = pair_rows(tokenizer, texts, [e.context for e in examples], max_length)
        else:
            tokens = single_rows(tokenizer, texts, max_length)
        return Encoded(self.name, tokens, NO_LABELS, example_ids(examples))

    def write(self, path: Path, predictions: Any) -> None:
        files.write_labels(path, predictions)

    def read(self, path: Path) -> list[int]:
        return files.read_indices(path)

    def score(self, task: Task, language: str, path: Path, examples: Sequence[SentenceExample]) -> Scores:
        """Accuracy; row i of the pool is correct for query i. The file has the queries in the order of
        `Task.query_order`."""
        predicted = self.read(path)
        scores = classification.accuracy(task.query_order([e.text for e in examples]), predicted)
        files.check_indices(path, predicted, len(examples))
        return scores

    def gold(self, task: Task, language: str, split: str, data_root: str, limit: int, skip_bad_rows: bool) -> GoldSet:
        if split in task.gold:
            answers: dict[str, list[str]] = {}
            for query, right in () if task.mines else read_gold(task, language, split, data_root):
                answers.setdefault(query, []).append(right)
            return GoldSet(task, language, list(answers), (), answers)
        queries = read_pairs(task, language, split, data_root, limit or None)[0]
        if not all(map(has_label, queries)):
            raise NoGold(f'{task.name} {split} {language}: the files do not say which lines are translations')
        texts = tuple(query.text for query in queries)
        return GoldSet(task, language, [str(row) for row in task.query_order(texts)], queries=texts)

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        if gold.task.mines:
            raise NoExampleScores(
                f'{gold.task.name}: F1 over mined pairs is no sum over examples, and its threshold is tuned'
            )
        if metric == f'map@{_K}' and gold.answers:
            rankings = files.read_rankings(path.with_suffix('.json'))
            scores = [retrieval.average_precision(gold.answers[q], rankings.get(q, ())) for q in gold.ids]
            return mean_of(scores)
        if metric != 'accuracy':
            return super().example_sums(gold, path, metric)
        predicted, right = self.read(path), list(map(int, gold.ids))
        hits = classification.matches(right, predicted)
        files.check_indices(path, predicted, len(right))
        _refuse_row_order(path, np.asarray(predicted), np.asarray(right))
        return mean_of(hits)

    def predicted(self, gold: GoldSet, path: Path) -> list[bool]:
        if not gold.answers:
            return super().predicted(gold, path)
        ranked = files.read_rankings(path.with_suffix('.json'))
        return [id_ in ranked for id_ in gold.ids]


def _refuse_row_order(path: Path, indices: np.ndarray, gold: np.ndarray) -> None:
    """Raises DataError for a prediction file with the queries in row order instead of sorted.

    Such a file would silently get a score near zero. Workdirs of versions before 0.2 have them.
    """
    in_rows, sorted_ = (int((indices == right).sum()) for right in (np.arange(len(indices)), gold))
    if len(indices) >= _ENOUGH and in_rows > max(len(indices) // 20, 4 * sorted_):
        raise DataError(
            f'{path}: the queries are in the order of the rows ({in_rows} of {len(indices)} right), not sorted as '
            "XTREME's files have them; evaluate again"
        )
