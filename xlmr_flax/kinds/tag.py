"""Tagging of words: parts of speech, named entities, CCG supertags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.inputs import JSON_ENDINGS, InputForm
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.tagging import join_tags, join_words, tag_rows
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key
from xlmr_flax.encoders.heads import LinearHead
from xlmr_flax.encoders.logical_axes import ROWS
from xlmr_flax.kinds.base import (
    ModelLike,
    Output,
    Record,
    Rows,
    Scores,
    TokenLoss,
    example_ids,
    head_dropout_key,
    rounded,
)
from xlmr_flax.kinds.gold import GoldSet, Sums
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import classification, tagging
from xlmr_flax.scoring.spans import Decoder
from xlmr_flax.tasks.base import RowError, TagExample, Task
from xlmr_flax.tasks.parsers import Row, id_of


def _from_input(row: Row) -> TagExample:
    words = row['words']
    if isinstance(words, str):
        words = words.split()
    if not isinstance(words, list) or not words or not all(isinstance(v, str) and v.strip() for v in words):
        raise RowError('words', f'one or more words are expected, not {row["words"]!r}')
    return TagExample(id_of(row, 'id'), tuple(words), None)


class Tag(TokenLoss):
    """Tagging: a label on the first sub-token of each word. Logits [B, T, C].

    Prediction file: one tag per line, a blank line between sentences.
    """

    name = 'tag'
    input = InputForm(
        'tag',
        {'.txt': 'lines', '.tsv': 'conll', '.conll': 'conll', '.conllu': 'conllu', **JSON_ENDINGS},
        ('words',),
        _from_input,
    )
    suffix = 'tsv'
    by_token = True
    best_only = True
    classes = True
    shuffles = True
    architecture = 'ForTokenClassification'
    typical_outputs = 17  # Universal Dependencies

    def encode(self, task: Task, examples: Sequence[TagExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
        rows = tag_rows(tokenizer, examples, max_length)
        return Encoded(self.name, rows.tokens, NO_LABELS, example_ids(examples), tags=rows)

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(('ids', 'segments', 'labels'), (rows, length))

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        return LinearHead(config, outputs, use_dropout=True, rngs=rngs)

    def logits(self, model: ModelLike, params: dict[str, Any], head: Any, rows: Rows, key: Key | None) -> jax.Array:
        return model.place(
            head(model.encode(params, rows.ids, rows.segments, key), head_dropout_key(key)), ROWS, None, None
        )

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        return {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'}

    def predictions(
        self, task: Task, examples: Sequence[Any], data: Encoded, out: Output, order: Sequence[int], decode: Decoder
    ) -> list[list[str]]:
        assert data.tags is not None
        if order:
            label_of = np.argsort(np.asarray(order))  # index of the head's output -> index of the task's label
            out = [label_of[tags] for tags in out]
        return [[task.labels[t] for t in tags] for tags in join_tags(data.tags, list(out), len(data.ids))]

    def write(self, path: Path, predictions: Any) -> None:
        files.write_tags(path, predictions)

    def read(self, path: Path) -> list[list[str]]:
        return files.read_tags(path)

    def score(self, task: Task, language: str, path: Path, examples: Sequence[TagExample]) -> Scores:
        gold, predicted = _gold_tags(task, examples), self._read_known(task, path)
        entities = tagging.entity_scores(gold, predicted)
        words = classification.accuracy([t for tags in gold for t in tags], [t for tags in predicted for t in tags])
        if task.scorer == 'token_accuracy':
            return words
        scores = entities | words
        if 'B-DATE' in task.labels:  # MasakhaNER has dates, its training set PAN-X has none: also score without them
            undated = [_without_dates(side) for side in (gold, predicted)]
            scores['f1_without_date'] = tagging.entity_scores(undated[0], undated[1])['f1']
        return scores

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        """f1: (2 TP, predicted + gold chunks) per sentence. accuracy: (correct tags, tags) per sentence."""
        if metric not in ('f1', 'accuracy'):
            return super().example_sums(gold, path, metric)
        right, predicted = _gold_tags(gold.task, gold.examples), self._read_known(gold.task, path)
        correct, guessed, wanted = tagging.chunk_counts(right, predicted).T.astype(float)
        if metric == 'f1':
            return 2 * correct, guessed + wanted
        words = [classification.matches(*pair) for pair in zip(right, predicted, strict=True)]
        return np.asarray([each.sum() for each in words]), np.asarray([len(each) for each in words], float)

    def classified(self, task: Task, path: Path, examples: Sequence[TagExample]) -> tuple[list[str], list[str]]:
        gold, predicted = (
            [' '.join(sorted(set(tags))) for tags in sentences]
            for sentences in (_gold_tags(task, examples), self._read_known(task, path))
        )
        return gold, predicted

    def _read_known(self, task: Task, path: Path) -> list[list[str]]:
        """Reads predictions. Raises DataError for a tag that the task does not have."""
        sentences, line = self.read(path), 1
        for tags in sentences:
            files.check_labels(task, path, enumerate(tags, line))
            line += len(tags) + 1
        return sentences

    def records(self, examples: Sequence[Any], data: Encoded, out: Any, labels: Sequence[str]) -> list[Record]:
        """Fields: words, tags, probabilities (of each word's tag). out: [tokens, 2], best tag and its probability."""
        assert data.tags is not None
        return [
            {
                'words': list(example.words),
                'tags': [labels[int(number)] for number in words[:, 0]],
                'probabilities': rounded(words[:, 1]),
            }
            for example, words in zip(examples, join_words(data.tags, out, len(examples)), strict=True)
        ]

    def summary(self, example: TagExample, record: Record) -> tuple[str, str]:
        return '', ' '.join(f'{w}/{t}' for w, t in zip(record['words'], record['tags'], strict=True))


def _gold_tags(task: Task, examples: Sequence[Any]) -> list[list[str]]:
    """The names of the gold tags of each sentence. Raises DataError for a sentence without tags."""
    for example in examples:
        if example.tags is None:
            raise DataError(f'{task.name}: example {example.id!r} has no gold tags')
    return [[task.labels[tag] for tag in example.tags] for example in examples]


def _without_dates(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    return [['O' if tag.endswith('-DATE') else tag for tag in tags] for tags in sentences]
