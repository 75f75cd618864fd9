"""Multiple choice: a prompt with candidate continuations, each encoded as the pair (prompt, choice)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from xlmr_flax.data.encode import Encoded, label_array
from xlmr_flax.data.inputs import JSON_ENDINGS, InputForm, input_text
from xlmr_flax.data.tokenize import Tokenizer, choice_rows
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key
from xlmr_flax.encoders.heads import ClassificationHead, LinearHead
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
from xlmr_flax.tasks.base import ChoiceExample, RowError, Task, TaskError
from xlmr_flax.tasks.parsers import Row, id_of


def _from_input(row: Row) -> ChoiceExample:
    values = row['choices']
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(v, str) and v.strip() for v in values):
        raise RowError('choices', f'a list of at least two texts is expected, not {values!r}')
    return ChoiceExample(id_of(row, 'id'), input_text(row, 'prompt'), tuple(values), None)


class Choice(Kind):
    """Multiple choice: the head gives each (prompt, choice) pair one logit. Logits [B, N], packed [B, S, N].

    Prediction file: one JSON object per line with the index of the choice (XTREME-R's XCOPA).
    """

    name = 'choice'
    input = InputForm('choice', JSON_ENDINGS, ('prompt', 'choices'), _from_input)
    suffix = 'jsonl'
    stacked = True
    shuffles = True
    architecture = 'ForMultipleChoice'

    def encode(self, task: Task, examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
        sizes = {len(e.choices) for e in examples}
        if len(sizes) != 1 or min(sizes) < 2:
            raise TaskError(
                f'task {task.name!r}: examples have {sorted(sizes)} choices; one number of at least two is expected'
            )
        prompts = [e.prompt for e in examples for _ in e.choices]
        tokens = choice_rows(tokenizer, prompts, [c for e in examples for c in e.choices], max_length)
        labels = label_array([e.label for e in examples])
        return Encoded(self.name, tokens, labels, example_ids(examples), sizes.pop())

    def encoding_group(self, example: ChoiceExample) -> int:
        return len(example.choices)

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        return {'ids': (rows, choices, length), 'segments': (rows, choices, length), 'label': (rows,)}

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        if style == 'hf':
            return LinearHead(config, 1, use_dropout=True, rngs=rngs)
        return ClassificationHead(config, 1, rngs=rngs)

    def logits(self, model: ModelLike, params: dict[str, Any], head: Any, rows: Rows, key: Key | None) -> jax.Array:
        examples, choices, length = rows.ids.shape
        ids, segments = (x.reshape(-1, length) for x in (rows.ids, rows.segments))  # [B, N, T] -> [B*N, T]
        hidden = model.encode(params, ids, segments, key)
        source = self.head_input(model.config, model.style)
        vectors = model.text_vectors(params, hidden, segments, rows.starts, source)  # [B*N, D], packed [B*N*S, D]
        out = model.place(head(vectors, head_dropout_key(key)), ROWS, None)
        if rows.starts is None:
            return out.reshape(examples, choices)
        return out.reshape(examples, choices, -1).swapaxes(1, 2)

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        return {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'} if style == 'hf' else {}

    def reads_pooler(self, style: str) -> bool:
        return True

    def predictions(
        self, task: Task, examples: Sequence[Any], data: Encoded, out: Output, order: Sequence[int], decode: Decoder
    ) -> list[int]:
        return np.asarray(out).reshape(-1, data.group).argmax(-1).tolist()

    def write(self, path: Path, predictions: Any) -> None:
        files.write_choices(path, predictions)

    def read(self, path: Path) -> list[int]:
        return files.read_choices(path)

    def score(self, task: Task, language: str, path: Path, examples: Sequence[ChoiceExample]) -> Scores:
        predicted = self.read(path)
        scores = classification.accuracy(gold_labels(task, examples), predicted)
        files.check_indices(path, predicted, len(task.labels))
        return scores

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        if metric != 'accuracy':
            return super().example_sums(gold, path, metric)
        predicted = self.read(path)
        matches = classification.matches(gold_labels(gold.task, gold.examples), predicted)
        files.check_indices(path, predicted, len(gold.task.labels))
        return mean_of(matches)

    def records(self, examples: Sequence[Any], data: Encoded, out: Any, labels: Sequence[str]) -> list[Record]:
        """Fields: label (index from 0), choice (its text), probabilities (one per choice)."""
        shares = softmax(out.reshape(-1, data.group))
        best = shares.argmax(-1).tolist()
        return [
            {'label': i, 'choice': example.choices[i], 'probabilities': rounded(row)}
            for example, i, row in zip(examples, best, shares, strict=True)
        ]

    def summary(self, example: ChoiceExample, record: Record) -> tuple[str, str]:
        prediction = f'{record["label"]} {record["probabilities"][record["label"]]:.2f}  '
        return prediction, f'{example.prompt} -> {record["choice"]}'
