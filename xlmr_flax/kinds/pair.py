"""Classification of a text or a pair of texts: natural language inference, paraphrases, yes/no questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from xlmr_flax.data.encode import Encoded, label_array
from xlmr_flax.data.inputs import JSON_ENDINGS, InputForm, input_text
from xlmr_flax.data.tokenize import Tokenizer, pair_rows, single_rows
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key
from xlmr_flax.encoders.heads import ClassificationHead
from xlmr_flax.encoders.logical_axes import ROWS
from xlmr_flax.kinds.base import (
    Kind,
    ModelLike,
    Output,
    Record,
    Rows,
    Scores,
    example_ids,
    head_dropout_key,
    rounded,
    softmax,
)
from xlmr_flax.kinds.gold import GoldSet, Sums, gold_labels, mean_of
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import classification
from xlmr_flax.scoring.spans import Decoder
from xlmr_flax.tasks.base import PairExample, Task
from xlmr_flax.tasks.parsers import Row, id_of, text


def _from_input(row: Row) -> PairExample:
    second = None if row.get('text_b') is None else text(row, 'text_b')
    return PairExample(id_of(row, 'id'), input_text(row, 'text_a'), second, None)


class Pair(Kind):
    """Classification of a text or a pair of texts. Logits [B, C], packed [B, S, C].

    Prediction file: one label per line.
    """

    name = 'pair'
    input = InputForm(
        'pair',
        {'.tsv': 'tsv', '.txt': 'tsv', '.csv': 'csv', **JSON_ENDINGS},
        ('text_a',),
        _from_input,
        positional=('text_b',),
    )
    suffix = 'tsv'
    classes = True
    shuffles = True
    architecture = 'ForSequenceClassification'
    typical_outputs = 3  # natural language inference

    def encode(self, task: Task, examples: Sequence[PairExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
        first = [e.text_a for e in examples]
        if any(e.text_b is None for e in examples):
            tokens = single_rows(tokenizer, first, max_length)
        else:
            tokens = pair_rows(tokenizer, first, [str(e.text_b) for e in examples], max_length)
        return Encoded(self.name, tokens, label_array([e.label for e in examples]), example_ids(examples))

    def encoding_group(self, example: PairExample) -> int:
        return int(example.text_b is not None)

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        return {'ids': (rows, length), 'segments': (rows, length), 'label': (rows,)}

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        return ClassificationHead(config, outputs, rngs=rngs)

    def logits(self, model: ModelLike, params: dict[str, Any], head: Any, rows: Rows, key: Key | None) -> jax.Array:
        hidden = model.encode(params, rows.ids, rows.segments, key)
        source = self.head_input(model.config, model.style)
        vectors = model.text_vectors(params, hidden, rows.segments, rows.starts, source)  # [B, D], packed [B*S, D]
        out = model.place(head(vectors, head_dropout_key(key)), ROWS, None)
        return out if rows.starts is None else out.reshape(len(rows.ids), -1, out.shape[-1])

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        if style != 'hf':
            return {}
        return {
            ('dense', 'kernel'): 'classifier.dense.weight',
            ('dense', 'bias'): 'classifier.dense.bias',
            ('out', 'kernel'): 'classifier.out_proj.weight',
            ('out', 'bias'): 'classifier.out_proj.bias',
        }

    def reads_pooler(self, style: str) -> bool:
        return style == 'jiant'

    def predictions(
        self, task: Task, examples: Sequence[Any], data: Encoded, out: Output, order: Sequence[int], decode: Decoder
    ) -> list[str]:
        logits = np.asarray(out)
        return [task.labels[i] for i in (logits[:, list(order)] if order else logits).argmax(-1)]

    def write(self, path: Path, predictions: Any) -> None:
        files.write_labels(path, predictions)

    def read(self, path: Path) -> list[str]:
        return files.read_labels(path)

    def score(self, task: Task, language: str, path: Path, examples: Sequence[PairExample]) -> Scores:
        gold, predicted = self._gold_names(task, examples), self._read_known(task, path)
        measures = {'f1': classification.binary_f1, 'class_f1': classification.class_f1}
        return measures.get(task.scorer, classification.accuracy)(gold, predicted)

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        if metric != 'accuracy':
            return super().example_sums(gold, path, metric)
        right, predicted = self._gold_names(gold.task, gold.examples), self._read_known(gold.task, path)
        return mean_of(classification.matches(right, predicted))

    def classified(self, task: Task, path: Path, examples: Sequence[PairExample]) -> tuple[list[str], list[str]]:
        return self._gold_names(task, examples), self._read_known(task, path)

    def _read_known(self, task: Task, path: Path) -> list[str]:
        """Reads predictions. Raises DataError for a label that the task does not have."""
        labels = self.read(path)
        files.check_labels(task, path, enumerate(labels, 1))
        return labels

    def _gold_names(self, task: Task, examples: Sequence[Any]) -> list[str]:
        return [task.labels[label] for label in gold_labels(task, examples)]

    def records(self, examples: Sequence[Any], data: Encoded, out: Any, labels: Sequence[str]) -> list[Record]:
        """Fields: label, probabilities ({label: probability})."""
        return [
            {'label': labels[int(row.argmax())], 'probabilities': dict(zip(labels, rounded(row), strict=True))}
            for row in softmax(out)
        ]

    def summary(self, example: PairExample, record: Record) -> tuple[str, str]:
        prediction = f'{record["label"]} {record["probabilities"][record["label"]]:.2f}  '
        return prediction, ' | '.join(filter(None, (example.text_a, example.text_b)))
