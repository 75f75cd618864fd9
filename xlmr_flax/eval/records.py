"""Outputs of a head on a user's own rows -> what is written for each of them: the prediction and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.tagging import join_words
from xlmr_flax.eval.predict import Forward, Tick, predict_logits, predict_tokens
from xlmr_flax.models.model import HeadSpec
from xlmr_flax.scoring.spans import decode
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, SpanExample, TagExample

Record = dict[str, Any]
KINDS = ('pair', 'choice', 'tag', 'span')  # kinds of heads that predict something for a row
_DIGITS = 6


def predict_records(
    forward: Forward,
    name: str,
    head: HeadSpec,
    examples: Sequence[Example],
    data: Encoded,
    labels: Sequence[str],
    tick: Tick | None = None,
) -> list[Record]:
    """One record for each example, in order; data: the examples, encoded. labels: names of the head's outputs.

    pair: label, probabilities (by label). choice: label (index from 0), choice (its text), probabilities (by choice).
    tag: words, tags, probabilities (of each word's tag). span: text, start, end (characters of the context), score (sum
    of the two logits), no_answer_score (above 0 a model that was trained on questions without an answer gives none:
    SQuAD v2's null score minus `score`).
    """
    if head.kind == 'tag':
        return _tags(
            examples, data, predict_tokens(forward, name, head, data.tokens, scored_tags=True, tick=tick), labels
        )
    if head.kind == 'span':
        return _spans(examples, data, predict_tokens(forward, name, head, data.tokens, tick=tick))
    logits = predict_logits(forward, name, head, data.tokens, tick=tick)
    if head.kind == 'choice':
        shares = softmax(logits.reshape(-1, data.group))
        return [_choice(cast(ChoiceExample, e), row) for e, row in zip(examples, shares, strict=True)]
    return [
        {'label': labels[int(row.argmax())], 'probabilities': dict(zip(labels, _rounded(row), strict=True))}
        for row in softmax(logits)
    ]


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [n, C] shares that sum to 1 in each row."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]


def _choice(example: ChoiceExample, shares: np.ndarray) -> Record:
    best = int(shares.argmax())
    return {'label': best, 'choice': example.choices[best], 'probabilities': _rounded(shares)}


def _tags(examples: Sequence[Example], data: Encoded, out: Sequence[np.ndarray], labels: Sequence[str]) -> list[Record]:
    assert data.tags is not None
    found = join_words(data.tags, out, len(examples))  # per sentence float32 [words, 2]: tag, probability
    return [
        {
            'words': list(cast(TagExample, example).words),
            'tags': [labels[int(number)] for number in words[:, 0]],
            'probabilities': _rounded(words[:, 1]),
        }
        for example, words in zip(examples, found, strict=True)
    ]


def _spans(examples: Sequence[Example], data: Encoded, out: Sequence[np.ndarray]) -> list[Record]:
    assert data.spans is not None
    return [
        {
            'text': answer.text,
            'start': answer.start,
            'end': answer.end,
            'score': _number(answer.score),
            'no_answer_score': _number(answer.null - answer.score),
        }
        for answer in decode(data.spans, out, cast(Sequence[SpanExample], examples))
    ]


def _number(value: float) -> float | None:
    """None where no span of the context is allowed, which JSON has no number for."""
    return round(value, _DIGITS) if np.isfinite(value) else None


def readable(example: Example, record: Mapping[str, Any], width: int = 100) -> str:
    """One line for a person: the prediction and the beginning of what it is about."""
    if isinstance(example, PairExample):
        share = record['probabilities'][record['label']]
        return _cut(
            f'{record["label"]} {share:.2f}  ', ' | '.join(filter(None, (example.text_a, example.text_b))), width
        )
    if isinstance(example, ChoiceExample):
        share = record['probabilities'][record['label']]
        return _cut(f'{record["label"]} {share:.2f}  ', f'{example.prompt} -> {record["choice"]}', width)
    if isinstance(example, SpanExample):
        score = record['score'] if record['score'] is None else round(record['score'], 2)
        return _cut('', f'{example.question} -> {record["text"]}', width - 14) + f'  (score {score})'
    return _cut('', ' '.join(f'{w}/{t}' for w, t in zip(record['words'], record['tags'], strict=True)), width)


def _cut(head: str, text: str, width: int) -> str:
    text = ' '.join(text.split())
    room = max(width - len(head), 10)
    return head + (text if len(text) <= room else text[: room - 3] + '...')
