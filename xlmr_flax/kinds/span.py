"""Extractive question answering: the answer to a question is a span of a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.inputs import JSON_ENDINGS, InputForm, input_text
from xlmr_flax.data.spans import span_rows
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key
from xlmr_flax.encoders.heads import LinearHead
from xlmr_flax.encoders.logical_axes import ROWS
from xlmr_flax.kinds.base import (
    Batch,
    Kind,
    LossSums,
    ModelLike,
    Output,
    Record,
    Rows,
    Scores,
    cross_entropy,
    example_ids,
    head_dropout_key,
)
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, Sums, mean_of, read_gold_set
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import qa
from xlmr_flax.scoring.spans import Decoder, decode
from xlmr_flax.tasks.base import SpanExample, Task
from xlmr_flax.tasks.parsers import Row, id_of

_OUTSIDE = -1e30  # logit of a token of another segment; finite, so that empty slots give numbers and not NaN
_SURE = 1e9  # a no-answer score larger than any difference of logits


def _from_input(row: Row) -> SpanExample:
    return SpanExample(id_of(row, 'id'), input_text(row, 'question'), input_text(row, 'context'), ())


class Span(Kind):
    """Extractive question answering over windows of the context. Logits [B, T, 2] (start, end).

    Prediction file: a JSON object {id: answer text}.
    """

    name = 'span'
    input = InputForm('span', JSON_ENDINGS, ('question', 'context'), _from_input, squad=True)
    suffix = 'json'
    by_token = True
    cuts = True
    settings = ('qa_decoding', 'qa_unaligned')
    metric_pair = ('f1', 'exact_match')
    architecture = 'ForQuestionAnswering'

    def encode(self, task: Task, examples: Sequence[SpanExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
        rows = span_rows(tokenizer, examples, max_length)
        return Encoded(self.name, rows.tokens, NO_LABELS, example_ids(examples), spans=rows)

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        return {'ids': (rows, length), 'segments': (rows, length), 'start': (rows,), 'end': (rows,)}

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        return LinearHead(config, 2, use_dropout=False, rngs=rngs)

    def logits(self, model: ModelLike, params: dict[str, Any], head: Any, rows: Rows, key: Key | None) -> jax.Array:
        return model.place(
            head(model.encode(params, rows.ids, rows.segments, key), head_dropout_key(key)), ROWS, None, None
        )

    def loss_sums(self, logits: jax.Array, batch: Batch) -> LossSums:
        """The mean of the start and end cross-entropies over the tokens of a window, summed over windows.

        logits [B, T, 2], segments [B, T], start and end [B] (packed [B, S]) as token positions in the row. The softmax
        excludes padding. transformers' ForQuestionAnswering and the authors' head include it, so that their loss
        depends on the padded length of a batch.
        """
        valid = batch['valid'].astype(jnp.float32)
        packed = valid.ndim == 2
        gold = {name: batch[name] if packed else batch[name][:, None] for name in ('start', 'end')}
        weight = valid if packed else valid[:, None]
        own = batch['segments'][:, None] == jnp.arange(1, weight.shape[1] + 1)[:, None]  # [B, S, T]
        start, end = (
            cross_entropy(jnp.where(own, logits[:, None, :, i], _OUTSIDE), gold[name], weight)
            for i, name in enumerate(('start', 'end'))
        )
        return (start[0] + end[0]) / 2, start[1], (start[2] + end[2]) / 2

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        return {('out', 'kernel'): 'qa_outputs.weight', ('out', 'bias'): 'qa_outputs.bias'}

    def write_outputs(
        self,
        task: Task,
        path: Path,
        examples: Sequence[SpanExample],
        data: Encoded,
        out: Output,
        order: Sequence[int],
        decode: Decoder,
    ) -> None:
        assert data.spans is not None
        answers = dict(zip((e.id for e in examples), decode(data.spans, list(out), examples), strict=True))
        if task.scorer != 'squad_v2':
            self.write(path, {id_: answer.text for id_, answer in answers.items()})
            return
        # The score is infinite if a context allows no span (an empty context), but JSON has only finite numbers.
        scores = {id_: min(answer.null - answer.score, _SURE) for id_, answer in answers.items()}
        files.write_answers(files.no_answer_path(path), scores)
        self.write(path, {id_: '' if scores[id_] > 0 else answer.text for id_, answer in answers.items()})

    def write(self, path: Path, predictions: Any) -> None:
        files.write_answers(path, predictions)

    def read(self, path: Path) -> dict[str, str]:
        return files.read_answers(path)

    def score(self, task: Task, language: str, path: Path, examples: Sequence[SpanExample]) -> Scores:
        gold, predicted = _answer_texts(examples), self.read(path)
        if task.scorer == 'squad_v2':
            return qa.squad_v2(gold, predicted, files.read_no_answer_scores(files.no_answer_path(path)))
        if task.scorer == 'mlqa':
            return qa.mlqa(gold, predicted, language)
        return qa.squad_v1(gold, predicted)

    def gold(self, task: Task, language: str, split: str, data_root: str, limit: int, skip_bad_rows: bool) -> GoldSet:
        gold = read_gold_set(task, language, split, data_root, limit, skip_bad_rows)
        gold.normalise = normaliser(task, language)
        return gold

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        if gold.task.scorer == 'squad_v2':
            raise NoExampleScores(f'{gold.task.name}: its no-answer scores are thresholded over the whole set')
        if metric not in self.metric_pair:
            return super().example_sums(gold, path, metric)
        predicted, answers, measure = self.read(path), _answer_texts(gold.examples), qa.MEASURES[metric]
        return mean_of([qa.best(texts, predicted.get(id_), measure, gold.normalise) for id_, texts in answers.items()])

    def predicted(self, gold: GoldSet, path: Path) -> list[bool]:
        answers = self.read(path)
        return [example.id in answers for example in gold.examples]

    def records(self, examples: Sequence[Any], data: Encoded, out: Any, labels: Sequence[str]) -> list[Record]:
        """Fields: text, start, end (characters of the context), score (sum of the two logits), no_answer_score.

        no_answer_score is SQuAD v2's null score minus `score`. If it is above 0, a model that was trained on
        unanswerable questions predicts no answer.
        """
        assert data.spans is not None
        return [
            {
                'text': answer.text,
                'start': answer.start,
                'end': answer.end,
                'score': _number(answer.score),
                'no_answer_score': _number(answer.null - answer.score),
            }
            for answer in decode(data.spans, out, examples)
        ]

    def summary(self, example: SpanExample, record: Record) -> tuple[str, str]:
        score = record['score'] if record['score'] is None else round(record['score'], 2)
        return f'(score {score})  ', f'{example.question} -> {record["text"]}'


def _answer_texts(examples: Sequence[Any]) -> dict[str, list[str]]:
    """Question id -> the texts of its gold answers."""
    return {example.id: [text for text, _ in example.answers] for example in examples}


def normaliser(task: Task, language: str) -> Callable[[str], str]:
    """Returns the scorer's normalisation of answers, cached, because gold answers and frequent predictions repeat."""
    if task.scorer == 'mlqa':
        return cache(partial(qa.normalise_mlqa, language=task.answer_language(language)))
    return cache(qa.normalise_squad)


def _number(value: float) -> float | None:
    """Rounds a score for JSON. Returns None for an infinite one (no span is allowed), which JSON cannot express."""
    return round(value, 6) if np.isfinite(value) else None
